"""A sweep as Optuna studies, for optuna-dashboard and Optuna's own plots and importances.

One study named like the sweep holds the search trials of all arms, with `arm` as a parameter; one named
`<sweep>/<arm>` holds an arm's, so that importances see the parameters that only this arm has. A trial that the
scheduler stopped is PRUNED with its intermediate values, a failed one is FAIL with its reason; neither is COMPLETE. One
whose pretraining nobody may choose (`search.min_skill`) breaks the constraint `pretext_skill`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import optuna

from raymae.errors import ResultsError, one_line
from raymae.results.store.columns import alone_s, last_attempts
from raymae.results.store.store import Store
from raymae.results.verdict.finals import lacking_skill
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_of
from raymae.results.verdict.verdict import Verdict, plain
from raymae.search.decide.algorithms import SKILL, optuna_distribution
from raymae.spec.factors import searched
from raymae.spec.sweep import SweepSpec

ARM = "arm"


def export(store: Store, url: str) -> dict[str, int]:
    """Write a sweep into an Optuna storage.

    Args:
        store: The sweep.
        url: Where, as SQLAlchemy takes it: `sqlite:///study.db`.

    Returns:
        The number of trials by study. In none are replicates, trials that have not ended, and members of a population
        that went on from another's checkpoint: none of them is the score of a configuration that the sampler chose.

    Raises:
        ResultsError: A study of one of the names is there already, or the storage cannot be used.
    """
    import sqlalchemy.event
    import sqlalchemy.exc

    spec, objective = store.spec(), store.objective()
    names = {spec.name: list(spec.arms), **{f"{spec.name}/{arm}": [arm] for arm in spec.arms}}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(url)
        if storage.engine.dialect.name == "sqlite":  # an export can be repeated, so it need not wait for the disk
            storage.engine.dispose()
            sqlalchemy.event.listen(storage.engine, "connect", _hurry)
        taken = sorted(set(optuna.get_all_study_names(storage)) & set(names))
        if taken:
            raise ResultsError(f"{url}: holds the study {taken[0]!r} already; choose another file, or delete it "
                               f"(optuna delete-study --study-name {taken[0]!r} --storage {url})")
        trials = _trials(store, spec)
        found = {}
        answer = verdict_of(store)
        way = optuna.study.StudyDirection
        directions = [way.MINIMIZE if objective.mode == "min" else way.MAXIMIZE]
        directions += [way.MINIMIZE] if spec.search.cost else []
        for name, arms in names.items():
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
            metric_names = [objective.val, *([spec.search.cost] if spec.search.cost else [])]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(metric_names)
            for key, value in _attributes(store, spec, answer, arms).items():
                study.set_user_attr(key, value)
            mine = [(arm, trial) for arm, trial in trials if arm in arms]
            arms_of = list(spec.arms) if name == spec.name else None
            study.add_trials([_bare(trial, arm, arms_of) for arm, trial in mine])
            _add_curves(storage, study, [trial.intermediate_values for _, trial in mine])
            found[name] = len(mine)
        return found
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise ResultsError(f"{url}: not a usable Optuna storage: {one_line(error)}. "
                           "Name one such as sqlite:///study.db") from None


def _hurry(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _trials(store: Store, spec: SweepSpec) -> list[tuple[str, optuna.trial.FrozenTrial]]:
    """Every search trial that ended, in the order of ending, with its arm."""
    metric = store.objective().val
    configs, reports = store.configs(), store.reports()
    reports = reports[(reports["phase"] == "finetune") & (reports["stage"] == "search")]
    curves: dict[str, dict[int, float]] = {}
    for trial_id, mine in reports.groupby("trial_id"):
        curves[str(trial_id)] = {int(epoch): float(value) for epoch, value in
                                 zip(mine["epoch"], mine[metric], strict=True) if math.isfinite(value)}
    rows = store.trials()
    rows = last_attempts(rows[rows["stage"] == "search"])
    rows = rows.assign(wall_s=alone_s(rows))  # what it cost the search, its pretraining included
    found = []
    for row in rows.sort_values("ended_at", kind="stable").to_dict("records"):
        plain = configs.get(row["trial_id"]) or {}
        if plain.get("parent"):
            continue
        sampled = plain.get("sampled")
        if sampled is None:  # its config was deleted; the row has every parameter, too
            sampled = {name: _plain(row[name]) for name, distribution in spec.space.items()
                       if not _missing(row[name]) and row["arm"] in distribution.when.get("arm", [row["arm"]])}
        values = plain.get("params") or row
        sampled = {**sampled, **{name: next(value for value in values_of if str(value) == str(values[name])
                                            or value == values[name])
                                 for name, values_of in spec.factors.items() if not _missing(values.get(name))}}
        found.append((row["arm"], _frozen(row, sampled, curves.get(row["trial_id"], {}), spec, metric)))
    return found


def _frozen(row: Mapping[Any, Any], sampled: Mapping[str, Any], curve: Mapping[int, float], spec: SweepSpec,
            metric: str) -> optuna.trial.FrozenTrial:
    states = optuna.trial.TrialState
    columns = [metric, *([spec.search.cost] if spec.search.cost else [])]
    values = [float(row[name]) for name in columns if _is_number(row[name])]
    complete = row["status"] == "completed" and len(values) == len(columns)
    state = states.COMPLETE if complete else states.PRUNED if row["status"] == "stopped" else states.FAIL
    attributes = {"trial_id": row["trial_id"], "arm": row["arm"], "status": row["status"], "seed": int(row["seed"]),
                  "wall_s": row["wall_s"],
                  "error": row["error"]}
    ended = _local(row["ended_at"])
    trial = optuna.trial.FrozenTrial(
        number=-1, trial_id=-1, state=state, value=None, values=values if complete else None,
        datetime_start=_local(row["started_at"]) or ended or datetime.now(), datetime_complete=ended or datetime.now(),
        params=dict(sampled), distributions={name: optuna_distribution(searched(spec)[name]) for name in sampled},
        user_attrs={key: _plain(value) for key, value in attributes.items() if not _missing(value)}, system_attrs={},
        intermediate_values=dict(curve),
    )
    if (lacking := lacking_skill(row.get("pretext_skill"), spec.search.min_skill)) is not None:
        trial.set_constraint(SKILL, lacking)
    return trial


def _bare(trial: optuna.trial.FrozenTrial, arm: str, arms: list[str] | None) -> optuna.trial.FrozenTrial:
    """A trial without its intermediate values; with its arm as a parameter, where arms are listed."""
    params, distributions = dict(trial.params), dict(trial.distributions)
    if arms is not None:
        params, distributions = {ARM: arm, **params}, {
            ARM: optuna.distributions.CategoricalDistribution(arms), **distributions}
    return optuna.trial.FrozenTrial(
        number=-1, trial_id=-1, state=trial.state, value=None, values=trial.values,
        datetime_start=trial.datetime_start, datetime_complete=trial.datetime_complete, params=params,
        distributions=distributions, user_attrs=trial.user_attrs,
        system_attrs=dict(trial.system_attrs),  # the constraint
        intermediate_values={},
    )


def _add_curves(storage: optuna.storages.RDBStorage, study: optuna.Study, curves: list[dict[int, float]]) -> None:
    """Intermediate values in one go: through Optuna each costs a query and an insert of its own."""
    from optuna.storages._rdb.models import TrialIntermediateValueModel as Model

    rows = [
        {"trial_id": trial._trial_id, "step": step, "intermediate_value": value,
         "intermediate_value_type": Model.TrialIntermediateValueType.FINITE}
        for trial, curve in zip(study.get_trials(deepcopy=False), curves, strict=True) for step, value in curve.items()
    ]
    if rows:
        with storage.engine.begin() as connection:
            connection.execute(Model.__table__.insert(), rows)


def _attributes(store: Store, spec: SweepSpec, answer: Verdict, arms: list[str]) -> dict[str, Any]:
    """What a study says about itself, and each of its arms: test scores belong to replicates, not to trials."""
    data = store.manifest.data
    described = {
        f"arm {arm.arm}": {"kind": arm.kind, "seeds": arm.n, "best": plain(arm.val), "test": plain(arm.metrics),
                           "best_params": plain(arm.best_params), "compute_s": arm.compute_s}
        for arm in answer.arms if arm.arm in arms
    }
    return {"sweep": spec.name, "task": spec.task, "data": data.name, "data_source": data.source,
            "answer": headline(answer), **described}


def _local(time: Any) -> datetime | None:
    """Optuna keeps naive local times."""
    if _missing(time):
        return None
    when: datetime = time.to_pydatetime()
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone().replace(tzinfo=None)


def _missing(value: Any) -> bool:
    import pandas as pd

    return value is None or bool(pd.isna(value))


def _is_number(value: Any) -> bool:
    return not _missing(value) and math.isfinite(value)


def _plain(value: Any) -> bool | int | float | str:
    return value.item() if hasattr(value, "item") else value
