"""Segmenting volumes: a label for every voxel of a CT or MRI scan, with UNETR.

Shape suffixes: B batch, C channels, K classes, XYZ voxels, N tokens, P values in a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.corpora import located_corpora
from raymae.data.find.locate import path_of
from raymae.data.subsets import labelled
from raymae.errors import DataError
from raymae.models.mae import MaskedAutoencoder
from raymae.models.tokens import TokenGrid
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Batch, Loss, Metrics, Source, Task, Units, UnitScores, joined, split_of
from raymae.tasks.pictures import LABELS, captioned, grid, most_labelled, slice_picture
from raymae.tasks.pretraining import PatchPretraining
from raymae.tasks.transformer import autoencoder, encoder
from raymae.tasks.volumes.boxes import Boxes, VolumeSplits, resized, volume_splits, whole_volumes
from raymae.tasks.volumes.corpus import VolumeCorpora, read_corpora
from raymae.tasks.volumes.prediction import (
    VolumesPredictor,
    grid_of,
    logits_of,
    logits_of_whole,
    preparation_of,
    segmenter,
)
from raymae.tasks.volumes.schema import NUM_COLUMNS, SCHEMA, box_of
from raymae.tasks.whole import OUTSIDE, classes_of, inside

NUM_PICTURED = 3


class Volumes(Task):
    """Organs in CT (BTCV), parts of the hippocampus in MRI, or any NIfTI volumes with labels."""

    schema = SCHEMA
    predictor = VolumesPredictor
    eval_batch = 1  # volumes differ in size, and each is scored in windows of its own

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = _volumes(config.data, p, device)
        if self.arm.kind != "reference":
            self.roi, self.grid = box_of(p.roi_size), grid_of(p, self.data.in_channels)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read every file, without resampling."""
        return _volumes(data, cls.schema.params.model_validate(dict(params)), torch.device("cpu")).check()

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many volumes of corpora pretraining sees, and what of them is left out."""
        if not data.pretraining.data:
            return ""
        p: Any = cls.schema.params.model_validate(dict(params))
        volumes = _volumes(data, p, torch.device("cpu"))
        own = [f"{len(volumes.scans['train']):,} training volumes"] if data.pretraining.own else []
        return " and ".join([*own, _corpora(data, p, volumes).note])

    def load(self, split: str) -> Source:
        """Boxes for training, whole volumes for scoring. The labelled share is of patients, drawn by the seed."""
        p, data = self.params, self.data
        if split in ("val", "test"):
            return whole_volumes(data.split(split))
        volumes = data.split(split_of(split))
        augment: dict[str, Any] = {"flips": p.flips, "jitter": p.jitter}
        if split == "pretext":
            return Boxes(volumes, self.roi, labelled=False)
        if split == "pretrain":
            every = (*volumes, *(data.split("unlabelled") if p.unlabelled else ()))
            if self.config.data.pretraining.data:
                own = every if self.config.data.pretraining.own else ()
                every = (*own, *_corpora(self.config.data, p, data).volumes)
                if not every:
                    raise DataError(f"{self.config.data.name}: nothing is left to pretrain on, for val or test has all "
                                    "of it; name other data")
            return Boxes(every, self.roi, labelled=False, num_boxes=p.pretrain_boxes, **augment)
        chosen = [volumes[index] for index in self._labelled()]
        return Boxes(chosen, self.roi, labelled=True, num_boxes=p.boxes_per_epoch, **augment)

    def _labelled(self) -> np.ndarray:
        """Which training volumes have labels: a share of the patients, where they are known."""
        count, groups = len(self.data.scans["train"]), self.data.groups("train")
        return labelled(count, getattr(self.params, "label_fraction", 1.0), self.config.seed, groups=groups)

    def units(self, split: str) -> Units:
        """Volumes by file name, and the patient, where known."""
        splits = [split_of(split)]
        if split == "pretrain" and self.params.unlabelled:
            splits.append("unlabelled")
        names, groups = self.data.names(*splits), self.data.groups(*splits)
        if split == "pretrain" and self.config.data.pretraining.data:
            more = _corpora(self.config.data, self.params, self.data).names
            own = [Units(names, groups)] if self.config.data.pretraining.own else []
            return joined([*own, Units(more, more if groups is not None else None)])
        if split != "train":
            return Units(names, groups)
        kept = self._labelled()
        return Units(tuple(names[i] for i in kept), groups and tuple(groups[i] for i in kept))

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """UNETR on the encoder; nothing to learn for the atlas."""
        if self.arm.kind == "reference":
            return nn.Identity()
        return segmenter(self.params, self.data.in_channels, len(self.data.classes))

    def kept_state(self, model: nn.Module) -> Tree:
        """Classes and their numbers in files, and which channels are CT."""
        found = self.data.found
        return {"classes": list(self.data.classes), "ct": [self.data.is_ct(k) for k in range(self.data.in_channels)],
                "values": list(found.values if found and found.values else range(len(self.data.classes)))}

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
        made = encoder(p, self.grid, drop_path=p.pretrain_drop_path, dropout=p.pretrain_dropout)
        return autoencoder(p, made, self.grid)

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Dice loss of every box and class plus cross entropy of every voxel: both are means over boxes."""
        logits_BKXYZ = logits_of(model, batch["image"], self.params.shrink)
        mean = _dice_ce()(logits_BKXYZ.float(), batch["label"][:, None])
        return Loss(mean, len(batch["label"]))

    # -- scores --------------------------------------------------------------------------------------------------------

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Labels `[B, X, Y, Z]` as float32, each volume by itself; NaN where the network's output is not finite."""
        return classes_of(batch, lambda image_CXYZ: self._scores(model, image_CXYZ))

    def _scores(self, model: nn.Module, image_CXYZ: Tensor) -> Tensor:
        if self.arm.kind == "reference":
            return resized(self.data.atlas, image_CXYZ.shape[1:])
        return logits_of_whole(model, image_CXYZ, self.params)

    def reported(self) -> tuple[str, ...]:
        """Only classes that the data set has; from the 14th on they count in the mean alone."""
        return self.schema.metrics[:len(self.data.classes)]

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
        return captioned(grid(rows, gap=4), columns=("original", "masked", "reconstruction"))

    @torch.no_grad()
    def _prediction(self, model: nn.Module) -> np.ndarray:
        source, rows = whole_volumes(self.data.split("test")), []
        for index in range(min(NUM_PICTURED, len(source))):
            batch = source.batch(torch.tensor([index]), None)
            image, truth, said = (inside(volume, batch["size"][0]).cpu().numpy() for volume in (
                batch["image"][0, 0], batch["label"][0], self.predict(model, batch)[0].nan_to_num()))
            at = most_labelled(truth)
            rows.append([slice_picture(image, at), slice_picture(image, at, truth), slice_picture(image, at, said)])
        legend = [(name, LABELS[index % len(LABELS)]) for index, name in enumerate(self.data.classes[1:])]
        return captioned(grid(rows, gap=4), columns=("input", "truth", "prediction"), legend=legend)


