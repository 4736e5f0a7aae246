"""How far a sweep is, as one value: its driver makes it, a follower reads it off a folder, everybody draws it.

`DriverState` is what a driver leaves of it in `state.json`, for those who have only the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from raymae.results.verdict.statistics import Interval
from raymae.results.verdict.verdict import SweepData, TrialCounts, plain
from raymae.spec.read import Tree
from raymae.spec.task import ArmKind, Objective

State = Literal["running", "ended", "interrupted", "failed", "lost", "unknown", "unreadable"]
OVER = ("ended", "interrupted", "failed")


@dataclass(frozen=True)
class RunningTrial:
    """A trial under way.

    Attributes:
        trial_id: The trial.
        arm: Its arm.
        stage: `search`, `final`, `replicate` or `pretrain`.
        attempt: How often it has been started before.
        phase: Of its last report; None before the first.
        epoch: Of its last report; None before the first.
        epochs: How many the phase has; None where that means nothing.
        wall_s: Seconds since it was started.
        best: Its best validation score so far; None without a finite one.
    """

    trial_id: str
    arm: str
    stage: str
    attempt: int
    phase: str | None
    epoch: float | None
    epochs: float | None
    wall_s: float
    best: float | None

    def __str__(self) -> str:
        """What it is doing, in a few words."""
        if self.phase is None:
            return f"{self.trial_id} starting"
        of = f"/{self.epochs}" if self.epochs and self.phase != "test" else ""
        return f"{self.trial_id} {self.phase} {self.epoch:g}{of}"


@dataclass(frozen=True)
class StageCount:
    """Trials of one stage of an arm.

    Attributes:
        done: Those that have ended, however they did.
        planned: How many there will be, if nothing is cut short.
        statuses: How many there are by status, also of those under way; statuses that none has may be left out.
    """

    done: int
    planned: int
    statuses: Mapping[str, int]


@dataclass(frozen=True)
class TestMean:
    """Mean test score of an arm's replicates so far, and its 95 % interval where there is one."""

    mean: float
    ci95: Interval | None


@dataclass(frozen=True)
class ArmProgress:
    """How far one arm is.

    Attributes:
        arm: Its name.
        kind: `pretrained`, `trained` or `reference`.
        search: Its trials of the search, with the finals of its best ones.
        replicates: Its best configuration on fresh seeds.
        num_trials: How its trials ended, both stages together.
        best: The best validation score; None while there is none.
        best_trial: The trial that has it.
        test: The objective on the test split; None while no replicate is scored.
        compute_s: Wall time of its trials, in seconds.
    """

    arm: str
    kind: ArmKind
    search: StageCount
    replicates: StageCount
    num_trials: TrialCounts
    best: float | None
    best_trial: str | None
    test: TestMean | None
    compute_s: float


@dataclass(frozen=True)
class Failure:
    """A trial that failed, and why."""

    trial_id: str
    error: str


