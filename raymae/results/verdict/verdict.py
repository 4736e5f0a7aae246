"""The verdict: does an arm help, by how much, and how sure are we.

Means carry Student t intervals over the replicates' seeds. Differences are judged by Welch's t-test (Welch 1947,
doi:10.1093/biomet/34.1-2.28); a deterministic reference is the constant of a one-sample t-test. p-values also
come adjusted for all pairs of the sweep (Holm 1979, jstor:4615733). "helps" and "hurts" rest on the unadjusted 95 %
interval.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from raymae.results.store.columns import param_columns
from raymae.results.verdict.pareto import pareto_front
from raymae.spec import SweepSpec
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    from raymae.results.store.store import Store

PRIMARY = ("mae", "scratch")
LEVEL = 0.95


def verdict_of(store: Store, *, complete: bool | None = None) -> dict[str, Any]:
    """The verdict over what a store holds now."""
    meta = store.meta()
    return verdict(
        store.trials(), spec=store.spec(), objective=store.objective(), data=meta["data"],
        kinds={name: arm["kind"] for name, arm in meta["task"]["arms"].items()}, complete=complete,
    )


def conclude(store: Store) -> dict[str, Any]:
    """The verdict at a sweep's end, over every row; it is also kept in the results folder.

    Rows that the storage refused until now are written first: what waits in memory must not miss the answer.

    Raises:
        ResultsError: The storage kept failing.
    """
    store.compact()
    answer = verdict_of(store)
    store.write_verdict(answer)
    return answer


def verdict(
    trials: pd.DataFrame,
    *,
    spec: SweepSpec,
    objective: Objective,
    data: Mapping[str, Any],
    kinds: Mapping[str, str],
    complete: bool | None = None,
) -> dict[str, Any]:
    """Compare the arms of a sweep.

    Args:
        trials: The `trials` dataset. Of several attempts at one trial the last counts; all count as compute.
        spec: The sweep.
        objective: What is selected on; decides which direction is better.
        data: `name`, `source` and `fingerprint`.
        kinds: From arm to `pretrained`, `trained` or `reference`.
        complete: Whether nothing is missing. By default: every arm has ended all its replicates (a reference one).

    Returns:
        Plain values without NaN, as `verdict.json` holds them: arms best first, pairs with the primary one first; where
        the search minds a cost, `pareto` with its front.
    """
    test = f"test_{objective.metric}"
    last = trials.sort_values("attempt", kind="stable").drop_duplicates("trial_id", keep="last")
    last = _of_the_best(last, objective)
    arms = [_arm(name, kinds[name], trials[trials["arm"] == name], last[last["arm"] == name], objective)
            for name in spec.arms]
    arms.sort(key=lambda arm: _rank(arm, test, objective))
    scores = {arm["arm"]: _scores(last[last["arm"] == arm["arm"]], test) for arm in arms}
    pairs = [_pair(a, b, scores, kinds, test, objective) for a, b in _pairings([arm["arm"] for arm in arms], kinds)
             if scores[a] and scores[b]]
    _adjust(pairs)
    if complete is None:
        replicates = last[last["stage"] == "replicate"]
        complete = spec.replicates > 0 and all(
            int((replicates["arm"] == name).sum()) >= (1 if kinds[name] == "reference" else spec.replicates)
            for name in spec.arms
        )
    front = {}
    if spec.search.cost is not None:
        front = {"pareto": {"cost": spec.search.cost, "front": pareto_front(last, objective, spec.search.cost)}}
    return {
        "sweep": spec.name,
        "task": spec.task,
        "objective": {"metric": objective.metric, "mode": objective.mode, "unit": objective.unit},
        "data": {key: data[key] for key in ("name", "source", "fingerprint")},
        "arms": arms,
        "pairs": pairs,
        "complete": bool(complete),
        **front,
    }


def _of_the_best(last: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Without replicates of configurations that a longer search has overtaken."""
    replicates, drop = last["stage"] == "replicate", last["stage"].isna()
    for name in last["arm"].unique():
        mine = last["arm"] == name
        best = _best(last[mine], objective)
        current = mine & replicates & (last["config_id"] == (None if best is None else best["config_id"]))
        if current.any():
            drop |= mine & replicates & ~current
    return last[~drop]


def _arm(name: str, kind: str, rows: pd.DataFrame, last: pd.DataFrame, objective: Objective) -> dict[str, Any]:
    done = last[(last["stage"] == "replicate") & (last["status"] == "completed")]
    test = f"test_{objective.metric}"
    names = [test, *(c for c in last.columns if c.startswith("test_") and c != test)]
    metrics = {column: statistics(found) for column in names if (found := _scores(last, column))}
    best = _best(last, objective)
    arm: dict[str, Any] = {
        "arm": name,
        "kind": kind,
        "n": metrics[test]["n"] if test in metrics else 0,
        "metrics": {column: {key: value[key] for key in ("mean", "sd", "ci95")} for column, value in metrics.items()},
        "val": {
            "metric": f"val_{objective.metric}",
            "score": None if best is None else float(best[f"val_{objective.metric}"]),
            "trial_id": None if best is None else str(best["trial_id"]),
        },
        "best_params": {} if best is None else _params(best),
        "compute_s": _finite_sum(rows["wall_s"]),
        "num_trials": {status: int((last["status"] == status).sum()) for status in ("completed", "stopped", "failed")},
    }
    if len(done) > arm["n"]:
        arm["note"] = f"{len(done) - arm['n']} completed replicates have no finite {test} and are left out"
    return arm


