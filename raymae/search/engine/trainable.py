"""Between a Tune step and the loop's next report."""

from __future__ import annotations

from typing import Any

from ray import tune

from raymae.search.engine.workers import GroupOptions, WorkerGroup
from raymae.search.messages import Job, Message


class WarmTrial(tune.Trainable):
    """A Tune trainable that owns one warm worker group and hands it one trial after another (`reuse_actors=True`).

    Every result carries the message of the loop's report under `message`, and what schedulers look at: `phase`,
    `epoch` (of fine-tuning), `report` (its number) and `objective` (the best so far).
    """

    def setup(self, config: dict[str, Any], options: GroupOptions | None = None) -> None:
        """Start the group; its first job waits for it in the mailbox."""
        assert options is not None
        job: Job = config["job"]
        # Ray asks for an actor's name once, when it has started: the slot keeps the name of its first trial
        self._name = f"{job.config.arm}: {job.trial_id} and later trials of its slot"
        self._group = WorkerGroup(self.trial_id, options, name=f"{job.trial_id}-and-later")
        self._group.assign(job)

    def __repr__(self) -> str:
        """The name in Ray's dashboard and logs."""
        return f"raymae {self._name}" if hasattr(self, "_name") else super().__repr__()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Hand the group its next trial."""
        self._group.assign(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next report."""
        job: Job = self.config["job"]
        return result_of(self._group.collect(), job.objective)

    def cleanup(self) -> None:
        """End the group."""
        self._group.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the loop's, and the results folder is the truth."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: a trial is continued by its job, from the loop's own checkpoint."""


def result_of(message: Message, objective: str) -> dict[str, Any]:
    """Make Tune's result of a message.

    Args:
        message: A report, or a failure.
        objective: The column that is selected on.
    """
    report = message.report
    tuned = report if report is not None and report.phase == "finetune" else None
    return {
        "message": message, "phase": report and report.phase, "epoch": tuned.epoch if tuned else 0,
        "report": report.step if report else 0, "objective": tuned.best.get(objective) if tuned else None,
        "done": message.final,
    }
