"""How a task describes itself without importing torch: its objective, its arms, its parameters.

`TrainingParams` are the parameters that every training loop understands; a task derives its own from them, each field
declared with `param()`. `TaskSchema` is the whole of it, which a sweep file is checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from raymae.spec.space import Scalar

MAX_DEPTH = 128  # blocks, and below it values: a digit too many in a file must not be built before it is refused
MAX_WIDTH = 8192

Mode = Literal["min", "max"]
ArmKind = Literal["pretrained", "trained", "reference"]
Phase = Literal["both", "pretrain", "finetune"]


@dataclass(frozen=True)
class Objective:
    """What a task is selected on.

    Attributes:
        metric: Name without prefix: `mse` is selected on as `val_mse` and reported as `test_mse`.
        mode: Whether less or more is better.
        unit: What one unit of it is, for people.
        root: Whether it is the square root of a mean over examples, as an rmse is.
    """

    metric: str
    mode: Mode
    unit: str
    root: bool = False

    @property
    def val(self) -> str:
        """Its column on the validation split, `val_mse`."""
        return f"val_{self.metric}"

    @property
    def test(self) -> str:
        """Its column on the test split, `test_mse`."""
        return f"test_{self.metric}"

    def better(self, a: float, b: float) -> bool:
        """Whether `a` beats `b`."""
        return a < b if self.mode == "min" else a > b


@dataclass(frozen=True)
class Arm:
    """A method under comparison.

    Attributes:
        kind: `pretrained` (masked pretraining, then fine-tuning), `trained` (fine-tuning only) or `reference`
            (no network to train: persistence, a mean, a forest).
        about: One line for people.
        stochastic: Whether a reference depends on the seed, as a forest does. Arms that train always do.
    """

    kind: ArmKind
    about: str
    stochastic: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether every seed gives the same."""
        return self.kind == "reference" and not self.stochastic

    def num_replicates(self, asked: int) -> int:
        """Replicates it needs of those a sweep asks for: where every seed gives the same, one says all."""
        return min(asked, 1) if self.is_fixed else asked


@dataclass(frozen=True)
class Published:
    """A number that somebody published for an arm, shown beside this project's.

    Attributes:
        metric: What was measured on the test split, without prefix.
        value: The number; shares as fractions.
        data: The data set it was measured on.
        note: What has to be known about it.
        settings: It is shown only for sweeps that have these settings.
    """

    metric: str
    value: float
    data: str
    note: str = ""
    settings: Mapping[str, Scalar] = field(default_factory=dict)


AUTO = "auto"
PRECISIONS = ("precision", "pretrain_precision")
"""Parameters whose value `AUTO` a sweep replaces before its first trial."""


def param(
    default: Any, about: str, *, unit: str = "", arms: tuple[str, ...] = (), kinds: tuple[ArmKind, ...] = (),
    live: bool = False, phase: Phase = "both", formerly: str = "", **bounds: Any,
) -> Any:
    """Declare one parameter: its default, one line of meaning, its unit, its bounds, and which arms have it.

    A pretrained encoder is shared by trials that differ in parameters of `finetune` alone. `both` is always safe, it
    only shares less; `finetune` is a promise, which the contract of tasks tries.

    Args:
        default: Value where a sweep file says nothing.
        about: One line for people.
        unit: Unit of the value, "" for none.
        arms: Arms that have this parameter; empty for all.
        kinds: Kinds of arm that have it; empty for all.
        live: Whether it may change between epochs of fine-tuning, as population-based training does.
        phase: What reads it: `both` (the data, the network), pretraining alone, or nothing of pretraining.
        formerly: The parameter that said it before there was this one, see `untied`.
        **bounds: pydantic bounds: ge, gt, le, lt.
    """
    extra: JsonDict = {"unit": unit, "arms": list(arms), "kinds": list(kinds), "live": live, "phase": phase,
                       "formerly": formerly}
    return Field(default, description=about, json_schema_extra=extra, **bounds)


