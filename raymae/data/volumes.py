"""Volumes with a label per voxel, from NIfTI files in the layouts people have them in.

A folder is read as the first of these that it is: a MONAI datalist (`dataset_0.json`) or a Medical Segmentation
Decathlon set (`dataset.json`), both naming the files; `imagesTr/` and `labelsTr/` (`imagesTs/` may hold unlabelled
ones); Synapse's `img/` and `label/`; or loose `img*.nii.gz` beside `label*.nii.gz`.

Volumes of one patient are a group, which is in one split. Of the hippocampus in the Decathlon (`hippocampus_017`) the
ids 2k - 1 and 2k are the two sides of one scan: all 55 pairs of volumes that share an exact quantisation step are such.

Shape suffixes: C channels, XYZ voxels along the three axes.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raymae.data.groups import cut, group_of, named_groups, numbered, shared, split_anew
from raymae.errors import DataError

LISTS = ("dataset_0.json", "dataset.json")
FOLDERS = (("imagesTr", "labelsTr"), ("img", "label"), (".", "."))
BTCV_ORGANS = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
    "inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland",
)
HIPPOCAMPUS = re.compile(r"hippocampus_(\d+)")


class Scan(NamedTuple):
    """One volume's files; `label` is None where nobody has drawn any, `group` where no group is known."""

    name: str
    image: Path
    label: Path | None
    group: str | None = None


@dataclass(frozen=True)
class VolumeSet:
    """What a folder holds.

    Attributes:
        folder: Where it was read.
        labelled: By name, ascending.
        held_out: Labelled as well, named as `validation` by the folder's own list; empty if it has none.
        unlabelled: Images without labels.
        classes: Names of the labels 0, 1, …; the first is the background.
        ct: Whether intensities are Hounsfield units; None if the folder does not say.
    """

    folder: Path
    labelled: tuple[Scan, ...]
    held_out: tuple[Scan, ...]
    unlabelled: tuple[Scan, ...]
    classes: tuple[str, ...]
    ct: bool | None

    @property
    def splits(self) -> dict[str, tuple[Scan, ...]]:
        """See `split_scans`; `unlabelled` are those that join pretraining, none of a group that is scored."""
        splits = split_scans(self.labelled, self.held_out, where=str(self.folder))
        scored = {scan.group for name in ("val", "test") for scan in splits[name]} - {None}
        return {**splits, "unlabelled": tuple(scan for scan in self.unlabelled if scan.group not in scored)}

    @property
    def note(self) -> str:
        """What has to be said of the splits, or ""."""
        both = _in_both(self.labelled, self.held_out)
        return split_anew(both) if both else ""


def split_scans(
    labelled: Iterable[Scan], held_out: tuple[Scan, ...] = (), *, where: str = "the data set"
) -> dict[str, tuple[Scan, ...]]:
    """`train`, `val` and `test`, the same on every machine: a fixed permutation of the names, or of the groups.

    The official held-out volumes, where there are any, are the test split, and 15 % of the rest are held out for
    selection; else, or where one of their groups is in the rest too, 60 / 15 / 25 %.

    Raises:
        DataError: Too few volumes, or groups of them, to fill the three splits.
    """
    ordered = sorted(labelled)
    if _in_both(ordered, held_out):
        ordered, held_out = sorted((*ordered, *held_out)), ()
    groups = [scan.group for scan in ordered if scan.group is not None]
    group_N = numbered(groups if len(groups) == len(ordered) else None, len(ordered))
    total = int(group_N.max(initial=-1)) + 1
    num_test = 0 if held_out else max(1, round(0.25 * total))
    num_val = max(1, round(0.15 * total))
    if total - num_test - num_val < 1:
        what = f"{total} groups of labelled volumes" if groups else f"{total} labelled volumes"
        raise DataError(f"{where}: {what} do not fill train, val and test; at least 3 are needed, "
                        "or 2 beside an official validation list")
    order_G = np.random.default_rng(0).permutation(total)
    parts = cut(group_N, order_G, [total - num_test - num_val, total - num_test])
    train, val, test = (tuple(ordered[index] for index in part) for part in parts)
    return {"train": train, "val": val, "test": tuple(sorted(held_out)) or test}


