"""What prediction is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from raymae.spec.sweep import SERIES_KEYS, Reading
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, TaskSchema, param
from raymae.tasks.columns.schema import TOKEN_ARMS, ColumnParams
from raymae.tasks.transformer import LEARNING, uneven_heads

TREE_ARMS = ("boosting", "forest")
# what a reference makes of a table depends on the labelled rows, and those on the seed
ARMS = {
    "mae": Arm("pretrained", "transformer over columns, masked pretraining on all training rows, then fine-tuning"),
    "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
    "boosting": Arm("reference", "gradient-boosted trees on histograms", stochastic=True),
    "forest": Arm("reference", "random forest, codes of categories taken for numbers", stochastic=True),
    "ridge": Arm("reference", "ridge regression, or logistic regression, on scaled numbers and one-hot categories",
                 stochastic=True),
    "mean": Arm("reference", "mean of the labels, or how often each category occurs", stochastic=True),
}


class PredictionParams(ColumnParams):
    """Parameters of prediction; those of the columns and of every training loop are inherited."""

    target: str = param(
        "median_house_value", "column that is predicted from the others; rows without it are pretrained on, and "
        "neither learned from nor scored",
    )
    split_seed: int = param(0, "seed of the split into 70 % training, 10 % validation and 20 % test rows", ge=0)
    label_fraction: float = param(
        1.0, "share of the training rows whose label is learned from; pretraining sees the others' inputs too",
        phase="finetune", gt=0, le=1,
    )
    scaler: Literal["minmax", "standard", "quantile"] = param(
        "quantile", "scale of the inputs; quantile makes every column normal, which takes long tails in",
        arms=(*TOKEN_ARMS, "ridge"),
    )
    column_dropout: float = param(
        0.0, "share of a row's cells hidden while fine-tuning; 0 is off", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    mask_kind: Literal["fixed", "uniform", "pattern"] = param(
        "fixed", "observed cells are hidden with chance mask_ratio; with a chance drawn per row up to twice that; or "
        "where another row misses cells", kinds=("pretrained",), phase="pretrain",
    )
    mask_ratio: float = param(
        0.3, "share of observed cells hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    bins: int = param(64, "bins of a hidden number's predicted distribution; 1 leaves a mean", kinds=("pretrained",),
                      phase="pretrain", ge=1)
    mean_weight: float = param(
        50.0, "weight of the mean's squared error, in squared ranges, beside the cross entropy over bins",
        kinds=("pretrained",), phase="pretrain", ge=0,
    )
    decoder_dim: int = param(32, "width of the decoder", kinds=("pretrained",), phase="pretrain", ge=4, le=MAX_WIDTH)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), phase="pretrain", ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(2, "attention heads of the decoder", kinds=("pretrained",), phase="pretrain", ge=1)
    num_trees: int = param(100, "trees of the forest, or rounds of boosting", arms=TREE_ARMS, phase="finetune", ge=1)
    min_leaf: int = param(5, "fewest rows in a leaf", arms=TREE_ARMS, phase="finetune", ge=1)
    max_leaves: int = param(31, "most leaves of a tree", arms=("boosting",), phase="finetune", ge=2)
    shrinkage: float = param(0.1, "share of a tree's answer that is added", arms=("boosting",), phase="finetune",
                             gt=0, le=1)
    split_features: Literal["third", "all"] = param(
        "third", "among how many of the columns a split chooses", arms=("forest",), phase="finetune"
    )
    alpha: float = param(1.0, "penalty on squared weights; a logistic regression's is 1 / C", arms=("ridge",),
                         phase="finetune", gt=0)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Something is predicted, and heads divide widths."""
    problems = [] if params["target"].strip() else [
        ("target", f"target={params['target']!r} names no column; write the one that is predicted")]
    if ARMS[arm].kind != "reference":
        problems += uneven_heads(params, "encoder", *(["decoder"] if ARMS[arm].kind == "pretrained" else []))
    return problems


SCHEMA = TaskSchema(
    name="prediction",
    params=PredictionParams,
    arms=ARMS,
    sizes={
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 256, "pretrain_batch_size": 256, "encoder_dim": 16,
                  "encoder_depth": 1, "encoder_heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2,
                  "bins": 8, "frequencies": 4, "num_trees": 5, "warmup_epochs": 0.1, "pretrain_warmup_epochs": 0.1},
        # of 14,000 rows and nine columns
        "laptop": {"epochs": 30, "pretrain_epochs": 30, "pretrain_lr": 4e-3, "lr": 2e-3, "batch_size": 64,
                   "pretrain_batch_size": 256, "epoch_steps": 10, "warmup_epochs": 2.0, "pretrain_warmup_epochs": 0.5,
                   "encoder_depth": 2, "eval_every": 3, "pretrain_eval_every": 5},
        "small": {"encoder_dim": 64, "encoder_depth": 3, "encoder_heads": 4, "decoder_dim": 64, "decoder_heads": 4},
    },
    objective=Objective("column_score", "max", "R² of a number, accuracy of a category, on test rows; 1 is perfect"),
    metrics=("column_score", "rmse", "abs_error", "nll"),
    check=check,
    primary=("mae", "scratch"),
    reads=tuple(name for name in Reading.model_fields if name not in SERIES_KEYS),
)
