"""Who makes which encoder, where several sweeps share a shelf of them."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from raymae.errors import RayMAEError
from raymae.results.store.folder import Folder, json_bytes

STALE_S = 120.0  # after so long without a sign of life a claim is anybody's
RENEW_S = 20.0


class Claims:
    """Claims of one sweep on a shelf: small files that are renewed while the sweep lives.

    They save work and are no lock: where two sweeps claim at the same instant, both make the encoder, and write the
    same bits.

    Args:
        shelf: The folder, a path or a URI.
    """

    def __init__(self, shelf: str) -> None:
        self._folder = Folder(shelf)
        self._own = f"{os.uname().nodename}-{os.getpid()}-{time.time_ns()}"
        self._mine: dict[str, float] = {}  # when each was renewed last
        self._lock = threading.Lock()

    def take(self, name: str) -> bool:
        """Claim an encoder; returns whether it is this sweep's to make."""
        with self._lock:
            if name in self._mine:
                return True
            # what cannot be read claims nothing: the encoder is made, if need be twice
            with contextlib.suppress(OSError, RayMAEError, TypeError, ValueError):
                found = self._folder.read_json(_file(name))
                if found and found.get("by") != self._own and time.time() - float(found.get("at", 0)) < STALE_S:
                    return False
            self._write(name)
            return True

    def _write(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._folder.make()
            self._folder.write(_file(name), json_bytes({"by": self._own, "at": time.time()}))
        self._mine[name] = time.time()

    def renew(self) -> None:
        """Say that this sweep lives."""
        with self._lock:
            for name, at in list(self._mine.items()):
                if time.time() - at >= RENEW_S:
                    self._write(name)

    def give_back(self, name: str) -> None:
        """End the claim on an encoder: it is there, or will not be made."""
        with self._lock:
            if self._mine.pop(name, None) is not None:
                with contextlib.suppress(OSError):
                    self._folder.remove(_file(name))

    def give_all_back(self) -> None:
        """End every claim."""
        for name in list(self._mine):
            self.give_back(name)


def _file(name: str) -> str:
    return f"{name}.claim"
