"""Where a running trial's checkpoint lies: in the results folder, on whatever storage that is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.results.place import Place

if TYPE_CHECKING:
    from raymae.train.loop import Report


class Keeper:
    """Keeps one trial's latest checkpoint.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
    """

    def __init__(self, root: str, trial_id: str) -> None:
        self._place = Place(root)
        self._name = f"checkpoints/{trial_id}.pt"

    def keep(self, report: Report) -> None:
        """Write the state after a report, replacing the one before it."""
        if self._place.local is not None:
            report.save(self._place.local / self._name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            report.save(path)
            self._place.write(self._name, path.read_bytes())

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """A local file with the latest checkpoint for the length of a `with` block, or None if there is none."""
        if self._place.local is not None:
            path = self._place.local / self._name
            yield path if path.exists() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            try:
                path.write_bytes(self._place.read(self._name))
            except FileNotFoundError:
                yield None
            else:
                yield path

    def remove(self) -> None:
        """Delete it; the trial has ended."""
        self._place.remove(self._name)
