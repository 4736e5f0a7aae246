"""The trials of a running sweep, and the table that is kept of them."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Literal

from raymae.results.store.columns import Row
from raymae.search.decide.added import Added
from raymae.search.decide.finals import Finals
from raymae.search.messages import Job, Message, ModelRef, Parent
from raymae.spec.encoder import EncoderRef
from raymae.spec.resolve import ArmPlan, shares_encoders
from raymae.spec.space import Scalar
from raymae.spec.sweep import SearchSpec, SweepSpec
from raymae.spec.task import Objective
from raymae.spec.trial import Stage, TrialConfig

Status = Literal["pending", "running", "completed", "stopped", "failed"]
ENDED: tuple[Status, ...] = ("completed", "stopped", "failed")
SYSTEMATIC = 3  # first trials of an arm that fail the same way end the arm
NUM_FAILURES = 5  # that are kept for whoever watches


@dataclass
class Trial:
    """One trial, from proposal to end.

    Attributes:
        trial_id: Its name, unique in the sweep.
        config: Everything that determines its result.
        sampled: The parameters that the search chose.
        started: When its latest attempt began, by the conductor's clock.
        started_at: When it was proposed (UTC).
        attempt: How often it has been started before.
        next_step: Reports before this one are recorded already.
        status: Where it is; stopped is ended early by the scheduler or the budget.
        best: The `val_` metrics of its best evaluation so far.
        test: The `test_` metrics of a replicate that is through.
        pretext: How its pretraining did on validation (see `ReportData.pretext`).
        last: The last message of its workers.
        epochs: Epochs of fine-tuning done.
        error: Why it failed.
        wall_s: Seconds it has computed, as its last report says.
        parent: Where it goes on from, where it is a child of a population.
        encoder_id: What it makes or starts from; "" where its arm does not pretrain, and in a trial of an earlier
            version, which pretrained for itself.
        pretrain_s: Seconds that the encoder it starts from took to make.
        lane: Its arm, in the cells of the sweep's factors in which it counts (see `raymae.spec.factors`).
        repeats: The search trial whose configuration it is, of a final, and of a replicate in another cell; "" in one
            within its own.
        added: Of a trial of a point that somebody has added, the command and who gave it; else None.
        stopped_by: Who has asked for its end; it comes at its next report.
    """

    trial_id: str
    config: TrialConfig
    sampled: Mapping[str, Scalar]
    started: float
    started_at: datetime
    attempt: int = 0
    next_step: int = 0
    status: Status = "running"
    best: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    pretext: dict[str, float] = field(default_factory=dict)
    last: Message | None = None
    epochs: int = 0
    error: str | None = None
    wall_s: float = 0.0
    parent: Parent | None = None
    encoder_id: str = ""
    pretrain_s: float = 0.0
    lane: str = ""
    repeats: str = ""
    added: Added | None = None
    stopped_by: str = ""

    def __post_init__(self) -> None:
        self.lane = self.lane or self.config.arm

    @property
    def stage(self) -> Stage:
        """`search`, `final`, `replicate` or `pretrain`."""
        return self.config.stage

    @property
    def is_asked(self) -> bool:
        """Whether the arm's study asked for it: a replicate or a child is nobody's sample."""
        return self.stage == "search" and self.parent is None

    @property
    def num_parameters(self) -> int | None:
        """Values of the network that its last message is about; None if that holds no report."""
        return self.last.report.num_parameters if self.last is not None and self.last.report is not None else None

    @property
    def alone_s(self) -> float:
        """Seconds it has computed, with those of its encoder, as if it shared that with nobody."""
        return self.wall_s + self.pretrain_s

    @property
    def whole_s(self) -> float | None:
        """Seconds that all its epochs and its encoder take, projected from those it has done; with patience, until that
        ends it if nothing improves. None before its first epoch of fine-tuning: reading the data would count in all."""
        if self.status == "completed" or (self.last is not None and self.last.final):
            return self.alone_s
        before, epochs, patience, every = (int(self.config.params.get(name) or 0) for name in (
            "pretrain_epochs", "epochs", "patience", "eval_every"))
        before = 0 if self.encoder_id else before
        epochs = min(epochs, self.epochs + patience * max(1, every)) if patience else epochs
        times = max(1.0, (before + epochs) / (before + self.epochs)) if self.epochs else None
        return None if times is None else self.wall_s * times + self.pretrain_s

    def take(self, message: Message) -> None:
        """Enter what its workers say: how far and how good it is, or why it failed."""
        self.last, self.attempt, report = message, message.attempt, message.report
        if report is None:
            self.error = message.failure
            return
        self.best, self.wall_s = report.best or self.best, report.seconds
        self.pretext = report.pretext or self.pretext
        if report.phase == "finetune":
            self.epochs = report.epoch
        if report.phase == "test":
            self.test = {key: value for key, value in report.metrics.items() if key.startswith("test_")}

    def to_json(self) -> dict[str, object]:
        """What its file in `configs/` holds: from it a later run of the sweep makes the trial again."""
        made = {"parent": self.parent and asdict(self.parent), "added": self.added and asdict(self.added)}
        more = {name: value for name, value in {**made, "repeats": self.repeats}.items() if value}
        return {**self.config.to_json(), "sampled": dict(self.sampled), **more}

    def row(self, now: datetime) -> Row:
        """The row of the trials' table, once it has ended."""
        worker = self.last and self.last.worker
        phases = {"finetune_s": self.wall_s}
        if self.stage == "pretrain":
            phases = {"pretrain_s": self.wall_s}
        elif self.encoder_id:
            phases["pretrain_s"] = self.pretrain_s
        elif "pretrain_epochs" in self.config.params:  # it pretrained for itself: nobody measured the phases
            phases = {}
        return {
            "encoder_id": self.encoder_id or None, **phases,
            "trial_id": self.trial_id, "config_id": self.config.config_id, "arm": self.config.arm,
            "stage": self.stage, "attempt": self.attempt, "status": self.status, "seed": self.config.seed,
            **self.config.params, **self.best, **self.test, **self.pretext, "epochs_done": self.epochs,
            "num_parameters": self.num_parameters, "wall_s": self.wall_s, "started_at": self.started_at,
            "ended_at": now, "host": worker and worker.host, "pid": worker and worker.pid,
            "device": worker and worker.device, "error": self.error, "added_by": self.added and self.added.by,
            "stopped_by": (self.status == "stopped" and self.stopped_by) or None,
            **({"parent": f"{self.parent.trial_id}@{self.parent.epoch}"} if self.parent and not self.repeats else {}),
            **({"parent": self.repeats} if self.repeats else {}),
        }

    def job(
        self, objective: Objective, root: str, milestones: int = 0, encoder: EncoderRef | None = None,
        model: ModelRef | None = None,
    ) -> Job:
        """What a worker group needs to run it.

        Args:
            objective: What is selected on.
            root: The sweep's folder.
            milestones: Every so many epochs of fine-tuning a checkpoint is kept for a child; 0 is never.
            encoder: What it makes or starts from, if anything.
            model: What is said of the model that it leaves, if any.
        """
        return Job(self.trial_id, self.attempt, self.config, objective.val, root, self.next_step, self.parent,
                   milestones, encoder, model)


