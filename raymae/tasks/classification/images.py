"""Labelled images on a device, cut into splits and batches, for classification.

Shape suffixes: N images, B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.data.find.locate import Located
from raymae.data.groups import named_groups, shared, split_anew
from raymae.data.images import SPLITS, ImageSet, read_images
from raymae.data.shelf import WORKER
from raymae.data.subsets import hold_out, rank_within_class
from raymae.data.synthetic.images import synthetic_images
from raymae.data.twins import copies_note, kept_apart
from raymae.errors import DataError
from raymae.tasks.augment import Augmentation, mix
from raymae.tasks.base import Batch, Units
from raymae.tasks.colours import standardise

HELD_OUT = 0.1  # of train, to select on where the data set has no split for it
SUBSET_SEED = 0  # the splits and subsets are the same for every arm and seed


class Scored(NamedTuple):
    """The validation and test images: their places in the data set, hashes of their pixels, and groups."""

    rows: np.ndarray
    content: frozenset[int]
    groups: frozenset[str]


def class_order(count: int) -> np.ndarray:
    """The order in which classes are taken where only some are used, the same for every arm and seed: int64 `[K]`."""
    return np.random.default_rng(SUBSET_SEED).permutation(count)


class LabelledImages:
    """A data set's images as bytes on a device, and which of them belong to which split.

    Attributes:
        images_NHWC: uint8. On the CPU memory-mapped where the data set is, so that workers share it.
        labels_N: int64, below `num_classes`.
        rows: Indices of the images of `train`, `val` and `test`, ascending.
        num_classes: Classes kept.
        classes: Their names.
        names: Of every image the path of its file inside the data set.
        groups: Of every image the patient or place; None where it is not known.
        decoded_size: Pixels along both sides that images had when they were decoded, before they were resized.
        note: What has to be said of the splits, or "".
        scored: What is selected or scored on: pretraining on more than these images must not see it.
    """

    def __init__(
        self, images: ImageSet, image_size: int, num_classes: int, per_class: int, device: torch.device, name: str,
        group: str = "",
    ) -> None:
        notes = [images.note]
        if num_classes > len(images.classes):
            notes.append(f"settings.num_classes={num_classes}, but there are only {len(images.classes)} classes")
        kept = class_order(len(images.classes))[: num_classes or None]
        new_label = np.full(len(images.classes), -1)
        new_label[np.sort(kept)] = np.arange(len(kept))
        labels_N = new_label[images.labels_N]
        rows = {split: np.flatnonzero((images.split_N == index) & (labels_N >= 0))
                for index, split in enumerate(SPLITS)}
        self.classes = tuple(images.classes[index] for index in np.sort(kept))
        self.names = images.names
        self.groups: tuple[str, ...] | None = None
        if group:
            self.groups = named_groups(group, [PurePosixPath(path).stem for path in images.names], name)
            both = shared(*(self._groups(found) or () for found in rows.values()))
            if both:
                notes.append(split_anew(both))
                every = np.sort(np.concatenate(list(rows.values())))
                rows = {split: every if split == "train" else every[:0] for split in SPLITS}
        if not len(rows["test"]):  # a plain folder per class
            held = hold_out(labels_N[rows["train"]], 2 * HELD_OUT, SUBSET_SEED + 1, self._groups(rows["train"]))
            rows["train"], rows["test"] = rows["train"][~held], rows["train"][held]
        if not len(rows["val"]):
            held = hold_out(labels_N[rows["train"]], HELD_OUT, SUBSET_SEED, self._groups(rows["train"]))
            rows["train"], rows["val"] = rows["train"][~held], rows["train"][held]
        notes += self._without_copies(images, rows)
        if per_class:
            rank_N, _ = rank_within_class(labels_N[rows["train"]], SUBSET_SEED, self._groups(rows["train"]))
            rows["train"] = rows["train"][rank_N < per_class]
        for split, found in rows.items():
            if not len(found):
                remedy = "lift num_classes" if self.groups is None else "let settings.group tell more groups apart"
                raise DataError(f"{name}: no image is left for the {split} split; add images, or {remedy}")
        untaught = sorted({*range(len(kept))} - {*labels_N[rows["train"]].tolist()})
        if untaught:
            raise DataError(f"{name}: every image of class {images.classes[np.sort(kept)[untaught[0]]]} is of a group "
                            "that is in val or test, so nothing is learned of it; let settings.group tell more groups "
                            "apart")
        self.note = "; ".join(filter(None, notes))
        scored = np.concatenate([rows["val"], rows["test"]])
        self.scored = Scored(scored, frozenset() if images.content_N is None else
                             frozenset(images.content_N[scored].tolist()), frozenset(self._groups(scored) or ()))
        used = np.sort(np.concatenate(list(rows.values())))
        pixels = images.images_NHWC
        self.decoded_size = pixels.shape[1]
        if device.type != "cpu" or pixels.shape[1] != image_size:  # else only what is read is brought into memory
            pixels = resized(pixels[used], image_size)
            labels_N, rows = labels_N[used], {split: np.searchsorted(used, found) for split, found in rows.items()}
            self.names, self.groups = tuple(self.names[row] for row in used), self._groups(used)
        self.images_NHWC = torch.from_numpy(pixels).to(device)
        self.labels_N = torch.from_numpy(labels_N).to(device)
        self.rows, self.num_classes, self.device = rows, len(kept), device

    def _without_copies(self, images: ImageSet, rows: dict[str, np.ndarray]) -> list[str]:
        """Leave out of each split the images of which a later one has a copy, and say so."""
        if images.content_N is None:
            return []
        content = {split: images.content_N[found].tolist() for split, found in rows.items()}
        note = copies_note(content, {split: [images.names[row] for row in found] for split, found in rows.items()})
        if images.published:
            return [f"the published splits hold copies, which stay: {note.replace(' left out', '')}"] if note else []
        rows |= {split: rows[split][kept] for split, kept in kept_apart(content).items()}
        every = np.sort(np.concatenate(list(rows.values())))
        labels: dict[int, int] = {}
        odd = [row for row in every.tolist()
               if labels.setdefault(int(images.content_N[row]), int(images.labels_N[row])) != images.labels_N[row]]
        return [note, f"WARNING: images in two classes: {len(odd):,}, such as {images.names[odd[0]]}" if odd else ""]

    def _groups(self, rows: np.ndarray) -> tuple[str, ...] | None:
        return None if self.groups is None else tuple(self.groups[row] for row in rows)

    def units(self, rows: np.ndarray) -> Units:
        """Some images by their files, and their groups where known."""
        return Units(tuple(self.names[row] for row in rows), self._groups(rows))

    def pixels(self, rows_B: Tensor) -> Tensor:
        """Images as float `[B, C, H, W]` in [0, 1]."""
        return self.images_NHWC[rows_B].permute(0, 3, 1, 2).float() / 255

    def labels(self, rows_B: Tensor) -> Tensor:
        """Their classes, int64 `[B]`."""
        return self.labels_N[rows_B]


class Images(Protocol):
    """Images on a device, numbered through."""

    device: torch.device

    def pixels(self, rows_B: Tensor) -> Tensor:
        """Images as float `[B, C, H, W]` in [0, 1]."""
        ...

    def labels(self, rows_B: Tensor) -> Tensor | None:
        """Their classes, int64 `[B]`; None where they are not known."""
        ...


class ImageSource:
    """One split as batches: gathered, augmented and mixed on the device, in one go each.

    Args:
        data: The images.
        rows: Which of them.
        augmentation: While training.
        mixup: See `mix`.
        cutmix: See `mix`.
        labels: False for pretraining.
    """

    def __init__(
        self, data: Images, rows: np.ndarray, augmentation: Augmentation, *, mixup: float = 0.0,
        cutmix: float = 0.0, labels: bool = True,
    ) -> None:
        self.data, self.rows_N = data, torch.from_numpy(rows)
        self.augmentation, self.mixup, self.cutmix, self.labels = augmentation, mixup, cutmix, labels

    def __len__(self) -> int:
        return len(self.rows_N)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`image` [B, C, H, W], standardised; `label` [B]; where mixed, `partner` (its label) and `share`, both [B]."""
        rows_B = self.rows_N[index_B].to(self.data.device, non_blocking=True)
        pixels_BCHW = self.data.pixels(rows_B)
        label_B = self.data.labels(rows_B) if self.labels else None
        batch: Batch = {} if label_B is None else {"label": label_B}
        if generator is not None:
            pixels_BCHW = self.augmentation(pixels_BCHW, generator)
            if self.mixup or self.cutmix:
                pixels_BCHW, partner_B, batch["share"] = mix(
                    pixels_BCHW, generator, mixup=self.mixup, cutmix=self.cutmix)
                batch["partner"] = batch["label"][partner_B]
        return {"image": standardise(pixels_BCHW), **batch}