@dataclass(frozen=True)
class Progress:
    """How far a sweep is at one moment.

    Attributes:
        sweep: Its name.
        task: Its task.
        root: Its folder.
        data: Its data set.
        objective: What is selected on.
        state: `running`, `ended`, `interrupted` or `failed`; `lost`: its driver has given no sign of life for a minute;
            `unknown`: written by a version without signs of life; `unreadable`: the note says why.
        note: The state in words, or "".
        started_at: When this run of the sweep began (ISO, UTC).
        elapsed_s: Seconds of this run; None where no driver said.
        left_s: Seconds that are left; None until there is something to go by.
        dashboard: Ray's; "" where it has none, None until Ray is up.
        slots: Trials at once; None where no driver said.
        num_planned: Trials of the whole sweep.
        num_ended: Trials that have ended.
        num_trials: How they ended.
        num_reports: Rows of the table of reports; None where nobody counts them.
        last_report: When the last one was made (ISO).
        arms: One each, best first where they are read off a folder.
        running: What runs now.
        failures: The last five trials that failed.
        headline: The answer so far, or "".
        commands: The last things that people have asked of the running sweep, and what became of them.
        dollars: What it has spent; None where no price is known.
    """

    sweep: str
    task: str
    root: str
    data: SweepData
    objective: Objective
    state: State
    note: str
    started_at: str
    elapsed_s: float | None
    left_s: float | None
    dashboard: str | None
    slots: int | None
    num_planned: int
    num_ended: int
    num_trials: TrialCounts
    num_reports: int | None
    last_report: str | None
    arms: tuple[ArmProgress, ...]
    running: tuple[RunningTrial, ...]
    failures: tuple[Failure, ...]
    headline: str
    commands: tuple[str, ...] = ()
    dollars: float | None = None

    @classmethod
    def unreadable(cls, name: str, why: str) -> Progress:
        """Nothing but a name, where a folder cannot be read."""
        return cls(
            name, "", "", SweepData("", "real", ""), Objective("", "min", ""), "unreadable", why, "", None, None, None,
            None, 0, 0, TrialCounts(0, 0, 0), None, None, (), (), (), "",
        )

    def with_note(self, note: str) -> Progress:
        """This progress with another note."""
        return replace(self, note=note)

    def to_json(self) -> dict[str, object]:
        """Plain values, as `raymae watch --json` prints them."""
        return {**plain(self), "dashboard": self.dashboard or ""}

    @classmethod
    def from_json(cls, found: Tree) -> Progress:
        """The progress that `to_json` made plain; keys of a later version are left out."""
        return _made(
            cls, found, data=SweepData(**found["data"]), objective=Objective(**found["objective"]),
            num_trials=TrialCounts(**found["num_trials"]), arms=tuple(_arm(arm) for arm in found["arms"]),
            running=tuple(_made(RunningTrial, one) for one in found["running"]),
            failures=tuple(Failure(**failure) for failure in found["failures"]),
            commands=tuple(found.get("commands", ())),
        )


@dataclass(frozen=True)
class PlannedTrials:
    """How many trials an arm will have in each stage, if nothing is cut short."""

    search: int
    replicates: int


@dataclass(frozen=True)
class DriverState:
    """The driver's last sign of life, under the names that `state.json` has for it.

    Attributes:
        state: `running`, `ended`, `interrupted` or `failed`.
        time: When this was written (ISO, UTC).
        started_at: When this run of the sweep began.
        host: Of the driver.
        pid: Of the driver.
        every_s: Seconds between two signs of life.
        dashboard: Ray's, "" where it has none; None until Ray is up.
        slots: Trials at once.
        elapsed_s: Seconds of this run.
        left_s: Seconds that are left; None until there is something to go by.
        planned: By arm.
        running: What runs now.
        error: Why it failed, or None.
        commands: The last things that people have asked of it, and what became of them.
        dollars: What it has spent, earlier runs that were cut off among it; None where no price is known.
    """

    state: Literal["running", "ended", "interrupted", "failed"]
    time: str
    started_at: str
    host: str
    pid: int
    every_s: float
    dashboard: str | None
    slots: int
    elapsed_s: float
    left_s: float | None
    planned: Mapping[str, PlannedTrials]
    running: tuple[RunningTrial, ...]
    error: str | None
    commands: tuple[str, ...] = ()
    dollars: float | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values, as `state.json` holds them."""
        found: dict[str, object] = plain(self)
        return found

    @classmethod
    def from_json(cls, found: Tree) -> DriverState:
        """The state that `to_json` made plain; keys of a later version are left out."""
        return _made(
            cls, found, planned={arm: PlannedTrials(**one) for arm, one in found["planned"].items()},
            running=tuple(_made(RunningTrial, one) for one in found["running"]),
            commands=tuple(found.get("commands", ())),
        )


def _made(cls: Any, found: Mapping[str, object], **parts: object) -> Any:
    return cls(**{**{name.name: found.get(name.name) for name in fields(cls)}, **parts})


def _arm(found: Tree) -> ArmProgress:
    test = found["test"]
    arm: ArmProgress = _made(
        ArmProgress, found, search=StageCount(**found["search"]), replicates=StageCount(**found["replicates"]),
        num_trials=TrialCounts(**found["num_trials"]),
        test=test and TestMean(test["mean"], tuple(test["ci95"]) if test["ci95"] else None),
    )
    return arm
