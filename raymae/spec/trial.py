"""One trial, resolved: which task, which arm, every parameter, which seed.

Also the vocabulary that tasks use to describe themselves to the spec room without importing torch: `Objective`, `Arm`,
`TrainingParams` (the parameters every training loop understands) and `TaskSchema`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from raymae.spec.space import Scalar

Mode = Literal["min", "max"]
Stage = Literal["search", "replicate"]
ArmKind = Literal["pretrained", "trained", "reference"]


@dataclass(frozen=True)
class Objective:
    """What a task is selected on.

    Attributes:
        metric: Name without prefix: `mse` is selected on as `val_mse` and reported as `test_mse`.
        mode: Whether less or more is better.
        unit: What one unit of it is, for people.
    """

    metric: str
    mode: Mode
    unit: str

    def better(self, a: float, b: float) -> bool:
        """Whether `a` beats `b`."""
        return a < b if self.mode == "min" else a > b


@dataclass(frozen=True)
class Arm:
    """A method under comparison.

    Attributes:
        kind: `pretrained` (masked pretraining, then fine-tuning), `trained` (fine-tuning only) or `reference`
            (nothing to train or search: persistence, a mean).
        about: One line for people.
    """

    kind: ArmKind
    about: str


def param(
    default: Any, about: str, *, unit: str = "", arms: tuple[str, ...] = (), kinds: tuple[ArmKind, ...] = (),
    live: bool = False, **bounds: Any,
) -> Any:
    """Declare one parameter: its default, one line of meaning, its unit, its bounds, and which arms have it.

    Args:
        default: Value where a sweep file says nothing.
        about: One line for people.
        unit: Unit of the value, "" for none.
        arms: Arms that have this parameter; empty for all.
        kinds: Kinds of arm that have it; empty for all.
        live: Whether it may change between epochs of fine-tuning, as population-based training does.
        **bounds: pydantic bounds: ge, gt, le, lt.
    """
    extra: dict[str, Any] = {"unit": unit, "arms": list(arms), "kinds": list(kinds), "live": live}
    return Field(default, description=about, json_schema_extra=extra, **bounds)


class TrainingParams(BaseModel):
    """What every training loop understands. Tasks derive their own parameters from this."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    epochs: int = param(10, "passes over the labelled training set", kinds=("pretrained", "trained"), ge=1)
    pretrain_epochs: int = param(10, "passes over all inputs while pretraining", kinds=("pretrained",), ge=1)
    batch_size: int = param(256, "examples per step over all workers", kinds=("pretrained", "trained"), ge=1)
    lr: float = param(
        1e-3, "peak learning rate, as the optimiser gets it", kinds=("pretrained", "trained"), live=True, gt=0
    )
    pretrain_lr: float = param(1e-3, "peak learning rate of pretraining", kinds=("pretrained",), gt=0)
    weight_decay: float = param(0.05, "decoupled weight decay", kinds=("pretrained", "trained"), live=True, ge=0)
    warmup_epochs: float = param(
        1.0, "linear warm-up of the learning rate", unit="epochs", kinds=("pretrained", "trained"), ge=0
    )
    layer_decay: float = param(
        1.0, "factor on the learning rate from each encoder layer to the one below", kinds=("pretrained", "trained"),
        gt=0, le=1,
    )
    freeze_epochs: int = param(
        0, "epochs in which only the head learns, before the whole network does", kinds=("pretrained",), ge=0
    )
    clip_norm: float = param(
        1.0, "gradient norm is clipped to this; 0 is off", kinds=("pretrained", "trained"), live=True, ge=0
    )
    ema_decay: float = param(
        0.0, "evaluate and keep an exponential moving average of the weights; 0 is off",
        kinds=("pretrained", "trained"), ge=0, lt=1,
    )
    patience: int = param(
        0, "stop after so many evaluations without a better validation score; 0 is never", unit="evaluations",
        kinds=("pretrained", "trained"), ge=0,
    )
    eval_every: int = param(1, "epochs between evaluations", unit="epochs", kinds=("pretrained", "trained"), ge=1)
    label_fraction: float = param(
        1.0, "share of the labelled training set that fine-tuning sees; pretraining sees every input",
        kinds=("pretrained", "trained"), gt=0, le=1,
    )
    precision: Literal["float32", "bfloat16"] = param(
        "float32", "autocast to this while training", kinds=("pretrained", "trained")
    )


