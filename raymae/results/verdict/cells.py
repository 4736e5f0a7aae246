"""The rows of a sweep's trials that count in each cell of its factors; all of them where it has none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymae.results.store.columns import last_attempts, only
from raymae.results.store.manifest import Manifest
from raymae.results.verdict.finals import Chosen, Finalist, choose, may_be_chosen
from raymae.spec import SweepSpec
from raymae.spec.factors import Cell, cells, held, home_cell, lane
from raymae.spec.space import Scalar
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


@dataclass(frozen=True)
class CellRows:
    """What of a sweep counts in a cell.

    Attributes:
        cell: The cell; empty in a sweep without factors.
        trials: Its rows, all attempts. A pretraining is in every cell in which a trial starts from its encoder, and a
            trial of an arm that lacks a factor in all that differ in this one.
        last: Of each trial the last attempt, without replicates of what is no longer the best.
        best: By arm the search trial that its replicates repeat, of this cell or of the one that is searched for it;
            None where there is none.
        chosen: By arm how that one was chosen, where it was of several finalists.
        times_epochs: By trained arm how many times the epochs of the sweep file it got.
    """

    cell: Cell
    trials: pd.DataFrame
    last: pd.DataFrame
    best: Mapping[str, Any]
    chosen: Mapping[str, Chosen]
    times_epochs: Mapping[str, float]


def rows_by_cell(trials: pd.DataFrame, spec: SweepSpec, manifest: Manifest) -> list[CellRows]:
    """The rows that count in each cell, in the order of the cells.

    Args:
        trials: The `trials` dataset.
        spec: The sweep.
        manifest: Its task, and which arms have which factors.
    """
    objective, times = manifest.task.objective, dict(manifest.times_epochs or {})
    if not spec.factors:
        last = last_attempts(trials)
        best, chosen = _best_by_arm(last, spec, objective)
        return [CellRows({}, trials, _of_the_best(last, best), best, chosen, times)]
    found = []
    for cell in cells(spec.factors):
        home = _in(trials, home_cell(spec, cell), spec, manifest)
        searched = last_attempts(trials[home])
        best, chosen = _best_by_arm(searched, spec, objective)
        rows = trials[_with_encoders(trials, _in(trials, cell, spec, manifest))]
        lanes = {name: lane(name, held(cell, own_factors(spec, manifest, name)), spec.factors) for name in spec.arms}
        found.append(CellRows(cell, rows, _of_the_best(last_attempts(rows), best), best, chosen,
                              {name: times[key] for name, key in lanes.items() if key in times}))
    return found


def counted(trials: pd.DataFrame, spec: SweepSpec, manifest: Manifest) -> set[str]:
    """The replicates that a verdict counts: completed ones of each arm's best configuration, in every cell.

    Args:
        trials: The `trials` dataset.
        spec: The sweep.
        manifest: Its task.
    """
    return counted_in(rows_by_cell(trials, spec, manifest))


def counted_in(cells: Iterable[CellRows]) -> set[str]:
    """The same, of the rows of every cell."""
    return {str(trial) for rows in cells for trial in done(only(rows.last, "trial_id", "stage", "status"))["trial_id"]}


def done(last: pd.DataFrame) -> pd.DataFrame:
    """The completed replicates among the last attempts at trials."""
    return last[(last["stage"] == "replicate") & (last["status"] == "completed")]


def own_factors(spec: SweepSpec, manifest: Manifest, arm: str) -> tuple[str, ...]:
    """The factors that an arm has."""
    return tuple(manifest.factors.get(arm, tuple(spec.factors)))


def _in(trials: pd.DataFrame, cell: Cell, spec: SweepSpec, manifest: Manifest) -> pd.Series:
    """Which rows have a cell's values, of the factors that their arm has; a pretraining lacks some, and is in none."""
    import pandas as pd

    inside = pd.Series(False, index=trials.index)
    fits = {name: _equals(trials[name], value) for name, value in cell.items()}
    for arm in spec.arms:
        of_arm = (trials["arm"] == arm) & (trials["stage"] != "pretrain")
        for name in own_factors(spec, manifest, arm):
            of_arm &= fits[name]
        inside |= of_arm
    return inside


