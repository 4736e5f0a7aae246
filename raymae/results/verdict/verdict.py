"""What a verdict says: every arm's scores, every pair's difference, and how sure each is.

Every class has `to_json` of the whole and is made from it again by `Verdict.from_json`; fields stand in `verdict.json`
under their own names and in their order, those with a default only where they differ from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

from raymae.results.store.manifest import SweepData
from raymae.results.verdict.pareto import FrontPoint, Pareto
from raymae.results.verdict.statistics import Interval, Score
from raymae.spec.space import Scalar
from raymae.spec.task import ArmKind, Objective

Word = Literal["helps", "hurts", "no difference shown"]


@dataclass(frozen=True)
class BestTrial:
    """The search trial of an arm with the best validation score: of the completed ones, or else of the stopped.

    Attributes:
        metric: The column that it is best in, such as `val_mse`.
        score: Its score; None where no trial has one.
        trial_id: The trial; None where there is none.
    """

    metric: str
    score: float | None
    trial_id: str | None


@dataclass(frozen=True)
class TrialCounts:
    """How many trials of an arm ended in which way; of several attempts at one trial the last counts."""

    completed: int
    stopped: int
    failed: int

    @classmethod
    def of(cls, statuses: Iterable[str]) -> TrialCounts:
        """Count the statuses of trials."""
        counts = Counter(statuses)
        return cls(counts["completed"], counts["stopped"], counts["failed"])


@dataclass(frozen=True)
class ArmResult:
    """An arm, with the scores of its best configuration.

    Attributes:
        arm: Its name.
        kind: `pretrained`, `trained` or `reference`.
        n: Completed replicates with a finite test score in the objective.
        metrics: Test scores by column, such as `test_mse`: the objective first, and only those that have a value.
        val: Its best trial of the search.
        best_params: That trial's parameters.
        compute_s: Wall time of all its trials and all their attempts, in seconds.
        num_trials: How its trials ended.
        note: What is left out of the scores, or "".
    """

    arm: str
    kind: ArmKind
    n: int
    metrics: Mapping[str, Score]
    val: BestTrial
    best_params: Mapping[str, Scalar]
    compute_s: float
    num_trials: TrialCounts
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """Two arms compared on the objective's test scores.

    Attributes:
        a: The arm that the verdict is about.
        b: The arm it is compared with.
        metric: The column compared.
        difference: Mean of `a` minus mean of `b`.
        ci95: 95 % interval of the difference; None where there is none.
        p: p-value of no difference; None where there is no interval.
        p_holm: The same, adjusted for all pairs of the sweep.
        n_a: Scored replicates of `a`.
        n_b: Scored replicates of `b`.
        verdict: What the interval says of `a`.
        primary: Whether this is the comparison that the task is about.
        note: Why there is no interval, or "".
    """

    a: str
    b: str
    metric: str
    difference: float
    ci95: Interval | None
    p: float | None
    p_holm: float | None
    n_a: int
    n_b: int
    verdict: Word
    primary: bool = False
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """The answer of a sweep, finished or not.

    Attributes:
        sweep: The sweep's name.
        task: Its task.
        objective: What is selected on.
        data: Its data set.
        arms: Best first.
        pairs: The primary one first.
        complete: Whether nothing is missing.
        pareto: Where the search minds a cost: the trials that none beats in both.
    """

    sweep: str
    task: str
    objective: Objective
    data: SweepData
    arms: tuple[ArmResult, ...]
    pairs: tuple[Pair, ...]
    complete: bool
    pareto: Pareto | None = None

    def test(self, arm: ArmResult) -> Score | None:
        """An arm's test score in the objective; None where it has none."""
        return arm.metrics.get(self.objective.test)

    def against(self, a: str | None) -> dict[str, Pair]:
        """The pairs that begin with an arm, by their other arm."""
        return {pair.b: pair for pair in self.pairs if pair.a == a}

    def to_json(self) -> dict[str, object]:
        """Plain values without NaN, as `verdict.json` holds them."""
        found: dict[str, object] = plain(self)
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote."""
        pareto = found.get("pareto")
        return cls(**{
            **found,
            "objective": Objective(**found["objective"]),
            "data": SweepData(**found["data"]),
            "arms": tuple(_arm(arm) for arm in found["arms"]),
            "pairs": tuple(Pair(**{**pair, "ci95": _interval(pair["ci95"])}) for pair in found["pairs"]),
            "pareto": pareto and Pareto(pareto["cost"], tuple(FrontPoint(**point) for point in pareto["front"])),
        })


def _arm(found: Mapping[str, Any]) -> ArmResult:
    metrics = {column: Score(**{**score, "ci95": _interval(score["ci95"])})
               for column, score in found["metrics"].items()}
    return ArmResult(**{**found, "metrics": metrics, "val": BestTrial(**found["val"]),
                        "num_trials": TrialCounts(**found["num_trials"])})


def _interval(ends: list[float] | None) -> Interval | None:
    return None if ends is None else (ends[0], ends[1])


def plain(value: Any) -> Any:
    """A part of a verdict as JSON holds it; fields with a default only where they differ from it."""
    if is_dataclass(value):
        held = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
        return {name: plain(part) for name, (part, default) in held.items() if default is MISSING or part != default}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value
