"""What a worker leaves in the results folder, on whatever storage: a trial's checkpoint, pictures, and test scores."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.results.store.folder import Folder
from raymae.results.store.layout import CHECKPOINTS, PICTURES, checkpoint, milestone, owner_of, picture
from raymae.results.store.shelf import stubbornly
from raymae.spec.read import Tree

if TYPE_CHECKING:
    import numpy as np

    from raymae.spec.trial import TrialConfig
    from raymae.train.trial import Report, TrialState

LARGE = 64 * 2**20  # bytes of a state that is written beside training; a smaller one is written before it is copied


class TrialFiles:
    """Keeps what one trial leaves: its latest checkpoint, its milestones, its pictures and its scores by example.

    A large checkpoint is copied, and written by a thread while training goes on; the next one waits for it, and so does
    `settle`. Until then a process that dies loses what the one before it does not have.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
        large: Bytes from which on a state is large.
        every_s: A state that comes sooner after the one before, or after the start, is not kept, milestones apart: to
            train so long again costs less than to write many.
    """

    def __init__(self, root: str, trial_id: str, large: int = LARGE, every_s: float = 0.0) -> None:
        self._folder = Folder(root)
        self._trial_id, self._name, self._large = trial_id, checkpoint(trial_id), large
        self._every_s, self._kept_at = every_s, time.monotonic()
        self._skipped: Callable[[], TrialState] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[str | None] | None = None
        self._failure: str | None = None

    def keep(self, report: Report, milestones: int = 0) -> str | None:
        """Write the state after a report, replacing the one before it, and the report's pictures. What somebody goes by
        at once, the last state and a milestone, is on storage when this returns.

        Args:
            report: The report.
            milestones: Every so many epochs of fine-tuning the state is also kept for good, see `milestone`.

        Returns:
            Why it, or an earlier one, could not be written, or None. Storage that fails costs a later attempt some
            work, not this trial.
        """
        names = [self._name]
        if milestones and report.phase == "finetune" and report.epoch % milestones == 0:
            at = report.state().phase
            if (at.phase, at.epoch, at.within) == (report.phase, report.epoch, {}):  # one that is repeated comes later
                names.append(milestone(self._trial_id, report.epoch))
        if len(names) > 1 or time.monotonic() - self._kept_at >= self._every_s:
            self._begin(report.state(), names, at_once=report.final or len(names) > 1)
        else:
            self._skipped = report.state
        try:
            for name, picture_HWC in report.pictures.items():
                self._folder.make(PICTURES)
                self._folder.write(picture(self._trial_id, name), _png(picture_HWC))
        except OSError as error:
            self._failure = self._failure or _why(error)
        failure, self._failure = self._failure, None
        return failure

    def keep_state(self, state: TrialState) -> None:
        """Write the state inside an epoch, replacing the one before it; `keep` says why where it could not be."""
        self._begin(state, [self._name], at_once=False)

    def catch_up(self) -> None:
        """Write the state after the last report where it came too soon: the trial leaves this process there."""
        if self._skipped is not None:
            self._begin(self._skipped(), [self._name], at_once=True)

    def settle(self) -> None:
        """Wait until what was begun is on storage."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._failure = writing.result() or self._failure

    def close(self) -> None:
        """Begin no more; what was begun is on storage afterwards."""
        self.settle()
        if self._thread is not None:
            self._thread.shutdown()
        if self._failure is not None:
            print(self._failure, flush=True)  # in the actor's log: there is no message to come

    def _begin(self, state: TrialState, names: Sequence[str], *, at_once: bool) -> None:
        from raymae.train.checkpoint import num_bytes, snapshot

        self.settle()
        self._kept_at, self._skipped, plain = time.monotonic(), None, state.to_plain()
        if at_once or num_bytes(plain) < self._large:
            self._failure = self._write(plain, names) or self._failure
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._writing = self._thread.submit(self._write, snapshot(plain), names)

    def _write(self, plain: Tree, names: Sequence[str]) -> str | None:
        try:
            for name in names:
                self._write_checkpoint(plain, name)
        except OSError as error:
            return _why(error)
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

    def _write_checkpoint(self, plain: Tree, name: str) -> None:
        from raymae.train.checkpoint import save_checkpoint

        if self._folder.local is not None:
            save_checkpoint(self._folder.local / name, plain)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            save_checkpoint(path, plain)
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


def _why(error: OSError) -> str:
    return f"a checkpoint could not be written: {error}"


def _png(picture_HWC: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture_HWC).save(stream, "png", optimize=True)
    return stream.getvalue()
