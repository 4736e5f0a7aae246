"""One trial, resolved: which task, which arm, every parameter, which seed; and what it reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.sweep import DataSpec, PretrainingSpec

if TYPE_CHECKING:
    import numpy as np

DataSource = Literal["real", "synthetic"]
PhaseName = Literal["pretrain", "finetune", "test"]
Stage = Literal["search", "final", "replicate", "pretrain"]
VALIDATED: tuple[Stage, ...] = ("search", "final")
"""Stages that never read the test split, and choose what does."""
PRETEXT = ("pretext_loss", "pretext_skill")
"""What the validation of a pretraining reports, see `raymae.train.pretext`."""


@dataclass(frozen=True)
class TrialData:
    """The data of a trial: what the sweep file says of it, and whether it is real.

    Attributes:
        where: The `data` section of the sweep file.
        source: `real` or `synthetic`, decided once for a sweep.
        pretraining: What its pretraining sees; of arms that do not pretrain the default.
    """

    where: DataSpec
    source: DataSource
    pretraining: PretrainingSpec = field(default_factory=PretrainingSpec)

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.where.name

    def to_json(self) -> dict[str, object]:
        """The `data` section with `source`, flat; of how the file is read, what was given."""
        plain = {**_place(self.where), "source": self.source}
        if self.pretraining.data:
            plain["pretraining"] = {"own": self.pretraining.own, "data": [*map(_place, self.pretraining.data)]}
        return plain

    @classmethod
    def from_json(cls, value: Tree) -> TrialData:
        """The inverse of `to_json`."""
        where = {key: text for key, text in value.items() if key not in ("source", "pretraining")}
        return cls(DataSpec(**where), value["source"], PretrainingSpec(**value.get("pretraining", {})))


def _place(data: DataSpec) -> dict[str, object]:
    return {**data.model_dump(include={"name", "path", "root", "if_unavailable"}), **data.given()}


@dataclass(frozen=True)
class TrialConfig:
    """Everything that determines a trial's result.

    Attributes:
        task: Name in the task registry.
        arm: The method.
        params: Every parameter that the arm has, nothing else.
        data: Which data, where it lies, and whether it is real.
        seed: Seed of initialisation, data order, masks and dropout.
        stage: `search` never reads the test split, nor does `final`, a finalist of the search on another seed;
            `replicate` scores it once, at the end; `pretrain` is a pretraining for itself, which ends with an encoder
            that others start from.
        earlier: Where parameters changed while fine-tuning: (epoch, values) pairs, oldest first; the values held before
            that epoch, `params` hold after the last. Pretraining has the oldest.
        pretrain_seed: Seed of the pretraining, where that is another: several trials of a search may share an encoder.
        like: The task's arm whose method it is, where the sweep gave the arm a name of its own.
        weights: Hash of the weights that it starts from, which somebody had; "" where it starts from none.
        goes_on: Whether it pretrains on from them.
    """

    task: str
    arm: str
    params: Mapping[str, Scalar]
    data: TrialData
    seed: int
    stage: Stage = "search"
    earlier: tuple[tuple[int, Mapping[str, Scalar]], ...] = ()
    pretrain_seed: int | None = None
    like: str = ""
    weights: str = ""
    goes_on: bool = False
    config_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config_id", hashlib.sha256(self.identity().encode()).hexdigest()[:12])

    def identity(self) -> str:
        """Everything but the seeds and the stage, as text that is the same wherever the data lies."""
        # elsewhere, it is the same configuration; read in another way, it is not
        data = {"name": self.data.name, "source": self.data.source, **self.data.where.given()}
        if self.data.pretraining.data:
            data["pretraining"] = self.data.pretraining.given()
        # a parameter of None says nothing: sweeps of before there was it keep their names
        params = {name: value for name, value in self.params.items() if value is not None}
        identity: dict[str, object] = {"task": self.task, "arm": self.arm, "params": params, "data": data}
        if self.earlier:
            identity["earlier"] = [[epoch, dict(values)] for epoch, values in self.earlier]
        identity |= self._origin()
        return json.dumps(identity, sort_keys=True, default=str)

    @property
    def method(self) -> str:
        """The task's arm whose method it is: its own, but where the sweep gave the arm another name."""
        return self.like or self.arm

    @property
    def adopts(self) -> bool:
        """Whether it starts from weights as they are, and does not pretrain."""
        return bool(self.weights) and not self.goes_on

    def _origin(self) -> dict[str, object]:
        """What is said of where the arm comes from; nothing of most."""
        said = {"like": self.like, "weights": self.weights, "goes_on": self.goes_on}
        return {name: value for name, value in said.items() if value}

    def params_at(self, epoch: int) -> dict[str, Scalar]:
        """The parameters that hold in a fine-tuning epoch, counted from 0."""
        held = next((values for until, values in self.earlier if epoch < until), {})
        return {**self.params, **held}

    def to_json(self) -> dict[str, object]:
        """Plain values, for a file or a message."""
        plain = {"task": self.task, "arm": self.arm, "params": dict(self.params), "data": self.data.to_json(),
                 "seed": self.seed, "stage": self.stage, "config_id": self.config_id}
        if self.earlier:
            plain["earlier"] = [[epoch, dict(values)] for epoch, values in self.earlier]
        if self.pretrain_seed is not None:
            plain["pretrain_seed"] = self.pretrain_seed
        return {**plain, **self._origin()}

    @classmethod
    def from_json(cls, value: Tree) -> TrialConfig:
        """The inverse of `to_json`."""
        earlier = tuple((int(epoch), dict(values)) for epoch, values in value.get("earlier", ()))
        plain = {key: value[key] for key in ("task", "arm", "params", "seed", "stage")}
        return cls(**plain, data=TrialData.from_json(value["data"]), earlier=earlier,
                   pretrain_seed=value.get("pretrain_seed"), like=value.get("like", ""),
                   weights=value.get("weights", ""), goes_on=value.get("goes_on", False))


@dataclass(frozen=True)
class ReportData:
    """One evaluation of a trial, without what it takes to go on from it: as checkpoints keep it and messages carry it.

    Attributes:
        phase: `pretrain`, `finetune`, or `test` (the one score of a replicate).
        epoch: Epochs done in this phase.
        step: Reports before this one.
        metrics: `loss`, `lr`, and `val_` or `test_` metrics.
        best: The `val_` metrics of the best evaluation so far; empty while pretraining.
        seconds: Wall time the trial has computed so far, resumed parts included; not what its consumer took.
        num_parameters: Values of the phase's network; while pretraining the decoder is counted too.
        final: No report follows.
        pretext: `pretext_loss` and `pretext_skill` of the last validation of pretraining so far; empty before it, and
            where the arm does not pretrain.
    """

    phase: PhaseName
    epoch: int
    step: int
    metrics: dict[str, float]
    best: dict[str, float]
    seconds: float
    num_parameters: int
    final: bool
    pretext: dict[str, float] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class UnitTable:
    """The test score of a replicate, example by example. U examples, P parts (see `raymae.tasks.base.UnitScores`).

    Attributes:
        names: Of the examples.
        groups: Of every example the patient, sequence or block of time that it belongs to; None where none is known.
        parts: Names of the parts whose mean the objective is.
        score: float64 [U, P].
        weight: float64 [U, P], 0 where an example says nothing about a part.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    parts: tuple[str, ...]
    score: np.ndarray
    weight: np.ndarray