class DiceMetrics(Metrics):
    """Dice of every volume and foreground class, summed, and how many were summed.

    It is MONAI's `DiceMetric(include_background=False, reduction="mean_batch")`: of every class the mean over the
    volumes whose truth has it, one that only the prediction has being left out. `dice` is the mean of those means, not
    the mean over volumes of each volume's mean.

    Args:
        num_classes: K, with the background.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2 * (num_classes - 1))
        self.parts = tuple(map(str, range(1, num_classes)))

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add labels `[B, X, Y, Z]`."""
        dice_BP, counted_BP = self.unit_scores(prediction, batch)
        self.totals += torch.cat([(dice_BP * counted_BP).sum(dim=0), counted_BP.sum(dim=0)]).cpu()

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """Dice of each volume and foreground class; weight 0 where the truth does not have the class."""
        counted = batch["label"] != OUTSIDE
        broken_B = prediction.isnan().flatten(1).any(dim=1)
        scores, weights = [], []
        for index in range(1, len(self.parts) + 1):
            said, true = (prediction == index) & counted, batch["label"] == index
            shared_B, sizes_B, true_B = (part.flatten(1).sum(dim=1).double()
                                         for part in (said & true, said.int() + true.int(), true))
            scores.append(torch.where(broken_B, math.nan, 2 * shared_B / sizes_B.clamp(min=1)))
            weights.append((true_B > 0).double())
        return UnitScores(torch.stack(scores, dim=1), torch.stack(weights, dim=1))

    def compute(self) -> dict[str, float]:
        """`dice_1`, … by class, the mean over its volumes, and `dice`, the mean over the classes that occur."""
        sums, counts = self.totals.chunk(2)
        by_class = (sums / counts).tolist()
        seen = [value for value, count in zip(by_class, counts.tolist(), strict=True) if count]
        scores = {f"dice_{index}": value for index, value in enumerate(by_class[:NUM_COLUMNS], start=1)}
        return {"dice": sum(seen) / len(seen) if seen else math.nan, **scores}


def _volumes(data: TrialData, p: Any, device: torch.device) -> VolumeSplits:
    return volume_splits(path_of(data), preparation_of(p), p.group, device)


def _corpora(data: TrialData, p: Any, volumes: VolumeSplits) -> VolumeCorpora:
    """What pretraining sees beside the data set's own volumes."""
    return read_corpora(located_corpora(data), volumes, frozenset(volumes.groups("val", "test") or ()), p.group)


@cache
def _dice_ce() -> nn.Module:
    from monai.losses import DiceCELoss

    return DiceCELoss(to_onehot_y=True, softmax=True)
