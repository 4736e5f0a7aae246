"""What segmenting volumes is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from raymae.data.groups import pattern_problems
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, Published, TaskSchema, TrainingParams, param
from raymae.tasks.transformer import LEARNING, uneven_heads

Box = tuple[int, int, int]
NUM_COLUMNS = 13  # classes with a column of their own: BTCV's organs
ARMS = {
    "mae": Arm("pretrained", "UNETR, its encoder pretrained to fill in hidden patches of all training volumes"),
    "scratch": Arm("trained", "the same UNETR and fine-tuning, from random weights"),
    "atlas": Arm("reference", "the most frequent training label at each relative position"),
}


class VolumesParams(TrainingParams):
    """Parameters of volume segmentation; those of every training loop are inherited."""

    spacing: str = param("native", "voxel size to resample to, such as `1.5x1.5x2`, or `native`", unit="mm")
    intensity: Literal["auto", "ct", "volume"] = param(
        "auto", "ct: window_low to window_high become 0 to 1; volume: every volume has mean 0 and deviation 1; auto: "
        "ct in the channels that the data set calls CT"
    )
    window_low: float = param(-175.0, "what becomes 0 in a CT", unit="Hounsfield units")
    window_high: float = param(250.0, "what becomes 1 in a CT", unit="Hounsfield units")
    num_classes: int = param(0, "classes with the background; 0: what the data set says", ge=0, le=255)
    group: str = param("", "regular expression over file names without their endings: what its first group, or all of "
                           "it, matches is the patient, who is in one split; empty: what is known of the data set")
    fold: int = param(0, "where the data set's list has folds: the one that is scored; the next is selected on", ge=0)
    roi_size: str = param("32x48x32", "box that the network sees, as `96x96x96`", unit="voxels", kinds=LEARNING)
    shrink: int = param(
        1, "the network works on means over cubes of this side; labels, loss and scores keep the full resolution",
        unit="voxels", kinds=LEARNING, ge=1,
    )
    patch_size: int = param(8, "side of a token, after shrinking: 2, 4, 8 or 16", unit="voxels", kinds=LEARNING, ge=2,
                            le=16)
    encoder_dim: int = param(96, "width of the encoder", kinds=LEARNING, ge=6, le=MAX_WIDTH)
    encoder_depth: int = param(4, "blocks of the encoder", kinds=LEARNING, ge=1, le=MAX_DEPTH)
    encoder_heads: int = param(4, "attention heads of the encoder", kinds=LEARNING, ge=1)
    mlp_ratio: float = param(4.0, "width of each block's MLP, in encoder widths", kinds=LEARNING, gt=0)
    feature_size: int = param(8, "width of UNETR's finest level", kinds=LEARNING, phase="finetune", ge=1)
    dropout: float = param(
        0.0, "dropout inside the encoder while fine-tuning", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    pretrain_dropout: float = param(
        0.0, "dropout inside the encoder while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="dropout", ge=0, lt=1,
    )
    drop_path: float = param(0.0, "stochastic depth of the last block", kinds=LEARNING, phase="finetune", ge=0, lt=1)
    pretrain_drop_path: float = param(
        0.0, "stochastic depth of the last block while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="drop_path", ge=0, lt=1,
    )
    flips: bool = param(False, "mirror boxes along every axis; makes wrong labels of left and right organs",
                        kinds=LEARNING)
    jitter: float = param(0.1, "largest change of contrast and of brightness", kinds=LEARNING, ge=0, lt=1)
    boxes_per_epoch: int = param(
        0, "boxes per fine-tuning epoch, whatever the number of labelled volumes; 0: one of each", kinds=LEARNING,
        phase="finetune", ge=0,
    )
    overlap: float = param(
        0.5, "share that neighbouring windows share in scoring", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    mask_ratio: float = param(
        0.75, "share of tokens hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    norm_target: bool = param(
        False, "predict tokens normalised by their own mean and variance", kinds=("pretrained",), phase="pretrain"
    )
    pretrain_boxes: int = param(
        0, "boxes per pretraining epoch; 0: one of each volume", kinds=("pretrained",), phase="pretrain", ge=0
    )
    unlabelled: bool = param(True, "volumes without labels join pretraining", kinds=("pretrained",), phase="pretrain")
    decoder_dim: int = param(48, "width of the decoder", kinds=("pretrained",), phase="pretrain", ge=6, le=MAX_WIDTH)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), phase="pretrain", ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), phase="pretrain", ge=1)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whole patches of a size that UNETR's decoder can double up to, and heads that divide widths."""
    problems = pattern_problems(params)
    try:
        spacing_of(str(params["spacing"]))
    except ValueError as error:
        problems.append(("spacing", str(error)))
    if float(params["window_low"]) >= float(params["window_high"]):
        problems.append(("window_low", f"window_low={params['window_low']} must be below "
                                       f"window_high={params['window_high']}"))
    if ARMS[arm].kind == "reference":
        return problems
    patch, shrink, roi = int(params["patch_size"]), int(params["shrink"]), str(params["roi_size"])
    if patch not in (2, 4, 8, 16):
        problems.append(("patch_size", f"patch_size={patch} must be 2, 4, 8 or 16: UNETR doubles tokens up to voxels"))
    try:
        box = box_of(roi)
    except ValueError as error:
        problems.append(("roi_size", str(error)))
    else:
        token = patch * shrink
        if any(side % token for side in box):
            near = "x".join(str(max(1, round(side / token)) * token) for side in box)
            times = f" * shrink={shrink}" if shrink > 1 else ""
            problems.append(("roi_size", f"roi_size={roi} must be multiples of patch_size={patch}{times}; try {near}"))
        elif math.prod(side // token for side in box) < 2:
            problems.append(("patch_size", f"patch_size={patch} leaves 1 token of roi_size={roi}; masking needs 2"))
    problems += uneven_heads(params, *(("encoder", "decoder") if arm == "mae" else ("encoder",)))
    return problems


def box_of(text: str) -> Box:
    """`32x48x32` → (32, 48, 32).

    Raises:
        ValueError: It is not three whole numbers.
    """
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"roi_size={text} must be three whole numbers of voxels, such as 96x96x96")
    x, y, z = map(int, parts)
    return x, y, z


