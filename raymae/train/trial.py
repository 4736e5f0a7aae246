"""The only training loop: a trial's phases one after the other, as a generator of reports.

`run_trial` knows torch and, where there are several ranks, `torch.distributed`. It knows nothing of Ray: the same
generator runs in a plain process with a debugger, in one Ray Train worker, or on eight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymae.models.given import Given
from raymae.spec.read import Tree
from raymae.spec.trial import PRETEXT, PhaseName, ReportData, Stage, TrialConfig, UnitTable
from raymae.tasks import task_class
from raymae.tasks.base import Task
from raymae.train.checkpoint import load_checkpoint, save_checkpoint
from raymae.train.device import pick_device
from raymae.train.encoder import Encoder
from raymae.train.phase import Evaluation, PhaseState
from raymae.train.phases import first_phase, next_phase, restored_phase

LAST: Mapping[Stage, PhaseName] = {
    "search": "finetune", "final": "finetune", "replicate": "test", "pretrain": "pretrain",
}


@dataclass(frozen=True)
class Report(ReportData):
    """One evaluation.

    Attributes:
        state: Takes the state from which the trial continues after this report; to be called before the next report.
        pictures: RGB images `[H, W, 3]`, uint8, by name: of a replicate's last pretraining report and its test.
        units: The scores of single test examples, with a replicate's test.
        kept: Takes what prediction needs besides weights and configuration (see `Task.kept_state`).
    """

    state: Callable[[], TrialState]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    units: UnitTable | None = None
    kept: Callable[[], Tree] = dict

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `run_trial(resume=...)` continues after this report."""
        save_checkpoint(path, self.state().to_plain())


