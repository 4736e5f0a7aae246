"""Parameters that the tasks on tables share: which columns there are, and the transformer over them."""

from __future__ import annotations

from typing import Literal

from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, TrainingParams, param
from raymae.tasks.transformer import LEARNING

TOKEN_ARMS = ("mae", "scratch")


class ColumnParams(TrainingParams):
    """Parameters of a table's columns and of the encoder over them; those of every training loop are inherited."""

    categorical: str = param("", "columns of numbers that are categories, separated by commas; one with a comma in its "
                             "name in double quotes, or a list")
    numeric: str = param("", "columns that must be numbers, separated likewise")
    drop: str = param("", "columns left out, separated likewise")
    group: str = param("", "column that says which rows belong together, such as a household or a person: they are in "
                           "one split; it is no input and is not predicted")
    scaler: Literal["minmax", "standard", "quantile"] = param(
        "quantile", "scale of the network's inputs, and of a dense network's outputs; quantile makes every column "
        "normal, which takes long tails in", kinds=LEARNING
    )
    frequencies: int = param(16, "learned sines and cosines by which a number is embedded", arms=TOKEN_ARMS, ge=0)
    frequency_scale: float = param(
        2.0, "deviation of their initial frequencies", unit="half-turns per unit", arms=TOKEN_ARMS, gt=0
    )
    visible_weight: float = param(
        0.1, "weight of the pretraining loss on visible cells, beside 1 on hidden ones", kinds=("pretrained",),
        phase="pretrain", ge=0,
    )
    encoder_dim: int = param(32, "width of the encoder", arms=TOKEN_ARMS, ge=4, le=MAX_WIDTH)
    encoder_depth: int = param(1, "blocks of the encoder", arms=TOKEN_ARMS, ge=1, le=MAX_DEPTH)
    encoder_heads: int = param(2, "attention heads of the encoder", arms=TOKEN_ARMS, ge=1)
    mlp_ratio: float = param(2.0, "width of each block's MLP, in encoder widths", arms=TOKEN_ARMS, gt=0)
    drop_path: float = param(0.0, "stochastic depth of the last block", arms=TOKEN_ARMS, phase="finetune", ge=0, lt=1)
    pretrain_drop_path: float = param(
        0.0, "stochastic depth of the last block while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="drop_path", ge=0, lt=1,
    )
    dropout: float = param(0.0, "dropout inside the network", kinds=LEARNING, phase="finetune", ge=0, lt=1)
    pretrain_dropout: float = param(
        0.0, "dropout inside the network while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="dropout", ge=0, lt=1,
    )
