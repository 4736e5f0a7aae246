"""Whether the driver of a sweep lives, by the signs of life that it leaves in the sweep's folder."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime

from raymae.errors import ResultsError
from raymae.results.store.layout import STATE
from raymae.results.store.manifest import checked
from raymae.results.store.store import Store
from raymae.results.views.progress import DriverState, State
from raymae.spec.read import Tree

SILENT_S = 60.0  # a driver that gave no sign of life for so long is lost


class Pulse:
    """Tells of one driver, look by look: one whose signs change is alive, whatever two machines' clocks say."""

    def __init__(self) -> None:
        self._sign: tuple[str, float] | None = None

    def feel(self, state: DriverState) -> tuple[State, str]:
        """What a driver does, and in words what is to be said of that, or ""."""
        if state.state == "interrupted":
            return "interrupted", "interrupted; the same command goes on"
        if state.state != "running":
            return state.state, f"failed: {state.error}" if state.error else ""
        now = time.monotonic()
        age = (datetime.now(UTC) - datetime.fromisoformat(state.time)).total_seconds()
        if self._sign is None:
            self._sign = (state.time, now - max(age, 0.0))
        elif self._sign[0] != state.time:
            self._sign = (state.time, now)
        silent = now - self._sign[1]
        where = f"{state.host}, process {state.pid}"
        if state.host == socket.gethostname() and not _alive(state.pid):
            return "lost", f"its driver ({where}) is gone; the same command goes on"
        if silent > max(SILENT_S, 6 * state.every_s):
            return "lost", f"no sign of life for {silent:.0f} s from its driver ({where})"
        return "running", "starting Ray" if state.dashboard is None else ""


def driver_of(store: Store) -> DriverState | None:
    """The driver's last sign of life; None where none has given one.

    Raises:
        ResultsError: The file holds something else.
    """
    written = store.state()
    return None if written is None else _driver(written, store.uri(STATE))


def _driver(written: Tree, where: str) -> DriverState:
    try:
        state = DriverState.from_json(written)
        checked(DriverState, state.to_json(), where)
        for key in ("time", "started_at"):
            if datetime.fromisoformat(getattr(state, key)).tzinfo is None:
                raise ValueError(f"{key} has no time zone")
        if not 0 < state.pid < 2**31:
            raise ValueError(f"pid is {state.pid}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultsError(f"{where}: not written by raymae: {error!r}. Delete it") from None
    return state


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
