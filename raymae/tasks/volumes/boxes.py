"""Volumes on a device: transformed once per process, then cut into random boxes or scored whole.

Shape suffixes: B batch, C channels, K classes, XYZ voxels along the three axes (of a box, or of a padded volume).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.data.groups import counted
from raymae.data.shelf import WORKER
from raymae.data.synthetic.volumes import CLASSES, synthetic_volumes
from raymae.data.volume_files import Scan, read_scan
from raymae.data.volumes import VolumeSet, read_volume_set, split_scans
from raymae.errors import DataError
from raymae.tasks.base import Batch
from raymae.tasks.volumes.schema import Box
from raymae.tasks.whole import Whole

ATLAS_SIDE = 64


class Preparation(NamedTuple):
    """How voxels become inputs.

    Attributes:
        spacing: Voxel size in mm along X, Y and Z; None leaves it as it is.
        intensity: `ct` scales a window to [0, 1], `volume` standardises every volume by itself, `auto` is `ct` where
            the data set says CT, channel by channel.
        window: Hounsfield units that become 0 and 1.
        num_classes: With the background; 0 for what the data set says.
        fold: See `read_volume_set`.
    """

    spacing: tuple[float, float, float] | None
    intensity: str
    window: tuple[float, float]
    num_classes: int
    fold: int = 0


class Volume(NamedTuple):
    """One volume on a device; `foreground` indexes the flattened label, whose values are in `label_XYZ`."""

    image_CXYZ: Tensor
    label_XYZ: Tensor | None
    foreground: Tensor


class VolumeSplits:
    """The splits of a data set; each is read when it is first asked for, and kept.

    Attributes:
        classes: Their names, the background first.
    """

    def __init__(self, path: Path | None, how: Preparation, group: str, device: torch.device) -> None:
        self.how, self.device = how, device
        self.found: VolumeSet | None = None
        self._is_read = False
        self._channels: tuple[int, Path] | None = None  # of the first volume that was read
        self._splits: dict[str, tuple[Volume, ...]] = {}
        if path is None:
            names = (Scan(f"{index:03d}", Path(), None) for index in range(len(synthetic_volumes())))
            self.scans = {**split_scans(names), "unlabelled": ()}
            self.classes: tuple[str, ...] = CLASSES
        else:
            self.found = read_volume_set(path, num_classes=how.num_classes, group=group, fold=how.fold)
            self.scans = self.found.splits
            self.classes = self.found.classes

    def split(self, name: str) -> tuple[Volume, ...]:
        """`train`, `val`, `test` or `unlabelled`."""
        if name not in self._splits:
            found = tuple(self._volume(scan) for scan in self.scans[name])
            self._check_foreground(name, [len(volume.foreground) for volume in found])
            self._splits[name] = found
        return self._splits[name]

    def groups(self, *names: str) -> tuple[str, ...] | None:
        """The groups of these splits' volumes, an unlabelled one without being its own; None where none is known."""
        if self.scans["train"][0].group is None:
            return None
        return tuple(scan.group or scan.name for name in names for scan in self.scans[name])

    def names(self, *names: str) -> tuple[str, ...]:
        """The file names of these splits' volumes, with their folders where files of a name are in several."""
        scans = [scan for scans in self.scans.values() for scan in scans]
        alike = len({scan.name for scan in scans}) < len(scans)
        chosen = [scan for name in names for scan in self.scans[name]]
        if not alike or self.found is None:
            return tuple(scan.name for scan in chosen)
        return tuple(Path(os.path.relpath(scan.image, self.found.folder)).as_posix() for scan in chosen)

    @property
    def in_channels(self) -> int:
        """C, of the first training volume."""
        return len(self.split("train")[0].image_CXYZ)

    def check(self) -> str:
        """Read every file as it is, once, and describe the splits in one line."""
        if self.found is not None and not self._is_read:
            for name, scans in self.scans.items():
                labels = [self._read(scan)[1] for scan in scans]
                self._check_foreground(name, [int(np.count_nonzero(label)) for label in labels if label is not None])
            self._is_read = True
        counts = " / ".join(f"{len(self.scans[name])} {name}" for name in ("train", "val", "test", "unlabelled"))
        notes = [f"{counts} volumes", f"{len(self.classes) - 1} classes: {', '.join(self.classes[1:])}",
                 counted({name: self.groups(name) for name in ("train", "val", "test")})]
        if self.found is not None:
            groups = {scan.group for name in ("val", "test") for scan in self.scans[name]} - {None}
            scored = sum(scan.group in groups for scan in self.found.unlabelled)
            notes += [self._intensities(), self.found.note,
                      f"{scored} unlabelled left out, whose group is scored" if scored else ""]
        return "; ".join(filter(None, notes))

    def _check_foreground(self, split: str, voxels: Sequence[int]) -> None:
        """Refuse a split whose Dice is the mean of nothing."""
        if split != "unlabelled" and not any(voxels):
            purpose = {"train": "learn", "val": "select by", "test": "score"}[split]
            where = "the data set" if self.found is None else self.found.folder
            raise DataError(f"{where}: no {split} volume holds a foreground class, so there is nothing to {purpose}; "
                            "add volumes that hold one, or other splits: by the list, settings.group or settings.fold")

    def _read(self, scan: Scan) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Read a volume of as many channels as all others, and as are named."""
        assert self.found is not None
        image_CXYZ, label_XYZ, affine = read_scan(scan, len(self.classes), self.found.values)
        channels, names = len(image_CXYZ), self.found.modalities
        self._channels = self._channels or (channels, scan.image)
        if channels != self._channels[0]:
            raise DataError(f"{scan.image}: has {_many(channels)}, but {self._channels[1]} has {self._channels[0]}; "
                            "every volume needs the same")
        if channels < len(names):
            raise DataError(f"{scan.image}: has {_many(channels)}, but the list names {len(names)}: "
                            f"{', '.join(names)}; correct the list, or add the file's others")
        return image_CXYZ, label_XYZ, affine

    def is_ct(self, channel: int) -> bool:
        """Whether a channel is in Hounsfield units: as the setting says, or else the data set."""
        if self.how.intensity != "auto":
            return self.how.intensity == "ct"
        names = () if self.found is None else self.found.modalities
        return channel < len(names) and re.search(r"(?<![A-Z])CT(?![A-Z])", names[channel].upper()) is not None

    def _intensities(self) -> str:
        """Say in a dry run what becomes of each of several channels."""
        if self._channels is None or self._channels[0] == 1:
            return ""
        return "channels: " + ", ".join("CT window" if self.is_ct(channel) else "standardised"
                                        for channel in range(self._channels[0]))

    def _volume(self, scan: Scan) -> Volume:
        if self.found is None:
            image_CXYZ, label_XYZ = synthetic_volumes()[int(scan.name)]
            image: Tensor = torch.as_tensor(image_CXYZ)
            label: Tensor | None = torch.as_tensor(label_XYZ)
        else:
            voxels_CXYZ, drawn_XYZ, affine = self._read(scan)
            ct = [self.is_ct(channel) for channel in range(len(voxels_CXYZ))]
            image, label = transformed(voxels_CXYZ, affine, self.how, ct).as_tensor(), None
            if drawn_XYZ is not None:
                placed: Any = onto_grid(self.how, "nearest")(_placed(drawn_XYZ[None].astype(np.float32), affine))
                label = placed.as_tensor()[0].round().to(torch.uint8).contiguous()
        foreground = torch.empty(0, dtype=torch.int64)
        if label is not None:
            label = label.to(self.device)
            foreground = label.flatten().nonzero()[:, 0]
        return Volume(image.to(self.device), label, foreground)

    @cached_property
    def atlas(self) -> Tensor:
        """How often training labels have each class at each relative position: `[K, X, Y, Z]`."""
        labels = [volume.label_XYZ for volume in self.split("train") if volume.label_XYZ is not None]
        sizes = np.median([label.shape for label in labels], axis=0).astype(int)
        sides = tuple(min(int(side), ATLAS_SIDE) for side in sizes)
        summed = torch.zeros(len(self.classes), *sides, device=self.device)
        for label in labels:
            summed += resized(F.one_hot(label.long(), len(self.classes)).movedim(-1, 0).float(), sides)
        return summed / len(labels)


@cache
def onto_grid(how: Preparation, mode: str) -> Any:
    """MONAI's transforms onto the grid that networks see: axes to the right, front and top, and the wanted spacing.

    The same ones whenever they are asked for: MONAI goes back by those that went forth.
    """
    from monai.transforms import Compose, Orientation, Spacing

    steps: list[Any] = [Orientation(axcodes="RAS", labels=None)]
    if how.spacing is not None:
        steps.append(Spacing(pixdim=how.spacing, mode=mode))
    return Compose(steps)


def _placed(volume_CXYZ: np.ndarray, affine: np.ndarray) -> Any:
    from monai.data import MetaTensor

    return MetaTensor(volume_CXYZ, affine=torch.as_tensor(affine))


def transformed(image_CXYZ: np.ndarray, affine: np.ndarray, how: Preparation, ct: Sequence[bool]) -> Any:
    """MONAI's transforms, with their usual settings: images are interpolated linearly, labels by the nearest.

    Args:
        image_CXYZ: Voxels as the file has them.
        affine: From voxels to millimetres.
        how: What is done to them.
        ct: Whether a channel is in Hounsfield units.

    Returns:
        MONAI's tensor, float32, which knows how to get back onto the file's grid.
    """
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    low, high = how.window
    window, own = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True), NormalizeIntensity(channel_wise=True)
    whole: Any = onto_grid(how, "bilinear")(_placed(image_CXYZ, affine))
    parts: list[Any] = [(window if is_ct else own)(whole[channel : channel + 1]) for channel, is_ct in enumerate(ct)]
    values = torch.cat([part.as_tensor().float() for part in parts]).contiguous()
    return type(whole)(values, meta=whole.meta, applied_operations=whole.applied_operations)


def back_onto_file(label_XYZ: np.ndarray, image: Any, how: Preparation) -> np.ndarray:
    """Labels on the grid of `transformed` brought onto the file's, each voxel from its nearest: uint8 `[X, Y, Z]`."""
    from monai.transforms.utils import convert_applied_interp_mode

    label = type(image)(torch.from_numpy(label_XYZ[None].astype(np.float32)), meta=image.meta,
                        applied_operations=convert_applied_interp_mode(image.applied_operations, mode="nearest"))
    back: Any = onto_grid(how, "bilinear").inverse(label)
    return back.as_tensor()[0].round().to(torch.uint8).numpy()


