"""The images that pretraining sees where it sees more than fine-tuning does: those of further classes.

Nothing of the validation or test images, and nobody who is in them, is among what is added.

Shape suffixes: N images, B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raymae.data.find.locate import Located
from raymae.data.groups import named_groups
from raymae.data.images import SPLITS, ImageSet
from raymae.data.shelf import WORKER
from raymae.data.subsets import rank_within_class
from raymae.tasks.base import Units
from raymae.tasks.classification.images import (
    SUBSET_SEED,
    LabelledImages,
    class_order,
    read_labelled,
    read_set,
    resized,
)


class Part(NamedTuple):
    """Some images of an array: uint8 `[N, H, W, C]`, and which of them, int64."""

    images_NHWC: Tensor
    rows_N: Tensor


class Corpus:
    """Images of several arrays, numbered through.

    Args:
        parts: At least one, of images of one size.
        units: All of them by name and group.
        note: What has to be said of them.
    """

    def __init__(self, parts: Sequence[Part], units: Units, note: str) -> None:
        self.parts, self.units, self.note = parts, units, note
        self.device = parts[0].images_NHWC.device
        self.ends = torch.tensor([len(part.rows_N) for part in parts], device=self.device).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def pixels(self, rows_B: Tensor) -> Tensor:
        """Images as float `[B, C, H, W]` in [0, 1]."""
        part_B = torch.bucketize(rows_B, self.ends, right=True)
        first = self.parts[0].images_NHWC
        pixels_BHWC = torch.empty(len(rows_B), *first.shape[1:], dtype=first.dtype, device=self.device)
        start = 0
        for index, part in enumerate(self.parts):
            there_B = part_B == index
            pixels_BHWC[there_B] = part.images_NHWC[part.rows_N[rows_B[there_B] - start]]
            start = int(self.ends[index])
        return pixels_BHWC.permute(0, 3, 1, 2).float() / 255

    def labels(self, rows_B: Tensor) -> None:
        """None is read."""


@WORKER.keeps(2)
def read_corpus(
    name: str, found: Located | None, image_size: int, num_classes: int, per_class: int, group: str,
    pretrain_classes: int, device: torch.device,
) -> Corpus:
    """The training images and those of further classes, read once per process; see `read_labelled`.

    Args:
        name: The data set.
        found: Where it is; None for generated images.
        image_size: In pixels.
        num_classes: Classes that are told apart; at least 2.
        per_class: Training images of each class, of further ones too; 0 is all.
        group: See `raymae.data.groups.named_groups`.
        pretrain_classes: Classes that pretraining sees, at least `num_classes`; 0 is all.
        device: Where images are kept.
    """
    data = read_labelled(name, found, image_size, num_classes, per_class, group, device)
    images = read_set(found, image_size)
    rows, note = _of_further_classes(images, data, num_classes, pretrain_classes, per_class, "" if found is None else
                                     group)
    own = data.rows["train"]
    if device.type == "cpu" and images.images_NHWC.shape[1] == image_size:
        more = Part(torch.from_numpy(images.images_NHWC), torch.from_numpy(rows))
    else:
        more = Part(torch.from_numpy(resized(images.images_NHWC[rows], image_size)).to(device),
                    torch.arange(len(rows), device=device))
    units = data.units(own)
    names = (*units.names, *(images.names[row] for row in rows))
    groups = None if units.groups is None else (*units.groups, *_groups(images, rows, group, name))
    return Corpus([Part(data.images_NHWC, torch.from_numpy(own).to(device)), more], Units(names, groups),
                  " and ".join(filter(None, (f"{len(own):,} training images", note))))


def _groups(images: ImageSet, rows: np.ndarray, group: str, name: str) -> tuple[str, ...]:
    return named_groups(group, [PurePosixPath(images.names[row]).stem for row in rows], name) if len(rows) else ()


def _of_further_classes(
    images: ImageSet, data: LabelledImages, num_classes: int, pretrain_classes: int, per_class: int, group: str,
) -> tuple[np.ndarray, str]:
    """Which training images of further classes pretraining may see, int64, ascending, and what to say of them."""
    classes = class_order(len(images.classes))[num_classes : pretrain_classes or None]
    rows = np.flatnonzero((images.split_N == SPLITS.index("train")) & np.isin(images.labels_N, classes))
    if per_class and len(rows):
        label_N = np.unique(images.labels_N[rows], return_inverse=True)[1]
        groups = _groups(images, rows, group, "") if group else None
        rows = rows[rank_within_class(label_N, SUBSET_SEED, groups)[0] < per_class]
    num_found, notes = len(rows), []
    if images.content_N is not None:
        rows = rows[[content not in data.scored.content for content in images.content_N[rows].tolist()]]
        if num_found > len(rows):
            notes.append(f"{num_found - len(rows):,} more left out, as val or test has the same")
    if group and data.scored.groups:
        alone = len(rows)
        rows = rows[[of not in data.scored.groups for of in _groups(images, rows, group, "")]]
        if alone > len(rows):
            notes.append(f"{alone - len(rows):,} more left out, as their group is in val or test")
    if pretrain_classes > len(images.classes):
        notes.append(f"pretrain_classes={pretrain_classes}, but there are only {len(images.classes)} classes")
    told = f"{len(rows):,} of {len(classes):,} further classes" if len(classes) else ""
    return rows, "; ".join(filter(None, [told, *notes]))