def spacing_of(text: str) -> tuple[float, float, float] | None:
    """`1.5x1.5x2` → (1.5, 1.5, 2.0); None for `native`.

    Raises:
        ValueError: It is neither.
    """
    if text == "native":
        return None
    try:
        x, y, z = map(float, text.split("x"))
    except ValueError:
        x = y = z = 0.0
    if not all(0 < side < math.inf for side in (x, y, z)):
        raise ValueError(f"spacing={text} must be `native` or three sizes in mm, such as 1.5x1.5x2")
    return x, y, z


SCHEMA = TaskSchema(
    name="volumes",
    params=VolumesParams,
    arms=ARMS,
    sizes={
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 8, "pretrain_batch_size": 8, "roi_size": "16x16x16",
                  "patch_size": 8,
                  "encoder_dim": 12, "encoder_depth": 2, "encoder_heads": 2, "mlp_ratio": 2.0, "feature_size": 2,
                  "decoder_dim": 12, "decoder_heads": 2, "overlap": 0.0},
        "lite": {"epochs": 10, "pretrain_epochs": 40, "batch_size": 4, "pretrain_batch_size": 4, "roi_size": "32x48x32",
                 "shrink": 2,
                 "patch_size": 4, "overlap": 0.0, "boxes_per_epoch": 120, "warmup_epochs": 2.0,
                 "pretrain_warmup_epochs": 2.0, "eval_every": 2, "pretrain_eval_every": 2,
                 "lr": 4e-3},
        # as `lite`, with overlapping windows, a wider decoder and a lower rate, for as long as it takes
        "laptop": {"epochs": 24, "pretrain_epochs": 100, "batch_size": 4, "pretrain_batch_size": 4,
                   "roi_size": "32x48x32", "shrink": 2, "patch_size": 4, "feature_size": 16, "overlap": 0.5,
                   "boxes_per_epoch": 120, "warmup_epochs": 2.0, "pretrain_warmup_epochs": 2.0, "eval_every": 2,
                   "pretrain_eval_every": 10, "lr": 2e-3, "pretrain_lr": 2e-3},
        "small": {"encoder_dim": 384, "encoder_depth": 8, "encoder_heads": 6, "feature_size": 16,
                  "decoder_dim": 192, "decoder_depth": 2, "roi_size": "96x96x96", "patch_size": 16},
        "base": {"encoder_dim": 768, "encoder_depth": 12, "encoder_heads": 12, "feature_size": 16,
                 "decoder_dim": 384, "decoder_depth": 4, "decoder_heads": 6, "roi_size": "96x96x96", "patch_size": 16},
    },
    objective=Objective("dice", "max", "overlap, mean over foreground classes; 1 is perfect"),
    metrics=("dice", *(f"dice_{index}" for index in range(1, NUM_COLUMNS + 1))),
    check=check,
    primary=("mae", "scratch"),
    corpora={"volumes": "NIfTI volumes, in folders without label maps or in folders called labels beside them"},
    published={
        "mae": (Published("dice", 0.7712, "BTCV"),),
        "scratch": (Published("dice", 0.7548, "BTCV"),),
    },
)