@dataclass(frozen=True)
class TrialState:
    """Everything that a checkpoint holds.

    Attributes:
        config_id: Configuration of the trial.
        seed: Its seed.
        seconds: Wall time it has computed.
        history: Its reports so far.
        phase: The phase it is in.
    """

    config_id: str
    seed: int
    seconds: float
    history: tuple[ReportData, ...]
    phase: PhaseState

    def to_plain(self) -> dict[str, Any]:
        """Tensors and plain values by name, in one level."""
        return {"config_id": self.config_id, "seed": self.seed, "seconds": self.seconds,
                "history": [dict(vars(recorded)) for recorded in self.history], **vars(self.phase)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrialState:
        """The inverse of `to_plain`."""
        return cls(
            plain["config_id"], plain["seed"], plain["seconds"], tuple(ReportData(**one) for one in plain["history"]),
            # before version 2 there is no `within`
            PhaseState(**{part.name: plain[part.name] for part in fields(PhaseState) if part.name in plain}),
        )


Watch = Callable[[int, Callable[[], TrialState]], None]
"""Looks up from training after each batch, on every rank alike: told how many of the epoch's batches are done, and what
takes the state from which the trial continues there (on every rank, at once)."""


def run_trial(
    config: TrialConfig,
    *,
    device: torch.device | None = None,
    encoder: Encoder | None = None,
    given: Given | None = None,
    resume: Path | None = None,
    replay_from: int | None = None,
    written_by: str | None = None,
    task: Task | None = None,
    watch: Watch | None = None,
) -> Iterator[Report]:
    """Train and evaluate one trial.

    Args:
        config: Everything that determines the result.
        device: Where to compute; this process's GPU if it has one, by default.
        encoder: What the trial's pretraining has led to: a trial of stage `pretrain` with the configuration of
            `raymae.spec.encoder.pretraining_of`. By default the trial pretrains by itself, which gives the same bits.
        given: The weights that it starts from, where its configuration names some and no `encoder` was made of them.
        resume: A checkpoint written by an earlier `Report.save` of the same configuration and seed.
        replay_from: With `resume`: first yield again the reports from this step on that came before the checkpoint,
            for whoever has lost them.
        written_by: With `resume`: the configuration that wrote the checkpoint, where it is another: a member of a
            population goes on from its parent's.
        task: The task under this configuration, with data at hand and its own device; made from the configuration by
            default.
        watch: Called after each batch; what it takes is not the trial's time. It ends the trial by raising.

    Yields:
        One report after each evaluation. A `search` trial never reads the test split; a `replicate` scores it once, at
        the end, with the weights that were best on validation. A `pretrain` trial ends with its pretraining.

    Raises:
        TrialError: The loss is not finite, the checkpoint does not fit, or pretrained weights did not arrive.
        DataError: The data cannot be read.
    """
    task = task or task_class(config.task)(config, device or pick_device())
    if resume is None:
        trial = _Trial(task, encoder=encoder, given=given)
    else:
        plain = load_checkpoint(resume, config_id=written_by or config.config_id, seed=config.seed)
        state = TrialState.from_plain(plain)
        # a parent's time is not its child's
        trial = _Trial(task, state if written_by is None else replace(state, seconds=0.0))
    for report in chain(() if replay_from is None else trial.replay(replay_from), trial.run(watch)):
        with trial.clock.paused():
            yield report


class _Clock:
    """Wall time that a trial has computed.

    Args:
        seconds: Where it starts.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._started = time.monotonic() - seconds
        self._paused: float | None = None

    def seconds(self) -> float:
        """Seconds computed so far."""
        return (time.monotonic() if self._paused is None else self._paused) - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for the length of a `with` block."""
        self._paused = before = time.monotonic()
        yield
        self._started += time.monotonic() - before
        self._paused = None


class _Trial:
    """A running trial: the phase it is in, and what it has reported.

    Args:
        task: The task under the trial's configuration.
        state: Where it continues; the start by default.
        encoder: What its pretraining has led to, where another trial did it.
        given: Weights that it starts from.
    """

    def __init__(
        self, task: Task, state: TrialState | None = None, encoder: Encoder | None = None, given: Given | None = None
    ) -> None:
        self.task, self.clock = task, _Clock()
        self.pretext = {} if encoder is None else dict(encoder.pretext)
        if state is not None:
            self.phase = restored_phase(task, state.phase)
        else:
            self.phase = first_phase(task, encoder, given)
        self.history: list[ReportData] = []
        if state is not None:
            self.history += state.history
            self.clock = _Clock(state.seconds)

    def run(self, watch: Watch | None = None) -> Iterator[Report]:
        """Do everything that is left to do."""
        def between(batches: int) -> None:
            if watch is not None:
                with self.clock.paused():
                    watch(batches, self.state)

        last = LAST[self.task.config.stage]
        while not (self.history and self.history[-1].final):
            for evaluation in self.phase.run(between):
                if self.task.config.adopts and self.phase.name == "pretrain":  # nothing was computed to get there
                    self.clock = _Clock()
                yield self._report(evaluation, final=evaluation.last and self.phase.name == last)
            if self.phase.name == last:
                return
            self.phase = next_phase(self.task, self.phase)

    def _report(self, evaluation: Evaluation, *, final: bool) -> Report:
        phase = self.phase
        recorded = ReportData(
            phase.name, phase.epoch, len(self.history), evaluation.metrics, dict(phase.best), self.clock.seconds(),
            sum(p.numel() for p in phase.model.parameters()), final, pretext=self._pretext(evaluation.metrics),
        )
        self.history.append(recorded)
        return Report(**vars(recorded), state=self.state, pictures=evaluation.pictures, units=evaluation.units,
                      kept=self.kept)

    def _pretext(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What is known of the pretraining: of this evaluation, or as reported before."""
        found = {name: value for name, value in metrics.items() if name in PRETEXT}
        return found or dict(self.history[-1].pretext if self.history else self.pretext)

    def replay(self, first: int) -> Iterator[Report]:
        """Repeat the reports from a step on, without their pictures."""
        for recorded in self.history[first:]:
            yield Report(**vars(recorded), state=self.state, kept=self.kept)

    def kept(self) -> Tree:
        """What the task says of the network as it is now."""
        return self.task.kept_state(self.phase.model)

    def state(self) -> TrialState:
        """Everything from which another process continues."""
        config = self.task.config
        return TrialState(config.config_id, config.seed, self.clock.seconds(), tuple(self.history), self.phase.state())
