"""For which settings one arm beats another, over the trials of the search: the difference against each parameter.

This says nothing about the verdict, which is about test scores of replicates on fresh seeds: here are validation scores
of one seed each, of configurations that the search picked.

Shape suffixes as in `surrogate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from raymae.errors import ResultsError, unknown
from raymae.results.store.columns import last_attempts, param_columns
from raymae.results.store.store import Store
from raymae.results.verdict.cells import CellRows, rows_by_cell
from raymae.results.verdict.clear import Clear, clear_parts, sentence
from raymae.results.verdict.features import Feature, feature, values_of
from raymae.results.verdict.statistics import Interval
from raymae.results.verdict.surrogate import Band, Design, Surrogate
from raymae.results.verdict.verdict import TrialCounts, plain
from raymae.spec import SweepSpec
from raymae.spec.factors import Cell, said, stranger, told
from raymae.spec.space import Scalar
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

LEAST, PER_PARAM = 10, 2  # completed trials of an arm: at least, and for each parameter that varies
LEAST_R2 = 0.1
MOST = 120  # trials of an arm; of more an even share is used, since time grows with their cube
AVERAGED = 24  # configurations that a difference is averaged over
FENCE = 3.0  # a score further beyond the upper quartile than so many interquartile ranges counts as just there


@dataclass(frozen=True)
class Used:
    """The search trials of an arm.

    Attributes:
        arm: The arm.
        used: Completed ones with a finite score.
        needed: How many it takes.
        stopped: Left out, because their score is of a smaller budget.
        failed: Left out, because they have none.
        unscored: Completed without a finite score, and left out.
        capped: Used, but so bad that they count as the bad end of the others.
    """

    arm: str
    used: int
    needed: int
    stopped: int = 0
    failed: int = 0
    unscored: int = 0
    capped: int = 0


@dataclass(frozen=True)
class Effect:
    """The difference against a parameter, averaged over the others as they were tried.

    Attributes:
        param: The parameter.
        values: Where it was computed, in order; `category` where they have none.
        difference: First arm minus second in the validation objective, at each value.
        band: The band around it; the bands of all values and parameters hold together with 95 % probability.
        clear: At each value `helps`, `hurts`, or "" where 0 is in the band.
        turns: Where the difference itself passes 0; a sign of a turn only where both sides are clear.
        says: All of it in a sentence.
        shared: Whether it varies in the second arm too, which is then taken at the same value.
        category: Whether values are taken one by one.
        log: Whether its axis is logarithmic.
    """

    param: str
    values: tuple[Scalar, ...]
    difference: tuple[float, ...]
    band: tuple[Interval, ...]
    clear: tuple[Clear, ...]
    turns: tuple[float, ...]
    says: str
    shared: bool
    category: bool
    log: bool


@dataclass(frozen=True)
class Explanation:
    """For which settings an arm beats another.

    Attributes:
        a: The arm that it is about.
        b: The arm that it is compared with.
        metric: The column of scores.
        mode: Whether less or more is better.
        trials: Of both arms.
        effects: A parameter each, in the order of the space; empty where nothing can be said.
        problem: Why nothing can be said; "" where something can.
        r2: Share of the scores' variance that the surrogate predicts for trials it has not seen; None without one.
        cell: The cell of the sweep's factors; None where it has none.
    """

    a: str
    b: str
    metric: str
    mode: str
    trials: tuple[Used, ...]
    effects: tuple[Effect, ...] = ()
    problem: str = ""
    r2: float | None = None
    cell: Mapping[str, Scalar] | None = None

    @property
    def basis(self) -> str:
        """What it rests on, in a sentence or two."""
        counts = " and ".join(f"{one.used} completed search trials of {one.arm}" for one in self.trials)
        out = [f"{number} {what} of {one.arm}" for one in self.trials for number, what in (
            (one.stopped, "stopped early"), (one.failed, "failed"), (one.unscored, "without a finite score")) if number]
        capped = sum(one.capped for one in self.trials)
        parts = [f"From {counts}", f"; left out: {', '.join(out)}" if out else "",
                 f"; {capped} very bad score{'s' if capped > 1 else ''} capped" if capped else "", ".",
                 f" On trials left out of its fit the surrogate's R² is {self.r2:.2f}." if self.r2 is not None else ""]
        return "".join(parts).replace("R² is -", "R² is −")

    @property
    def mind(self) -> str:
        """What it must not be taken for."""
        return (f"These are validation scores of search trials, one seed each: a hint where to look. It neither "
                f"confirms nor overrules the verdict, which is about test scores. A band holds the difference "
                f"{self.a} − {self.b} at all values of all parameters together with 95 % probability.")

    def to_json(self) -> dict[str, object]:
        """Plain values without NaN."""
        found: dict[str, object] = plain(self)
        return {**found, "basis": self.basis, "mind": self.mind}


def explain(
    store: Store, arm: str | None = None, against: str | None = None, cell: Cell | None = None,
    trials: pd.DataFrame | None = None,
) -> Explanation:
    """For which settings an arm beats another, over what a store holds now.

    Args:
        store: The sweep.
        arm: The arm that it is about; the pretrained arm of the comparison that the task is about by default.
        against: The arm it is compared with; by default the other one of that comparison.
        cell: Values of the sweep's factors that name one cell; by default the cell that the verdict shows.
        trials: Its `trials` dataset, where the caller has read it already.

    Raises:
        ResultsError: There are no such arms or cell, or an arm is a reference, which has nothing to search.
    """
    spec, manifest = store.spec(), store.manifest
    a, b = _pair(store, spec, arm, against)
    rows = _cell_rows(rows_by_cell(store.trials() if trials is None else trials, spec, manifest), spec, cell)
    return explained(rows.trials, spec, manifest.task.objective, a, b, cell=dict(rows.cell) or None)


def explained_if_two(store: Store) -> Explanation | None:
    """The same for a report; None where the sweep has no two arms that are searched."""
    searched = [name for name in store.spec().arms if store.manifest.task.arms[name].kind != "reference"]
    return explain(store) if len(searched) > 1 else None


def explained(
    trials: pd.DataFrame, spec: SweepSpec, objective: Objective, a: str, b: str, *, cell: Cell | None = None
) -> Explanation:
    """The same of rows of `trials`: those of a cell, where the sweep has factors."""
    last = last_attempts(trials)
    search = last[last["stage"] == "search"]
    rows = {arm: _complete(search[search["arm"] == arm], objective) for arm in (a, b)}
    varying = {arm: _varying(one, spec) for arm, one in rows.items()}
    cap = _cap([float(score) for one in rows.values() for score in one[objective.val]], objective)
    used = tuple(_used(search, arm, rows[arm], len(varying[arm]), objective, cap) for arm in (a, b))
    found = Explanation(a, b, objective.val, objective.mode, used, cell=cell)
    if problem := _too_little(found, varying[a], rows, objective):
        return replace(found, problem=problem)
    arms = [_Arm.of(rows[arm], varying, objective, cap) for arm in (a, b)]
    return _fitted(found, arms, varying, spec)


@dataclass(frozen=True)
class _Arm:
    """The trials of an arm that are used, as columns of plain values."""

    frame: pd.DataFrame
    score_N: np.ndarray

    @classmethod
    def of(cls, rows: pd.DataFrame, varying: Mapping[str, Sequence[str]], objective: Objective, cap: float) -> _Arm:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int)]
        score_N = rows[objective.val].to_numpy(float)
        return cls(rows[_names(varying)], np.minimum(score_N, cap) if objective.mode == "min"
                   else np.maximum(score_N, cap))


def _fitted(
    found: Explanation, arms: Sequence[_Arm], varying: Mapping[str, Sequence[str]], spec: SweepSpec
) -> Explanation:
    names = _names(varying)
    values = [{name: values_of(one.frame[name], spec.space.get(name)) for name in names} for one in arms]
    features = [feature(name, spec.space, [value for one in values for value in one[name] if value is not None])
                for name in names]
    blocks = [[one.encode(held[one.name]) for one in features] for held in values]
    lengths = [index for index, block in enumerate(blocks[0]) for _ in range(block.shape[1])]
    x_by_arm = [np.concatenate(each, axis=1) for each in blocks]
    counts = [len(one.score_N) for one in arms]
    surrogate = Surrogate(Design(np.concatenate(x_by_arm), np.repeat([1.0, -1.0], counts)),
                          np.concatenate([one.score_N for one in arms]), lengths)
    found = replace(found, r2=surrogate.r2)
    if surrogate.r2 < LEAST_R2:
        return replace(found, problem=f"the parameters do not explain the scores: of trials left out of the fit the "
                                    f"surrogate predicts {max(0.0, surrogate.r2):.0%} of the variance, and it takes "
                                    f"{LEAST_R2:.0%}; search more trials, or there is nothing to see")
    a, b = found.a, found.b
    shared = [name in varying[a] and name in varying[b] for name in names]
    grid = _Grid(x_by_arm, np.array([shared[index] for index in lengths]), np.array(lengths))
    effects = []
    for index, one in enumerate(features):
        if one.name not in varying[a]:
            continue
        asked = one.asked([value for value in values[0][one.name] if value is not None],
                          values[1][one.name] if shared[index] else None)
        if asked:
            first, second = grid.at(index, one.encode(asked), shared[index],
                                    [[value is not None for value in held[one.name]] for held in values])
            band = surrogate.difference(first, second, len(varying[a]))
            effects.append(_effect(one, asked, band, found, shared[index]))
    return replace(found, effects=tuple(effects))


@dataclass(frozen=True)
class _Grid:
    """Configurations to average over: parameters that both arms vary as trials of either have them, the others as
    trials of the arm itself do."""

    x_by_arm: Sequence[np.ndarray]
    shared_D: np.ndarray
    lengths_D: np.ndarray

    def at(self, index: int, asked_GC: np.ndarray, shared: bool, has: Sequence[Sequence[bool]]) -> list[np.ndarray]:
        """Of both arms (G, P, D), with a parameter at each value; where it is the first arm's alone the second keeps
        what it has. Trials without the parameter are left out."""
        own = [x_ND[np.array(mask)] if shared or not arm else x_ND
               for arm, (x_ND, mask) in enumerate(zip(self.x_by_arm, has, strict=True))]
        both = np.concatenate(own)
        both = both[np.linspace(0, len(both) - 1, min(AVERAGED, len(both))).round().astype(int)]
        found = []
        for arm, x_ND in enumerate(own):
            draw = np.random.default_rng(index).permutation(len(x_ND))
            pool_PD = np.where(self.shared_D, both, x_ND[draw[np.arange(len(both)) % len(draw)]])
            pool_GPD = np.repeat(pool_PD[None], len(asked_GC), axis=0)
            if shared or not arm:
                pool_GPD[:, :, self.lengths_D == index] = asked_GC[:, None, :]
            found.append(pool_GPD)
        return found


def _effect(one: Feature, asked: Sequence[Scalar], band: Band, found: Explanation, shared: bool) -> Effect:
    ends = [(float(mean - half), float(mean + half)) for mean, half in zip(band.mean_G, band.half_G, strict=True)]
    difference = [float(mean) for mean in band.mean_G]
    clear, turns = clear_parts(one, asked, difference, ends, found.mode)
    return Effect(one.name, tuple(asked), tuple(difference), tuple(ends), clear, turns,
                  sentence(one, asked, ends, clear, turns, found.a), shared, bool(one.levels), one.log)


def _complete(rows: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Those that ended by themselves, with a score: others have none of the full budget."""
    return rows[(rows["status"] == "completed") & np.isfinite(rows[objective.val].astype(float))]


