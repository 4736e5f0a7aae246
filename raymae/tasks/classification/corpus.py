"""The images that pretraining sees where it sees more than fine-tuning does: of further classes, and other pictures.

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
from raymae.data.leaks import guard, unseen
from raymae.data.pictures import content_of_set, read_pictures
from raymae.data.shelf import WORKER
from raymae.data.subsets import rank_within_class
from raymae.errors import DataError
from raymae.tasks.base import Units, joined
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


class Wanted(NamedTuple):
    """Which images pretraining sees, see `ClassificationParams` and `raymae.spec.sweep.PretrainingSpec`."""

    image_size: int
    num_classes: int
    per_class: int
    group: str
    pretrain_classes: int | None
    own: bool
    corpora: tuple[Located, ...]


@WORKER.keeps(2)
def read_corpus(name: str, found: Located | None, wanted: Wanted, device: torch.device) -> Corpus:
    """What pretraining sees, read once per process; see `read_labelled`.

    Args:
        name: The labelled data set.
        found: Where it is; None for generated images.
        wanted: What of it, and what else.
        device: Where images are kept.

    Raises:
        DataError: A corpus cannot be read, or nothing is left of all.
    """
    size, group = wanted.image_size, "" if found is None else wanted.group
    data = read_labelled(name, found, size, wanted.num_classes, wanted.per_class, wanted.group, device)
    images = read_set(found, size)
    parts: list[Part] = []
    units: list[Units] = []
    notes: list[str] = []
    if wanted.own:
        own = data.rows["train"]
        parts.append(Part(data.images_NHWC, torch.from_numpy(own).to(device)))
        units.append(data.units(own))
        notes.append(f"{len(own):,} training images")
    if wanted.own and wanted.pretrain_classes is not None and wanted.num_classes:
        rows, told = _of_further_classes(images, data, wanted.num_classes, wanted.pretrain_classes, wanted.per_class,
                                         group)
        pixels_NHWC = images.images_NHWC
        if device.type != "cpu" or pixels_NHWC.shape[1] != size:
            pixels_NHWC, used = resized(pixels_NHWC[rows], size), np.arange(len(rows))
        else:
            used = rows
        parts.append(Part(torch.from_numpy(pixels_NHWC).to(device), torch.from_numpy(used).to(device)))
        units.append(Units(tuple(images.names[row] for row in rows), _groups(images, rows, group, name) if group else
                           None))
        notes += [told] if told else []
    scored = {*content_of_set(found, images)[data.scored.rows].tolist()} if found is not None and wanted.corpora \
        else set()
    for corpus in wanted.corpora:
        pictures = read_pictures(corpus, size, square=True)
        guarded = guard(corpus.name, pictures, scored | data.scored.content, data.scored.groups, group)
        pixels = torch.from_numpy(pictures.images_NSSC if device.type == "cpu" else pictures.images_NSSC[guarded.rows])
        used = guarded.rows if device.type == "cpu" else np.arange(len(guarded.rows))
        parts.append(Part(pixels.to(device), torch.from_numpy(used).to(device)))
        units.append(Units(guarded.names, guarded.names if group else None))
        notes.append(guarded.note)
    if not sum(len(part.rows_N) for part in parts):
        raise DataError(f"{name}: nothing is left to pretrain on: {' and '.join(notes)}")
    return Corpus(parts, joined(units), " and ".join(notes))


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
    keys = rows.tolist() if images.content_N is None else images.content_N[rows].tolist()
    known = group and data.scored.groups
    apart = [of not in data.scored.groups for of in _groups(images, rows, group, "")] if known else [True] * len(rows)
    kept, notes = unseen(keys, data.scored.content, apart)
    rows = rows[kept]
    if pretrain_classes > len(images.classes):
        notes.append(f"pretrain_classes={pretrain_classes}, but there are only {len(images.classes)} classes")
    told = f"{len(rows):,} of {len(classes):,} further classes" if len(classes) else ""
    return rows, "; ".join(filter(None, [told, *notes]))
