"""What earlier trials tell a conductor: those of an earlier run of its sweep, and those of other sweeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raymae.errors import ResultsError
from raymae.results.store.columns import last_attempts
from raymae.results.store.store import Store
from raymae.results.verdict.finals import lacking_skill
from raymae.search.decide.added import Added
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.trials import Trial
from raymae.search.messages import Parent
from raymae.spec.space import Scalar, contains
from raymae.spec.trial import TrialConfig

if TYPE_CHECKING:
    import pandas as pd


def restore(conductor: Conductor, *, retry_failed: bool = False) -> tuple[int, int]:
    """Take over what an earlier run of the conductor's sweep left in its store.

    Trials that ended are kept and told to the search; trials that were under way are continued first, from their last
    checkpoint. Returns how many trials had ended, and how many were under way.

    Args:
        conductor: Of the same sweep; it has proposed nothing yet.
        retry_failed: Run failed trials again.
    """
    rows, reports = conductor.store.trials(), conductor.store.reports()
    ended = {str(row["trial_id"]): {str(key): value for key, value in row.items()}
             for row in last_attempts(rows).to_dict("records")}
    recorded = dict(tuple(reports.groupby("trial_id")))
    taken: list[Trial] = []
    interrupted: list[Trial] = []
    for trial_id, plain in sorted(conductor.store.configs().items()):
        parent = Parent(**plain["parent"]) if plain.get("parent") else None
        trial = Trial(trial_id, TrialConfig.from_json(plain), plain["sampled"], conductor.clock(), datetime.now(UTC),
                      status="pending", parent=parent, next_step=parent.step + 1 if parent else 0,
                      repeats=plain.get("repeats", ""), added=Added(**plain["added"]) if "added" in plain else None)
        trial.lane = _lane_of(conductor, trial.config)
        _remember(conductor, trial, recorded.get(trial_id))
        if trial_id in ended and not (retry_failed and ended[trial_id]["status"] == "failed"):
            row = ended[trial_id]
            trial.status, trial.wall_s = row["status"], float(row["wall_s"])
            trial.error = row["error"] if isinstance(row["error"], str) else None
            trial.stopped_by = by if isinstance(by := row.get("stopped_by"), str) else ""
            if trial.stage != "pretrain" and isinstance(row.get("encoder_id"), str):
                trial.encoder_id, trial.pretrain_s = row["encoder_id"], float(row["pretrain_s"])
            trial.best, trial.test, trial.pretext = (_measured(row, kind) for kind in ("val_", "test_", "pretext_"))
            taken.append(trial)
            if trial.is_asked:
                _tell(conductor, trial.lane, trial.sampled, row, recorded.get(trial_id))
            continue
        if trial_id in ended:
            trial.attempt = int(ended[trial_id]["attempt"])
        elif trial_id in recorded:
            trial.next_step = int(recorded[trial_id]["step"].max()) + 1
            trial.attempt = int(recorded[trial_id]["attempt"].max())
        interrupted.append(trial)
    taken.sort(key=lambda trial: (ended[trial.trial_id]["ended_at"], trial.trial_id))  # of equals the first is best
    conductor.take_over(taken, interrupted)
    return len(ended), len(interrupted)


def warm_start(conductor: Conductor, store: Store) -> int:
    """Let the search learn from another sweep's trials; returns how many there were to learn from.

    Only search trials whose searched parameters all lie in this sweep's space count. They are not among this sweep's
    trials.

    Raises:
        ResultsError: The other sweep is of another task or selects on another metric.
    """
    task = conductor.spec.task
    if store.spec().task != task or store.objective() != conductor.objective:
        raise ResultsError(f"search.warm_start: {store.root} holds a sweep of {store.spec().task}, this one is of "
                           f"{task}; warm-start from a sweep of the same task")
    used = 0
    configs, recorded = store.configs(), dict(tuple(store.reports().groupby("trial_id")))
    for row in store.trials().to_dict("records"):
        plain = configs[row["trial_id"]]
        if row["stage"] != "search" or plain.get("parent"):
            continue
        lane = _lane_of(conductor, TrialConfig.from_json(plain))  # of a cell that this sweep lacks there is none
        if lane not in conductor.plans:
            continue
        space = conductor.plans[lane].space
        if all(name in space and contains(space[name], value) for name, value in plain["sampled"].items()):
            _tell(conductor, lane, plain["sampled"], row, recorded.get(row["trial_id"]))
            used += 1
    return used


def _measured(row: Mapping[str, Any], kind: str) -> dict[str, float]:
    """The finite numbers of a trial's row whose names begin so."""
    return {key: row[key] for key in row if key.startswith(kind) and math.isfinite(row[key])}


def _lane_of(conductor: Conductor, config: TrialConfig) -> str:
    """The lane of a trial, by the values that it has of the factors; of a pretraining the first that it is for."""
    return next((lane for lane, plan in conductor.plans.items() if plan.name == config.arm and all(
        config.params[name] == value for name, value in plan.cell.items() if name in config.params)), config.arm)


def _remember(conductor: Conductor, trial: Trial, reports: pd.DataFrame | None) -> None:
    """Tell the lane's population how far a trial of an earlier run had come."""
    population = conductor.searches.populations.get(trial.lane)
    if population is None or reports is None or trial.stage != "search":
        return
    best: float | None = None
    for row in reports[reports["phase"] == "finetune"].sort_values("step").to_dict("records"):
        value = float(row[conductor.objective.val])
        best = value if best is None or conductor.objective.better(value, best) else best
        population.note(trial.trial_id, int(row["epoch"]), int(row["step"]), best)


def _tell(
    conductor: Conductor, lane: str, sampled: Mapping[str, Scalar], row: Mapping[Any, Any], reports: pd.DataFrame | None
) -> None:
    values: dict[int, float] = {}
    if reports is not None:
        tuning = reports[reports["phase"] == "finetune"]
        values = {int(epoch): float(value)
                  for epoch, value in zip(tuning["epoch"], tuning[conductor.objective.val], strict=True)}
    cost = conductor.spec.search.cost
    spent = row[cost] if cost else None
    if cost == "wall_s" and math.isfinite(row.get("pretrain_s", math.nan)):
        spent += row["pretrain_s"]
    lacking = lacking_skill(row.get("pretext_skill"), conductor.spec.search.min_skill)
    conductor.searches.studies[lane].add(
        row["trial_id"], sampled, row["status"], values, row[conductor.objective.val], spent, lacking
    )