def _scores(last: pd.DataFrame, column: str) -> list[float]:
    """The finite scores of an arm's completed replicates."""
    if column not in last:
        return []
    done = last[(last["stage"] == "replicate") & (last["status"] == "completed")]
    return [float(value) for value in done[column].to_numpy(float, na_value=math.nan) if math.isfinite(value)]


def _best(last: pd.DataFrame, objective: Objective) -> Any:
    column = f"val_{objective.metric}"
    found = last[(last["stage"] == "search") & (last["status"] == "completed")]
    values = found[column].to_numpy(float, na_value=math.nan)
    found = found[[math.isfinite(value) for value in values]]
    if found.empty:
        return None
    return found.sort_values([column, "ended_at", "trial_id"], ascending=[objective.mode == "min", True, True]).iloc[0]


def _params(row: Any) -> dict[str, Any]:
    import pandas as pd

    present = {name: row[name] for name in param_columns(list(row.index)) if not pd.isna(row[name])}
    return {name: value.item() if hasattr(value, "item") else value for name, value in present.items()}


def _finite_sum(values: pd.Series) -> float:
    return float(sum(value for value in values.to_numpy(float, na_value=math.nan) if math.isfinite(value)))


def statistics(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % t interval of the mean; the latter two are None for one value.

    Args:
        values: At least one finite number.
    """
    from scipy import stats

    n = len(values)
    if n == 1:
        return {"n": 1, "mean": values[0], "sd": None, "ci95": None}
    if _constant(values):
        return {"n": n, "mean": values[0], "sd": 0.0, "ci95": [values[0], values[0]]}
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return {"n": n, "mean": mean, "sd": sd, "ci95": [mean - half, mean + half]}


def _constant(values: Sequence[float]) -> bool:
    return min(values) == max(values)


def _rank(arm: Mapping[str, Any], test: str, objective: Objective) -> tuple[int, float]:
    sign = 1.0 if objective.mode == "min" else -1.0
    if test in arm["metrics"]:
        return 0, sign * arm["metrics"][test]["mean"]
    if arm["val"]["score"] is not None:
        return 1, sign * arm["val"]["score"]
    return 2, 0.0


def _pairings(arms: Sequence[str], kinds: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pretrained arms against all others, each pair once; all pairs where nothing is pretrained."""
    if any(kinds[arm] == "pretrained" for arm in arms):
        chosen = [(a, b) if kinds[a] == "pretrained" else (b, a) for a, b in combinations(arms, 2)
                  if "pretrained" in (kinds[a], kinds[b])]
    else:
        chosen = list(combinations(arms, 2))
    return sorted(chosen, key=lambda pair: pair != PRIMARY)


def _pair(
    a: str, b: str, scores: Mapping[str, Sequence[float]], kinds: Mapping[str, str], test: str, objective: Objective
) -> dict[str, Any]:
    x, y = scores[a], scores[b]
    difference = math.fsum(x) / len(x) - math.fsum(y) / len(y)
    interval, p, note = _test(x, y, {"x": (a, kinds[a]), "y": (b, kinds[b])})
    word = "no difference shown"
    if interval is not None and (interval[0] > 0 or interval[1] < 0):
        word = "helps" if (interval[1] < 0) == (objective.mode == "min") else "hurts"
    pair = {
        "a": a, "b": b, "metric": test, "difference": difference, "ci95": interval, "p": p, "p_holm": None,
        "n_a": len(x), "n_b": len(y), "verdict": word,
    }
    if (a, b) == PRIMARY:
        pair["primary"] = True
    if note:
        pair["note"] = note
    return pair


def _test(
    x: Sequence[float], y: Sequence[float], names: Mapping[str, tuple[str, str]]
) -> tuple[list[float] | None, float | None, str]:
    """Interval of mean(x) - mean(y), p-value, and why there are none."""
    from scipy import stats

    for values, other, side in ((x, y, "x"), (y, x, "y")):
        arm, kind = names[side]
        if len(values) > 1:
            continue
        if kind != "reference" or len(other) < 2:
            return None, None, f"{arm} has {len(values)} scored replicate; an interval needs at least 2"
    if _constant(x) and _constant(y):
        return None, None, "neither side varies over its replicates, so there is no interval"
    with warnings.catch_warnings():
        # scipy warns of lost precision for nearly equal values; the interval is then honest about it anyway
        warnings.simplefilter("ignore", RuntimeWarning)
        if len(x) == 1:
            result = stats.ttest_1samp(y, x[0])
            low, high = result.confidence_interval(LEVEL)
            interval = [x[0] - float(high), x[0] - float(low)]
        elif len(y) == 1:
            result = stats.ttest_1samp(x, y[0])
            low, high = result.confidence_interval(LEVEL)
            interval = [float(low) - y[0], float(high) - y[0]]
        else:
            result = stats.ttest_ind(x, y, equal_var=False)
            low, high = result.confidence_interval(LEVEL)
            interval = [float(low), float(high)]
    p = float(result.pvalue)
    if not all(map(math.isfinite, (*interval, p))):
        return None, None, "the scores are too nearly equal for an interval"
    return interval, p, ""


def _adjust(pairs: Sequence[dict[str, Any]]) -> None:
    tested = sorted((pair for pair in pairs if pair["p"] is not None), key=lambda pair: pair["p"])
    reached = 0.0
    for index, pair in enumerate(tested):
        reached = max(reached, min(1.0, pair["p"] * (len(tested) - index)))
        pair["p_holm"] = reached
