"""What segmentation is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymae.data.groups import pattern_problems
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, Published, TaskSchema, TrainingParams, param
from raymae.tasks.transformer import LEARNING, uneven_heads

ARMS = {
    "mae": Arm("pretrained", "ViT and UperNet, masked pretraining on all training images, then fine-tuning"),
    "scratch": Arm("trained", "the same network and fine-tuning, from random weights"),
    "majority": Arm("reference", "the class with the most training pixels, everywhere"),
}


class SegmentationParams(TrainingParams):
    """Parameters of segmentation; those of every training loop are inherited."""

    image_size: int = param(128, "shorter side to which images are resized once; all scores but miou_native are at "
                                 "this size", unit="pixels", ge=16)
    group: str = param("", "regular expression over file names without their endings: what its first group, or all of "
                           "it, matches is the drive or place, which is in one split; empty: what is known of the data "
                           "set")
    first_label: int = param(1, "number in label maps of the first class", ge=0, le=65535)
    ignore_label: int = param(0, "number in label maps of pixels that nobody labelled; 255 with first_label 0 in the "
                                 "way of VOC and Cityscapes", ge=0, le=65535)
    crop_size: int = param(128, "edge of the crops that are learned from and of the windows that are scored",
                           unit="pixels", kinds=LEARNING, ge=16)
    crops: int = param(1, "crops of every image in an epoch", kinds=LEARNING, ge=1)
    scale_min: float = param(0.5, "least factor by which an image is enlarged before it is cropped", kinds=LEARNING,
                             gt=0)
    scale_max: float = param(2.0, "largest such factor", kinds=LEARNING, gt=0)
    flip: bool = param(True, "mirror half of the crops left to right", kinds=LEARNING)
    colour_jitter: float = param(
        0.3, "largest relative change of brightness, contrast and saturation", kinds=LEARNING, phase="finetune", ge=0,
        lt=1,
    )
    overlap: float = param(
        0.33, "least share of a window that its neighbour sees too", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    patch_size: int = param(16, "edge of a token", unit="pixels", kinds=LEARNING, ge=1)
    encoder_dim: int = param(128, "width of the encoder", kinds=LEARNING, ge=8, le=MAX_WIDTH)
    encoder_depth: int = param(6, "blocks of the encoder", kinds=LEARNING, ge=1, le=MAX_DEPTH)
    encoder_heads: int = param(4, "attention heads of the encoder", kinds=LEARNING, ge=1)
    mlp_ratio: float = param(4.0, "width of each block's MLP, in encoder widths", kinds=LEARNING, gt=0)
    drop_path: float = param(0.1, "stochastic depth of the last block", kinds=LEARNING, phase="finetune", ge=0, lt=1)
    pretrain_drop_path: float = param(
        0.0, "stochastic depth of the last block while pretraining", kinds=("pretrained",), phase="pretrain",
        formerly="drop_path", ge=0, lt=1,
    )
    upernet_dim: int = param(48, "width of the UperNet decoder", kinds=LEARNING, phase="finetune", ge=8, le=MAX_WIDTH)
    aux_weight: float = param(0.4, "weight of the auxiliary head's loss", kinds=LEARNING, phase="finetune", ge=0)
    class_balance: float = param(
        0.0, "a class weighs in the loss what its share of the labelled pixels is to the power of -class_balance; 0 is "
        "off, 1 lets every class weigh the same", kinds=LEARNING, phase="finetune", ge=0, le=1,
    )
    mask_ratio: float = param(
        0.75, "share of tokens hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    norm_target: bool = param(
        True, "predict tokens normalised by their own mean and variance", kinds=("pretrained",), phase="pretrain"
    )
    pretrain_crop: int = param(0, "edge of the crops to pretrain on; 0 is crop_size", unit="pixels",
                               kinds=("pretrained",), ge=0)
    unlabelled: bool = param(False, "also pretrain on the images of unlabelled_images/, in or beside the data set",
                             kinds=("pretrained",), phase="pretrain")
    decoder_dim: int = param(64, "width of the decoder", kinds=("pretrained",), phase="pretrain", ge=8, le=MAX_WIDTH)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), phase="pretrain", ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), phase="pretrain", ge=1)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Learning arms need crops of whole patches, heads that divide widths, and an ordered range of scales."""
    problems = pattern_problems(params)
    if arm not in ARMS or ARMS[arm].kind == "reference":
        return problems
    patch, pretrained = int(params["patch_size"]), ARMS[arm].kind == "pretrained"
    for name in ("crop_size", "pretrain_crop") if pretrained else ("crop_size",):
        size = int(params[name])
        if size % patch:
            near = [n for n in (size // patch * patch, (size // patch + 1) * patch) if n]
            problems.append((name, f"{name}={size} must be a multiple of patch_size={patch}; "
                                   f"try {' or '.join(map(str, near))}"))
        elif size and size // patch < 2:
            problems.append((name, f"{name}={size} is a single patch of patch_size={patch}; take at least "
                                   f"{2 * patch}"))
    problems += uneven_heads(params, *(("encoder", "decoder") if pretrained else ("encoder",)))
    if params["scale_min"] > params["scale_max"]:
        problems.append(("scale_min", f"scale_min={params['scale_min']} must not be above "
                                      f"scale_max={params['scale_max']}"))
    return problems


SCHEMA = TaskSchema(
    name="segmentation",
    params=SegmentationParams,
    arms=ARMS,
    sizes={
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 8, "pretrain_batch_size": 8, "image_size": 48,
                  "crop_size": 48, "patch_size": 12, "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2,
                  "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "upernet_dim": 8, "scale_min": 0.75,
                  "scale_max": 1.5},
        "lite": {"epochs": 8, "pretrain_epochs": 50, "batch_size": 8, "pretrain_batch_size": 8, "crops": 4,
                 "eval_every": 2, "pretrain_eval_every": 2, "image_size": 96, "crop_size": 96, "patch_size": 12,
                 "encoder_dim": 96, "encoder_depth": 4, "upernet_dim": 32, "drop_path": 0.05},
        # of photographs beside the data set: so many passes over a few hundred learn more than interpolation
        "laptop": {"epochs": 12, "pretrain_epochs": 40, "lr": 2e-3, "pretrain_lr": 2e-3, "batch_size": 8,
                   "pretrain_batch_size": 32, "warmup_epochs": 1.0, "pretrain_warmup_epochs": 2.0, "crops": 4,
                   "eval_every": 2, "pretrain_eval_every": 10, "image_size": 96, "crop_size": 96, "patch_size": 8,
                   "encoder_dim": 96, "encoder_depth": 4, "upernet_dim": 32, "drop_path": 0.05, "decoder_depth": 2,
                   "colour_jitter": 0.6, "class_balance": 0.5},
        "small": {"image_size": 256, "crop_size": 256, "patch_size": 16, "encoder_dim": 384, "encoder_depth": 12,
                  "encoder_heads": 6, "decoder_dim": 192, "decoder_depth": 2, "decoder_heads": 6, "upernet_dim": 128},
        "base": {"image_size": 512, "crop_size": 512, "patch_size": 16, "encoder_dim": 768, "encoder_depth": 12,
                 "encoder_heads": 12, "decoder_dim": 512, "decoder_depth": 8, "decoder_heads": 16,
                 "upernet_dim": 512},
    },
    objective=Objective("miou", "max", "mean over classes of intersection over union"),
    metrics=("miou", "miou_native", "pixel_accuracy"),
    check=check,
    primary=("mae", "scratch"),
    corpora={"scenes": "folders or archives of photographs", "images": "folders of images"},
    published={
        "mae": (Published("miou", 0.288, "ADE20K"),),
        "scratch": (Published("miou", 0.280, "ADE20K"),),
    },
)
