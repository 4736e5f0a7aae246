"""What forecasting is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from raymae.spec.space import Scalar
from raymae.spec.sweep import Reading
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, Published, TaskSchema, TrainingParams, param
from raymae.tasks.transformer import LEARNING, uneven_heads

TOKEN_ARMS = ("mae", "scratch")
RECURRENT_ARMS = ("rnn", "lstm", "gru")
REPORTED: dict[str, Scalar] = {"protocol": "report", "horizon": 1}  # what the report forecast
ARMS = {
    "mae": Arm("pretrained", "patch transformer, masked pretraining on all training windows, then fine-tuning"),
    "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
    "rnn": Arm("trained", "recurrent network with tanh cells"),
    "lstm": Arm("trained", "long short-term memory"),
    "gru": Arm("trained", "gated recurrent unit"),
    "linear": Arm("trained", "NLinear (Zeng et al. 2023): one linear layer on the target alone, less its last value"),
    "persistence": Arm("reference", "the last value, repeated"),
}


class ForecastingParams(TrainingParams):
    """Parameters of forecasting; those of every training loop are inherited."""

    target: str = param("OT", "the channel to forecast")
    date_column: str = param("date", "the file's column of dates, by default the only one like it; a list where "
                                     "several make a date together, as of date and time")
    protocol: Literal["report", "field"] = param(
        "report",
        "report: 70/20/10 % in time, scaled to [-1, 1] by the training range; field: 12/4/4 months of hours, "
        "standardised by the training part",
    )
    horizon: int = param(1, "steps forecast", unit="steps", phase="finetune", ge=1)
    lookback: int = param(96, "steps of context", unit="steps", kinds=LEARNING, ge=2)
    covariates: Literal["none", "time", "all"] = param(
        "all", "inputs beside the channel itself: hour and weekday, or those and all other channels",
        arms=(*TOKEN_ARMS, *RECURRENT_ARMS),
    )
    normalise: Literal["last", "local", "revin", "none"] = param(
        "local",
        "last: subtract the window's last value; local: also divide by its typical one-step change; revin: subtract "
        "the window's mean and divide by its deviation (Kim et al. 2022); none: raw levels",
        arms=(*TOKEN_ARMS, *RECURRENT_ARMS),
    )
    loss: Literal["mse", "huber"] = param(
        "huber", "fine-tuning loss, in normalised units", kinds=LEARNING, phase="finetune"
    )
    layer_decay: float = param(
        1.0, "factor on the learning rate from each encoder layer to the one below", arms=TOKEN_ARMS, phase="finetune",
        gt=0, le=1,
    )
    dropout: float = param(
        0.1, "dropout inside the network while fine-tuning", arms=TOKEN_ARMS, phase="finetune", ge=0, lt=1
    )
    pretrain_dropout: float = param(
        0.0, "dropout inside the network while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="dropout", ge=0, lt=1,
    )
    patch_size: int = param(12, "steps per token", unit="steps", arms=TOKEN_ARMS, ge=1)
    encoder_dim: int = param(48, "width of the encoder", arms=TOKEN_ARMS, ge=8, le=MAX_WIDTH)
    encoder_depth: int = param(2, "blocks of the encoder", arms=TOKEN_ARMS, ge=1, le=MAX_DEPTH)
    encoder_heads: int = param(4, "attention heads of the encoder", arms=TOKEN_ARMS, ge=1)
    mlp_ratio: float = param(2.0, "width of each block's MLP, in encoder widths", arms=TOKEN_ARMS, gt=0)
    drop_path: float = param(0.0, "stochastic depth of the last block", arms=TOKEN_ARMS, phase="finetune", ge=0, lt=1)
    pretrain_drop_path: float = param(
        0.0, "stochastic depth of the last block while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="drop_path", ge=0, lt=1,
    )
    mask_ratio: float = param(
        0.5, "share of tokens hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    mask_kind: Literal["random", "suffix", "mixed"] = param(
        "mixed", "which tokens are hidden: any (but the last), the last ones, or either", kinds=("pretrained",),
        phase="pretrain",
    )
    pretrain_channels: Literal["all", "target"] = param(
        "all", "pretrain on every channel in turn with the same weights, or on the target only", kinds=("pretrained",),
        phase="pretrain",
    )
    norm_target: bool = param(
        False, "predict tokens normalised by their own mean and variance", kinds=("pretrained",), phase="pretrain"
    )
    decoder_dim: int = param(48, "width of the decoder", kinds=("pretrained",), phase="pretrain", ge=8, le=MAX_WIDTH)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), phase="pretrain", ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), phase="pretrain", ge=1)
    rnn_dim: int = param(
        48, "hidden width of the recurrent arms", arms=RECURRENT_ARMS, phase="finetune", ge=1, le=MAX_WIDTH
    )
    rnn_depth: int = param(1, "layers of the recurrent arms", arms=RECURRENT_ARMS, phase="finetune", ge=1)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A token arm needs whole patches, at least two of them to mask, and heads that divide widths."""
    if arm not in TOKEN_ARMS:
        return []
    problems = []
    lookback, patch = int(params["lookback"]), int(params["patch_size"])
    if lookback % patch:
        near = [n for n in (lookback // patch * patch, (lookback // patch + 1) * patch) if n]
        problems.append(("lookback", f"lookback={lookback} must be a multiple of patch_size={patch}; "
                                     f"try {' or '.join(map(str, near))}"))
    elif lookback // patch < 2:
        problems.append(("patch_size", f"patch_size={patch} leaves {lookback // patch} token of lookback={lookback}; "
                                       f"masking needs at least 2: at most {lookback // 2}"))
    problems += uneven_heads(params, *(("encoder", "decoder") if arm == "mae" else ("encoder",)))
    return problems


# of 17,000 hours: half a minute a trial of the transformer on one CPU core
LAPTOP: dict[str, Scalar] = {
    "epochs": 6, "pretrain_epochs": 8, "pretrain_lr": 4e-3, "batch_size": 256, "pretrain_batch_size": 256,
    "warmup_epochs": 0.6, "pretrain_warmup_epochs": 0.6, "pretrain_eval_every": 4, "ema_decay": 0.99,
    "encoder_dim": 32, "encoder_depth": 2, "encoder_heads": 2, "decoder_dim": 32, "decoder_heads": 2,
}
SCHEMA = TaskSchema(
    name="forecasting",
    params=ForecastingParams,
    arms=ARMS,
    sizes={
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 512, "pretrain_batch_size": 512, "lookback": 24,
                  "patch_size": 6,
                  "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2, "decoder_dim": 16, "decoder_heads": 2,
                  "rnn_dim": 8, "covariates": "none"},
        "laptop": LAPTOP,
        # of any hidden tokens: pretraining goes on until it beats straight lines
        "laptop-masked": {**LAPTOP, "pretrain_epochs": 100, "pretrain_lr": 2e-3, "pretrain_eval_every": 10},
        # of hundreds of hours ahead
        "laptop-long": {**LAPTOP, "epochs": 9, "pretrain_epochs": 60, "pretrain_lr": 2e-3, "pretrain_eval_every": 10,
                        "mlp_ratio": 4.0, "weight_decay": 0.01, "pretrain_weight_decay": 0.01},
        "small": {},
        "large": {"encoder_dim": 128, "encoder_depth": 3, "encoder_heads": 8, "decoder_dim": 64, "rnn_dim": 128},
    },
    objective=Objective("mse", "min", "squared units of the protocol's scale"),
    metrics=("mse", "abs_error", "skill"),
    check=check,
    primary=("mae", "scratch"),
    corpora={"series": "files of series, in any channels, whose steps are those of the series or shorter"},
    reads=tuple(Reading.model_fields),
    published={
        "mae": (Published("mse", 0.07546, "ETTh1", "best of three mask ratios", REPORTED),),
        "scratch": (Published("mse", 0.01538, "ETTh1", settings=REPORTED),),
        "rnn": (Published("mse", 0.00072, "ETTh1", settings=REPORTED),),
        "lstm": (Published("mse", 0.00071, "ETTh1", settings=REPORTED),),
        "gru": (Published("mse", 0.00071, "ETTh1", settings=REPORTED),),
    },
)
