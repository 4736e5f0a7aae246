"""What classification is: its parameters, arms, sizes and objective, and what is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymae.data.groups import pattern_problems
from raymae.spec.task import MAX_DEPTH, MAX_WIDTH, Arm, Objective, Published, TaskSchema, TrainingParams, param
from raymae.tasks.transformer import LEARNING, uneven_heads

ARMS = {
    "mae": Arm("pretrained", "vision transformer, masked pretraining on all training images, then fine-tuning"),
    "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
    "majority": Arm("reference", "how often each class occurs in training"),
}


class ClassificationParams(TrainingParams):
    """Parameters of classification; those of every training loop are inherited."""

    image_size: int = param(64, "images are used at this size", unit="pixels", ge=8)
    num_classes: int = param(
        0, "use so many of the classes, or all there are, the same for every arm and seed; 0 is all", ge=0)
    per_class: int = param(
        0, "use so many training images of each class, after 10 % are held out; 0 is all", unit="images", ge=0
    )
    pretrain_classes: int | None = param(
        None, "pretraining sees the training images of so many classes, those of num_classes among them; 0 is all "
        "there are, null those of num_classes", kinds=("pretrained",), phase="pretrain", ge=0,
    )
    group: str = param("", "regular expression over file names without their endings: what its first group, or all of "
                           "it, matches is the patient or place, who is in one split")
    patch_size: int = param(8, "side of a token", unit="pixels", kinds=LEARNING, ge=1)
    encoder_dim: int = param(192, "width of the encoder", kinds=LEARNING, ge=8, le=MAX_WIDTH)
    encoder_depth: int = param(9, "blocks of the encoder", kinds=LEARNING, ge=1, le=MAX_DEPTH)
    encoder_heads: int = param(6, "attention heads of the encoder", kinds=LEARNING, ge=1)
    mlp_ratio: float = param(2.0, "width of each block's MLP, in encoder widths", kinds=LEARNING, gt=0)
    drop_path: float = param(
        0.1, "stochastic depth of the last block, while fine-tuning", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    pretrain_drop_path: float = param(
        0.0, "stochastic depth of the last block while pretraining", kinds=("pretrained",), phase="pretrain",
        ge=0, lt=1,
    )
    crop: float = param(0.35, "least share of the area that a random crop keeps while fine-tuning; 1 is no crop",
                        kinds=LEARNING, phase="finetune", gt=0, le=1)
    flip: bool = param(True, "mirror half of the images while training", kinds=LEARNING)
    rand_augment: float = param(
        0.0, "magnitude of RandAugment's two operations, of 10; 0 is off", kinds=LEARNING, phase="finetune", ge=0,
        le=10,
    )
    random_erasing: float = param(
        0.0, "chance that a box of an image is filled with noise", kinds=LEARNING, phase="finetune", ge=0, le=1
    )
    mixup: float = param(0.0, "alpha of mixup; 0 is off", kinds=LEARNING, phase="finetune", ge=0)
    cutmix: float = param(
        0.0, "alpha of CutMix; 0 is off; with mixup each image draws one of the two", kinds=LEARNING, phase="finetune",
        ge=0,
    )
    label_smoothing: float = param(
        0.1, "share of the label spread over all classes", kinds=LEARNING, phase="finetune", ge=0, lt=1
    )
    mask_ratio: float = param(
        0.75, "share of tokens hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    norm_target: bool = param(
        True, "predict tokens normalised by their own mean and variance", kinds=("pretrained",), phase="pretrain"
    )
    pretrain_crop: float = param(0.35, "least share of the area that a random crop keeps while pretraining; 1 is no "
                                       "crop", kinds=("pretrained",), phase="pretrain", gt=0, le=1)
    decoder_dim: int = param(128, "width of the decoder", kinds=("pretrained",), phase="pretrain", ge=8, le=MAX_WIDTH)
    decoder_depth: int = param(2, "blocks of the decoder", kinds=("pretrained",), phase="pretrain", ge=1, le=MAX_DEPTH)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), phase="pretrain", ge=1)
    compile: bool = param(False, "compile the networks with torch.compile: minutes once, then faster steps on a GPU",
                          kinds=LEARNING)


def check(arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whole patches, at least two of them to mask, at least two classes, and heads that divide widths."""
    problems = pattern_problems(params)
    if params["num_classes"] == 1:
        problems.append(("num_classes", "num_classes=1 leaves nothing to tell apart; use 2 or more, or 0 for all"))
    if ARMS[arm].kind == "reference":
        return problems
    seen, used = params.get("pretrain_classes"), int(params["num_classes"])
    if seen and seen < (used or seen + 1):
        problems.append(("pretrain_classes", f"pretrain_classes={seen} must be at least num_classes="
                                             f"{used or '0, which is all'}: pretraining sees every training image; use "
                                             f"{f'{used} or more, or ' if used else ''}0 for all"))
    size, patch = int(params["image_size"]), int(params["patch_size"])
    if size % patch:
        near = [n for n in (size // patch * patch, (size // patch + 1) * patch) if n]
        problems.append(("patch_size", f"patch_size={patch} must divide image_size={size}; "
                                       f"image_size may be {' or '.join(map(str, near))}"))
    elif size == patch:
        problems.append(("patch_size", f"patch_size={patch} makes one token of image_size={size}; masking needs at "
                                       f"least 2: at most {size // 2}"))
    problems += uneven_heads(params, *(("encoder", "decoder") if ARMS[arm].kind == "pretrained" else ("encoder",)))
    return problems


SCHEMA = TaskSchema(
    name="classification",
    params=ClassificationParams,
    arms=ARMS,
    sizes={
        # 3 epochs on 400 images of 10 classes
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 64, "pretrain_batch_size": 64, "image_size": 32,
                  "patch_size": 8,
                  "num_classes": 10, "per_class": 40, "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2,
                  "drop_path": 0.0, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "warmup_epochs": 0.5,
                  "pretrain_warmup_epochs": 0.5},
        # 0.3 million parameters, 10 classes, labels for 27 images of each: 400 s a trial on one slow CPU core, 330 of
        # them pretraining on two passes over the images of all classes
        "laptop": {"epochs": 36, "pretrain_epochs": 2, "pretrain_lr": 3e-3, "batch_size": 64,
                   "pretrain_batch_size": 64, "num_classes": 10, "pretrain_classes": 0, "label_fraction": 0.1,
                   "encoder_dim": 96, "encoder_depth": 4, "encoder_heads": 4, "drop_path": 0.0, "decoder_dim": 64,
                   "decoder_depth": 1, "decoder_heads": 4, "warmup_epochs": 3.0, "pretrain_warmup_epochs": 0.2,
                   "eval_every": 4, "rand_augment": 5.0},
        # 2.7 million parameters
        "lite": {},
        # 9.5 million
        "small": {"encoder_dim": 256, "encoder_depth": 12, "encoder_heads": 4, "mlp_ratio": 4.0, "decoder_dim": 192,
                  "decoder_depth": 4, "decoder_heads": 4},
        # ViT-B/4, 85 million: the report's
        "base": {"patch_size": 4, "encoder_dim": 768, "encoder_depth": 12, "encoder_heads": 12, "mlp_ratio": 4.0,
                 "decoder_dim": 512, "decoder_depth": 8, "decoder_heads": 16, "epochs": 100, "pretrain_epochs": 600},
    },
    objective=Objective("top1", "max", "share of images"),
    metrics=("top1", "top5", "nll"),
    check=check,
    primary=("mae", "scratch"),
    corpora={"images": "folders or archives of images, whatever their folders",
             "scenes": "folders of photographs"},
    published={
        "mae": (Published("top1", 0.456, "Tiny ImageNet", "200 classes, ViT-B"),),
        "scratch": (Published("top1", 0.377, "Tiny ImageNet", "200 classes, ViT-B"),),
    },
)
