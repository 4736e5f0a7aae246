"""What a verdict says: every arm's scores, every pair's difference, and how sure each is.

Every class has `to_json` of the whole and is made from it again by `Verdict.from_json`; fields stand in `verdict.json`
under their own names and in their order, those with a default only where they differ from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from raymae.results.store.manifest import SweepData
from raymae.results.verdict.finals import Chosen
from raymae.results.verdict.pareto import FrontPoint, Pareto
from raymae.results.verdict.place import Place
from raymae.results.verdict.statistics import Interval, Score
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.task import ArmKind, Objective

Word = Literal["helps", "hurts", "practically equal", "undecided"]


@dataclass(frozen=True)
class BestTrial:
    """The search trial of an arm with the best validation score: of the completed ones, or else of the stopped. Where
    there were finals, the one that they chose.

    Attributes:
        metric: The column that it is best in, such as `val_mse`.
        score: Its score in the search; None where no trial has one.
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
class Skill:
    """How much better an arm's pretraining reconstructs what is hidden from it than what takes no learning.

    Attributes:
        mean: Mean `pretext_skill` of the replicates that count; 0 is no better, 1 is perfect.
        least: The least of them.
        unlearned: How many are not above 0: in them, nothing was learned.
        n: Replicates with a skill.
    """

    mean: float
    least: float
    unlearned: int
    n: int


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
        replicate_s: Mean wall time of a replicate, in seconds; None without one.
        skill: Of its pretraining; None where it has none, or nobody measured it.
        unshared_s: What `compute_s` would have been without trials that share an encoder; None where none do.
        chosen: How its configuration was chosen of several finalists; None where the search's best was taken.
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
    replicate_s: float | None = None
    skill: Skill | None = None
    unshared_s: float | None = None
    chosen: Chosen | None = None


@dataclass(frozen=True)
class Needed:
    """What an undecided comparison would have taken.

    Attributes:
        least: The least true difference that this sweep would have shown with 80 % power; None where there were too few
            replicates to show any.
        replicates: Replicates per arm for 80 % power at the observed difference, with these test examples; None where
            no number of them is enough.
        units: Test examples for it, with these replicates; None where they are not known or no number is enough.
        minutes: Wall time of those replicates that are missing, one after the other.
    """

    least: float | None
    replicates: int | None
    units: int | None
    minutes: float | None


@dataclass(frozen=True)
class Rule:
    """The rule that a verdict was reached under, all of it declared before the first test score.

    Attributes:
        fair: What arms have equal shares of: `epochs`, `steps` or `compute`.
        times_epochs: By trained arm, how many times the fine-tuning epochs of the pretrained arm it got.
        compare: Whether replicates are `independent` or `paired` by seed.
        margin: The difference that does not matter; None where none was declared.
        min_skill: The skill that a pretraining had to have to be chosen; None where any could be.
        sequential: Whether replicates came in rounds and intervals hold at every look.
        units: Test examples that intervals are over; 0 where they are over seeds alone.
        groups: Groups of test examples that were resampled; 0 likewise.
        grouped: Whether the groups are known ones (patients, drives, days), or each example is its own.
        looked_before: Replicates were added after a verdict had been seen, without a rule for that.
        note: What the intervals lack, or "".
        untested: Whether no test score was asked for (`replicates: 0`): the search is all there is.
        comparisons: Comparisons that p-values are adjusted for, where that is more than the verdict's own: those of all
            cells of the factors.
    """

    fair: Literal["epochs", "steps", "compute"] = "epochs"
    times_epochs: Mapping[str, float] = field(default_factory=dict)
    compare: Literal["independent", "paired"] = "independent"
    margin: float | None = None
    sequential: bool = False
    units: int = 0
    groups: int = 0
    grouped: bool = False
    looked_before: bool = False
    note: str = ""
    untested: bool = False
    comparisons: int = 0
    min_skill: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two arms compared on the objective's test scores.

    Attributes:
        a: The arm that the verdict is about.
        b: The arm it is compared with.
        metric: The column compared.
        difference: Mean of `a` minus mean of `b`.
        ci95: 95 % interval of the difference over seeds and test examples; None where there is none.
        p: p-value of no difference; None where there is no interval.
        p_holm: The same, adjusted for all pairs of the sweep: below .05 the verdict is `helps` or `hurts`.
        n_a: Scored replicates of `a`.
        n_b: Scored replicates of `b`.
        verdict: What is said of `a`.
        primary: Whether this is the comparison that the task is about.
        note: Why there is no interval, or "".
        ci95_seeds: 95 % interval over seeds alone, for these very test examples.
        ci_holm: The interval adjusted as `p_holm` is: it excludes 0 where that is below .05.
        p_seeds: p-value over seeds alone.
        p_otherwise: p-value where replicates are paired if `Rule.compare` says independent, and the other way round.
        p_equal: p-value of a difference of at least the declared margin, adjusted; None without a margin.
        needed: What an undecided comparison would have taken.
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
    ci95_seeds: Interval | None = None
    ci_holm: Interval | None = None
    p_seeds: float | None = None
    p_otherwise: float | None = None
    p_equal: float | None = None
    needed: Needed | None = None


