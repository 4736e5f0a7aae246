"""The trials of a running sweep, and the book that is kept of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from raymae.search.messages import Job, Message, Parent
from raymae.spec.task import Objective
from raymae.spec.trial import Scalar, Stage, TrialConfig


@dataclass
class Trial:
    """One trial, from proposal to end."""

    trial_id: str
    config: TrialConfig
    sampled: Mapping[str, Scalar]
    started: float
    started_at: datetime
    attempt: int = 0
    next_step: int = 0
    status: Literal["pending", "running", "completed", "stopped", "failed"] = "running"
    best: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    last: Message | None = None
    epochs: int = 0
    error: str | None = None
    wall_s: float = 0.0
    parent: Parent | None = None

    @property
    def stage(self) -> Stage:
        """`search` or `replicate`."""
        return self.config.stage

    @property
    def num_parameters(self) -> int | None:
        """Values of the network that its last message is about; None if that holds no report."""
        return self.last.report.num_parameters if self.last is not None and self.last.report is not None else None

    def job(self, objective: Objective, root: str, milestones: int = 0) -> Job:
        """What a worker group needs to run it.

        Args:
            objective: What is selected on.
            root: The sweep's folder.
            milestones: Every so many epochs of fine-tuning a checkpoint is kept for a child; 0 is never.
        """
        return Job(self.trial_id, self.attempt, self.config, objective.val, root, self.next_step, self.parent,
                   milestones)


class Ledger:
    """Every trial by arm and stage, with running sums: asking it costs the same at 10 trials and at 10,000.

    Args:
        objective: What is selected on.

    Attributes:
        trials: All trials by id, in order of proposal.
        running: Those under way.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective, self.metric = objective, objective.val
        self.trials: dict[str, Trial] = {}
        self.running: dict[str, Trial] = {}
        self._of: dict[tuple[str, Stage], list[Trial]] = {}
        self._best: dict[tuple[str, str], Trial] = {}
        self._replicates: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._ended_s = 0.0

    def add(self, trial: Trial) -> None:
        """Note a trial that is proposed, or that an earlier run left."""
        if trial.trial_id not in self.trials:
            self.trials[trial.trial_id] = trial
            self._of.setdefault((trial.config.arm, trial.stage), []).append(trial)
            if trial.stage == "search" and trial.parent is None:
                self._asked[trial.config.arm] = self.num_asked(trial.config.arm) + 1
            if trial.stage == "replicate":
                key = trial.config.config_id
                self._replicates[key] = self._replicates.get(key, 0) + 1
        if trial.status == "running":
            self.running[trial.trial_id] = trial

    def end(self, trial: Trial) -> None:
        """Note that a trial is no longer running."""
        self.running.pop(trial.trial_id, None)
        self._ended_s += trial.wall_s
        value = trial.best.get(self.metric, math.nan)
        if trial.stage == "search" and trial.status in ("completed", "stopped") and math.isfinite(value):
            key = (trial.config.arm, trial.status)
            if key not in self._best or self.objective.better(value, self._best[key].best[self.metric]):
                self._best[key] = trial

    def of(self, arm: str, stage: Stage) -> list[Trial]:
        """An arm's trials of a stage, in order of proposal."""
        return self._of.get((arm, stage), [])

    def num_asked(self, arm: str) -> int:
        """An arm's search trials that count against its quota: all but those that go on from another."""
        return self._asked.get(arm, 0)

    def best(self, arm: str) -> Trial | None:
        """The arm's best search trial on validation: among completed ones, or else among stopped ones."""
        return self._best.get((arm, "completed")) or self._best.get((arm, "stopped"))

    def num_replicates_of(self, trial: Trial) -> int:
        """How many replicates of a trial's configuration there are."""
        return self._replicates.get(trial.config.config_id, 0)

    def spent_s(self, now: float) -> float:
        """Wall time of all trials together, in seconds."""
        return self._ended_s + sum(now - trial.started for trial in self.running.values())
