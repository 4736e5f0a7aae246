"""Labels of volumes that no sweep has seen.

Shape suffixes: B batch, C channels, K classes, XYZ voxels, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.inputs import files_of
from raymae.data.volume_files import Scan, read_scan
from raymae.data.volume_lists import CHANNEL, stem_of
from raymae.errors import DataError
from raymae.models.tokens import TokenGrid
from raymae.tasks.answers import require_ending, write_whole
from raymae.tasks.predictor import Item, Predictor
from raymae.tasks.transformer import encoder
from raymae.tasks.volumes.boxes import Preparation, back_onto_file, cut, transformed
from raymae.tasks.volumes.schema import SCHEMA, box_of, spacing_of

WINDOWS_AT_ONCE = 4
ENDINGS = (".nii", ".nii.gz")


def preparation_of(p: Any) -> Preparation:
    """What is done to voxels before a network sees them."""
    return Preparation(spacing_of(p.spacing), p.intensity, (p.window_low, p.window_high), p.num_classes, p.fold)


def grid_of(p: Any, in_channels: int) -> TokenGrid:
    """How boxes, shrunk, are cut into tokens."""
    x, y, z = (side // p.shrink for side in box_of(p.roi_size))
    return TokenGrid((x, y, z), (p.patch_size,) * 3, in_channels)


def segmenter(p: Any, in_channels: int, num_classes: int) -> nn.Module:
    """UNETR, freshly initialised."""
    from raymae.models.unetr import Unetr  # MONAI takes seconds to import

    grid = grid_of(p, in_channels)
    return Unetr(encoder(p, grid, drop_path=p.drop_path, dropout=p.dropout), grid, num_classes,
                 feature_size=p.feature_size)


def logits_of(model: nn.Module, image_BCXYZ: Tensor, shrink: int) -> Tensor:
    """Logits of boxes at full resolution."""
    if shrink == 1:
        return model(image_BCXYZ)
    return F.interpolate(model(F.avg_pool3d(image_BCXYZ, shrink)), scale_factor=shrink, mode="trilinear")


def logits_of_whole(model: nn.Module, image_CXYZ: Tensor, p: Any) -> Tensor:
    """Logits of a volume of any size `[K, X, Y, Z]`, from overlapping windows."""
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(
        image_CXYZ[None], box_of(p.roi_size), WINDOWS_AT_ONCE, lambda window: logits_of(model, window, p.shrink),
        p.overlap, mode="gaussian",
    )[0]


class GivenVolume(NamedTuple):
    """Voxels as the file has them, float32 `[C, X, Y, Z]`, the affine to millimetres `[4, 4]`, and the file, if any."""

    image: np.ndarray
    affine: np.ndarray
    file: Path | None = None


class VolumesPredictor(Predictor):
    """NIfTI files in, NIfTI labels on their own grids out."""

    schema = SCHEMA

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.classes = tuple(map(str, self.state["classes"]))
        self.ct = tuple(map(bool, self.state["ct"]))
        self.how = preparation_of(self.params)

    def build(self) -> nn.Module:
        """The network."""
        return segmenter(self.params, len(self.ct), len(self.classes))

    def items(self, source: Path) -> Iterator[Item]:
        """A NIfTI file, or those of a folder; of several channels also files with nnU-Net's numbers, joined."""
        cases: dict[str, list[Path]] = {}
        for name, path in files_of(source, lambda name: name.lower().endswith(ENDINGS), "NIfTI files (.nii, .nii.gz)"):
            channel = CHANNEL.fullmatch(stem_of(path)) if len(self.ct) > 1 else None
            case = (Path(name).parent / f"{channel[1]}.nii.gz").as_posix() if channel else name
            cases.setdefault(case, []).append(path)
        for case, paths in cases.items():
            yield Item(case, partial(self.read, paths))

    def read(self, paths: Sequence[Path]) -> GivenVolume:
        """A volume of one file, or of one a channel, in order."""
        scan = Scan(stem_of(paths[0]), paths[0], None, more=tuple(paths[1:]))
        image_CXYZ, _, affine = read_scan(scan, len(self.classes))
        return self._checked(GivenVolume(image_CXYZ, affine, paths[0]), str(paths[0]))

    def _checked(self, given: GivenVolume, origin: str) -> GivenVolume:
        channels = len(given.image)
        if channels != len(self.ct):
            raise DataError(f"{origin}: has {channels} channel{'s' if channels > 1 else ''}, the network has learned "
                            f"from {len(self.ct)}; give it the same, in the same order")
        return given

    def prepare(self, inputs: Any, **options: bool) -> tuple[Any, GivenVolume]:
        """A volume as networks see it, MONAI's tensor, and as it was given.

        Args:
            inputs: A path, or a list of one a channel; or an array `[X, Y, Z]` or `[C, X, Y, Z]` and its affine.
            **options: None are known.
        """
        given = inputs if isinstance(inputs, GivenVolume) else self._given(inputs)
        return transformed(given.image, given.affine, self.how, self.ct), given

    def _given(self, inputs: Any) -> GivenVolume:
        if isinstance(inputs, (str, Path)):
            return self.read([Path(inputs)])
        if isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[0], np.ndarray):
            image, affine = np.asarray(inputs[0], dtype=np.float32), np.asarray(inputs[1], dtype=np.float64)
            image = image[None] if image.ndim == 3 else image
            if image.ndim != 4 or affine.shape != (4, 4) or not np.isfinite(image).all():
                raise DataError("a volume must be finite numbers with shape (X, Y, Z) or (C, X, Y, Z) and an affine "
                                f"(4, 4); got {inputs[0].shape} and {affine.shape}")
            return self._checked(GivenVolume(image, affine), "the array")
        return self.read([Path(one) for one in inputs])

    @torch.no_grad()
    def scores(self, model: nn.Module, prepared: tuple[Any, GivenVolume]) -> np.ndarray:
        """Probabilities of classes on the networks' grid, float32 `[K, X, Y, Z]`."""
        image_CXYZ = prepared[0].as_tensor().to(self.device)
        return logits_of_whole(model, image_CXYZ, self.params).float().softmax(dim=0).cpu().numpy()

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: tuple[Any, GivenVolume]) -> np.ndarray:
        """The mean of the tokens of all boxes that cover a volume side by side, `[1, D]`."""
        image_CXYZ, p, of = prepared[0].as_tensor().to(self.device), self.params, model.get_submodule("encoder")
        roi, grid = box_of(p.roi_size), grid_of(p, len(self.ct))
        starts = [range(0, extent, side) for extent, side in zip(image_CXYZ.shape[1:], roi, strict=True)]
        boxes = [cut(image_CXYZ, (x, y, z), roi) for x in starts[0] for y in starts[1] for z in starts[2]]
        parts = [of(grid.patchify(F.avg_pool3d(torch.stack(boxes[first:first + WINDOWS_AT_ONCE]), p.shrink))).mean(1)
                 for first in range(0, len(boxes), WINDOWS_AT_ONCE)]
        return torch.cat(parts).mean(dim=0, keepdim=True).float().cpu().numpy()

    def answer(self, scores: np.ndarray, prepared: tuple[Any, GivenVolume]) -> np.ndarray:
        """The index of every voxel's class on the given grid, uint8 `[X, Y, Z]`."""
        return back_onto_file(scores.argmax(axis=0), prepared[0], self.how)

    def writer(self, to: Path, source: Path) -> LabelFiles:
        """A label for each volume, of its name."""
        return LabelFiles(to, source, tuple(map(int, self.state["values"])))