def is_live(params: type[TrainingParams], name: str) -> bool:
    """Whether a parameter may change between epochs of fine-tuning."""
    extra = params.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra["live"])


def applies(params: type[TrainingParams], name: str, arm: str, kind: ArmKind) -> bool:
    """Whether the arm has the parameter at all."""
    extra = params.model_fields[name].json_schema_extra
    assert isinstance(extra, dict), f"declare {name} with param()"
    arms, kinds = extra["arms"], extra["kinds"]
    return (not arms or arm in arms) and (not kinds or kind in kinds)  # type: ignore[operator]


@dataclass(frozen=True)
class TaskSchema:
    """What the spec room needs to know about a task to check a sweep file against it.

    Attributes:
        name: Its name in the registry.
        params: All its parameters, `TrainingParams` included.
        arms: Its arms by name.
        sizes: Named presets of parameters; `debug` always exists.
        objective: What it is selected on.
        metrics: Names of all its metrics, without prefix.
        check: Called with an arm and complete parameters; returns what is impossible about them, as
            (parameter name, message) pairs.
    """

    name: str
    params: type[TrainingParams]
    arms: Mapping[str, Arm]
    sizes: Mapping[str, Mapping[str, Scalar]]
    objective: Objective
    metrics: tuple[str, ...]
    check: Callable[[str, Mapping[str, Any]], list[tuple[str, str]]]


@dataclass(frozen=True)
class TrialConfig:
    """Everything that determines a trial's result.

    Attributes:
        task: Name in the task registry.
        arm: The method.
        params: Every parameter that the arm has, nothing else.
        data: The data section of the sweep file, as plain values, with `source` resolved to `real` or `synthetic`.
        seed: Seed of initialisation, data order, masks and dropout.
        stage: `search` never reads the test split; `replicate` scores it once, at the end.
        earlier: Where parameters changed while fine-tuning: (epoch, values) pairs, oldest first; the values held before
            that epoch, `params` hold after the last. Pretraining has the oldest.
    """

    task: str
    arm: str
    params: Mapping[str, Scalar]
    data: Mapping[str, Any]
    seed: int
    stage: Stage = "search"
    earlier: tuple[tuple[int, Mapping[str, Scalar]], ...] = ()
    config_id: str = field(init=False)

    def __post_init__(self) -> None:
        where = {"path", "root", "if_unavailable"}  # the same data elsewhere is the same configuration
        data = {key: value for key, value in self.data.items() if key not in where}
        identity: dict[str, Any] = {"task": self.task, "arm": self.arm, "params": dict(self.params), "data": data}
        if self.earlier:
            identity["earlier"] = [[epoch, dict(values)] for epoch, values in self.earlier]
        text = json.dumps(identity, sort_keys=True, default=str)
        object.__setattr__(self, "config_id", hashlib.sha256(text.encode()).hexdigest()[:12])

    def params_at(self, epoch: int) -> dict[str, Scalar]:
        """The parameters that hold in a fine-tuning epoch, counted from 0."""
        held = next((values for until, values in self.earlier if epoch < until), {})
        return {**self.params, **held}

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a file or a message."""
        plain = {"task": self.task, "arm": self.arm, "params": dict(self.params), "data": dict(self.data),
                 "seed": self.seed, "stage": self.stage, "config_id": self.config_id}
        if self.earlier:
            plain["earlier"] = [[epoch, dict(values)] for epoch, values in self.earlier]
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialConfig:
        """The inverse of `to_json`."""
        earlier = tuple((int(epoch), dict(values)) for epoch, values in value.get("earlier", ()))
        return cls(**{key: value[key] for key in ("task", "arm", "params", "data", "seed", "stage")}, earlier=earlier)
