"""What imputation is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from raymae.spec.sweep import SERIES_KEYS, Reading
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, Published, TaskSchema, param
from raymae.tasks.columns.schema import TOKEN_ARMS, ColumnParams
from raymae.tasks.transformer import uneven_heads

DENSE_ARMS = ("report_mae", "autoencoder")
MASKING_ARMS = (*TOKEN_ARMS, "report_mae")
FOREST_ARMS = ("missforest", "extra_trees")
ROUND_ARMS = ("iterative", *FOREST_ARMS, "hist_gradient")
ARMS = {
    "mae": Arm("pretrained", "transformer over columns, pretrained by re-masking observed cells, then fine-tuned"),
    "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
    "report_mae": Arm("trained", "the report's: dense network on the masked row beside its mask"),
    "autoencoder": Arm("trained", "the report's baseline: dense autoencoder on the row filled with means"),
    "mean": Arm("reference", "mean of the column, most frequent category"),
    "knn": Arm("reference", "mean of the ten nearest rows", stochastic=True),  # its donors are drawn
    "iterative": Arm("reference", "rounds of Bayesian ridge regressions (MICE)"),
    "missforest": Arm("reference", "missForest: rounds of random forests until they change more than before",
                      stochastic=True),
    "extra_trees": Arm("reference", "rounds of extremely randomised trees, codes of categories taken for numbers",
                       stochastic=True),
    "hist_gradient": Arm("reference", "rounds of gradient-boosted trees on histograms"),
}


class ImputationParams(ColumnParams):
    """Parameters of imputation; those of the columns and of every training loop are inherited."""

    protocol: Literal["transductive", "inductive"] = param(
        "transductive",
        "transductive: learn from the observed cells of all rows, select on the missing cells of a fifth of them, test "
        "on the others'; inductive: learn from 70 % of the rows, select on 10 %, test on 20 % never met",
    )
    missing_kind: Literal["mcar", "mar", "mnar"] = param(
        "mcar", "cells are taken away at random, depending on other columns, or depending on their own value"
    )
    missing_rate: float = param(0.3, "share of cells taken away", gt=0, lt=1)
    pattern_seed: int = param(0, "seed of the cells taken away and of the split", ge=0)
    match: float = param(
        0.0, "how far imputed values are moved, in rank order, towards their column's distribution: 0 is the least "
        "squared error, 1 the least Wasserstein distance", phase="finetune", ge=0, le=1,
    )
    match_cost: float = param(
        0.0, "in place of match: how much of its squared error an imputation may spend on being moved, the shares of "
        "the way being chosen per column, by re-hidden observed cells, to win the most Wasserstein distance; 0 is off",
        arms=TOKEN_ARMS, phase="finetune", ge=0,
    )
    mechanism: Literal["random", "own_value"] = param(
        "random", "what is assumed of missing cells: that they resemble observed ones in rows alike, or that a cell's "
        "own value, high or low, decided; how strongly is then estimated per column", arms=TOKEN_ARMS, phase="finetune",
    )
    match_to: Literal["observed", "predicted"] = param(
        "predicted", "that distribution is the one of observed cells, or the one predicted for missing cells, which "
        "differs from it where cells are not missing at random",
        arms=TOKEN_ARMS, phase="finetune",
    )
    draw: Literal["mean", "median", "sample"] = param(
        "mean", "what is taken of a cell's predicted distribution", arms=TOKEN_ARMS, phase="finetune"
    )
    bins: int = param(64, "bins of a number's predicted distribution; 1 leaves a mean", arms=TOKEN_ARMS, ge=1)
    mean_weight: float = param(
        50.0, "weight of the mean's squared error, in squared ranges, beside the cross entropy over bins",
        arms=TOKEN_ARMS, ge=0,
    )
    mask_kind: Literal["fixed", "uniform", "pattern"] = param(
        "fixed", "observed cells are hidden with chance mask_ratio; with a chance drawn per row up to twice that; or "
        "where another row misses cells", arms=MASKING_ARMS,
    )
    mask_ratio: float = param(0.3, "share of observed cells hidden while training", arms=MASKING_ARMS, gt=0, lt=1)
    decoder_dim: int = param(32, "width of the decoder", arms=TOKEN_ARMS, ge=4, le=MAX_WIDTH)
    decoder_depth: int = param(2, "blocks of the decoder", arms=TOKEN_ARMS, ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(2, "attention heads of the decoder", arms=TOKEN_ARMS, ge=1)
    hidden_dim: int = param(128, "width of the dense networks", arms=DENSE_ARMS, phase="finetune", ge=2)
    num_trees: int = param(100, "trees of every forest", arms=FOREST_ARMS, phase="finetune", ge=1)
    node_size: int = param(
        5, "a node of so many numbers or fewer is not split; nodes of categories are split to the end",
        arms=("missforest",), phase="finetune", ge=1,
    )
    split_features: Literal["sqrt", "third", "all"] = param(
        "sqrt", "among how many of the columns a split chooses", arms=("missforest",), phase="finetune"
    )
    min_leaf: int = param(5, "fewest cells in a leaf", arms=("extra_trees",), phase="finetune", ge=1)
    max_leaves: int = param(31, "most leaves of a tree", arms=("hist_gradient",), phase="finetune", ge=2)
    shrinkage: float = param(
        0.1, "share of a tree's answer that is added", arms=("hist_gradient",), phase="finetune", gt=0, le=1
    )
    num_donors: int = param(
        0, "rows among which neighbours are looked for, drawn by the seed; 0 is all", unit="rows", arms=("knn",),
        phase="finetune", ge=0,
    )
    max_rounds: int = param(10, "rounds over all columns at most", arms=ROUND_ARMS, phase="finetune", ge=1)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Heads divide widths."""
    problems = []
    problems += uneven_heads(params, *(("encoder", "decoder") if arm in TOKEN_ARMS else ()))
    if arm in TOKEN_ARMS and params["match"] > 0 and params["match_cost"] > 0:
        problems.append(("match", f"match={params['match']} and match_cost={params['match_cost']} both say how far "
                               "imputed values are moved; set one of them to 0"))
    return problems