class LabelFiles:
    """NIfTI labels on the grid, and with the place in space, that each volume's own file has.

    Args:
        to: A folder; of a single volume a NIfTI file as well.
        source: Where the volumes are from.
        values: The number of each class in files.
    """

    def __init__(self, to: Path, source: Path, values: Sequence[int]) -> None:
        self.single = to.name.lower().endswith(ENDINGS) or to.is_file()
        if self.single:
            if source.is_dir():
                raise DataError(f"{to}: a label is written for each volume, so it must be the name of a folder")
            require_ending(to, ENDINGS)
        self.to, self.values = to, np.asarray(values)

    def add(self, item: Item, inputs: GivenVolume, answer: np.ndarray) -> list[Path]:
        """Write a label."""
        import nibabel

        assert inputs.file is not None
        kind = np.uint8 if self.values.max() < 256 else np.int32
        file: Any = nibabel.load(inputs.file)
        header = nibabel.Nifti1Header.from_header(file.header)  # where it lies, by both of NIfTI's ways
        header.set_data_dtype(kind)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        label = nibabel.Nifti1Image(self.values[answer].astype(kind), inputs.affine, header)
        to = self.to if self.single else self.to / item.name
        return [write_whole(to, lambda path: nibabel.save(label, path))]

    def close(self) -> list[Path]:
        """Nothing is left to write."""
        return []
