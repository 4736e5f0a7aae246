"""What recorders say of a sweep, its trials and its answer, in plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from raymae.results.store.columns import Row, is_metric
from raymae.results.verdict.headline import headline
from raymae.spec.factors import told
from raymae.spec.space import Scalar

if TYPE_CHECKING:
    from raymae.results.store.manifest import Manifest
    from raymae.results.verdict.verdict import Verdict
    from raymae.search.decide.conductor import Conductor
    from raymae.search.decide.trials import Trial

Ending = Literal["finished", "interrupted", "budget spent", "failed"]
"""How a sweep ends."""

SPENT = ("pretext_skill", "epochs_done", "num_parameters", "wall_s", "pretrain_s", "finetune_s")


@dataclass(frozen=True)
class RecordedSweep:
    """What recorders say of a sweep.

    Attributes:
        sweep_id: The same whenever and wherever the sweep is continued, and another one's nowhere.
        name: Its name.
        about: Task, objective, data and more, in words.
        commit: Of the code; "" where nobody knows.
        location: Its folder.
    """

    sweep_id: str
    name: str
    about: Mapping[str, str]
    commit: str
    location: str


@dataclass(frozen=True)
class RecordedTrial:
    """What recorders say of a trial before it has reported.

    Attributes:
        trial_id: Its name.
        tags: Arm, stage, seed and more, in words.
        params: Its parameters, the searched ones first.
    """

    trial_id: str
    tags: Mapping[str, str]
    params: Mapping[str, Scalar]


def sweep_of(conductor: Conductor) -> RecordedSweep:
    """What recorders say of a conductor's sweep."""
    spec, store = conductor.spec, conductor.store
    manifest, git = store.manifest, store.environment().get("git") or {}
    objective = conductor.objective
    about = {
        "sweep": spec.name, "task": spec.task, "size": spec.size or "", "arms": ", ".join(spec.arms),
        "searched": ", ".join(spec.space), "objective": f"{objective.val}, {objective.mode}",
        "data": manifest.data.name, "data_source": manifest.data.source, "results": store.location,
    }
    commit = f"{git['commit']}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else ""
    return RecordedSweep(sweep_id(manifest), spec.name, {name: text for name, text in about.items() if text}, commit,
                         store.location)


def sweep_id(manifest: Manifest) -> str:
    """A sweep's id in other services: 12 digits that stay when its folder is moved, extended or continued."""
    asked = manifest.spec
    told = (asked["name"], asked["task"], asked["search"]["seed"], manifest.data.fingerprint, manifest.created_at)
    return sha256(repr(told).encode()).hexdigest()[:12]


def trial_of(trial: Trial, sweep: RecordedSweep) -> RecordedTrial:
    """What recorders say of a trial of a sweep."""
    config = trial.config
    tags = {"sweep": sweep.name, "trial": trial.trial_id, "arm": config.arm, "stage": config.stage,
            "seed": str(config.seed), "commit": sweep.commit, "encoder": trial.encoder_id,
            "parent": trial.parent.trial_id if trial.parent else trial.repeats}
    ordered: dict[str, Any] = {**trial.sampled, **config.params}
    return RecordedTrial(trial.trial_id, {name: text for name, text in tags.items() if text}, ordered)


def ending_of(row: Row) -> tuple[dict[str, float], dict[str, str]]:
    """How a trial ended: its scores and what it took, and its status with the reason.

    Args:
        row: As `Store.add_trial` takes it.
    """
    names = [*filter(is_metric, row), *SPENT]
    numbers = {name: float(row[name]) for name in names if is_number(row.get(name))}
    words = {name: str(row[name])[:1000] for name in ("status", "error", "device", "stopped_by") if row.get(name)}
    return numbers, words


def answer_of(verdict: Verdict) -> tuple[dict[str, float], dict[str, str]]:
    """The answer: differences, their intervals and p-values, every arm's test score; and all that in words.

    Of a sweep with factors each cell's numbers have its values behind them, such as `difference/label_fraction 0.1`.
    """
    numbers: dict[str, float | None] = {}
    words = {"headline": headline(verdict)}
    for one in verdict.each():
        behind = f"/{told(one.cell)}" if one.cell else ""
        for arm in one.arms:
            score = one.test(arm)
            numbers[f"{verdict.objective.test}/{arm.arm}{behind}"] = None if score is None else score.mean
        if one.pairs:
            pair = one.pairs[0]
            low, high = pair.ci95 or (None, None)
            found = {"difference": pair.difference, "low": low, "high": high, "p": pair.p, "p_adjusted": pair.p_holm}
            numbers |= {f"{name}{behind}": value for name, value in found.items()}
            words |= {f"verdict{behind}": pair.verdict, "compared": f"{pair.a} minus {pair.b}, {pair.metric}"}
    return {name: float(value) for name, value in numbers.items() if value is not None and is_number(value)}, words


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)