def resized(images_NHWC: np.ndarray, image_size: int) -> np.ndarray:
    """Square images at this size, uint8 `[N, H, W, C]`."""
    if images_NHWC.shape[1] == image_size:
        return np.ascontiguousarray(images_NHWC)
    parts = [
        F.interpolate(part.permute(0, 3, 1, 2).float(), size=(image_size, image_size), mode="bilinear", antialias=True)
        for part in torch.from_numpy(images_NHWC).split(1024)
    ]
    return torch.cat([part.round().byte().permute(0, 2, 3, 1) for part in parts]).contiguous().numpy()


@WORKER.keeps(4)
def read_labelled(
    name: str, found: Located | None, image_size: int, num_classes: int, per_class: int, group: str,
    device: torch.device,
) -> LabelledImages:
    """Read once per process: a worker keeps its images from trial to trial. `found` is None for generated ones."""
    where = f"{name} (synthetic)" if found is None else str(found.path)
    return LabelledImages(read_set(found, image_size), image_size, num_classes, per_class, device, where,
                          "" if found is None else group)


def read_set(found: Located | None, image_size: int) -> ImageSet:
    """The images of a data set with their splits and classes; generated ones where `found` is None."""
    return synthetic_images(image_size) if found is None else read_images(replace(found, note=""), image_size)