def _many(channels: int) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''}"


def resized(x_KXYZ: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation to another size."""
    return F.interpolate(x_KXYZ[None], size=tuple(size), mode="trilinear", align_corners=False)[0]


def cut(volume: Tensor, start: Sequence[int], roi: Box) -> Tensor:
    """A box of the last three axes; what lies outside of the volume is zero."""
    size = volume.shape[-3:]
    padding: list[int] = []
    for axis in (2, 1, 0):
        padding += [max(-start[axis], 0), max(start[axis] + roi[axis] - size[axis], 0)]
    inside: Any = tuple(slice(max(at, 0), at + side) for at, side in zip(start, roi, strict=True))
    return F.pad(volume[(..., *inside)], padding)


class Boxes:
    """Boxes cut from volumes: one of each volume per epoch, or a fixed number.

    While training, half of the boxes of labelled volumes are centred on the foreground and half on the background;
    without labels they lie anywhere. Without a generator it is the volume's middle, unchanged.

    Args:
        volumes: Where they are cut from.
        roi: Size of a box.
        labelled: Whether labels are given, and decide where boxes lie.
        num_boxes: Boxes per epoch, the volumes taken in turn; 0 for one of each.
        flips: Mirror each axis with even chance.
        jitter: Largest relative change of contrast, and of brightness in deviations of the box.
    """

    def __init__(
        self, volumes: Sequence[Volume], roi: Box, *, labelled: bool, num_boxes: int = 0, flips: bool = False,
        jitter: float = 0.0,
    ) -> None:
        self.volumes, self.roi, self.labelled = volumes, roi, labelled
        self.num_boxes, self.flips, self.jitter = num_boxes, flips, jitter

    def __len__(self) -> int:
        return self.num_boxes or len(self.volumes)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`image` [B, C, *roi] and, where labelled, `label` [B, *roi], uint8."""
        draws = [[0.5] * 9] * len(index_B)
        if generator is not None:
            draws = torch.rand(len(index_B), 9, generator=generator, device=generator.device).tolist()
        images, labels = [], []
        for index, draw in zip(index_B.tolist(), draws, strict=True):
            volume = self.volumes[index % len(self.volumes)]
            start = self._start(volume, draw, random=generator is not None)
            axes = [axis for axis in (-3, -2, -1) if self.flips and draw[axis] < 0.5] if generator else []
            image = cut(volume.image_CXYZ, start, self.roi).flip(axes)
            if generator is not None and self.jitter:
                contrast, shift = (self.jitter * (2 * value - 1) for value in draw[4:6])
                image = image * (1 + contrast) + shift * image.std()
            images.append(image)
            if self.labelled and volume.label_XYZ is not None:
                labels.append(cut(volume.label_XYZ, start, self.roi).flip(axes))
        batch = {"image": torch.stack(images)}
        return {**batch, "label": torch.stack(labels)} if self.labelled else batch

    def _start(self, volume: Volume, draw: Sequence[float], *, random: bool) -> list[int]:
        size = volume.image_CXYZ.shape[1:]
        room = [extent - side for extent, side in zip(size, self.roi, strict=True)]
        if not random:
            return [space // 2 for space in room]
        if not self.labelled:
            return [int(part * (space + 1)) if space > 0 else space // 2
                    for part, space in zip(draw, room, strict=False)]
        total, count = int(np.prod(size)), len(volume.foreground)
        flat = int(draw[0] * count)
        if count and (draw[1] < 0.5 or count == total):
            flat = int(volume.foreground[flat])
        elif count:
            flat = _background(volume.foreground, int(draw[0] * (total - count)))
        else:
            flat = int(draw[0] * total)
        centre = np.unravel_index(flat, size)
        return [min(max(int(at) - side // 2, 0), space) if space > 0 else space // 2
                for at, side, space in zip(centre, self.roi, room, strict=True)]


def _background(foreground: Tensor, rank: int) -> int:
    """The voxel of that rank among those that are not foreground: as many are before it as foreground ones skip."""
    before = foreground - torch.arange(len(foreground), device=foreground.device)
    return rank + int(torch.searchsorted(before, rank, right=True))


def whole_volumes(volumes: Sequence[Volume]) -> Whole:
    """Labelled volumes for scoring."""
    def read(index: int) -> tuple[Tensor, Tensor]:
        image_CXYZ, label_XYZ, _ = volumes[index]
        assert label_XYZ is not None
        return image_CXYZ, label_XYZ

    return Whole([volume.image_CXYZ.shape[1:] for volume in volumes], read)


@WORKER.keeps(4)
def volume_splits(path: str | None, how: Preparation, group: str, device: torch.device) -> VolumeSplits:
    """Once per process: a worker keeps its volumes from trial to trial."""
    return VolumeSplits(None if path is None else Path(path), how, group, device)
