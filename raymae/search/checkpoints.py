"""What a worker leaves in the results folder, on whatever storage that is: a trial's checkpoint, and its pictures."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.results.place import Place

if TYPE_CHECKING:
    import numpy as np

    from raymae.train.loop import Report


class Keeper:
    """Keeps one trial's latest checkpoint.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
    """

    def __init__(self, root: str, trial_id: str) -> None:
        self._place = Place(root)
        self._trial_id, self._name = trial_id, f"checkpoints/{trial_id}.pt"

    def keep(self, report: Report) -> str | None:
        """Write the state after a report, replacing the one before it, and the report's pictures.

        Returns:
            Why it could not be written, or None. Storage that fails costs a later attempt some work, not this trial.
        """
        try:
            self._write_checkpoint(report)
            for name, picture_HWC in report.pictures.items():
                self._place.make("pictures")
                self._place.write(f"pictures/{self._trial_id}-{name}.png", _png(picture_HWC))
        except OSError as error:
            return f"a checkpoint could not be written: {error}"
        return None

    def _write_checkpoint(self, report: Report) -> None:
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
        """Delete the checkpoint; the trial has ended."""
        with contextlib.suppress(OSError):  # it takes space, no more
            self._place.remove(self._name)


def _png(picture_HWC: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture_HWC).save(stream, "png", optimize=True)
    return stream.getvalue()
