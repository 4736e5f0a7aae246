"""What travels between a sweep's driver and its workers: jobs one way, messages the other.

Every process of a sweep imports this module, the mailbox's actor among them: it needs neither torch nor Ray nor Optuna.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymae.results.store.columns import Row
    from raymae.spec.encoder import EncoderRef
    from raymae.spec.trial import ReportData, TrialConfig

NOT_STARTED = "no workers came for it before the sweep's end"
HANDED_BACK = "its state was saved inside an epoch at the sweep's end"
LEFT_OPEN = (NOT_STARTED, HANDED_BACK)
"""No failures: the next run of the sweep goes on with such a trial."""


@dataclass(frozen=True)
class Parent:
    """Where a member of a population goes on from.

    Attributes:
        trial_id: The parent.
        epoch: Fine-tuning epochs it had done.
        step: Its report at that epoch.
        config_id: Its configuration.
    """

    trial_id: str
    epoch: int
    step: int
    config_id: str = ""


@dataclass(frozen=True)
class ModelRef:
    """What a worker cannot know of the model that it leaves.

    Attributes:
        fingerprint: Of the data.
        timeout_s: A report that takes longer fails the trial; None waits. Storage is waited for half as long.
    """

    fingerprint: str
    timeout_s: float | None = None


@dataclass(frozen=True)
class Job:
    """One trial to run, for a group of workers. Workers take jobs of this kind only; a union when there is another.

    Attributes:
        trial_id: The trial.
        attempt: How often it has been started before.
        config: Everything that determines its result.
        objective: The column that is selected on.
        root: The sweep's folder, a path or a URI.
        next_step: Reports before this one are recorded already.
        parent: Where it goes on from, where it is a child of a population.
        milestones: Every so many epochs of fine-tuning a checkpoint is kept for a child; 0 is never.
        encoder: What it starts from, or makes, where it is of stage `pretrain`; None where its arm does not pretrain.
        model: What is said of the model that it leaves, where it is a replicate; None where it leaves none.
    """

    trial_id: str
    attempt: int
    config: TrialConfig
    objective: str
    root: str
    next_step: int = 0
    parent: Parent | None = None
    milestones: int = 0
    encoder: EncoderRef | None = None
    model: ModelRef | None = None

    def __deepcopy__(self, memo: object) -> Job:
        """Itself: it never changes, and Tune copies what it is given three times."""
        return self

    def once_more(self) -> Job:
        """This job as its next attempt."""
        return replace(self, attempt=self.attempt + 1)


@dataclass(frozen=True)
class Worker:
    """Where a message comes from.

    Attributes:
        host: Name of the machine.
        pid: Process id of rank 0.
        device: What it computes on, for people.
    """

    host: str
    pid: int
    device: str


@dataclass(frozen=True)
class Message:
    """One report of a trial, or why it failed.

    Attributes:
        trial_id: The trial.
        attempt: Which attempt at it this is from.
        report: The report; None where the trial failed.
        failure: Why the trial failed; made by `failed` alone.
        worker: Who sends it; None where no worker could.
        warning: What went wrong and does not end the trial.
        lost_encoder: The failure is that the encoder which the trial starts from is gone or damaged.
        sent_at: Seconds since 1970 by the sender's clock.
    """

    trial_id: str
    attempt: int
    report: ReportData | None = None
    failure: str | None = None
    worker: Worker | None = None
    warning: str | None = None
    lost_encoder: bool = False
    sent_at: float = field(default_factory=time.time)

    @classmethod
    def failed(
        cls, job: Job, why: str, worker: Worker | None = None, *, lost_encoder: bool = False
    ) -> Message:
        """Say that a job failed; nothing follows.

        Args:
            job: The job, as its last attempt.
            why: The reason, for people.
            worker: Who says so, if it is one of its workers.
            lost_encoder: The reason is the encoder that it starts from.
        """
        return cls(job.trial_id, job.attempt, failure=why, worker=worker, lost_encoder=lost_encoder)

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.report is None or self.report.final


def report_row(message: Message, config: TrialConfig) -> Row:
    """Make the row of the reports' table from a message that holds a report."""
    report = message.report
    assert report is not None
    return {
        "trial_id": message.trial_id, "arm": config.arm, "stage": config.stage, "attempt": message.attempt,
        "step": report.step, "phase": report.phase, "epoch": report.epoch, "wall_s": report.seconds,
        "time": datetime.now(UTC), **report.metrics,
    }
