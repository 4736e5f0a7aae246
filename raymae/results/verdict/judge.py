"""How a verdict is reached: from the rows of a sweep to `Verdict`.

A pair's word rests on p-values that are adjusted for all pairs of the sweep (Holm): `practically equal` where a margin
was declared and the difference is shown to be within it, else `helps` or `hurts` where it is shown to be there, else
`undecided`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from raymae.errors import ResultsError
from raymae.results.store.columns import alone_s, is_test, only, param_columns
from raymae.results.store.layout import VERDICT
from raymae.results.store.manifest import Manifest, checked
from raymae.results.store.store import Store
from raymae.results.verdict.bisection import place_of
from raymae.results.verdict.cells import CellRows, counted_in, done, rows_by_cell
from raymae.results.verdict.finals import Chosen
from raymae.results.verdict.pareto import pareto_front
from raymae.results.verdict.searched import how_searched
from raymae.results.verdict.statistics import LEVEL, Evidence, Side, adjusted, evidence, holm_level, statistics
from raymae.results.verdict.units import UnitSample, resample_units
from raymae.results.verdict.verdict import (
    ArmResult,
    BestTrial,
    CellAnswer,
    Needed,
    Pair,
    Rule,
    Skill,
    Spent,
    TrialCounts,
    Verdict,
    Word,
)
from raymae.spec import Arm, SweepSpec
from raymae.spec.space import Scalar
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


def verdict_of(store: Store, trials: pd.DataFrame | None = None) -> Verdict:
    """The verdict over what a store holds now.

    Args:
        store: The sweep.
        trials: Its `trials` dataset, where the caller has read it already.
    """
    trials = store.trials() if trials is None else trials
    cells = rows_by_cell(trials, store.spec(), store.manifest)
    return judge(trials, store.spec(), store.manifest, store.scores(counted_in(cells)), cells)


def verdict_now(store: Store, trials: pd.DataFrame | None = None) -> Verdict:
    """The verdict as it was written at the sweep's end, or that over what the store holds while it is unfinished.

    Args:
        store: The sweep.
        trials: Its `trials` dataset, where the caller has read it already.
    """
    written = store.verdict()
    if written is not None and written.get("complete") and "rule" in written:  # earlier versions had other rules
        where = store.uri(VERDICT)
        try:
            verdict = Verdict.from_json(written)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise ResultsError(f"{where}: not written by raymae: {error!r}. Delete it: a verdict is then computed from "
                               "the rows") from None
        checked(Verdict, verdict.to_json(), where)
        asked = store.spec().bisected
        if verdict.place is None or asked is None or verdict.place.most == asked[1].cells:  # else more are asked for
            return verdict
    return verdict_of(store, trials)


def conclude(store: Store, *, searched: bool = False) -> Verdict:
    """The verdict at a sweep's end, over every row; it is also kept in the results folder.

    Rows that the storage refused until now are written first: what waits in memory must not miss the answer.

    Args:
        store: The sweep.
        searched: Whether the search is over, which completes a sweep that asks for no replicates: its rows do not tell,
            since a budget or hopeless trials may have shortened the search.

    Raises:
        ResultsError: The storage kept failing.
    """
    store.compact()
    verdict = verdict_of(store)
    if searched and store.spec().most_replicates == 0:
        verdict = replace(verdict, complete=True)
    store.write_verdict(verdict.to_json())
    return verdict


def judge(
    trials: pd.DataFrame, spec: SweepSpec, manifest: Manifest, scores: pd.DataFrame | None = None,
    cells: Sequence[CellRows] | None = None,
) -> Verdict:
    """Compare the arms of a sweep, in every cell of its factors.

    Args:
        trials: The `trials` dataset. Of several attempts at one trial the last counts; all count as compute.
        spec: The sweep.
        manifest: Its data and its task.
        scores: The `scores` dataset; without it intervals are over seeds alone.
        cells: What of them counts in each cell, where the caller knows.
    """
    looked = [_look(rows, spec, manifest, scores) for rows in cells or rows_by_cell(trials, spec, manifest)]
    family = Family.of([known for cell in looked for *_, known in cell.known], spec.margin)
    starts = [sum(len(other.known) for other in looked[:index]) for index in range(len(looked))]
    verdicts = [_answer(cell, family, at, spec, manifest) for cell, at in zip(looked, starts, strict=True)]
    if not spec.factors:
        return verdicts[0]
    number = sum(p is not None for p in family.p)
    answers = tuple(
        CellAnswer(dict(cell.rows.cell), one.arms, one.pairs, one.complete, one.pareto,
                   one.rule and replace(one.rule, comparisons=number))
        for cell, one in zip(looked, verdicts, strict=True))
    shown = next((one for one in answers if one.cell == spec.search.at), answers[0])
    of_one = replace(verdicts[0], **vars(shown))
    place = place_of(answers, spec, manifest.task.objective, manifest.may_open)
    complete = all(one.complete for one in answers) and (place is None or place.next is None)
    return replace(of_one, cells=answers, complete=complete, spent=_spent(trials, spec), place=place)


@dataclass(frozen=True)
class _Looked:
    """What is known of a cell, before its comparisons are adjusted for those of others."""

    rows: CellRows
    results: Sequence[ArmResult]
    sides: Mapping[str, Side]
    sample: UnitSample | None
    known: Sequence[tuple[str, str, Evidence]]
    p_otherwise: Sequence[float | None]


def _look(rows: CellRows, spec: SweepSpec, manifest: Manifest, scores: pd.DataFrame | None) -> _Looked:
    task, objective, arms = manifest.task, manifest.task.objective, manifest.task.arms
    computed, last = only(rows.trials, "arm", "stage", "wall_s", "pretrain_s"), rows.last
    of_arm = {name: last[last["arm"] == name] for name in spec.arms}
    by_seed = {name: found for name in spec.arms if (found := _by_seed(done(of_arm[name]), objective.test))}
    sample = _sample(scores, last, by_seed, objective)
    sides = {name: Side(name, found, arms[name].is_fixed, _resampled(sample, name, found))
             for name, found in by_seed.items()}
    groups = sample.num_groups if sample is not None else 0
    results = [_arm(name, arms[name], computed[computed["arm"] == name], of_arm[name], objective,
                    sides.get(name), groups, rows.best[name], rows.chosen.get(name)) for name in spec.arms]
    results.sort(key=lambda result: _rank(result, objective))
    paired, sequential = spec.compare == "paired", not isinstance(spec.replicates, int)
    # in every cell the same arm is the first of a pair, whichever is ahead there
    named = results if not spec.factors else sorted(results, key=lambda one: list(spec.arms).index(one.arm))
    chosen = [(a, b) for a, b in _pairings(named, task.primary) if a in sides and b in sides]
    known, otherwise = ([evidence(sides[a], sides[b], num_groups=groups, paired=way, sequential=sequential)
                         for a, b in chosen] for way in (paired, not paired))
    return _Looked(rows, results, sides, sample, [(a, b, one) for (a, b), one in zip(chosen, known, strict=True)],
                   [one.p() for one in otherwise])


def _answer(cell: _Looked, family: Family, at: int, spec: SweepSpec, manifest: Manifest) -> Verdict:
    """The verdict of a cell, its comparisons those of a family from `at` on."""
    task, objective, arms = manifest.task, manifest.task.objective, manifest.task.arms
    sample, last, sequential = cell.sample, cell.rows.last, not isinstance(spec.replicates, int)
    pairs = judged(cell.known, objective, spec.margin, units=sample.num_units if sample else 0,
                   seconds={result.arm: result.replicate_s for result in cell.results}, primary=task.primary,
                   family=family, at=at)
    complete = _is_complete(last, spec, arms, decided=bool(pairs) and pairs[0].verdict != "undecided")
    pairs = [replace(pair, p_otherwise=p, n_a=len(cell.sides[pair.a].scores), n_b=len(cell.sides[pair.b].scores))
             for pair, p in zip(pairs, cell.p_otherwise, strict=True)]
    return Verdict(
        sweep=spec.name, task=spec.task, objective=objective, data=manifest.data, arms=tuple(cell.results),
        pairs=tuple(pairs),
        complete=complete,
        pareto=None if spec.search.cost is None else pareto_front(last, objective, spec.search.cost),
        rule=Rule(
            fair=spec.fair.by, times_epochs=dict(cell.rows.times_epochs), compare=spec.compare, margin=spec.margin,
            min_skill=spec.search.min_skill, sequential=sequential,
            looked_before=manifest.looked_before and not sequential,
            units=sample.num_units if sample and sample.resampled else 0,
            groups=sample.num_groups if sample and sample.resampled else 0,
            grouped=bool(sample and sample.grouped), untested=spec.most_replicates == 0,
            note="; ".join(filter(None, (
                sample.note if sample else "there are no test scores by example" if cell.sides else "",
                *how_searched(last, spec, arms, cell.rows.chosen, complete=complete)))),
        ),
    )


def _spent(trials: pd.DataFrame, spec: SweepSpec) -> dict[str, Spent]:
    """The computing of each arm in all cells, every trial once."""
    found, few = {}, only(trials, "arm", "stage", "wall_s", "pretrain_s", "encoder_id")
    for name in spec.arms:
        rows = few[few["arm"] == name]
        made, starts = rows[rows["stage"] == "pretrain"], rows[rows["stage"] != "pretrain"]
        number = int(starts["encoder_id"].notna().sum()) if "encoder_id" in rows else 0
        found[name] = Spent(_finite_sum(rows["wall_s"]), _finite_sum(alone_s(starts)), len(made), number)
    return found


@dataclass(frozen=True)
class Family:
    """Comparisons that are adjusted for each other.

    Attributes:
        p: The p-value of no difference of each; None where there is none.
        holm: The same, adjusted.
        equal: The adjusted p-value of a difference that matters; None without a margin.
    """

    p: Sequence[float | None]
    holm: Sequence[float | None]
    equal: Sequence[float | None]

    @classmethod
    def of(cls, known: Sequence[Evidence], margin: float | None) -> Family:
        """Adjust comparisons for each other, all at once: it takes a while.

        Args:
            known: What is known of each.
            margin: The difference that does not matter, if one was declared.
        """
        p = [one.p() for one in known]
        return cls(p, adjusted(p), adjusted([None if margin is None else one.p_equal(margin) for one in known]))


def judged(
    found: Sequence[tuple[str, str, Evidence]], objective: Objective, margin: float | None, *, units: int,
    seconds: Mapping[str, float | None], primary: tuple[str, str] | None, family: Family | None = None, at: int = 0,
) -> list[Pair]:
    """Put into words what is known of several differences, each adjusted for all of them.

    Args:
        found: The two arms, and the evidence.
        objective: What is compared.
        margin: The difference that does not matter, if one was declared.
        units: Test examples.
        seconds: Mean wall time of a replicate by arm.
        primary: The comparison that the task is about.
        family: The differences that these are adjusted for, where they are more than these.
        at: Where in the family these begin.
    """
    family = family or Family.of([known for _, _, known in found], margin)
    p_values, pairs = family.p, []
    for index, (a, b, known) in enumerate(found, at):
        holm, equal = family.holm[index], family.equal[index]
        word: Word = "undecided"
        if equal is not None and equal < 1 - LEVEL:
            word = "practically equal"
        elif holm is not None and holm < 1 - LEVEL:
            word = "helps" if (known.value < 0) == (objective.mode == "min") else "hurts"
        alpha = 1 - LEVEL if holm is None else holm_level(p_values, index)
        needed = None
        if word == "undecided" and p_values[index] is not None:
            more = known.more_seeds(alpha)
            each = [value for value in (seconds.get(a), seconds.get(b)) if value is not None]
            minutes = None if more is None or not each else (more - known.n) * sum(each) / 60
            needed = Needed(known.detectable(alpha), more, known.more_units(alpha, units), minutes)
        pairs.append(Pair(
            a=a, b=b, metric=objective.test, difference=known.value, ci95=known.interval(), p=p_values[index],
            p_holm=holm, n_a=known.n, n_b=known.n, verdict=word, primary=(a, b) == primary, note=known.note,
            ci95_seeds=known.interval(units=False), ci_holm=known.interval(1 - alpha), p_seeds=known.p(units=False),
            p_equal=equal, needed=needed,
        ))
    return pairs


def _is_complete(last: pd.DataFrame, spec: SweepSpec, arms: Mapping[str, Arm], *, decided: bool) -> bool:
    """Whether every arm has its replicates: all, or in rounds so many that the primary comparison is decided."""
    arm_of = last["arm"][last["stage"] == "replicate"]
    counts = {name: int((arm_of == name).sum()) for name in spec.arms}
    wanted = spec.num_replicates if decided else spec.most_replicates
    return wanted > 0 and all(counts[name] >= arms[name].num_replicates(wanted) for name in spec.arms)


def _sample(
    scores: pd.DataFrame | None, last: pd.DataFrame, by_seed: Mapping[str, dict[int, float]], objective: Objective
) -> UnitSample | None:
    """The test examples, from the scores of the replicates that count."""
    if scores is None:
        return None
    trials = done(only(last, "trial_id", "stage", "status"))["trial_id"]
    return resample_units(scores[scores["trial_id"].isin(trials)], by_seed, root=objective.root)


def _resampled(sample: UnitSample | None, arm: str, by_seed: Mapping[int, float]) -> np.ndarray | None:
    known = sample is not None and sample.seeds.get(arm) == tuple(sorted(by_seed))
    return sample.resampled[arm] if known and sample is not None else None


def _arm(
    name: str, arm: Arm, rows: pd.DataFrame, last: pd.DataFrame, objective: Objective, side: Side | None, groups: int,
    best: Any, chosen: Chosen | None,
) -> ArmResult:
    replicates = done(last)
    columns = [objective.test, *(c for c in last.columns if is_test(c) and c != objective.test)]
    scores = {column: Side(name, found, arm.is_fixed) for column in columns
              if (found := _by_seed(replicates, column))}
    if side is not None:
        scores[objective.test] = side
    n = 0 if side is None else len(side.scores)
    seconds = alone_s(replicates).mean() if len(replicates) else None
    trials = rows[rows["stage"] != "pretrain"]
    compute, unshared = _finite_sum(rows["wall_s"]), _finite_sum(alone_s(trials))
    unscored = len(replicates) - n
    return ArmResult(
        arm=name,
        kind=arm.kind,
        n=n,
        metrics={column: statistics(found, groups) for column, found in scores.items()},
        val=BestTrial(objective.val, None if best is None else float(best[objective.val]),
                      None if best is None else str(best["trial_id"])),
        best_params={} if best is None else _params(best),
        compute_s=compute,
        num_trials=TrialCounts.of(last["status"][last["stage"] != "pretrain"]),
        note=f"{unscored} completed replicates have no finite {objective.test} and are left out" if unscored else "",
        replicate_s=None if seconds is None or not math.isfinite(seconds) else float(seconds),
        skill=_skill(replicates),
        unshared_s=unshared if unshared > compute + 1 else None,
        chosen=chosen,
    )


def _skill(replicates: pd.DataFrame) -> Skill | None:
    """How much an arm's replicates learned while pretraining."""
    if "pretext_skill" not in replicates:  # an earlier version did not measure it
        return None
    values = replicates["pretext_skill"].to_numpy(float, na_value=math.nan).tolist()
    skills = [value for value in values if math.isfinite(value)]
    if not skills:
        return None
    return Skill(sum(skills) / len(skills), min(skills), sum(value <= 0 for value in skills), len(skills))


