"""A class for every pixel of a photograph: ADE20K, CamVid, or any folder in their layout.

Shape suffixes: B batch, C colours, H and X rows and columns of a padded image, S edge of a crop, N tokens, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.corpora import located_corpora
from raymae.data.find.locate import path_of
from raymae.data.groups import counted
from raymae.data.scene_labels import IGNORED, Labelling
from raymae.data.scene_splits import SceneSplits, read_scenes
from raymae.data.scenes import Scenes, class_pixels, read_unlabelled, unlabelled_folder
from raymae.data.subsets import labelled
from raymae.data.synthetic.scenes import synthetic_scenes
from raymae.models.mae import MaskedAutoencoder
from raymae.models.tokens import TokenGrid
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Batch, Loss, Metrics, Source, Task, Units, UnitScores, split_of
from raymae.tasks.colours import to_rgb
from raymae.tasks.pictures import captioned, grid, palette
from raymae.tasks.pretraining import PatchPretraining
from raymae.tasks.segmentation.corpus import joined, read_corpora
from raymae.tasks.segmentation.crops import Crops, WholeScenes
from raymae.tasks.segmentation.prediction import SegmentationPredictor, logits_of, pretrain_grid_of, segmenter
from raymae.tasks.segmentation.schema import SCHEMA
from raymae.tasks.transformer import autoencoder, encoder
from raymae.tasks.whole import classes_of, inside

NUM_PICTURES = 4


class Segmentation(Task):
    """Semantic segmentation with a ViT and UperNet."""

    schema = SCHEMA
    eval_batch = 8
    predictor = SegmentationPredictor

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.folder = _folder(config.data)
        self.data = _splits(self.folder, p)
        self.num_classes = len(self.data.classes)
        if self.arm.kind != "reference":
            self.pretrain_grid = pretrain_grid_of(self.arm, p)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read and split as a trial would."""
        p: Any = cls.schema.params.model_validate(dict(params))
        folder = _folder(data)
        splits = _splits(folder, p)
        more = f", {len(_extra(folder, p)):,} more to pretrain on" if params.get("unlabelled") else ""
        counts = " / ".join(f"{len(getattr(splits, name)):,} {name}" for name in ("train", "val", "test"))
        groups = counted({name: getattr(splits, name).groups or None for name in ("train", "val", "test")})
        line = f"{counts} images, {len(splits.classes)} classes, shorter side {p.image_size} pixels{more}"
        return "; ".join(filter(None, (line, groups, splits.note)))

    @classmethod
    def image_grid(cls, params: Mapping[str, Scalar]) -> TokenGrid:
        """A plain vision transformer sees crops of the size that it is pretrained on."""
        size, patch = int(params["pretrain_crop"] or params["crop_size"] or 0), int(params["patch_size"] or 0)
        return TokenGrid((size, size), (patch, patch), 3)

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many photographs of corpora pretraining sees, and what of them is left out."""
        p: Any = cls.schema.params.model_validate(dict(params))
        folder, found = _folder(data), located_corpora(data)
        if not found:
            return ""
        splits = _splits(folder, p)
        own = [f"{len(splits.train):,} training images"] if data.pretraining.own else []
        own += [f"{len(_extra(folder, p)):,} without labels beside them"] if p.unlabelled else []
        return " and ".join([*own, read_corpora(found, splits, p.image_size).note])

    def load(self, split: str) -> Source:
        """Crops to learn from, whole images to score."""
        p, scenes = self.params, self._scenes(split)
        if split in ("val", "test"):
            return WholeScenes(scenes, self.device)
        pretraining = split != "train"
        return Crops(
            scenes, self.device, self.pretrain_grid.size[0] if pretraining else p.crop_size,
            scale=(p.scale_min, p.scale_max), flip=p.flip, jitter=0.0 if pretraining else p.colour_jitter,
            repeats=1 if split == "pretext" else p.crops,
        )

    def _scenes(self, split: str) -> Scenes:
        """The images of a split: of `train` the share that has labels, of `pretrain` those without as well."""
        scenes: Scenes = getattr(self.data, split_of(split))
        fraction = getattr(self.params, "label_fraction", 1.0)
        if split == "train" and fraction < 1:
            kept = labelled(len(scenes), fraction, self.config.seed, groups=scenes.groups or None)
            return scenes.take(kept.tolist())
        if split == "pretrain":
            return self._pretrained_on(scenes)
        return Scenes(scenes.names, scenes.images, groups=scenes.groups) if split == "pretext" else scenes

    def _pretrained_on(self, own: Scenes) -> Scenes:
        parts = [Scenes(own.names, own.images, groups=own.groups)] if self.config.data.pretraining.own else []
        if self.params.unlabelled:
            extra = _extra(self.folder, self.params)
            # the same name may be in both folders
            parts.append(replace(extra, names=tuple(f"unlabelled/{name}" for name in extra.names)))
        found = located_corpora(self.config.data)
        if found:
            parts.append(read_corpora(found, self.data, self.params.image_size).scenes)
        return joined(parts, self.config.data.name)

    def units(self, split: str) -> Units:
        """Images by file name, and the drive or place, where known."""
        scenes = self._scenes(split)
        return Units(scenes.names, scenes.groups or None)

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """A crop in, its logits out; positions are those learned while pretraining, stretched over this crop."""
        if self.arm.kind == "reference":
            return nn.Identity()
        return segmenter(self.arm, self.params, self.num_classes)

    def kept_state(self, model: nn.Module) -> Tree:
        """Names of classes."""
        return {"classes": list(self.data.classes)}

    def pretraining(self) -> PatchPretraining | None:
        """Colours of hidden patches of crops are reconstructed."""
        if self.arm.kind != "pretrained":
            return None
        return PatchPretraining(self._autoencoder, self.pretrain_grid, self.params.mask_ratio)

    def _autoencoder(self) -> MaskedAutoencoder:
        p = self.params
        grid = self.pretrain_grid
        return autoencoder(p, encoder(p, grid, like=grid, drop_path=p.pretrain_drop_path), grid)

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Cross entropy over labelled pixels by the weight of their class, the decoder's and the auxiliary head's."""
        logits_BKSS, auxiliary_BKSS = model(batch["image"])
        label_BSS, weight_K = batch["label"], self._class_weights
        counted_BSS = label_BSS != IGNORED
        weighed = counted_BSS.sum() if weight_K is None else weight_K[label_BSS[counted_BSS]].sum()

        def entropy(logits_BKSS: Tensor) -> Tensor:
            summed = F.cross_entropy(logits_BKSS.float(), label_BSS, weight_K, ignore_index=IGNORED, reduction="sum")
            return summed / weighed.clamp(min=1)

        return Loss(entropy(logits_BKSS) + self.params.aux_weight * entropy(auxiliary_BKSS), weighed)

    @cached_property
    def _class_weights(self) -> Tensor | None:
        """What a pixel of each class weighs, `[K]`, 1 in the mean over labelled pixels of training; None if all do."""
        if not self.params.class_balance:
            return None
        pixels_K = torch.as_tensor(class_pixels(self._scenes("train"), self.num_classes)).double().clamp(min=1)
        weight_K = (pixels_K / pixels_K.sum()) ** -self.params.class_balance
        return (weight_K / (weight_K * pixels_K).sum() * pixels_K.sum()).float().to(self.device)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The class of every pixel `[B, H, X]`, float so that a network without finite logits says NaN."""
        if self.arm.kind == "reference":
            majority = float(class_pixels(self.data.train, self.num_classes).argmax())
            return torch.full(batch["label"].shape, majority, device=self.device)
        return classes_of(batch, lambda image_CHX: logits_of(model, image_CHX, self.params))

    def metrics(self) -> SegmentationMetrics:
        """miou and pixel_accuracy over all labelled pixels of a split, and miou in the size of its files."""
        return SegmentationMetrics(self.num_classes)

    # -- pictures ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """After pretraining: original, masked, reconstruction of validation crops. After the test: image, truth,
        prediction of test images."""
        if phase == "pretrain":
            assert isinstance(model, MaskedAutoencoder)
            return {"reconstruction": self._reconstruction(model)}
        source = WholeScenes(self.data.test, self.device)
        batch = source.batch(torch.linspace(0, len(source) - 1, min(NUM_PICTURES, len(source))).long(), None)
        colours = palette(self.num_classes)
        image_BHXC, label_BHX = to_rgb(batch["image"]), batch["label"].cpu().numpy()
        predicted_BHX = self.predict(model, batch).nan_to_num(IGNORED).long().cpu().numpy()
        rows = zip(image_BHXC, colours[label_BHX], colours[predicted_BHX], strict=True)
        there = sorted({*np.unique(label_BHX), *np.unique(predicted_BHX)} - {IGNORED})
        legend = [(self.data.classes[index], colours[index]) for index in there]
        legend += [("not labelled", colours[IGNORED])] if (label_BHX == IGNORED).any() else []
        return {"prediction": captioned(grid(list(rows), gap=2), columns=("input", "truth", "prediction"),
                                        legend=legend)}

    def _reconstruction(self, model: MaskedAutoencoder) -> np.ndarray:
        scenes = self.data.val.take(range(min(NUM_PICTURES, len(self.data.val))))
        source = Crops(Scenes(scenes.names, scenes.images), self.device, self.pretrain_grid.size[0])
        batch, pretraining = source.batch(torch.arange(len(source)), None), self.pretraining()
        assert pretraining is not None
        rows = list(zip(*map(to_rgb, pretraining.reconstruct(model, batch)), strict=True))
        return captioned(grid(rows, gap=2), columns=("original", "masked", "reconstruction"))


class SegmentationMetrics(Metrics):
    """Two confusion matrices `[K, K]`, labelled pixels by true and by predicted class: of images as they were resized,
    and in the size of their files, to which predicted classes are enlarged, each pixel from its nearest.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2 * num_classes**2)
        self.num_classes = num_classes
        self.parts = tuple(map(str, range(num_classes)))

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add predicted classes `[B, H, X]`; what is ignored counts nowhere."""
        resized, native = self.totals.chunk(2)
        resized += self._confusion(prediction, batch["label"])
        for said_HX, size, truth_HX, full in zip(
            prediction, batch["size"], batch["native"], batch["native_size"], strict=True
        ):
            enlarged_11HX = F.interpolate(inside(said_HX, size)[None, None], tuple(full.tolist()), mode="nearest-exact")
            native += self._confusion(enlarged_11HX[0, 0], inside(truth_HX, full).long())

    def _confusion(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Labelled pixels by true and predicted class, flat; all NaN where a prediction is not finite."""
        counted = label != IGNORED
        truth_P, predicted_P = label[counted], prediction[counted]
        if not torch.isfinite(predicted_P).all():
            return torch.full((self.num_classes**2,), math.nan, dtype=torch.float64)
        pair_P = truth_P * self.num_classes + predicted_P.long()
        return torch.bincount(pair_P, minlength=self.num_classes**2).double().cpu()

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """IoU of each image and class, weighted by the pixels of its union: their weighted mean is the IoU of all."""
        each = [_overlap(self._confusion(*pair), self.num_classes)
                for pair in zip(prediction, batch["label"], strict=True)]
        hit_BK, union_BK = (torch.stack(part) for part in zip(*each, strict=True))
        return UnitScores(hit_BK / union_BK.clamp(min=1), union_BK)

    def compute(self) -> dict[str, float]:
        """`miou` is the mean over classes that occur, as truth or as prediction, of intersection over union."""
        resized, native = self.totals.chunk(2)
        hit_K, _ = _overlap(resized, self.num_classes)
        return {"miou": _miou(resized, self.num_classes), "miou_native": _miou(native, self.num_classes),
                "pixel_accuracy": float(hit_K.sum() / resized.sum())}