SCHEMA = TaskSchema(
    name="imputation",
    params=ImputationParams,
    arms=ARMS,
    sizes={
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 512, "pretrain_batch_size": 512, "encoder_dim": 16,
                  "encoder_depth": 1, "encoder_heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2,
                  "bins": 8, "frequencies": 4, "hidden_dim": 16, "num_trees": 2, "max_rounds": 1, "num_donors": 200,
                  "warmup_epochs": 0.1, "pretrain_warmup_epochs": 0.1},
        # of 20,000 rows and ten columns: a minute a trial of the transformer on one CPU core; half of the trees that
        # are published, at half the time
        "laptop": {"epochs": 12, "pretrain_epochs": 32, "pretrain_lr": 4e-3, "lr": 2e-3, "batch_size": 256,
                   "pretrain_batch_size": 256, "warmup_epochs": 0.5, "pretrain_warmup_epochs": 0.5, "ema_decay": 0.99,
                   "eval_every": 4, "pretrain_eval_every": 4, "num_trees": 50, "num_donors": 5000},
        # of hundreds of rows: numbers enter by themselves, since sines of them fit single rows; the published forests
        "laptop-few": {"epochs": 30, "pretrain_epochs": 300, "pretrain_lr": 2e-3, "lr": 1e-3, "batch_size": 64,
                       "pretrain_batch_size": 64, "warmup_epochs": 3.0, "pretrain_warmup_epochs": 10.0,
                       "ema_decay": 0.99, "eval_every": 5, "pretrain_eval_every": 50, "frequencies": 0, "dropout": 0.1,
                       "pretrain_dropout": 0.1},
        "small": {},
        "large": {"encoder_dim": 64, "encoder_depth": 4, "decoder_dim": 64, "decoder_depth": 2, "hidden_dim": 256},
    },
    objective=Objective(
        "column_score", "max", "mean over columns of R², or accuracy of categories, on cells taken away; 1 is perfect"),
    metrics=("column_score", "rmse", "mse", "mse_all", "mse_own_scale", "wasserstein", "accuracy"),
    check=check,
    primary=("mae", "scratch"),
    corpora={"tables": "tables that have the same columns"},
    reads=tuple(name for name in Reading.model_fields if name not in SERIES_KEYS),
    published={
        "report_mae": (Published("mse", 0.5171, "California Housing", "not on the baseline's scale"),),
        "mae": (Published("mse", 0.5171, "California Housing", "not on the baseline's scale"),),
        "autoencoder": (Published("mse", 0.0093, "California Housing", "the report's baseline imputer"),),
    },
    sizes_of_arms={
        "laptop": {"scratch": {"lr": 4e-3}, "report_mae": {"epochs": 20}, "autoencoder": {"epochs": 20}},
    },
)
