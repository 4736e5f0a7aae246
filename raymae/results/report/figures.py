"""What the figures of a sweep's report show, as plain columns: trials, response and learning curves, progress.

Everything is thinned to what a page can draw and an eye can tell apart, so that a sweep of thousands of trials opens as
fast as one of ten. The trials themselves are all there, for the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from raymae.results.store.columns import alone_s, param_columns
from raymae.results.verdict.effects import Explanation
from raymae.spec import SweepSpec
from raymae.spec.space import Choice, LogUniform
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

FIRST = ("mask_ratio", "patch_size", "lookback", "lr", "label_fraction")
Line = tuple[list[Any], list[Any]]

MAX_PARAMS = 16
CURVES_PER_ARM, POINTS_PER_CURVE, POINTS_OF_PROGRESS = 12, 60, 200
BINS, ENOUGH, FEW = 8, 8, 8
WEIGHED = 4  # search trials of an arm, for the importance of its parameters
ERROR_LENGTH = 300


@dataclass(frozen=True)
class Param:
    """A parameter with a figure of its own.

    Attributes:
        category: Whether its axis has one place for each value: a choice, or anything that is no number.
        log: Whether its axis is logarithmic.
    """

    name: str
    number: bool
    category: bool
    log: bool


@dataclass(frozen=True)
class Curve:
    """What a trial learned in a phase, epoch by epoch; of pretraining both its loss and its skill.

    Attributes:
        role: Why it is shown: `best`, `median` or `sample` of its arm.
        phase: `finetune`; `pretrain` for the loss of pretraining, `pretext` for its skill.
        y: The validation score of fine-tuning, or the loss or skill of pretraining.
    """

    trial: str
    arm: str
    role: str
    phase: str
    epoch: tuple[float | int | None, ...]
    y: tuple[float | int | None, ...]


def searched(spec: SweepSpec, search: pd.DataFrame) -> list[Param]:
    """The parameters worth a figure: those of the space first, then any other that differs between trials."""
    varying = [name for name in param_columns(list(search.columns)) if search[name].nunique() > 1]
    order = [name for name in FIRST if name in varying]
    order += [name for name in (*spec.space, *varying) if name in varying and name not in order]
    return [_param(name, spec, search[name].dropna()) for name in dict.fromkeys(order)][:MAX_PARAMS]


def _param(name: str, spec: SweepSpec, values: pd.Series) -> Param:
    number = not (values.dtype == bool or str(values.dtype) == "boolean" or values.dtype.kind not in "iuf")
    space = spec.space.get(name)
    # what is not searched differs because the arms were given different settings: choices too
    category = not number or isinstance(space, Choice) or (space is None and values.nunique() <= FEW)
    if category:
        return Param(name, number, True, False)
    low, high = float(values.min()), float(values.max())
    return Param(name, True, False, low > 0 and (isinstance(space, LogUniform) or high / low > 30))


def scored(search: pd.DataFrame, objective: Objective) -> dict[str, int]:
    """From arm to its search trials with a score, those that were stopped early included."""
    rows = search[search["status"].isin(["completed", "stopped"]) & search[objective.val].notna()]
    return {str(arm): int(count) for arm, count in rows["arm"].value_counts().items()}


def trial_columns(last: pd.DataFrame, objective: Objective, names: Sequence[str]) -> dict[str, list[Any]]:
    """Every trial, as columns of short plain values."""
    codes = {"stage": ("search", "replicate", "final"), "status": ("completed", "stopped", "failed")}
    columns: dict[str, list[Any]] = {
        "id": last["trial_id"].tolist(),
        "arm": last["arm"].tolist(),
        **{key: [words.index(word) for word in last[key]] for key, words in codes.items()},
        "val": numbers(last[objective.val]),
        "test": numbers(last[objective.test]),
        "wall": numbers(last["wall_s"], 4),
        "error": ["" if not isinstance(error, str) else error.strip()[:ERROR_LENGTH] for error in last["error"]],
    }
    arms = list(dict.fromkeys(columns["arm"]))
    columns["arm"] = [arms.index(arm) for arm in columns["arm"]]
    return {**columns, "arms": arms, "params": [plain(last[name]) for name in names]}


def responses(search: pd.DataFrame, params: Iterable[Param], objective: Objective) -> dict[str, dict[str, Line]]:
    """For each parameter and arm a line through the scores: the median of groups of equally many trials.

    Values that repeat (choices, whole numbers) are groups of their own. Fewer than eight trials, or groups of one, make
    no line.

    Returns:
        Parameter → arm → (values, medians).
    """
    column = objective.val
    scored = search[(search["status"] == "completed") & search[column].notna()]
    found: dict[str, dict[str, Line]] = {}
    for param in params:
        name = param.name
        for arm, rows in scored[scored[name].notna()].groupby("arm"):
            if len(rows) < ENOUGH or rows[name].nunique() < 2:
                continue
            if param.category or rows[name].nunique() <= BINS + 2:
                line = rows.groupby(name)[column].median()
                xs, ys = plain(line.index.to_series()), numbers(line)
            else:
                ordered = rows.sort_values(name, kind="stable")
                edges = [round(k * len(ordered) / min(BINS, len(ordered) // 4))
                         for k in range(min(BINS, len(ordered) // 4) + 1)]
                parts = [ordered.iloc[a:b] for a, b in pairwise(edges)]
                xs, ys = ([short(part[key].median()) for part in parts] for key in (name, column))
            found.setdefault(name, {})[str(arm)] = (xs, ys)
    return found


def progress(search: pd.DataFrame, objective: Objective) -> dict[str, dict[str, list[Any]]]:
    """Best completed score so far of each arm, against its trials ended and its compute (all attempts) in seconds."""
    column, found = objective.val, {}
    better = min if objective.mode == "min" else max
    for arm, rows in search.groupby("arm", sort=False):
        best: float | None = None
        spent, steps = 0.0, []
        last_of = dict(zip(rows["trial_id"], rows.index, strict=True))
        ended = 0
        for index, trial_id, status, score, wall in zip(
                rows.index, rows["trial_id"], rows["status"], rows[column].to_numpy(float, na_value=math.nan),
                alone_s(rows), strict=True):
            spent += wall if math.isfinite(wall) else 0.0
            if last_of[trial_id] != index:
                continue  # an attempt that was repeated: only its compute counts
            ended += 1
            if status == "completed" and math.isfinite(score) and (best is None or better(score, best) != best):
                best = score
                steps.append((ended, short(spent), short(best)))
        if steps:
            steps.append((ended, short(spent), steps[-1][2]))
            trials, compute, scores = zip(*thinned(steps, POINTS_OF_PROGRESS), strict=True)
            found[str(arm)] = {"trials": list(trials), "compute": list(compute), "best": list(scores)}
    return found


def learning(search: pd.DataFrame, reports: pd.DataFrame, objective: Objective) -> list[Curve]:
    """Learning curves of each arm: its best trial, its median one, and others spread evenly from best to worst."""
    column = objective.val
    roles: dict[str, tuple[str, str]] = {}
    for arm, rows in search.groupby("arm", sort=False):
        ranked = rows[rows[column].notna()].sort_values(column, ascending=objective.mode == "min", kind="stable")
        ids = ranked["trial_id"].tolist()
        if not ids:
            continue
        step = (len(ids) - 1) / max(1, min(CURVES_PER_ARM, len(ids)) - 1)
        chosen = {ids[round(k * step)]: "sample" for k in range(min(CURVES_PER_ARM, len(ids)))}
        chosen[ids[len(ids) // 2]] = "median"
        chosen[ids[0]] = "best"
        roles.update({trial: (str(arm), role) for trial, role in chosen.items()})
    return curves(reports, roles, objective)


def curves(
    reports: pd.DataFrame, roles: Mapping[str, tuple[str, str]], objective: Objective, least: int = 2
) -> list[Curve]:
    """The learning curves of some trials.

    Args:
        reports: Reports, also of others.
        roles: From trial to its arm and why it is shown.
        objective: What is drawn of fine-tuning.
        least: Points without which there is no curve.
    """
    # the first attempt's reports and those of the attempt that went on from it are one curve
    few = reports[reports["trial_id"].isin(list(roles))].sort_values(["attempt", "step"], kind="stable")
    found = []
    shown = {"finetune": {"finetune": objective.val}, "pretrain": {"pretrain": "loss", "pretext": "pretext_skill"}}
    for (trial, phase), rows in few.drop_duplicates(["trial_id", "step"], keep="last").groupby(
            ["trial_id", "phase"], sort=False):
        arm, role = roles[str(trial)]
        for figure, y in shown.get(str(phase), {}).items():
            if y not in rows or rows[y].notna().sum() < least:  # an earlier version had no skill
                continue
            points = thinned(list(zip(numbers(rows["epoch"]), numbers(rows[y]), strict=True)), POINTS_PER_CURVE)
            epochs, ys = zip(*points, strict=True)
            found.append(Curve(str(trial), arm, role, figure, epochs, ys))
    return found


def effects(explanation: Explanation | None) -> list[dict[str, object]]:
    """The difference between two arms against each parameter, with its band; none where nothing can be said."""
    if explanation is None:
        return []
    return [{
        "param": effect.param, "arm": explanation.a, "category": effect.category, "log": effect.log,
        "x": [short(value) if isinstance(value, float) else value for value in effect.values],
        "y": [short(value) for value in effect.difference],
        "low": [short(low) for low, _ in effect.band], "high": [short(high) for _, high in effect.band],
        "clear": effect.clear, "says": effect.says,
    } for effect in explanation.effects]


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spread, with the first and the last."""
    if len(values) <= most:
        return list(values)
    step = (len(values) - 1) / (most - 1)
    return [values[round(k * step)] for k in range(most)]


def plain(values: pd.Series) -> list[Any]:
    """Numbers shortened, booleans and text as they are, None where missing."""
    if values.dtype.kind in "iuf" and str(values.dtype) != "boolean":
        return numbers(values)
    import pandas as pd

    return [None if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for value in values.astype(object)]


def numbers(values: pd.Series, digits: int = 5) -> list[float | int | None]:
    """Floats shortened; None where missing or not finite."""
    return [short(value, digits) for value in values.to_numpy(float, na_value=math.nan).tolist()]


def short(value: float, digits: int = 5) -> float | int | None:
    """A number with so many significant digits; whole ones stay exact."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{digits}g}")
