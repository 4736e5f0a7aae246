"""What a worker leaves in the results folder, on whatever storage that is: a trial's checkpoint, and its pictures."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.results.store.folder import Place

if TYPE_CHECKING:
    import numpy as np

    from raymae.train.trial import Report


class Keeper:
    """Keeps one trial's latest checkpoint.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
    """

    def __init__(self, root: str, trial_id: str) -> None:
        self._place = Place(root)
        self._trial_id, self._name = trial_id, f"checkpoints/{trial_id}.pt"

    def keep(self, report: Report, milestones: int = 0) -> str | None:
        """Write the state after a report, replacing the one before it, and the report's pictures.

        Args:
            report: The report.
            milestones: Every so many epochs of fine-tuning the state is also kept for good, see `milestone`.

        Returns:
            Why it could not be written, or None. Storage that fails costs a later attempt some work, not this trial.
        """
        try:
            self._write_checkpoint(report, self._name)
            if milestones and report.phase == "finetune" and report.epoch % milestones == 0:
                self._write_checkpoint(report, self._milestone(report.epoch))
            for name, picture_HWC in report.pictures.items():
                self._place.make("pictures")
                self._place.write(f"pictures/{self._trial_id}-{name}.png", _png(picture_HWC))
        except OSError as error:
            return f"a checkpoint could not be written: {error}"
        return None

    def _write_checkpoint(self, report: Report, name: str) -> None:
        if self._place.local is not None:
            report.save(self._place.local / name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            report.save(path)
            self._place.write(name, path.read_bytes())

    def _milestone(self, epoch: int) -> str:
        return f"checkpoints/{self._trial_id}@{epoch}.pt"

    def latest(self) -> AbstractContextManager[Path | None]:
        """A local file with the latest checkpoint for the length of a `with` block, or None if there is none."""
        return self._read(self._name)

    def milestone(self, epoch: int) -> AbstractContextManager[Path | None]:
        """A local file with the checkpoint kept after that epoch of fine-tuning, or None if there is none."""
        return self._read(self._milestone(epoch))

    @contextmanager
    def _read(self, name: str) -> Iterator[Path | None]:
        if self._place.local is not None:
            path = self._place.local / name
            yield path if path.exists() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            try:
                path.write_bytes(self._place.read(name))
            except FileNotFoundError:
                yield None
            else:
                yield path

    def remove(self) -> None:
        """Delete the checkpoint; the trial has ended."""
        with contextlib.suppress(OSError):  # it takes space, no more
            self._place.remove(self._name)


def tidy(root: str, ended: Collection[str], *, milestones: bool) -> None:
    """Delete what trials that ended have left: a worker writes a report ahead of the decision to stop its trial.

    Args:
        root: The sweep's folder.
        ended: Trials that will not go on.
        milestones: Delete the checkpoints kept for children, too.
    """
    place = Place(root)
    with contextlib.suppress(OSError):
        for name in place.names("checkpoints"):
            trial_id, at, _ = name.removesuffix(".pt").partition("@")
            if trial_id in ended and (milestones or not at):
                place.remove(f"checkpoints/{name}")


def _png(picture_HWC: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture_HWC).save(stream, "png", optimize=True)
    return stream.getvalue()
