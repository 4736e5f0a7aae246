"""Segmenting volumes: a label for every voxel of a CT or MRI scan, with UNETR.

Shape suffixes: B batch, C channels, K classes, XYZ voxels, N tokens, P values in a token.
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

from raymae.data.find.locate import path_of
from raymae.data.splits import labelled_windows
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid
from raymae.spec.task import Arm, Objective, TrainingParams, param
from raymae.spec.trial import TrialConfig
from raymae.tasks.base import Batch, Metrics, Source, Task, uneven_heads
from raymae.tasks.pretraining import PatchPretraining
from raymae.tasks.slices import most_labelled, slice_picture, table
from raymae.tasks.volumes.boxes import OUTSIDE, Box, Boxes, Preparation, Prepared, Whole, inside, prepare, resized

LEARNING: tuple[Literal["pretrained", "trained"], ...] = ("pretrained", "trained")
NUM_COLUMNS = 13  # classes with a column of their own: BTCV's organs
WINDOWS_AT_ONCE = 4
NUM_PICTURED = 3


class VolumesParams(TrainingParams):
    """Parameters of volume segmentation; those of every training loop are inherited."""

    spacing: str = param("native", "voxel size to resample to, such as `1.5x1.5x2`, or `native`", unit="mm")
    intensity: Literal["auto", "ct", "volume"] = param(
        "auto", "ct: window_low to window_high become 0 to 1; volume: every volume has mean 0 and deviation 1; auto: "
        "ct where the data set says CT"
    )
    window_low: float = param(-175.0, "what becomes 0 in a CT", unit="Hounsfield units")
    window_high: float = param(250.0, "what becomes 1 in a CT", unit="Hounsfield units")
    num_classes: int = param(0, "classes with the background; 0: what the data set says", ge=0, le=255)
    roi_size: str = param("32x48x32", "box that the network sees, as `96x96x96`", unit="voxels", kinds=LEARNING)
    shrink: int = param(
        1, "the network works on means over cubes of this side; labels, loss and scores keep the full resolution",
        unit="voxels", kinds=LEARNING, ge=1,
    )
    patch_size: int = param(8, "side of a token, after shrinking: 2, 4, 8 or 16", unit="voxels", kinds=LEARNING, ge=2,
                            le=16)
    encoder_dim: int = param(96, "width of the encoder", kinds=LEARNING, ge=6)
    encoder_depth: int = param(4, "blocks of the encoder", kinds=LEARNING, ge=1)
    encoder_heads: int = param(4, "attention heads of the encoder", kinds=LEARNING, ge=1)
    mlp_ratio: float = param(4.0, "width of each block's MLP, in encoder widths", kinds=LEARNING, gt=0)
    feature_size: int = param(8, "width of UNETR's finest level", kinds=LEARNING, ge=1)
    dropout: float = param(0.0, "dropout inside the encoder", kinds=LEARNING, ge=0, lt=1)
    drop_path: float = param(0.0, "stochastic depth of the last block", kinds=LEARNING, ge=0, lt=1)
    flips: bool = param(False, "mirror boxes along every axis; makes wrong labels of left and right organs",
                        kinds=LEARNING)
    jitter: float = param(0.1, "largest change of contrast and of brightness", kinds=LEARNING, ge=0, lt=1)
    boxes_per_epoch: int = param(
        0, "boxes per fine-tuning epoch, whatever the number of labelled volumes; 0: one of each", kinds=LEARNING, ge=0
    )
    overlap: float = param(0.5, "share that neighbouring windows share in scoring", kinds=LEARNING, ge=0, lt=1)
    mask_ratio: float = param(0.75, "share of tokens hidden while pretraining", kinds=("pretrained",), gt=0, lt=1)
    norm_target: bool = param(False, "predict tokens normalised by their own mean and variance", kinds=("pretrained",))
    pretrain_boxes: int = param(0, "boxes per pretraining epoch; 0: one of each volume", kinds=("pretrained",), ge=0)
    unlabelled: bool = param(True, "volumes without labels join pretraining", kinds=("pretrained",))
    decoder_dim: int = param(48, "width of the decoder", kinds=("pretrained",), ge=6)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), ge=1)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), ge=1)


class Volumes(Task):
    """Organs in CT (BTCV), parts of the hippocampus in MRI, or any NIfTI volumes with labels."""

    name = "volumes"
    Params = VolumesParams
    objective = Objective("dice", "max", "overlap, mean over foreground classes; 1 is perfect")
    metric_names = ("dice", *(f"dice_{index}" for index in range(1, NUM_COLUMNS + 1)))
    arms = {  # noqa: RUF012
        "mae": Arm("pretrained", "UNETR, its encoder pretrained to fill in hidden patches of all training volumes"),
        "scratch": Arm("trained", "the same UNETR and fine-tuning, from random weights"),
        "atlas": Arm("reference", "the most frequent training label at each relative position"),
    }
    sizes = {  # noqa: RUF012
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 8, "roi_size": "16x16x16", "patch_size": 8,
                  "encoder_dim": 12, "encoder_depth": 2, "encoder_heads": 2, "mlp_ratio": 2.0, "feature_size": 2,
                  "decoder_dim": 12, "decoder_heads": 2, "overlap": 0.0},
        "lite": {"epochs": 10, "pretrain_epochs": 40, "batch_size": 4, "roi_size": "32x48x32", "shrink": 2,
                 "patch_size": 4, "overlap": 0.0, "boxes_per_epoch": 120, "warmup_epochs": 2.0, "eval_every": 2,
                 "lr": 4e-3},
        "small": {"encoder_dim": 384, "encoder_depth": 8, "encoder_heads": 6, "feature_size": 16,
                  "decoder_dim": 192, "decoder_depth": 2, "roi_size": "96x96x96", "patch_size": 16},
        "base": {"encoder_dim": 768, "encoder_depth": 12, "encoder_heads": 12, "feature_size": 16,
                 "decoder_dim": 384, "decoder_depth": 4, "decoder_heads": 6, "roi_size": "96x96x96", "patch_size": 16},
    }
    eval_batch = 1  # volumes differ in size, and each is scored in windows of its own

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = _prepare(config.data, p, device)
        if self.arm.kind != "reference":
            self.roi = box_of(p.roi_size)
            x, y, z = (side // p.shrink for side in self.roi)
            self.grid = TokenGrid((x, y, z), (p.patch_size,) * 3, self.data.in_channels)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Whole patches of a size that UNETR's decoder can double up to, and heads that divide widths."""
        found: list[tuple[str, str]] = []
        try:
            spacing_of(str(params["spacing"]))
        except ValueError as error:
            found.append(("spacing", str(error)))
        if float(params["window_low"]) >= float(params["window_high"]):
            found.append(("window_low", f"window_low={params['window_low']} must be below "
                                        f"window_high={params['window_high']}"))
        if cls.arms[arm].kind == "reference":
            return found
        patch, shrink, roi = int(params["patch_size"]), int(params["shrink"]), str(params["roi_size"])
        if patch not in (2, 4, 8, 16):
            found.append(("patch_size", f"patch_size={patch} must be 2, 4, 8 or 16: UNETR doubles tokens up to voxels"))
        try:
            box = box_of(roi)
        except ValueError as error:
            found.append(("roi_size", str(error)))
        else:
            token = patch * shrink
            if any(side % token for side in box):
                near = "x".join(str(max(1, round(side / token)) * token) for side in box)
                times = f" * shrink={shrink}" if shrink > 1 else ""
                found.append(("roi_size", f"roi_size={roi} must be multiples of patch_size={patch}{times}; try {near}"))
            elif math.prod(side // token for side in box) < 2:
                found.append(("patch_size", f"patch_size={patch} leaves 1 token of roi_size={roi}; masking needs 2"))
        found += uneven_heads(params, *(("encoder", "decoder") if arm == "mae" else ("encoder",)))
        return found

    @classmethod
    def validate(cls, data: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Read every file, without resampling."""
        return _prepare(data, cls.Params.model_validate(dict(params)), torch.device("cpu")).check()

    def load(self, split: str) -> Source:
        """Boxes for training, whole volumes for scoring. The labelled share is of volumes, drawn by the seed."""
        p, data = self.params, self.data
        if split in ("val", "test"):
            return Whole(data.split(split))
        volumes = data.split("train")
        augment: dict[str, Any] = {"flips": p.flips, "jitter": p.jitter}
        if split == "pretrain":
            every = (*volumes, *(data.split("unlabelled") if p.unlabelled else ()))
            return Boxes(every, self.roi, labelled=False, num_boxes=p.pretrain_boxes, **augment)
        kept = labelled_windows(range(len(volumes)), p.label_fraction, self.config.seed, block=1)
        chosen = [volumes[index] for index in kept]
        return Boxes(chosen, self.roi, labelled=True, num_boxes=p.boxes_per_epoch, **augment)

    # -- networks ------------------------------------------------------------------------------------------------------

    def _encoder(self) -> Encoder:
        p = self.params
        embedding = PatchEmbedding(self.grid.token_dim, self.grid.shape, p.encoder_dim)
        return Encoder(embedding, depth=p.encoder_depth, heads=p.encoder_heads, drop_path=p.drop_path,
                       dropout=p.dropout, mlp_ratio=p.mlp_ratio)

    def build(self) -> nn.Module:
        """UNETR on the encoder; nothing to learn for the atlas."""
        if self.arm.kind == "reference":
            return nn.Identity()
        from raymae.models.unetr import Unetr  # MONAI takes seconds to import

        return Unetr(self._encoder(), self.grid, len(self.data.classes), feature_size=self.params.feature_size)

    def pretraining(self) -> PatchPretraining | None:
        """Intensities of hidden patches of boxes are reconstructed."""
        if self.arm.kind != "pretrained":
            return None
        p = self.params
        image_grid = TokenGrid(self.roi, (p.patch_size * p.shrink,) * 3, self.data.in_channels)
        return PatchPretraining(self._autoencoder, self.grid, p.mask_ratio, image_grid=image_grid,
                                to_input=lambda image_BCXYZ: F.avg_pool3d(image_BCXYZ, p.shrink))

    def _autoencoder(self) -> MaskedAutoencoder:
        p = self.params
        return MaskedAutoencoder(
            self._encoder(), self.grid.shape, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
            decoder_heads=p.decoder_heads, norm_target=p.norm_target,
        )

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Dice loss plus cross entropy."""
        return _dice_ce()(self._logits(model, batch["image"]).float(), batch["label"][:, None])

    def _logits(self, model: nn.Module, image_BCXYZ: Tensor) -> Tensor:
        shrink = self.params.shrink
        if shrink == 1:
            return model(image_BCXYZ)
        return F.interpolate(model(F.avg_pool3d(image_BCXYZ, shrink)), scale_factor=shrink, mode="trilinear")

    # -- scores --------------------------------------------------------------------------------------------------------

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Labels `[B, X, Y, Z]` as float32, each volume by itself; NaN where the network's output is not finite."""
        predicted = torch.zeros(batch["label"].shape, device=self.device)
        for row, size in enumerate(batch["size"]):
            scores_KXYZ = self._scores(model, inside(batch["image"][row], size))
            finite_XYZ = scores_KXYZ.isfinite().all(dim=0)
            inside(predicted[row], size).copy_(torch.where(finite_XYZ, scores_KXYZ.argmax(dim=0), math.nan))
        return predicted

    def _scores(self, model: nn.Module, image_CXYZ: Tensor) -> Tensor:
        if self.arm.kind == "reference":
            return resized(_atlas(self.data), image_CXYZ.shape[1:])
        from monai.inferers import sliding_window_inference

        return sliding_window_inference(
            image_CXYZ[None], self.roi, WINDOWS_AT_ONCE, lambda window: self._logits(model, window),
            self.params.overlap, mode="gaussian",
        )[0]

    def reported(self) -> tuple[str, ...]:
        """Only classes that the data set has; from the 14th on they count in the mean alone."""
        return self.metric_names[:len(self.data.classes)]

    def metrics(self) -> DiceMetrics:
        """Dice of every foreground class, and their mean."""
        return DiceMetrics(len(self.data.classes))

    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """Original, masked and reconstruction of validation boxes; or image, truth and prediction of test volumes."""
        if phase == "test":
            return {"prediction": self._prediction(model)}
        assert isinstance(model, MaskedAutoencoder)
        return {"reconstruction": self._reconstruction(model)}

    def _reconstruction(self, model: MaskedAutoencoder) -> np.ndarray:
        source, pretraining = Boxes(self.data.split("val")[:NUM_PICTURED], self.roi, labelled=False), self.pretraining()
        assert pretraining is not None
        columns = pretraining.reconstruct(model, source.batch(torch.arange(len(source)), None), blank=None)
        rows, middle = [], self.grid.size[2] // 2
        for row in range(len(source)):
            cells = [column[row, 0].float().cpu().numpy() for column in columns]
            low, high = np.percentile(cells[0][:, :, middle], (1, 99))
            rows.append([slice_picture(cell, middle, window=(float(low), float(high))) for cell in cells])
        return table(rows)

    @torch.no_grad()
    def _prediction(self, model: nn.Module) -> np.ndarray:
        source, rows = Whole(self.data.split("test")), []
        for index in range(min(NUM_PICTURED, len(source))):
            batch = source.batch(torch.tensor([index]), None)
            image, truth, said = (inside(volume, batch["size"][0]).cpu().numpy() for volume in (
                batch["image"][0, 0], batch["label"][0], self.predict(model, batch)[0].nan_to_num()))
            at = most_labelled(truth)
            rows.append([slice_picture(image, at), slice_picture(image, at, truth), slice_picture(image, at, said)])
        return table(rows)


class DiceMetrics(Metrics):
    """Dice of every volume and foreground class, summed, and how many were summed.

    As MONAI's DiceMetric counts by default, a class that a volume's truth does not have is left out there.

    Args:
        num_classes: K, with the background.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2 * (num_classes - 1))

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add labels `[B, X, Y, Z]`."""
        counted = batch["label"] != OUTSIDE
        broken_B = prediction.isnan().flatten(1).any(dim=1)
        sums, counts = [], []
        for index in range(1, len(self.totals) // 2 + 1):
            said, true = (prediction == index) & counted, batch["label"] == index
            shared_B, sizes_B, true_B = (part.flatten(1).sum(dim=1).double()
                                         for part in (said & true, said.int() + true.int(), true))
            dice_B = torch.where(broken_B, math.nan, 2 * shared_B / sizes_B.clamp(min=1))
            sums.append((dice_B * (true_B > 0)).sum())
            counts.append((true_B > 0).sum().double())
        self.totals += torch.stack([*sums, *counts]).cpu()

    def compute(self) -> dict[str, float]:
        """`dice_1`, … by class, the mean over its volumes, and `dice`, the mean over the classes that occur."""
        sums, counts = self.totals.chunk(2)
        by_class = (sums / counts).tolist()
        seen = [value for value, count in zip(by_class, counts.tolist(), strict=True) if count]
        scores = {f"dice_{index}": value for index, value in enumerate(by_class[:NUM_COLUMNS], start=1)}
        return {"dice": sum(seen) / len(seen) if seen else math.nan, **scores}


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


def _prepare(data: Mapping[str, Any], p: Any, device: torch.device) -> Prepared:
    how = Preparation(spacing_of(p.spacing), p.intensity, (p.window_low, p.window_high), p.num_classes)
    return prepare(path_of(data), how, device)


@lru_cache(maxsize=4)
def _atlas(data: Prepared) -> Tensor:
    return data.atlas()


@lru_cache(maxsize=1)
def _dice_ce() -> nn.Module:
    from monai.losses import DiceCELoss

    return DiceCELoss(to_onehot_y=True, softmax=True)