def _varying(rows: pd.DataFrame, spec: SweepSpec) -> list[str]:
    """Parameters with several values, those of the space first; a factor is the same in all trials of a cell."""
    named = param_columns(list(rows.columns))
    several = [name for name in named if len(set(values_of(rows[name], spec.space.get(name))) - {None}) > 1]
    return [name for name in dict.fromkeys([*spec.space, *several]) if name in several]


def _names(varying: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in varying.values() for name in names))


def _cap(scores: Sequence[float], objective: Objective) -> float:
    """The worst score that is taken as it is: one that diverged must not decide how everything else is scaled."""
    low, high = np.quantile(scores, [0.25, 0.75]) if scores else (0.0, 0.0)
    return float(high + FENCE * (high - low) if objective.mode == "min" else low - FENCE * (high - low))


def _used(
    search: pd.DataFrame, arm: str, rows: pd.DataFrame, num_varying: int, objective: Objective, cap: float
) -> Used:
    count = TrialCounts.of(search[search["arm"] == arm]["status"])
    beyond = sum(objective.better(cap, float(score)) for score in rows[objective.val])
    return Used(arm, len(rows), max(LEAST, PER_PARAM * num_varying), count.stopped, count.failed,
                count.completed - len(rows), beyond)


def _too_little(
    found: Explanation, varying: Sequence[str], rows: Mapping[str, pd.DataFrame], objective: Objective
) -> str:
    """Why there is nothing to fit, or ""."""
    short = [one for one in found.trials if one.used < one.needed]
    if short:
        needs = ", ".join(f"{one.arm} has {one.used} of {one.needed}" for one in short)
        return (f"too few completed search trials: {needs}. With fewer the band is so wide that it holds 0 nearly "
                f"everywhere; `raymae extend DIR --num-trials N` adds some")
    if not varying:
        return f"no parameter of {found.a} differs between its trials: there is nothing to compare against"
    if len({float(score) for one in rows.values() for score in one[objective.val]}) < 2:
        return "all scores are the same"
    return ""


