"""The voxels of one volume's NIfTI files, its label brought onto the image's grid.

Shape suffixes: C channels, XYZ voxels along the three axes.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raymae.errors import DataError

ROUNDING = 0.1  # voxels by which the corners of two equal grids may differ, as affines are stored in single precision
SCALED = 1e-3  # by which a label may miss its whole number, where it is stored through a scale slope


class Scan(NamedTuple):
    """One volume's files.

    Attributes:
        name: Without the files' endings.
        image: The file of all channels, or of the first.
        label: None where nobody has drawn any.
        group: None where no group is known.
        more: Files of further channels.
    """

    name: str
    image: Path
    label: Path | None
    group: str | None = None
    more: tuple[Path, ...] = ()


class _Voxels(NamedTuple):
    """What a file holds; `place` is None where it does not say where its voxels lie."""

    path: Path
    voxels: np.ndarray
    affine: np.ndarray
    place: np.ndarray | None


def read_scan(
    scan: Scan, num_classes: int, values: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """One volume's voxels.

    Args:
        scan: Its files.
        num_classes: With the background.
        values: The number of each class in label files, ascending, where they are not 0, 1, ….

    Returns:
        The image, float32 `[C, X, Y, Z]`; its labels, uint8 `[X, Y, Z]`, or None; and the affine from voxels to
        millimetres, `[4, 4]`.

    Raises:
        DataError: A file is damaged, the grids differ, or a label is out of range.
    """
    first = _read(scan.image)
    parts = [first.voxels, *(_onto_grid(_read(path), first) for path in scan.more)]
    image_CXYZ = np.concatenate([np.moveaxis(part, -1, 0) if part.ndim == 4 else part[None] for part in parts])
    if not np.isfinite(image_CXYZ).all():
        raise DataError(f"{scan.image}: holds voxels that are not finite; mend or remove the file")
    if scan.label is None:
        return image_CXYZ.astype(np.float32), None, first.affine
    found = _read(scan.label)
    if found.voxels.ndim == 4 and found.voxels.shape[-1] == 1:
        found = found._replace(voxels=found.voxels[..., 0])
    if found.voxels.ndim != 3:
        raise DataError(f"{scan.label}: has shape {_shape(found.voxels)}; a label has 3 axes, with a number for every "
                        "class")
    label_XYZ = _onto_grid(found, first)
    whole_XYZ = np.rint(label_XYZ)
    whole = bool((np.abs(label_XYZ - whole_XYZ) < SCALED).all())
    allowed = np.asarray(values or range(num_classes))
    if not whole or not np.isin(whole_XYZ, allowed).all():
        wrong = f"{float(whole_XYZ.min()):g} to {float(whole_XYZ.max()):g}" if whole else "that are not whole numbers"
        rule = ", ".join(map(str, allowed)) if values else f"0 to {num_classes - 1}"
        raise DataError(f"{scan.label}: holds labels {wrong}; allowed are {rule} ({num_classes} "
                        "classes with the background); correct the file, or settings.num_classes")
    index_XYZ = np.searchsorted(allowed, whole_XYZ) if values else whole_XYZ
    return image_CXYZ.astype(np.float32), index_XYZ.astype(np.uint8), first.affine


def _read(path: Path) -> _Voxels:
    import nibabel

    try:
        file: Any = nibabel.load(path)
        if path.suffix == ".gz":  # nibabel stops at the last voxel, before the checksum
            file = type(file).from_bytes(gzip.decompress(path.read_bytes()))
        voxels, affine = np.asanyarray(file.dataobj), np.asarray(file.affine, dtype=np.float64)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is damaged or no NIfTI file ({reason}); copy or download it again") from None
    if voxels.dtype.fields is not None:
        raise DataError(f"{path}: holds colours ({', '.join(voxels.dtype.fields)}), not numbers; save one volume a "
                        "colour, or a fourth axis of channels")
    if np.iscomplexobj(voxels):
        raise DataError(f"{path}: holds complex numbers, of which the network would see one part; save the magnitude, "
                        "or both parts along a fourth axis of channels")
    if voxels.ndim == 5 and voxels.shape[3] == 1:  # NIfTI's vectors: the fourth axis is time
        voxels = voxels[:, :, :, 0]
    if voxels.ndim not in (3, 4) or 0 in voxels.shape:
        raise DataError(f"{path}: has shape {_shape(voxels)}; a volume has 3 axes, or 4 with its channels last")
    codes = [int(file.header[code]) for code in ("qform_code", "sform_code") if code in file.header]
    return _Voxels(path, voxels, affine, affine if any(codes) else None)


def _onto_grid(found: _Voxels, grid: _Voxels) -> np.ndarray:
    """Turn and mirror one file's voxels so that they lie on another's grid, as both affines say.

    Raises:
        DataError: No turning does it: the grids differ in spacing, place or extent; names both files.
    """
    voxels, shape = found.voxels, grid.voxels.shape[:3]
    placed = found.place is not None and grid.place is not None and not np.array_equal(found.place, grid.place)
    onto = _turning(found.affine, grid.affine) if placed else np.eye(4)
    if onto is not None:
        turn = onto[:3, :3]
        axes = [int(np.abs(turn[:, axis]).argmax()) for axis in range(3)]
        voxels = np.transpose(voxels, (*axes, *range(3, voxels.ndim)))
        voxels = np.flip(voxels, tuple(axis for axis in range(3) if turn[axes[axis], axis] < 0))
    if voxels.shape[:3] != shape:
        raise DataError(f"{found.path}: has shape {_shape(found.voxels)}, but its image {grid.path} has "
                        f"{_shape(grid.voxels[:, :, :, 0] if grid.voxels.ndim == 4 else grid.voxels)}; an image and "
                        "its label need one voxel grid")
    if placed and not _same_grid(onto, found, grid):
        raise DataError(f"{found.path}: lies elsewhere than its image {grid.path}: by their affines its spacing, place "
                        "or direction is another, so no voxel matches; resample it onto the image's grid, or, if both "
                        "are drawn voxel for voxel, give it the image's affine")
    return voxels


def _turning(from_affine: np.ndarray, to_affine: np.ndarray) -> np.ndarray | None:
    """From voxels of the one grid to those of the other, its axes rounded to whole ones; None if it is no turning."""
    try:
        exact = np.linalg.inv(from_affine) @ to_affine
    except np.linalg.LinAlgError:
        return None
    turn = np.rint(exact[:3, :3])
    whole = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    return np.block([[turn, exact[:3, 3:]], [np.zeros((1, 3)), np.ones((1, 1))]]) if whole else None


def _same_grid(onto: np.ndarray | None, found: _Voxels, grid: _Voxels) -> bool:
    """Whether every corner of the grid lies on the corner that turning makes of it."""
    if onto is None:
        return False
    shape = grid.voxels.shape[:3]
    exact = np.linalg.inv(found.affine) @ grid.affine
    turn = onto[:3, :3]
    sizes = np.abs(turn) @ np.asarray(shape)  # along the file's own axes
    start = np.where(turn.sum(axis=1) < 0, sizes - 1, 0)
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))]).T
    wanted = turn @ corners[:3] + start[:, None]
    return bool((np.abs((exact @ corners)[:3] - wanted) < ROUNDING).all())


def _shape(voxels: np.ndarray) -> str:
    return "x".join(map(str, voxels.shape))