def _by_seed(replicates: pd.DataFrame, column: str) -> dict[int, float]:
    """The finite scores of an arm's completed replicates, by seed."""
    if column not in replicates:
        return {}
    values = zip(replicates["seed"], replicates[column].to_numpy(float, na_value=math.nan), strict=True)
    return {int(seed): float(value) for seed, value in values if math.isfinite(value)}


def _params(row: Any) -> dict[str, Scalar]:
    import pandas as pd

    present = {name: row[name] for name in param_columns(list(row.index)) if not pd.isna(row[name])}
    return {name: value.item() if hasattr(value, "item") else value for name, value in present.items()}


def _finite_sum(values: pd.Series) -> float:
    return float(sum(value for value in values.to_numpy(float, na_value=math.nan) if math.isfinite(value)))


def _rank(result: ArmResult, objective: Objective) -> tuple[int, float]:
    sign = 1.0 if objective.mode == "min" else -1.0
    if objective.test in result.metrics:
        return 0, sign * result.metrics[objective.test].mean
    return (2, 0.0) if result.val.score is None else (1, sign * result.val.score)


def _pairings(results: Sequence[ArmResult], primary: tuple[str, str] | None) -> list[tuple[str, str]]:
    """Pretrained arms against all others, each pair once, the primary first; all pairs where nothing is pretrained."""
    names, pretrained = [result.arm for result in results], {r.arm for r in results if r.kind == "pretrained"}
    chosen = list(combinations(names, 2))
    if pretrained:
        chosen = [(a, b) if a in pretrained else (b, a) for a, b in chosen if pretrained & {a, b}]
    return sorted(chosen, key=lambda pair: pair != primary)
