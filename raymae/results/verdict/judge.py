"""How a verdict is reached: from the rows of a sweep to `Verdict`.

"helps" and "hurts" rest on the unadjusted 95 % interval of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from raymae.results.store.columns import is_test, last_attempts, param_columns
from raymae.results.store.manifest import Manifest, SweepTask
from raymae.results.store.store import Store
from raymae.results.verdict.pareto import pareto_front
from raymae.results.verdict.statistics import Side, difference, holm, statistics
from raymae.results.verdict.verdict import ArmResult, BestTrial, Pair, TrialCounts, Verdict, Word
from raymae.spec import Arm, SweepSpec
from raymae.spec.space import Scalar
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


def verdict_of(store: Store, trials: pd.DataFrame | None = None) -> Verdict:
    """The verdict over what a store holds now.

    Args:
        store: The sweep.
        trials: Its `trials` dataset, where the caller has read it already.
    """
    return judge(store.trials() if trials is None else trials, store.spec(), store.manifest)


def verdict_now(store: Store, trials: pd.DataFrame | None = None) -> Verdict:
    """The verdict as it was written at the sweep's end, or that over what the store holds while it is unfinished.

    Args:
        store: The sweep.
        trials: Its `trials` dataset, where the caller has read it already.
    """
    written = store.verdict()
    if written is not None and written["complete"]:
        return Verdict.from_json(written)
    return verdict_of(store, trials)


def conclude(store: Store) -> Verdict:
    """The verdict at a sweep's end, over every row; it is also kept in the results folder.

    Rows that the storage refused until now are written first: what waits in memory must not miss the answer.

    Raises:
        ResultsError: The storage kept failing.
    """
    store.compact()
    verdict = verdict_of(store)
    store.write_verdict(verdict.to_json())
    return verdict


def judge(trials: pd.DataFrame, spec: SweepSpec, manifest: Manifest) -> Verdict:
    """Compare the arms of a sweep.

    Args:
        trials: The `trials` dataset. Of several attempts at one trial the last counts; all count as compute.
        spec: The sweep.
        manifest: Its data and its task.
    """
    task, objective, arms = manifest.task, manifest.task.objective, manifest.task.arms
    last = _of_the_best(last_attempts(trials), objective)
    results = [_arm(name, arms[name], trials[trials["arm"] == name], last[last["arm"] == name], objective)
               for name in spec.arms]
    results.sort(key=lambda result: _rank(result, objective))
    sides = {result.arm: Side(result.arm, _scores(last[last["arm"] == result.arm], objective.test),
                              arms[result.arm].is_fixed) for result in results}
    pairs = [_pair(sides[a], sides[b], task) for a, b in _pairings(results, task.primary)
             if sides[a].scores and sides[b].scores]
    adjusted = holm([pair.p for pair in pairs])
    replicates = last[last["stage"] == "replicate"]
    return Verdict(
        sweep=spec.name, task=spec.task, objective=objective, data=manifest.data, arms=tuple(results),
        pairs=tuple(replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)),
        complete=spec.replicates > 0 and all(
            int((replicates["arm"] == name).sum()) >= arms[name].num_replicates(spec.replicates) for name in spec.arms),
        pareto=None if spec.search.cost is None else pareto_front(last, objective, spec.search.cost),
    )


def _of_the_best(last: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Without replicates of configurations that a longer search has overtaken."""
    replicates, drop = last["stage"] == "replicate", last["stage"].isna()
    for name in last["arm"].unique():
        of_arm = last["arm"] == name
        best = _best(last[of_arm], objective)
        current = of_arm & replicates & (last["config_id"] == (None if best is None else best["config_id"]))
        if current.any():
            drop |= of_arm & replicates & ~current
    return last[~drop]


def _arm(name: str, arm: Arm, rows: pd.DataFrame, last: pd.DataFrame, objective: Objective) -> ArmResult:
    done = last[(last["stage"] == "replicate") & (last["status"] == "completed")]
    columns = [objective.test, *(c for c in last.columns if is_test(c) and c != objective.test)]
    scores = {column: found for column in columns if (found := _scores(last, column))}
    n = len(scores.get(objective.test, ()))
    best, unscored = _best(last, objective), len(done) - n
    return ArmResult(
        arm=name,
        kind=arm.kind,
        n=n,
        metrics={column: statistics(values) for column, values in scores.items()},
        val=BestTrial(objective.val, None if best is None else float(best[objective.val]),
                      None if best is None else str(best["trial_id"])),
        best_params={} if best is None else _params(best),
        compute_s=_finite_sum(rows["wall_s"]),
        num_trials=TrialCounts.of(last["status"]),
        note=f"{unscored} completed replicates have no finite {objective.test} and are left out" if unscored else "",
    )


def _scores(last: pd.DataFrame, column: str) -> list[float]:
    """The finite scores of an arm's completed replicates."""
    if column not in last:
        return []
    done = last[(last["stage"] == "replicate") & (last["status"] == "completed")]
    return [float(value) for value in done[column].to_numpy(float, na_value=math.nan) if math.isfinite(value)]


def _best(last: pd.DataFrame, objective: Objective) -> Any:
    """The row of an arm's best search trial, which its replicates repeat: of a completed one, or else of a stopped."""
    search = last[last["stage"] == "search"]
    scored = search[search[objective.val].astype(float).abs() < math.inf]
    for status in ("completed", "stopped"):
        found = scored[scored["status"] == status]
        if not found.empty:
            order = [objective.val, "ended_at", "trial_id"]
            return found.sort_values(order, ascending=[objective.mode == "min", True, True]).iloc[0]
    return None


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


def _pair(a: Side, b: Side, task: SweepTask) -> Pair:
    found = difference(a, b)
    word: Word = "no difference shown"
    if found.ci95 is not None and (found.ci95[0] > 0 or found.ci95[1] < 0):
        word = "helps" if (found.ci95[1] < 0) == (task.objective.mode == "min") else "hurts"
    return Pair(
        a=a.arm, b=b.arm, metric=task.objective.test, difference=found.value, ci95=found.ci95, p=found.p, p_holm=None,
        n_a=len(a.scores), n_b=len(b.scores), verdict=word,
        primary=(a.arm, b.arm) == task.primary, note=found.note,
    )