class TrainingParams(BaseModel):
    """What every training loop understands. Tasks derive their own parameters from this."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    epochs: int = param(
        10, "passes over the labelled training set", kinds=("pretrained", "trained"), phase="finetune", ge=1
    )
    pretrain_epochs: int = param(
        10, "passes over all inputs while pretraining", kinds=("pretrained",), phase="pretrain", ge=1
    )
    batch_size: int = param(
        256, "examples per step of fine-tuning over all workers", kinds=("pretrained", "trained"), phase="finetune",
        ge=1,
    )
    lr: float = param(
        1e-3, "peak learning rate, as the optimiser gets it", kinds=("pretrained", "trained"), live=True,
        phase="finetune", gt=0,
    )
    pretrain_lr: float = param(1e-3, "peak learning rate of pretraining", kinds=("pretrained",), phase="pretrain", gt=0)
    pretrain_batch_size: int = param(
        256, "examples per step of pretraining over all workers", kinds=("pretrained",), phase="pretrain",
        formerly="batch_size", ge=1,
    )
    pretrain_weight_decay: float = param(
        0.05, "decoupled weight decay of pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="weight_decay", ge=0,
    )
    pretrain_warmup_epochs: float = param(
        1.0, "linear warm-up of pretraining's learning rate", unit="epochs", kinds=("pretrained",), phase="pretrain",
        formerly="warmup_epochs", ge=0,
    )
    pretrain_clip_norm: float = param(
        1.0, "gradient norm is clipped to this while pretraining; 0 is off", kinds=("pretrained",), phase="pretrain",
        formerly="clip_norm", ge=0,
    )
    pretrain_precision: Literal["float32", "bfloat16", "auto"] = param(
        "float32", "autocast to this while pretraining; auto is what a sweep times as faster", kinds=("pretrained",),
        phase="pretrain", formerly="precision",
    )
    pretrain_eval_every: int = param(
        1, "epochs between evaluations of pretraining", unit="epochs", kinds=("pretrained",), phase="pretrain",
        formerly="eval_every", ge=1,
    )
    weight_decay: float = param(
        0.05, "decoupled weight decay", kinds=("pretrained", "trained"), live=True, phase="finetune", ge=0
    )
    warmup_epochs: float = param(
        1.0, "linear warm-up of the learning rate", unit="epochs", kinds=("pretrained", "trained"), phase="finetune",
        ge=0,
    )
    layer_decay: float = param(
        1.0, "factor on the learning rate from each encoder layer to the one below", kinds=("pretrained", "trained"),
        phase="finetune", gt=0, le=1,
    )
    freeze_epochs: int = param(
        0, "epochs in which only the head learns, before the whole network does", kinds=("pretrained",),
        phase="finetune", ge=0,
    )
    clip_norm: float = param(
        1.0, "gradient norm is clipped to this; 0 is off", kinds=("pretrained", "trained"), live=True, phase="finetune",
        ge=0,
    )
    ema_decay: float = param(
        0.0, "evaluate and keep an exponential moving average of the weights; 0 is off",
        kinds=("pretrained", "trained"), phase="finetune", ge=0, lt=1,
    )
    patience: int = param(
        0, "stop after so many evaluations without a better validation score; 0 is never", unit="evaluations",
        kinds=("pretrained", "trained"), phase="finetune", ge=0,
    )
    pretrain_patience: int = param(
        0, "stop pretraining after so many evaluations without a lower loss on hidden validation values; 0 is never",
        unit="evaluations", kinds=("pretrained",), phase="pretrain", ge=0,
    )
    eval_every: int = param(
        1, "epochs between evaluations", unit="epochs", kinds=("pretrained", "trained"), phase="finetune", ge=1
    )
    label_fraction: float = param(
        1.0, "share of the labelled training set that fine-tuning sees; pretraining sees every input",
        kinds=("pretrained", "trained"), phase="finetune", gt=0, le=1,
    )
    epoch_steps: int = param(
        0, "an epoch of fine-tuning has at least so many steps: it passes over few labels several times; 0 is one pass",
        unit="steps", kinds=("pretrained", "trained"), phase="finetune", ge=0,
    )
    precision: Literal["float32", "bfloat16", "auto"] = param(
        "float32", "autocast to this while training; auto is what a sweep times as faster",
        kinds=("pretrained", "trained"), phase="finetune",
    )


def is_live(params: type[TrainingParams], name: str) -> bool:
    """Whether a parameter may change between epochs of fine-tuning."""
    extra = params.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra["live"])


def phase_of(params: type[TrainingParams], name: str) -> Phase:
    """What reads a parameter: both phases, pretraining alone, or nothing of pretraining."""
    extra = params.model_fields[name].json_schema_extra
    assert isinstance(extra, dict), f"declare {name} with param()"
    phase: Phase = extra["phase"]  # type: ignore[assignment]
    return phase


def untied(params: type[TrainingParams], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Complete a configuration of before pretraining had a batch size, weight decay and dropout of its own.

    Those of fine-tuning held for both phases then, and such a configuration must go on meaning what it meant.
    """
    if "pretrain_epochs" not in values:
        return dict(values)
    formerly = {name: str(field.json_schema_extra.get("formerly", "")) for name, field in params.model_fields.items()
                if isinstance(field.json_schema_extra, dict)}
    return {**{name: values[old] for name, old in formerly.items() if old in values}, **values}


