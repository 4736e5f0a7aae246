"""Whole images and volumes, which differ in size: stacked for scoring, and predicted each by itself.

Shape suffixes: B batch, C channels, K classes, S spatial axes, two or three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.tasks.base import Batch

OUTSIDE = 255  # label of what only fills a batch's box, or is not labelled


class Whole:
    """A split for scoring, its examples padded at their ends to the largest so that they stack.

    A batch's shape does not depend on what is in it.

    Args:
        sizes: Extent of every example along its spatial axes.
        read: Reads the image `[C, *S]` and the label `[*S]` of an example, on the device.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], read: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self.sizes, self.read = sizes, read
        self.box = tuple(map(max, zip(*sizes, strict=True)))

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`image` [B, C, *box], `label` [B, *box] with 255 in the padding, `size` [B, axes] of each without it."""
        rows: list[Batch] = []
        for index in index_B.tolist():
            image_CS, label_S = self.read(index)
            padding: list[int] = []
            for extent, side in zip(reversed(label_S.shape), reversed(self.box), strict=True):
                padding += [0, side - extent]
            rows.append({"image": F.pad(image_CS, padding), "label": F.pad(label_S, padding, value=OUTSIDE),
                         "size": torch.tensor(label_S.shape, device=label_S.device)})
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def inside(x: Tensor, size: Tensor) -> Tensor:
    """Take the padding of `Whole` away from the last axes."""
    part: Any = tuple(slice(int(side)) for side in size)
    return x[(..., *part)]


def classes_of(batch: Batch, scores_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Predict the class of every element of a batch of whole examples, each by itself, whatever is beside it.

    Args:
        batch: As `Whole` makes it.
        scores_of: From an image `[C, *S]` to a score for every class `[K, *S]`.

    Returns:
        Classes `[B, *box]` as float32, NaN where a score is not finite.
    """
    predicted = torch.zeros(batch["label"].shape, device=batch["label"].device)
    for row, size in enumerate(batch["size"]):
        scores_KS = scores_of(inside(batch["image"][row], size))
        finite_S = scores_KS.isfinite().all(dim=0)
        inside(predicted[row], size).copy_(torch.where(finite_S, scores_KS.argmax(dim=0), math.nan))
    return predicted
