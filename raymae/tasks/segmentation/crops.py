"""Scenes as batches: augmented crops to train on, whole images to score, and the windows that cover them.

Shape suffixes: B batch, C colours, H and X rows and columns, S edge of a crop, M edge of the canvas that a crop is
sampled from, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.data.scene_labels import IGNORED
from raymae.data.scenes import Scenes, native_label
from raymae.tasks.base import Batch
from raymae.tasks.colours import PAD, jitter, standardise
from raymae.tasks.whole import Whole


class Crops:
    """Square crops of scenes: random ones with a generator, else the middle of each image.

    Args:
        scenes: What they are cut from.
        device: Where batches live.
        size: S, in pixels.
        scale: Range of the factor by which an image is enlarged before it is cropped, drawn log-uniformly.
        flip: Mirror half of the crops left to right.
        jitter: Brightness, contrast and saturation are each multiplied by a factor from [1 - jitter, 1 + jitter].
        repeats: Crops of every image in an epoch.
    """

    def __init__(
        self, scenes: Scenes, device: torch.device, size: int, *, scale: tuple[float, float] = (1.0, 1.0),
        flip: bool = False, jitter: float = 0.0, repeats: int = 1,
    ) -> None:
        self.scenes, self.device, self.size = scenes, device, size
        self.scale, self.flip, self.jitter, self.repeats = scale, flip, jitter, repeats

    def __len__(self) -> int:
        return len(self.scenes) * self.repeats

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`image` [B, 3, S, S], standardised, and, where scenes have labels, `label` [B, S, S], int64."""
        chosen = [index % len(self.scenes) for index in index_B.tolist()]
        if generator is None:
            corners = [tuple((extent - self.size) // 2 for extent in self.scenes.images[i].shape[:2]) for i in chosen]
            image_BCSS, label_BSS = self._canvas(chosen, corners, self.size)
            return self._done(image_BCSS / 255, label_BSS)
        draw_B7 = torch.rand(len(chosen), 7, generator=generator, device=generator.device).cpu()
        low, high = map(math.log, self.scale)
        scale_B = (low + (high - low) * draw_B7[:, 0]).exp()
        corners = []
        for i, scale, (u, v) in zip(chosen, scale_B.tolist(), draw_B7[:, 1:3].tolist(), strict=True):
            rows, columns = self.scenes.images[i].shape[:2]
            window = self.size / scale  # larger than the image where this is zoomed out: then it is padded
            corners.append((math.floor(u * (rows - window)), math.floor(v * (columns - window))))
        edge = math.ceil(self.size / self.scale[0])
        image_BCMM, label_BMM = self._canvas(chosen, corners, edge)
        mirrored_B = (draw_B7[:, 3] < 0.5) & self.flip
        image_BCSS, label_BSS = _sample(image_BCMM, label_BMM, scale_B.to(self.device), mirrored_B.to(self.device),
                                        self.size)
        return self._done(jitter(image_BCSS / 255, self.jitter, draw_B7[:, 4:].to(self.device)), label_BSS)

    def _canvas(self, chosen: list[int], corners: list[tuple[int, ...]], edge: int) -> tuple[Tensor, Tensor]:
        """The pixels right and below each corner, padded where there are none; labels as 1..K, 0 = ignored."""
        image_BMMC = np.empty((len(chosen), edge, edge, 3), np.uint8)
        image_BMMC[:] = PAD
        label_BMM = np.zeros((len(chosen), edge, edge), np.uint8)
        for row, (i, (top, left)) in enumerate(zip(chosen, corners, strict=True)):
            image = self.scenes.images[i]
            y, x = slice(max(top, 0), top + edge), slice(max(left, 0), left + edge)
            part = image[y, x]
            to = (row, slice(y.start - top, y.start - top + part.shape[0]),
                  slice(x.start - left, x.start - left + part.shape[1]))
            image_BMMC[to] = part
            if self.scenes.labels:
                label_BMM[to] = self.scenes.labels[i][y, x] + np.uint8(1)  # IGNORED wraps to 0
        image_BCMM = torch.from_numpy(image_BMMC).to(self.device).permute(0, 3, 1, 2).float()
        return image_BCMM, torch.from_numpy(label_BMM).to(self.device)

    def _done(self, image_BCSS: Tensor, label_BSS: Tensor) -> Batch:
        image_BCSS = standardise(image_BCSS)
        if not self.scenes.labels:
            return {"image": image_BCSS}
        label_BSS = label_BSS.long() - 1
        return {"image": image_BCSS, "label": torch.where(label_BSS < 0, IGNORED, label_BSS)}


def _sample(
    image_BCMM: Tensor, label_BMM: Tensor, scale_B: Tensor, mirrored_B: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Enlarge the upper left of every canvas by its scale to a crop: bilinear for colours, nearest for labels."""
    reach_B = size / (scale_B * image_BCMM.shape[-1])  # of the canvas that the crop shows
    theta_B23 = torch.zeros(len(scale_B), 2, 3, device=scale_B.device)
    theta_B23[:, 0, 0] = torch.where(mirrored_B, -reach_B, reach_B)
    theta_B23[:, 1, 1] = reach_B
    theta_B23[:, :, 2] = (reach_B - 1)[:, None]
    grid = F.affine_grid(theta_B23, [len(scale_B), 1, size, size], align_corners=False)
    image_BCSS = F.grid_sample(image_BCMM, grid, mode="bilinear", padding_mode="border", align_corners=False)
    label_B1SS = F.grid_sample(label_BMM[:, None].float(), grid, mode="nearest", padding_mode="border",
                               align_corners=False)
    return image_BCSS, label_B1SS[:, 0]


class WholeScenes:
    """Labelled scenes for scoring, and their labels in the size of their files as well.

    Args:
        scenes: The images.
        device: Where batches live.
    """

    def __init__(self, scenes: Scenes, device: torch.device) -> None:
        self.scenes, self.device = scenes, device
        self.whole = Whole([image.shape[:2] for image in scenes.images], self._read)

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """As `Whole` makes it, `image` standardised; `native` [B, H, X], uint8, is padded to the largest in it, and
        `native_size` [B, 2] is each without padding."""
        files = self.scenes.files or self.scenes.labels
        natives = [native_label(file, self.scenes.labelling) if isinstance(file, Path) else file
                   for file in (files[i] for i in index_B)]
        rows, columns = (max(native.shape[axis] for native in natives) for axis in (0, 1))
        native_BHX = np.full((len(natives), rows, columns), IGNORED, np.uint8)
        for row, native in enumerate(natives):
            native_BHX[row, :native.shape[0], :native.shape[1]] = native
        sizes_B2 = torch.tensor([native.shape for native in natives], device=self.device)
        return {**self.whole.batch(index_B, generator), "native": torch.from_numpy(native_BHX).to(self.device),
                "native_size": sizes_B2}

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        image_CHX = torch.from_numpy(self.scenes.images[index].copy()).to(self.device).permute(2, 0, 1) / 255
        return standardise(image_CHX), torch.from_numpy(self.scenes.labels[index].copy()).to(self.device).long()


def windows(extent: int, size: int, overlap: float) -> list[int]:
    """Where windows start so that they cover an axis evenly, neighbours sharing at least that part of a window."""
    if extent <= size:
        return [0]
    steps = math.ceil((extent - size) / max(size * (1 - overlap), 1))
    return [round(step * (extent - size) / steps) for step in range(steps + 1)]


def sliding_window(
    network: Callable[[Tensor], Tensor], image_CHX: Tensor, size: int, *, overlap: float, at_once: int = 16
) -> Tensor:
    """Logits of a whole image of any size, averaged over the windows that see a pixel: `[K, H, X]`.

    Args:
        network: `[B, C, S, S]` → `[B, K, S, S]`.
        image_CHX: Padded where it is smaller than a window.
        size: S.
        overlap: Least share of a window that its neighbour sees too.
        at_once: Windows in one call.
    """
    rows, columns = image_CHX.shape[1:]
    padded_CHX, corners = _padded(image_CHX, size, overlap)
    summed_KHX, seen_HX = None, padded_CHX.new_zeros(padded_CHX.shape[1:])
    for (top, left), logits_KSS in zip(corners, _logits(network, padded_CHX, corners, size, at_once), strict=True):
        if summed_KHX is None:
            summed_KHX = logits_KSS.new_zeros(len(logits_KSS), *padded_CHX.shape[1:])
        summed_KHX[:, top : top + size, left : left + size] += logits_KSS
        seen_HX[top : top + size, left : left + size] += 1
    assert summed_KHX is not None
    return (summed_KHX / seen_HX)[:, :rows, :columns]


def _padded(image_CHX: Tensor, size: int, overlap: float) -> tuple[Tensor, list[tuple[int, int]]]:
    """An image no smaller than a window, and the upper left corners of the windows that cover it."""
    rows, columns = image_CHX.shape[1:]
    padded_CHX = F.pad(image_CHX, (0, max(size - columns, 0), 0, max(size - rows, 0)))
    return padded_CHX, [(top, left) for top in windows(rows, size, overlap) for left in windows(columns, size, overlap)]


def crops_of(image_CHX: Tensor, size: int, overlap: float) -> Tensor:
    """The windows of `sliding_window`: `[B, C, S, S]`."""
    padded_CHX, corners = _padded(image_CHX, size, overlap)
    return torch.stack([padded_CHX[:, top : top + size, left : left + size] for top, left in corners])


def _logits(
    network: Callable[[Tensor], Tensor], image_CHX: Tensor, corners: list[tuple[int, int]], size: int, at_once: int
) -> Iterator[Tensor]:
    for first in range(0, len(corners), at_once):
        cut = [image_CHX[:, top : top + size, left : left + size] for top, left in corners[first : first + at_once]]
        yield from network(torch.stack(cut)).float()