def encoder_params(params: type[TrainingParams], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The parameters that determine a pretrained encoder: all but those of fine-tuning."""
    return {name: value for name, value in untied(params, values).items() if phase_of(params, name) != "finetune"}


def applies(params: type[TrainingParams], name: str, arm: str, kind: ArmKind) -> bool:
    """Whether the arm has the parameter at all."""
    extra = params.model_fields[name].json_schema_extra
    assert isinstance(extra, dict), f"declare {name} with param()"
    arms, kinds = extra["arms"], extra["kinds"]
    return (not arms or arm in arms) and (not kinds or kind in kinds)  # type: ignore[operator]


def nothing_impossible(arm: str, params: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """Find nothing wrong with an arm's parameters: for tasks that have no rule beside the bounds of each."""
    return []


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
        primary: The two arms whose difference the task is about: the pretrained one, and the same network without
            pretraining. None where there is no such pair.
        published: By arm, what others have published for it; the first of a metric counts.
        sizes_of_arms: By size and arm, what one arm has in that size in place of what all have.
        reads: The keys under `data` that say how its files are read, such as `separator`; others are refused.
        likes: Of arms that a sweep adds (see `raymae.spec.arms`), the task's own arm whose method each is.
        corpora: What `pretraining.data` may be: by the kind that `raymae data list` says, in words; empty for nothing.
    """

    name: str
    params: type[TrainingParams]
    arms: Mapping[str, Arm]
    sizes: Mapping[str, Mapping[str, Scalar]]
    objective: Objective
    metrics: tuple[str, ...]
    check: Callable[[str, Mapping[str, Scalar]], list[tuple[str, str]]] = nothing_impossible
    primary: tuple[str, str] | None = None
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    sizes_of_arms: Mapping[str, Mapping[str, Mapping[str, Scalar]]] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    corpora: Mapping[str, str] = field(default_factory=dict)
    likes: Mapping[str, str] = field(default_factory=dict)

    def method(self, arm: str) -> str:
        """The task's own arm whose method an arm is: itself, but for those that a sweep adds."""
        return self.likes.get(arm, arm)

    def has(self, arm: str, name: str) -> bool:
        """Whether an arm has a parameter."""
        return applies(self.params, name, self.method(arm), self.arms[arm].kind)

    def preset(self, size: str | None, arm: str) -> dict[str, Scalar]:
        """What a size gives an arm; nothing without a size."""
        if size is None:
            return {}
        return {**self.sizes[size], **self.sizes_of_arms.get(size, {}).get(self.method(arm), {})}