def _with_encoders(trials: pd.DataFrame, inside: pd.Series) -> pd.Series:
    """The same rows with the pretrainings that they started from."""
    if "encoder_id" not in trials:
        return inside
    used = set(trials["encoder_id"][inside].dropna())
    return inside | ((trials["stage"] == "pretrain") & trials["encoder_id"].isin(used))


def _equals(column: pd.Series, value: Scalar) -> pd.Series:
    """Which rows hold a factor's value; a column of several kinds holds all of them as text."""
    import pandas as pd

    if value is None:
        return column.isna()
    numbers = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
    return (column == value if numbers and not isinstance(value, str) else column.astype(str) == str(value)).fillna(
        False).astype(bool)


def _of_the_best(last: pd.DataFrame, best: Mapping[str, Any]) -> pd.DataFrame:
    """Without replicates of configurations that a longer search has overtaken."""
    replicates, drop = last["stage"] == "replicate", last["stage"].isna()
    for name in last["arm"].unique():
        of_arm, row = last["arm"] == name, best.get(name)
        current = last["config_id"] == (None if row is None else row["config_id"])
        if row is not None and "parent" in last:  # a replicate in another cell has another configuration
            current |= last["parent"].astype(object) == row["trial_id"]
        current &= of_arm & replicates
        if current.any():
            drop |= of_arm & replicates & ~current
    return last[~drop]


def _best_by_arm(
    last: pd.DataFrame, spec: SweepSpec, objective: Objective
) -> tuple[dict[str, Any], dict[str, Chosen]]:
    """By arm the row that its replicates repeat, and how it was chosen where that was of several."""
    few = only(last, "arm", "stage", "status", "trial_id", "config_id", "seed", "ended_at", "pretext_skill",
               objective.val).reset_index(drop=True)
    found = {name: _best_of(few[few["arm"] == name], spec, objective) for name in spec.arms}
    return ({name: None if row is None else last.iloc[row.name] for name, (row, _) in found.items()},
            {name: how for name, (_, how) in found.items() if how is not None})


def _best_of(last: pd.DataFrame, spec: SweepSpec, objective: Objective) -> tuple[Any, Chosen | None]:
    """The row of an arm's best search trial: of the completed ones that which its finals choose, or else of a stopped
    one or one whose pretraining did not learn."""
    search = last[last["stage"] == "search"]
    scored = search[search[objective.val].astype(float).abs() < math.inf].sort_values(
        [objective.val, "ended_at", "trial_id"], ascending=[objective.mode == "min", True, True])
    first = scored["status"] == "completed"
    if "pretext_skill" in scored:
        skills = scored["pretext_skill"].astype(float)
        first &= skills.map(lambda skill: may_be_chosen(skill, spec.search.min_skill)).astype(bool)
    completed, others = scored[first], scored[~first & scored["status"].isin(["completed", "stopped"])]
    ranked = completed.drop_duplicates("config_id").head(spec.search.finalists)
    if len(ranked) < 2:
        rows = completed if len(completed) else others
        return (rows.iloc[0] if len(rows) else None), None
    best, how = choose([_finalist(row, last, objective) for row in ranked.to_dict("records")], objective,
                       1 + spec.search.finalist_seeds)
    return ranked[ranked["trial_id"] == best.trial_id].iloc[0], how


def _finalist(row: Mapping[Any, Any], last: pd.DataFrame, objective: Objective) -> Finalist:
    """A search trial with the scores of its configuration's finals; one that the budget has stopped has none."""
    finals = last[(last["stage"] == "final") & (last["config_id"] == row["config_id"])
                  & last["status"].isin(["completed", "failed"])]
    failed = finals["status"] == "failed"
    scores = finals[objective.val].astype(float).mask(failed)
    return Finalist(row["trial_id"], row["config_id"], float(row[objective.val]),
                    {int(seed): float(score) for seed, score in zip(finals["seed"], scores, strict=True)})