def _in_both(labelled: Iterable[Scan], held_out: Iterable[Scan]) -> set[str]:
    return shared(*([scan.group for scan in scans if scan.group is not None] for scans in (labelled, held_out)))


def read_volume_set(folder: Path, *, num_classes: int = 0, group: str = "") -> VolumeSet:
    """Find the images and labels of a folder; opens none of them.

    Args:
        folder: In one of the layouts above.
        num_classes: Labels with the background; 0 for what the folder's list says, or BTCV's 14 if it has none.
        group: A pattern of file names without their endings that says which belong together; see `named_groups`.

    Raises:
        DataError: The folder holds no volumes, a listed file or a label is missing, the list is malformed, or a name
            has no group.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the volumes")
    found = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    listed: dict[str, Any] = _json(found) if found else {}
    if found:
        labelled, held_out = (_pairs(found, listed, key) for key in ("training", "validation"))
        unlabelled = _images(found, listed)
    else:
        images, labels = next(((folder / a, folder / b) for a, b in FOLDERS if _volumes(folder / a)), (folder, folder))
        labelled, held_out = _match(images, labels), ()
        unlabelled = tuple(Scan(_stem(path), path, None) for path in _volumes(folder / "imagesTs"))
    if not labelled:
        raise DataError(f"{folder}: holds no labelled volumes; expected dataset.json, or imagesTr/*.nii.gz with "
                        "labelsTr/*.nii.gz, or img*.nii.gz beside label*.nii.gz")
    names = _classes(found, listed) if found else BTCV_ORGANS
    if num_classes:
        names = tuple(names[index] if index < len(names) else f"class {index}" for index in range(num_classes))
    modality = " ".join(map(str, dict(listed.get("modality") or {}).values())).upper() if found else "CT"
    ct = None if not modality else "CT" in modality.split()
    labelled, held_out, unlabelled = _grouped(folder, group, labelled, held_out, unlabelled)
    return VolumeSet(folder, labelled, held_out, unlabelled, names, ct)


def _grouped(
    folder: Path, pattern: str, labelled: tuple[Scan, ...], held_out: tuple[Scan, ...], unlabelled: tuple[Scan, ...]
) -> tuple[tuple[Scan, ...], tuple[Scan, ...], tuple[Scan, ...]]:
    """The same scans with their groups; one without labels that has none may stay without."""
    names = [scan.name for scan in (*labelled, *held_out)]
    if pattern:
        groups: dict[str, str | None] = dict(zip(names, named_groups(pattern, names, str(folder)), strict=True))
        groups |= {scan.name: group_of(pattern, scan.name) for scan in unlabelled}
    elif all(map(HIPPOCAMPUS.fullmatch, names)):
        ids = {scan.name: HIPPOCAMPUS.fullmatch(scan.name) for scan in (*labelled, *held_out, *unlabelled)}
        groups = {name: f"scan {(int(found[1]) + 1) // 2:03d}" if found else None for name, found in ids.items()}
    else:
        return labelled, held_out, unlabelled
    labelled, held_out, unlabelled = (tuple(scan._replace(group=groups[scan.name]) for scan in scans)
                                      for scans in (labelled, held_out, unlabelled))
    return labelled, held_out, unlabelled


def read_scan(scan: Scan, num_classes: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """One volume's voxels.

    Returns:
        The image, float32 `[C, X, Y, Z]`; its labels, uint8 `[X, Y, Z]`, or None; and the affine from voxels to
        millimetres, `[4, 4]`.

    Raises:
        DataError: A file is damaged, the shapes differ, or a label is out of range.
    """
    image, affine = _read(scan.image)
    image_CXYZ = np.moveaxis(image, -1, 0) if image.ndim == 4 else image[None]
    if not np.isfinite(image_CXYZ).all():
        raise DataError(f"{scan.image}: holds voxels that are not finite; mend or remove the file")
    if scan.label is None:
        return image_CXYZ.astype(np.float32), None, affine
    label, _ = _read(scan.label)
    label = label[..., 0] if label.ndim == 4 and label.shape[-1] == 1 else label
    if label.shape != image_CXYZ.shape[1:]:
        raise DataError(f"{scan.label}: has shape {_shape(label)}, but its image {scan.image} has "
                        f"{_shape(image_CXYZ[0])}; an image and its label need one voxel grid")
    low, high = float(label.min()), float(label.max())
    whole = bool((label == np.rint(label)).all())
    if not whole or low < 0 or high >= num_classes:
        wrong = f"{low:g} to {high:g}" if whole else "that are not whole numbers"
        raise DataError(f"{scan.label}: holds labels {wrong}; allowed are 0 to {num_classes - 1} ({num_classes} "
                        "classes with the background); correct the file, or settings.num_classes")
    return image_CXYZ.astype(np.float32), label.astype(np.uint8), affine


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    try:
        file: Any = nibabel.load(path)
        if path.suffix == ".gz":  # nibabel stops at the last voxel, before the checksum
            file = type(file).from_bytes(gzip.decompress(path.read_bytes()))
        voxels, affine = np.asanyarray(file.dataobj), np.asarray(file.affine, dtype=np.float64)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is damaged or no NIfTI file ({reason}); copy or download it again") from None
    if voxels.ndim not in (3, 4) or 0 in voxels.shape:
        raise DataError(f"{path}: has shape {_shape(voxels)}; a volume has 3 axes, or 4 with its channels last")
    return voxels, affine


def _shape(voxels: np.ndarray) -> str:
    return "x".join(map(str, voxels.shape))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise DataError(f"{path}: needs a list `training` of {{image, label}} pairs")
    return content


def _pairs(path: Path, listed: Mapping[str, Any], key: str) -> tuple[Scan, ...]:
    scans = []
    for entry in listed.get(key) or ():
        if not isinstance(entry, dict) or not entry.get("image") or not entry.get("label"):
            raise DataError(f"{path}: every entry of `{key}` needs an image and a label, got {entry!r:.120}")
        image, label = (_there(path, str(entry[part])) for part in ("image", "label"))
        scans.append(Scan(_stem(image), image, label))
    return tuple(sorted(scans))


def _images(path: Path, listed: Mapping[str, Any]) -> tuple[Scan, ...]:
    """What the list calls `test` (no labels are public); files that are not here do no harm."""
    entries = (entry.get("image") if isinstance(entry, dict) else entry for entry in listed.get("test") or ())
    paths = (path.parent / str(entry) for entry in entries if entry)
    return tuple(sorted(Scan(_stem(item), item, None) for item in paths if item.is_file()))


def _there(path: Path, entry: str) -> Path:
    found = path.parent / entry
    if not found.is_file():
        raise DataError(f"{found}: is missing, but {path} lists it; add the file, or remove its entry")
    return found


def _classes(path: Path, listed: Mapping[str, Any]) -> tuple[str, ...]:
    labels = listed.get("labels")
    if not isinstance(labels, dict) or sorted(labels, key=str) != sorted(map(str, range(len(labels)))):
        raise DataError(f"{path}: needs `labels` that name 0, 1, … without a gap, got {labels!r:.120}")
    if len(labels) < 2:
        raise DataError(f"{path}: `labels` names {len(labels)} class; the background and one more are needed")
    return tuple(str(labels[str(index)]) for index in range(len(labels)))


def _volumes(folder: Path) -> list[Path]:
    """NIfTI files that are images; `._*` are left behind by macOS."""
    paths = (path for pattern in ("*.nii.gz", "*.nii") for path in folder.glob(pattern))
    return sorted(path for path in paths if not path.name.startswith((".", "label")))


def _match(images: Path, labels: Path) -> tuple[Scan, ...]:
    """Every image with the label of the same name, or of the same number (`img0001` and `label0001`)."""
    scans = []
    for image in _volumes(images):
        stems = (_stem(image), re.sub(r"^\D+", "label", _stem(image)))
        options = [labels / f"{stem}{end}" for stem, end in itertools.product(stems, (".nii.gz", ".nii"))]
        label = next((path for path in options if path.is_file() and path != image), None)
        if label is None:
            raise DataError(f"{image}: has no label; expected {options[2]}; unlabelled images belong into imagesTs")
        scans.append(Scan(_stem(image), image, label))
    return tuple(scans)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
