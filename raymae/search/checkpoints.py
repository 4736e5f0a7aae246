"""What a worker leaves in the results folder, on whatever storage: a trial's checkpoint, pictures, and test scores."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.results.store.folder import Folder
from raymae.results.store.layout import CHECKPOINTS, PICTURES, checkpoint, milestone, owner_of, picture
from raymae.results.store.shelf import stubbornly

if TYPE_CHECKING:
    import numpy as np

    from raymae.spec.trial import TrialConfig
    from raymae.train.trial import Report


class TrialFiles:
    """Keeps what one trial leaves: its latest checkpoint, its milestones, its pictures and its scores by example.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
    """

    def __init__(self, root: str, trial_id: str) -> None:
        self._folder = Folder(root)
        self._trial_id, self._name = trial_id, checkpoint(trial_id)

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
                self._write_checkpoint(report, milestone(self._trial_id, report.epoch))
            for name, picture_HWC in report.pictures.items():
                self._folder.make(PICTURES)
                self._folder.write(picture(self._trial_id, name), _png(picture_HWC))
        except OSError as error:
            return f"a checkpoint could not be written: {error}"
        return None

    def keep_scores(self, report: Report, config: TrialConfig) -> str | None:
        """Write the test scores of single examples, where a report has them; call it before its checkpoint is kept.

        Returns:
            Why it could not be written, or None.
        """
        from raymae.results.store.scores import keep_scores

        if report.units is None:
            return None
        units = report.units
        try:
            stubbornly(lambda: keep_scores(self._folder, self._trial_id, config, units))
        except OSError as error:
            return f"test scores by example could not be written, so no interval can be over them: {error}"
        return None

    def _write_checkpoint(self, report: Report, name: str) -> None:
        if self._folder.local is not None:
            report.save(self._folder.local / name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            report.save(path)
            self._folder.write(name, path.read_bytes())

    def latest(self) -> AbstractContextManager[Path | None]:
        """A local file with the latest checkpoint for the length of a `with` block, or None if there is none."""
        return self._read(self._name)

    def milestone(self, epoch: int) -> AbstractContextManager[Path | None]:
        """A local file with the checkpoint kept after that epoch of fine-tuning, or None if there is none."""
        return self._read(milestone(self._trial_id, epoch))

    @contextmanager
    def _read(self, name: str) -> Iterator[Path | None]:
        if self._folder.local is not None:
            path = self._folder.local / name
            yield path if path.exists() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            try:
                path.write_bytes(self._folder.read(name))
            except FileNotFoundError:
                yield None
            else:
                yield path

    def remove(self) -> None:
        """Delete the checkpoint; the trial has ended."""
        with contextlib.suppress(OSError):  # it takes space, no more
            self._folder.remove(self._name)


def remove_checkpoints(root: str, ended: Collection[str], *, milestones: bool) -> None:
    """Delete what trials that ended have left: a worker writes a report ahead of the decision to stop its trial.

    Args:
        root: The sweep's folder.
        ended: Trials that will not go on.
        milestones: Delete the checkpoints kept for children, too.
    """
    folder = Folder(root)
    with contextlib.suppress(OSError):
        for name in folder.names(CHECKPOINTS):
            trial_id, is_milestone = owner_of(name)
            if trial_id in ended and (milestones or not is_milestone):
                folder.remove(f"{CHECKPOINTS}/{name}")


def _png(picture_HWC: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture_HWC).save(stream, "png", optimize=True)
    return stream.getvalue()