@dataclass(frozen=True)
class CellAnswer:
    """What is found in one cell of a sweep's factors; its fields are those of `Verdict`.

    Attributes:
        cell: The value of each factor.
    """

    cell: Mapping[str, Scalar]
    arms: tuple[ArmResult, ...]
    pairs: tuple[Pair, ...]
    complete: bool
    pareto: Pareto | None = None
    rule: Rule | None = None


@dataclass(frozen=True)
class Spent:
    """The computing of an arm in all cells together, in seconds.

    Attributes:
        compute_s: Wall time of its trials, each once in however many cells it counts, and of its pretrainings.
        unshared_s: What it would have been if no trials shared an encoder.
        pretrainings: Encoders that were made.
        starts: Trials that started from one.
    """

    compute_s: float
    unshared_s: float
    pretrainings: int
    starts: int


@dataclass(frozen=True)
class Verdict:
    """The answer of a sweep, finished or not.

    Of a sweep with factors `arms`, `pairs`, `pareto` and `rule` are those of one of its cells, and `cells` has all.

    Attributes:
        sweep: The sweep's name.
        task: Its task.
        objective: What is selected on.
        data: Its data set.
        arms: Best first.
        pairs: The primary one first.
        complete: Whether nothing is missing.
        pareto: Where the search minds a cost: the trials that none beats in both.
        rule: The rule that it was reached under; None where an earlier version wrote it.
        cell: The cell of the factors that it is about: the one that is searched for all, or the first. None where
            there are no factors.
        cells: All cells, in the order of the sweep file; empty in the verdict of one.
        spent: By arm its computing in all cells together; None in the verdict of one.
        place: Where the answer changes along the factor that is bisected; None where none is.
    """

    sweep: str
    task: str
    objective: Objective
    data: SweepData
    arms: tuple[ArmResult, ...]
    pairs: tuple[Pair, ...]
    complete: bool
    pareto: Pareto | None = None
    rule: Rule | None = None
    cell: Mapping[str, Scalar] | None = None
    cells: tuple[CellAnswer, ...] = ()
    spent: Mapping[str, Spent] | None = None
    place: Place | None = None

    def each(self) -> tuple[Verdict, ...]:
        """The verdict of each cell; of a sweep without factors it is this one alone."""
        return tuple(replace(self, cells=(), spent=None, place=None, **vars(one)) for one in self.cells) or (self,)

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
    def from_json(cls, found: Tree) -> Verdict:
        """The verdict that `to_json` wrote."""
        return cls(**{
            **found, **_answer(found),
            "objective": Objective(**found["objective"]),
            "data": SweepData(**found["data"]),
            "cells": tuple(CellAnswer(**{**cell, **_answer(cell)}) for cell in found.get("cells", ())),
            "spent": {arm: Spent(**spent) for arm, spent in found["spent"].items()} if found.get("spent") else None,
            "place": Place.from_json(found["place"]) if found.get("place") else None,
        })


def _answer(found: Tree) -> Tree:
    """The parts that a verdict and the answer of a cell have in common."""
    pareto = found.get("pareto")
    return {
        "arms": tuple(_arm(arm) for arm in found["arms"]),
        "pairs": tuple(map(_pair, found["pairs"])),
        "rule": Rule(**found["rule"]) if found.get("rule") else None,
        "pareto": pareto and Pareto(pareto["cost"], tuple(FrontPoint(**point) for point in pareto["front"])),
    }


def _arm(found: Tree) -> ArmResult:
    metrics = {column: Score(**{**score, **_intervals(score)}) for column, score in found["metrics"].items()}
    skill, chosen = found.get("skill"), found.get("chosen")
    return ArmResult(**{**found, "metrics": metrics, "val": BestTrial(**found["val"]),
                        "num_trials": TrialCounts(**found["num_trials"]), "skill": skill and Skill(**skill),
                        "chosen": chosen and Chosen(**chosen)})


def _pair(found: Tree) -> Pair:
    needed = found.get("needed")
    return Pair(**{**found, **_intervals(found), "needed": needed and Needed(**needed)})


def _intervals(found: Tree) -> dict[str, Interval | None]:
    return {name: None if ends is None else (ends[0], ends[1]) for name, ends in found.items() if name.startswith("ci")}


def plain(value: Any) -> Any:
    """A part of a verdict as JSON holds it; fields with a default only where they differ from it."""
    if is_dataclass(value):
        held = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
        return {name: plain(part) for name, (part, default) in held.items() if default is MISSING or part != default}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value