def model_left_by(
    trial: Trial, spec: SweepSpec, plans: Mapping[str, ArmPlan], fingerprint: str
) -> ModelRef | None:
    """What is said of the model that a trial leaves; None where it leaves none.

    Args:
        trial: The trial.
        spec: The sweep.
        plans: Its arms.
        fingerprint: Of the data.
    """
    is_reference = plans[trial.lane].arm.kind == "reference"
    if trial.stage != "replicate" or spec.keep == "none" or is_reference:
        return None
    return ModelRef(fingerprint, spec.resources.report_timeout_s)


@dataclass
class EndedTrials:
    """Sums over trials of one lane that have ended: pretrainings are no trials of their own, and take their time."""

    num: int = 0
    wall_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """Seconds a trial, with its share of pretraining; 0 before the first."""
        return self.wall_s / self.num if self.num else 0.0


class Trials:
    """Every trial by lane and stage, with running sums: asking it costs the same at 10 trials and at 10,000.

    A lane is an arm in the cells in which it is the same; of a sweep without factors every arm is one.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        objective: What is selected on.
        plans: By lane what it fixes; only for lanes that another one's search serves.
        finals: Of each search's best configurations; by default the best is chosen without.

    Attributes:
        plans: By lane what it fixes.
        finals: What is chosen from.
        running: Those under way, by id.
        failures: The last that failed.
        ended: Sums by lane.
    """

    def __init__(
        self, objective: Objective, plans: Mapping[str, ArmPlan] | None = None, finals: Finals | None = None
    ) -> None:
        self.objective, self.plans = objective, plans or {}
        self.finals = finals or Finals(objective, SearchSpec(), {})
        self.running: dict[str, Trial] = {}
        self.failures: deque[Trial] = deque(maxlen=NUM_FAILURES)
        self.ended: dict[str, EndedTrials] = {}
        self._all: dict[str, Trial] = {}
        self._of: dict[tuple[str, Stage], list[Trial]] = {}
        self._counts: dict[tuple[str, Stage], dict[Status, int]] = {}
        self._best_of_others: dict[str, Trial] = {}  # stopped, or of a pretraining that did not learn
        self._since_best: dict[str, int] = {}
        self._replicates: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._spent_s = 0.0  # by trials that run no more

    def __getitem__(self, trial_id: str) -> Trial:
        return self._all[trial_id]

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._all

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Trial]:
        """All trials, in order of proposal."""
        return iter(self._all.values())

    def add(self, trial: Trial) -> None:
        """Enter a trial that is proposed, or that an earlier run left."""
        self._all[trial.trial_id] = trial
        self._of.setdefault((trial.lane, trial.stage), []).append(trial)
        if trial.is_asked:
            self._asked[trial.lane] = self.num_asked(trial.lane) + 1
        if trial.stage == "replicate":
            key = trial.config.config_id
            self._replicates[key] = self._replicates.get(key, 0) + 1
        elif trial.stage == "final":
            self.finals.begin(trial.config.config_id, trial.config.seed)
        self._count(trial, 1)
        if trial.status == "running":
            self.running[trial.trial_id] = trial
        elif trial.status != "pending":
            self._settle(trial)

    def start(self, trial: Trial, now: float) -> None:
        """Start a trial that is pending or once more one that has ended: its next attempt."""
        self._count(trial, -1)
        trial.started, trial.attempt, trial.status = now, trial.attempt + 1, "running"
        self._count(trial, 1)
        self.running[trial.trial_id] = trial

    def end(self, trial: Trial, status: Status) -> None:
        """Enter that a trial no longer runs; `pending` is one that the next run of the sweep goes on with."""
        self._count(trial, -1)
        self.running.pop(trial.trial_id, None)
        trial.status = status
        self._count(trial, 1)
        if status == "pending":
            self._spent_s += trial.wall_s
        else:
            self._settle(trial)

    def _count(self, trial: Trial, change: int) -> None:
        counts = self._counts.setdefault((trial.lane, trial.stage), {})
        counts[trial.status] = counts.get(trial.status, 0) + change

    def _settle(self, trial: Trial) -> None:
        """Add an ended trial to the sums."""
        self._spent_s += trial.wall_s
        ended = self.ended.setdefault(trial.lane, EndedTrials())
        ended.num, ended.wall_s = ended.num + (trial.stage != "pretrain"), ended.wall_s + trial.wall_s
        if trial.status == "failed":
            self.failures.append(trial)
        value = math.nan if trial.status == "failed" else trial.best.get(self.objective.val, math.nan)
        if trial.stage == "final":
            self.finals.end(trial.config.config_id, trial.config.seed, None if trial.status == "stopped" else value)
        elif trial.stage == "search" and trial.status != "failed":
            before = self.best_completed(trial.lane)
            if math.isfinite(value):
                self._rank(trial, value)
            better = self.best_completed(trial.lane) != before
            self._since_best[trial.lane] = 0 if better else self.since_best(trial.lane) + 1

    def _rank(self, trial: Trial, value: float) -> None:
        if trial.status == "completed" and self.finals.admits(trial.pretext):
            self.finals.rank(trial.lane, trial.trial_id, trial.config.config_id, value)
            return
        best = self._best_of_others.get(trial.lane)
        if best is None or self.objective.better(value, best.best[self.objective.val]):
            self._best_of_others[trial.lane] = trial

    def of(self, lane: str, stage: Stage) -> list[Trial]:
        """A lane's trials of a stage, in order of proposal."""
        return self._of.get((lane, stage), [])

    def counts(self, lane: str, stage: Stage) -> Mapping[Status, int]:
        """How many trials of a lane and stage there are by status; a status may be left out."""
        return self._counts.get((lane, stage), {})

    def num_ended(self, status: Status) -> int:
        """How many trials have a status, of all arms; a pretraining is none of its own."""
        return sum(counts.get(status, 0) for (_, stage), counts in self._counts.items() if stage != "pretrain")

    def num_running(self, lane: str, stage: Stage) -> int:
        """How many trials of a lane and stage are under way."""
        return self.counts(lane, stage).get("running", 0)

    def num_asked(self, lane: str) -> int:
        """A lane's search trials that count against its quota: all but those that go on from another."""
        return self._asked.get(lane, 0)

    def home(self, lane: str) -> str:
        """The lane whose search serves a lane: its own, unless another cell is searched for all."""
        return self.plans[lane].home if lane in self.plans else lane

    def best(self, lane: str) -> Trial | None:
        """The lane's best search trial on validation: of completed ones whose pretraining learned
        (`search.min_skill`), or else of others; of equals the first. Where it has finals, the one that they choose.

        A verdict over the rows of the trials names the same one (`raymae.results.verdict.cells`); a test compares them.
        """
        home = self.home(lane)
        chosen = self.finals.chosen(home)
        return self._best_of_others.get(home) if chosen is None else self[chosen[0]]

    def best_completed(self, lane: str) -> float | None:
        """The best validation score of a lane's completed search trials, each on its own seed."""
        return self.finals.best_score(lane)

    def since_best(self, lane: str) -> int:
        """A lane's search trials, completed or stopped, that have ended since its best completed one did."""
        return self._since_best.get(lane, 0)

    def shares_encoders(self, lane: str) -> bool:
        """Whether a lane's finals and replicates start from the encoders of another's."""
        return lane in self.plans and shares_encoders(lane, self.plans)

    def best_config(self, lane: str) -> TrialConfig | None:
        """The configuration that a lane's replicates have: its best, with the lane's own values of the factors."""
        best = self.best(lane)
        if best is None or best.lane == lane:
            return None if best is None else best.config
        return replace(best.config, params=self.plans[lane].params(best.sampled))

    def num_replicates(self, lane: str) -> int:
        """How many replicates of a lane's best configuration there are."""
        config = self.best_config(lane)
        return 0 if config is None else self._replicates.get(config.config_id, 0)

    def spent_s(self, now: float) -> float:
        """Wall time of all trials together, in seconds."""
        return self._spent_s + sum(now - trial.started for trial in self.running.values())

    def systematic_failure(self, lane: str) -> str | None:
        """Why the first trials of a lane all failed, where it was for the same reason; None otherwise."""
        counts = self.counts(lane, "search")
        if counts.get("failed", 0) != SYSTEMATIC or counts.get("completed", 0) or counts.get("stopped", 0):
            return None
        failed = [trial for trial in self.of(lane, "search") if trial.status == "failed"]
        alike = len({_without_numbers(trial.error) for trial in failed}) == 1
        return (failed[-1].error or "") if alike else None


def _without_numbers(error: str | None) -> str:
    """An error without its numbers, so that two of a kind compare equal."""
    return re.sub(r"[-+]?\d[\d.e+-]*|nan|inf", "#", error or "")