def _overlap(confusion: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Of every class the pixels in the intersection and in the union of truth and prediction, `[K]` each."""
    confusion_KK = confusion.reshape(num_classes, num_classes)
    hit_K = confusion_KK.diagonal()
    return hit_K, confusion_KK.sum(dim=0) + confusion_KK.sum(dim=1) - hit_K


def _miou(confusion: Tensor, num_classes: int) -> float:
    hit_K, union_K = _overlap(confusion, num_classes)
    return float((hit_K / union_K)[union_K != 0].mean())


def _folder(data: TrialData) -> Path | None:
    """Where the data set lies; None for synthetic."""
    found = path_of(data)
    return None if found is None else Path(found)


def _splits(folder: Path | None, p: Any) -> SceneSplits:
    if folder is None:
        return synthetic_scenes(p.image_size)
    return read_scenes(folder, p.image_size, p.group, Labelling(p.first_label, p.ignore_label))


def _extra(folder: Path | None, p: Any) -> Scenes:
    """Images without labels, but none that is scored, or of a drive that is."""
    if folder is None:
        return Scenes((), ())
    splits = _splits(folder, p)
    without = frozenset(splits.val.names + splits.test.names)
    return read_unlabelled(unlabelled_folder(folder), p.image_size, without, splits.pattern, splits.scored,
                           splits.val.sources + splits.test.sources)