def _pair(store: Store, spec: SweepSpec, arm: str | None, against: str | None) -> tuple[str, str]:
    task = store.manifest.task
    searched = [name for name in spec.arms if task.arms[name].kind != "reference"]
    for option, name in (("--arm", arm), ("--against", against)):
        if name in spec.arms and name not in searched:
            raise ResultsError(f"{store.root}: {option}: {name} is a reference, which has nothing to search; name one "
                               f"of {', '.join(searched) or 'none'}")
        if name is not None and name not in searched:
            raise ResultsError(f"{store.root}: {option}: {unknown('arm', name, searched)}")
    first, second = task.primary or ("", "")
    pretrained = [name for name in searched if task.arms[name].kind == "pretrained"]
    a = arm or next((name for name in (first, *pretrained, *searched) if name in searched and name != against), None)
    others = [name for name in searched if name != a]
    b = against or next((name for name in (second, *others) if name in others), None)
    if a is None or b is None or a == b:
        raise ResultsError(f"{store.root}: it takes two different arms that are searched, and there "
                           f"{'is' if len(searched) == 1 else 'are'} {', '.join(searched) or 'none'}; name others with "
                           "--arm and --against")
    return a, b


def _cell_rows(cells: Sequence[CellRows], spec: SweepSpec, asked: Cell | None) -> CellRows:
    if not asked:
        return next((one for one in cells if one.cell == spec.search.at), cells[0])
    if wrong := stranger(asked, spec.factors):
        raise ResultsError(f"cell: {wrong}")
    fits = [one for one in cells if all(one.cell[name] == value for name, value in asked.items())]
    if not fits:
        listed = "; ".join(f"{name} {', '.join(map(said, values))}" for name, values in spec.factors.items())
        raise ResultsError(f"cell: no cell with {told(asked)}; there are those of {listed}")
    if len(fits) > 1:
        left = ", ".join(name for name in spec.factors if name not in asked)
        raise ResultsError(f"cell: {told(asked)} are {len(fits)} cells; say also a value of {left}")
    return fits[0]
