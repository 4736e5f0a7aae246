"""Classification of images: Tiny ImageNet, or any folder per class.

Shape suffixes: B batch, C channels, H and W pixels, N tokens, P values in a token, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.locate import Located
from raymae.data.images import labelled_images, locate_images
from raymae.models.heads import PooledHead
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid
from raymae.spec.sweep import DataSpec
from raymae.spec.task import Arm, Objective, TrainingParams, param
from raymae.spec.trial import TrialConfig
from raymae.tasks.augment import Augmentation
from raymae.tasks.base import Batch, Metrics, Model, Task, uneven_heads
from raymae.tasks.classification.images import ImageSource, prepare
from raymae.tasks.pretraining import PatchPretraining

LEARNING: tuple[Literal["pretrained", "trained"], ...] = ("pretrained", "trained")
NUM_PICTURED = 8


class ClassificationParams(TrainingParams):
    """Parameters of classification; those of every training loop are inherited."""

    image_size: int = param(64, "images are used at this size", unit="pixels", ge=8)
    num_classes: int = param(0, "use so many of the classes, the same for every arm and seed; 0 is all", ge=0)
    per_class: int = param(
        0, "use so many training images of each class, after 10 % are held out; 0 is all", unit="images", ge=0
    )
    patch_size: int = param(8, "side of a token", unit="pixels", kinds=LEARNING, ge=1)
    encoder_dim: int = param(192, "width of the encoder", kinds=LEARNING, ge=8)
    encoder_depth: int = param(9, "blocks of the encoder", kinds=LEARNING, ge=1)
    encoder_heads: int = param(6, "attention heads of the encoder", kinds=LEARNING, ge=1)
    mlp_ratio: float = param(2.0, "width of each block's MLP, in encoder widths", kinds=LEARNING, gt=0)
    drop_path: float = param(0.1, "stochastic depth of the last block, while fine-tuning", kinds=LEARNING, ge=0, lt=1)
    crop: float = param(0.35, "least share of the area that a random crop keeps while fine-tuning; 1 is no crop",
                        kinds=LEARNING, gt=0, le=1)
    flip: bool = param(True, "mirror half of the images while training", kinds=LEARNING)
    rand_augment: float = param(0.0, "magnitude of RandAugment's two operations, of 10; 0 is off", kinds=LEARNING,
                                ge=0, le=10)
    random_erasing: float = param(0.0, "chance that a box of an image is filled with noise", kinds=LEARNING, ge=0, le=1)
    mixup: float = param(0.0, "alpha of mixup; 0 is off", kinds=LEARNING, ge=0)
    cutmix: float = param(0.0, "alpha of CutMix; 0 is off; with mixup each image draws one of the two", kinds=LEARNING,
                          ge=0)
    label_smoothing: float = param(0.1, "share of the label spread over all classes", kinds=LEARNING, ge=0, lt=1)
    mask_ratio: float = param(0.75, "share of tokens hidden while pretraining", kinds=("pretrained",), gt=0, lt=1)
    norm_target: bool = param(True, "predict tokens normalised by their own mean and variance", kinds=("pretrained",))
    pretrain_crop: float = param(0.35, "least share of the area that a random crop keeps while pretraining; 1 is no "
                                       "crop", kinds=("pretrained",), gt=0, le=1)
    decoder_dim: int = param(128, "width of the decoder", kinds=("pretrained",), ge=8)
    decoder_depth: int = param(2, "blocks of the decoder", kinds=("pretrained",), ge=1)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), ge=1)
    compile: bool = param(False, "compile the networks with torch.compile: minutes once, then faster steps on a GPU",
                          kinds=LEARNING)


class Classification(Task):
    """Tiny ImageNet, or any folder per class."""

    name = "classification"
    Params = ClassificationParams
    objective = Objective("top1", "max", "share of images")
    metric_names = ("top1", "top5", "nll")
    arms = {  # noqa: RUF012
        "mae": Arm("pretrained", "vision transformer, masked pretraining on all training images, then fine-tuning"),
        "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
        "majority": Arm("reference", "how often each class occurs in training"),
    }
    sizes = {  # noqa: RUF012
        # 3 epochs on 400 images of 10 classes
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 64, "image_size": 32, "patch_size": 8,
                  "num_classes": 10, "per_class": 40, "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2,
                  "drop_path": 0.0, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "warmup_epochs": 0.5},
        # 0.3 million parameters, 10 classes, labels for 27 images of each: 90 s a trial on one CPU core, 60 of
        # them pretraining
        "laptop": {"epochs": 36, "pretrain_epochs": 30, "pretrain_lr": 3e-3, "batch_size": 64, "num_classes": 10,
                   "label_fraction": 0.1,
                   "encoder_dim": 96, "encoder_depth": 4, "encoder_heads": 4, "drop_path": 0.0, "decoder_dim": 64,
                   "decoder_depth": 1, "decoder_heads": 4, "warmup_epochs": 3.0, "eval_every": 4,
                   "rand_augment": 5.0},
        # 2.7 million parameters
        "lite": {},
        # 9.5 million
        "small": {"encoder_dim": 256, "encoder_depth": 12, "encoder_heads": 4, "mlp_ratio": 4.0, "decoder_dim": 192,
                  "decoder_depth": 4, "decoder_heads": 4},
        # ViT-B/4, 85 million: the report's
        "base": {"patch_size": 4, "encoder_dim": 768, "encoder_depth": 12, "encoder_heads": 12, "mlp_ratio": 4.0,
                 "decoder_dim": 512, "decoder_depth": 8, "decoder_heads": 16, "epochs": 100, "pretrain_epochs": 600},
    }
    eval_batch = 256

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = prepare(*_data_key(config.data), p.image_size, p.num_classes, p.per_class, device)
        if self.arm.kind != "reference":
            self.grid = TokenGrid((p.image_size,) * 2, (p.patch_size,) * 2, 3)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Whole patches, at least two of them to mask, at least two classes, and heads that divide widths."""
        found = []
        if params["num_classes"] == 1:
            found.append(("num_classes", "num_classes=1 leaves nothing to tell apart; use 2 or more, or 0 for all"))
        if cls.arms[arm].kind == "reference":
            return found
        size, patch = int(params["image_size"]), int(params["patch_size"])
        if size % patch:
            near = [n for n in (size // patch * patch, (size // patch + 1) * patch) if n]
            found.append(("patch_size", f"patch_size={patch} must divide image_size={size}; "
                                        f"image_size may be {' or '.join(map(str, near))}"))
        elif size == patch:
            found.append(("patch_size", f"patch_size={patch} makes one token of image_size={size}; masking needs at "
                                        f"least 2: at most {size // 2}"))
        found += uneven_heads(params, *(("encoder", "decoder") if cls.arms[arm].kind == "pretrained" else ("encoder",)))
        return found

    @classmethod
    def locate(cls, data: Mapping[str, Any]) -> Located:
        """Find the images."""
        return locate_images(DataSpec.model_validate({k: v for k, v in data.items() if k != "source"}))

    @classmethod
    def validate(cls, data: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Read and split as a trial would; decodes every image if no process has yet."""
        p = cls.Params.model_validate(dict(params))
        prepared = prepare(*_data_key(data), p.image_size, p.num_classes, p.per_class, torch.device("cpu"))
        counts = " / ".join(f"{len(rows):,} {split}" for split, rows in prepared.rows.items())
        return f"{prepared.num_classes} classes; {counts} images at {p.image_size} x {p.image_size}"

    def load(self, split: str) -> ImageSource:
        """Images of a split."""
        p, rows = self.params, self.data.rows["train" if split == "pretrain" else split]
        if split == "pretrain":
            return ImageSource(self.data, rows, Augmentation(crop=p.pretrain_crop, flip=p.flip), labels=False)
        if split == "train" and p.label_fraction < 1:
            rows = rows[labelled_images(self.data.labels_N[rows].cpu().numpy(), p.label_fraction, self.config.seed)]
        augmentation = Augmentation(crop=p.crop, flip=p.flip, rand_augment=p.rand_augment, erasing=p.random_erasing)
        return ImageSource(self.data, rows, augmentation, mixup=p.mixup, cutmix=p.cutmix)

    # -- networks ------------------------------------------------------------------------------------------------------

    def _encoder(self, drop_path: float) -> Encoder:
        p = self.params
        embedding = PatchEmbedding(self.grid.token_dim, self.grid.shape, p.encoder_dim)
        return Encoder(embedding, depth=p.encoder_depth, heads=p.encoder_heads, drop_path=drop_path,
                       mlp_ratio=p.mlp_ratio)

    def build(self) -> nn.Module:
        """Images in, a score per class out."""
        if self.arm.kind == "reference":
            return nn.Identity()
        return self._compiled(PooledHead(self._encoder(self.params.drop_path), self.data.num_classes))

    def pretraining(self) -> PatchPretraining | None:
        """Hidden patches of training images are reconstructed."""
        if self.arm.kind != "pretrained":
            return None
        return PatchPretraining(self._autoencoder, self.grid, self.params.mask_ratio)

    def _autoencoder(self) -> MaskedAutoencoder:
        """Reconstructs pixels; no stochastic depth while pretraining."""
        p = self.params
        return self._compiled(MaskedAutoencoder(
            self._encoder(0.0), self.grid.shape, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
            decoder_heads=p.decoder_heads, norm_target=p.norm_target,
        ))

    def _compiled(self, model: Model) -> Model:
        if self.params.compile:
            model.compile()
        return model

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross entropy; that of a mixed image is the mixture of its two labels'."""
        scores_BK = model(self.grid.patchify(batch["image"])).float()

        def entropy(label_B: Tensor) -> Tensor:
            return F.cross_entropy(scores_BK, label_B, label_smoothing=self.params.label_smoothing, reduction="none")

        loss_B = entropy(batch["label"])
        if "partner" in batch:
            loss_B = torch.lerp(entropy(batch["partner"]), loss_B, batch["share"])
        return loss_B.mean()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Scores `[B, K]`: unnormalised log probabilities."""
        if self.arm.kind == "reference":
            labels_N = self.data.labels_N[self.data.rows["train"]]
            counts_K = torch.bincount(labels_N, minlength=self.data.num_classes) + 1.0
            return counts_K.log().expand(len(batch["image"]), -1)
        return model(self.grid.patchify(batch["image"])).float()

    def metrics(self) -> ClassificationMetrics:
        """top1, top5 and mean cross entropy."""
        return ClassificationMetrics()

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """`reconstruction`: validation images in columns; original, masked, and hidden patches filled in below."""
        pretraining = self.pretraining()
        if phase != "pretrain" or pretraining is None:
            return {}
        source = self.load("val")
        batch = source.batch(torch.linspace(0, len(source) - 1, min(NUM_PICTURED, len(source))).long(), None)
        assert isinstance(model, MaskedAutoencoder)
        images = [self.data.bytes_of(part) for part in pretraining.reconstruct(model, batch)]  # 0 is the mean colour
        framed = [np.pad(row, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255) for row in images]
        return {"reconstruction": np.concatenate([np.concatenate(list(row), axis=1) for row in framed])}


class ClassificationMetrics(Metrics):
    """How often the label is first and among the first five, summed cross entropy, and the number of images."""

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add scores `[B, K]`; of equal scores the lower class comes first."""
        label_B1, scores_BK = batch["label"][:, None], prediction.double()
        own_B1 = scores_BK.gather(1, label_B1)
        earlier_BK = torch.arange(scores_BK.shape[1], device=scores_BK.device) < label_B1
        rank_B = ((scores_BK > own_B1) | ((scores_BK == own_B1) & earlier_BK)).sum(dim=1)
        rank_B = torch.where(scores_BK.isnan().any(dim=1), math.nan, rank_B.double())  # a broken network is never right
        hits = [torch.where(rank_B.isnan(), math.nan, (rank_B < first).double()).sum() for first in (1, 5)]
        nll = -(own_B1.squeeze(1) - scores_BK.logsumexp(dim=1)).sum()
        count = torch.tensor(float(len(rank_B)), dtype=torch.float64, device=rank_B.device)
        self.totals += torch.stack([*hits, nll, count]).cpu()

    def compute(self) -> dict[str, float]:
        """Shares of images, and nats per image."""
        first, fifth, nll, count = self.totals.tolist()
        return {"top1": first / count, "top5": fifth / count, "nll": nll / count}


def _data_key(data: Mapping[str, Any]) -> tuple[str, Located | None]:
    """(name, where it is, or None for synthetic), hashable."""
    if data["source"] == "synthetic":
        return str(data["name"]), None
    return str(data["name"]), _located(str(data["name"]), data.get("path"), data.get("root"))


@lru_cache(maxsize=8)
def _located(name: str, path: str | None, root: str | None) -> Located:
    """Where the images are; looked for once per process, since looking hashes all of them."""
    return locate_images(DataSpec(name=name, path=path, root=root))
