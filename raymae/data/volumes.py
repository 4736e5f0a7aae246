"""Volumes with a label per voxel, from NIfTI files in the layouts people have them in.

A folder is read as the first of these that it is: a MONAI datalist (`dataset_0.json`) or a Medical Segmentation
Decathlon set (`dataset.json`), both naming the files; nnU-Net's `dataset.json`, which names none; `imagesTr/` and
`labelsTr/` (`imagesTs/` may hold unlabelled ones); Synapse's `img/` and `label/`; or loose `img*.nii.gz` beside
`label*.nii.gz`. No volume is in two splits, by path or by content: see `twins`.

Volumes of one patient are a group, which is in one split. Of the hippocampus in the Decathlon (`hippocampus_017`) the
ids 2k - 1 and 2k are the two sides of one scan: all 55 pairs of volumes that share an exact quantisation step are such.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from raymae.data.groups import cut, group_of, named_groups, numbered, shared, split_anew
from raymae.data.twins import file_keys
from raymae.data.volume_files import Scan
from raymae.data.volume_lists import (
    CHANNEL,
    label_classes,
    listed_images,
    listed_pairs,
    modalities,
    one_each,
    read_list,
    stem_of,
)
from raymae.errors import DataError

LISTS = ("dataset_0.json", "dataset.json")
FOLDERS = (("imagesTr", "labelsTr"), ("img", "label"), (".", "."))
BTCV_ORGANS = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
    "inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland",
)
HIPPOCAMPUS = re.compile(r"hippocampus_(\d+)")


@dataclass(frozen=True)
class VolumeSet:
    """What a folder holds.

    Attributes:
        folder: Where it was read.
        labelled: By name, ascending.
        held_out: Labelled as well, named as `validation` by the folder's own list; empty if it has none.
        unlabelled: Images without labels.
        classes: Names of the labels, ascending; the first is the background.
        modalities: The name of every channel, as far as the folder says.
        values: The number of each class in label files, where they are not 0, 1, …; else empty.
        selecting: Labelled as well, of the fold to select on; empty where the list has no folds.
        remarks: What has to be said of the files.
    """

    folder: Path
    labelled: tuple[Scan, ...]
    held_out: tuple[Scan, ...]
    unlabelled: tuple[Scan, ...]
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    values: tuple[int, ...] = ()
    selecting: tuple[Scan, ...] = ()
    remarks: tuple[str, ...] = ()

    @cached_property
    def splits(self) -> dict[str, tuple[Scan, ...]]:
        """See `split_scans`; `unlabelled` are those that join pretraining, none of a group that is scored.

        Raises:
            DataError: Too few volumes, or groups of them, to fill the three splits.
        """
        if self.selecting and not self._in_both:
            splits = {"train": self.labelled, "val": self.selecting, "test": self.held_out}
        else:
            splits = split_scans(
                (*self.labelled, *self.selecting), self.held_out, where=str(self.folder), anew=bool(self._in_both))
        scored = {scan.group for name in ("val", "test") for scan in splits[name]} - {None}
        return {**splits, "unlabelled": tuple(scan for scan in self.unlabelled if scan.group not in scored)}

    @cached_property
    def _in_both(self) -> set[str]:
        """Groups that the folder's own lists have in two splits."""
        return _in_both(self.labelled, self.held_out, self.selecting)

    @property
    def note(self) -> str:
        """What has to be said of the files and splits, or ""."""
        return "; ".join(filter(None, (*self.remarks, split_anew(self._in_both) if self._in_both else "")))


def split_scans(
    labelled: Iterable[Scan], held_out: tuple[Scan, ...] = (), *, where: str = "the data set", anew: bool = False
) -> dict[str, tuple[Scan, ...]]:
    """`train`, `val` and `test`, the same on every machine: a fixed permutation of the names, or of the groups.

    The official held-out volumes, where there are any, are the test split, and 15 % of the rest are held out for
    selection; else, or where one of their groups is in the rest too, 60 / 15 / 25 %.

    Raises:
        DataError: Too few volumes, or groups of them, to fill the three splits.
    """
    ordered = sorted(labelled)
    if anew or _in_both(ordered, held_out):
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


def _in_both(*lists: Iterable[Scan]) -> set[str]:
    return shared(*([scan.group for scan in scans if scan.group is not None] for scans in lists))


def read_volume_set(folder: Path, *, num_classes: int = 0, group: str = "", fold: int = 0) -> VolumeSet:
    """Find the images and labels of a folder; opens none of them.

    Args:
        folder: In one of the layouts above.
        num_classes: Labels with the background; 0 for what the folder's list says, or BTCV's 14 if it has none.
        group: A pattern of file names without their endings that says which belong together; see `named_groups`.
        fold: Which of a list's folds is scored; the next one is selected on. Where the list has `validation` too, that
            is scored and this fold is selected on.

    Raises:
        DataError: The folder holds no volumes, a listed file or a label is missing, the list is malformed, or a name
            has no group.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the volumes")
    found = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    listed: dict[str, Any] = read_list(found) if found else {}
    held_out: tuple[Scan, ...] = ()
    folds: Mapping[Path, int] = {}
    remarks: list[str] = []
    if found and "training" in listed:
        training, validation = (listed_pairs(found, listed, key) for key in ("training", "validation"))
        labelled, held_out, folds = training.scans, validation.scans, training.folds
        unlabelled, absent = listed_images(found, listed)
        remarks += [training.note, validation.note, absent]
    else:
        images, labels = next(((folder / a, folder / b) for a, b in FOLDERS if _volumes(folder / a)), (folder, folder))
        labelled = _match(images, labels)
        unlabelled = _unmatched(folder / "imagesTs", any(CHANNEL.fullmatch(stem_of(scan.image)) and
                                                         scan.name != stem_of(scan.image) for scan in labelled))
    if not labelled:
        raise DataError(f"{folder}: holds no labelled volumes; expected dataset.json, or imagesTr/*.nii.gz with "
                        "labelsTr/*.nii.gz, or img*.nii.gz beside label*.nii.gz")
    names, values = label_classes(found, listed) if found else (BTCV_ORGANS, tuple(range(len(BTCV_ORGANS))))
    if num_classes and num_classes != len(names):
        by_number = dict(zip(values, names, strict=True))
        values = tuple(range(num_classes))
        names = tuple(by_number.get(index, f"class {index}") for index in values)
    held_out, labelled, unlabelled, copies = _each_once(held_out, labelled, unlabelled)
    remarks.append(copies)
    labelled, held_out, unlabelled = _grouped(folder, group, labelled, held_out, unlabelled)
    selecting: tuple[Scan, ...] = ()
    if folds:
        labelled, selecting, held_out, remark = _by_fold(str(found), labelled, held_out, folds, fold)
        remarks.append(remark)
    gaps = () if values == tuple(range(len(values))) else values
    return VolumeSet(folder, labelled, held_out, unlabelled, names, modalities(listed) if found else ("CT",), gaps,
                     selecting, tuple(filter(None, remarks)))


def _each_once(*lists: tuple[Scan, ...]) -> tuple[Any, ...]:
    """The same lists without volumes that are in them, or in an earlier one, already; and what has to be said of it."""
    keys = iter(file_keys([path for scans in lists for scan in scans for path in (scan.image, *scan.more)]))
    first: dict[Hashable, Scan] = {}
    gone: list[tuple[Scan, Scan]] = []
    kept: list[tuple[Scan, ...]] = []
    for scans in lists:
        left = []
        for scan in scans:
            same = first.setdefault(tuple(next(keys) for _ in (scan.image, *scan.more)), scan)
            if same is scan:
                left.append(scan)
            else:
                gone.append((scan, same))
        kept.append(tuple(left))
    if not gone:
        return (*kept, "")
    copy, same = gone[0]
    example = copy.image.name + (f", which is {same.image.name}" if copy.image.name != same.image.name else "")
    return (*kept, f"listed again, or copies of others, and left out: {len(gone):,}, such as {example}")


def _by_fold(
    where: str, labelled: tuple[Scan, ...], held_out: tuple[Scan, ...], folds: Mapping[Path, int], chosen: int
) -> tuple[tuple[Scan, ...], tuple[Scan, ...], tuple[Scan, ...], str]:
    """What is learned from, selected on and scored by a list's folds, and what has to be said of it."""
    numbers = sorted({*folds.values()})
    if chosen not in numbers:
        raise DataError(f"{where}: settings.fold={chosen}, but its folds are {', '.join(map(str, numbers))}")
    if len(numbers) == 1:
        return labelled, (), held_out, ""

    def of(*wanted: int) -> tuple[Scan, ...]:
        return tuple(scan for scan in labelled if folds[scan.image] in wanted)

    rest = [number for number in numbers if number != chosen]
    if held_out:
        return of(*rest), of(chosen), held_out, f"val is fold {chosen} of the list"
    if len(rest) == 1:
        return of(*rest), (), of(chosen), f"test is fold {chosen} of the list"
    following = numbers[(numbers.index(chosen) + 1) % len(numbers)]
    learned = of(*(number for number in rest if number != following))
    return learned, of(following), of(chosen), f"test is fold {chosen} of the list, val fold {following}"


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


def _volumes(folder: Path) -> list[Path]:
    """NIfTI files that are images, one of each name; `._*` are left behind by macOS."""
    paths = (path for pattern in ("*.nii.gz", "*.nii") for path in folder.glob(pattern))
    return one_each([path for path in paths if not path.name.startswith((".", "label"))])


def _match(images: Path, labels: Path) -> tuple[Scan, ...]:
    """Every image with the label of the same name, or of the same number (`img0001` and `label0001`), or of its case,
    where nnU-Net's channels have numbers (`case_0000` and `case`)."""
    scans: dict[str, Scan] = {}
    for image in _volumes(images):
        stem = stem_of(image)
        options = _label_options(labels, stem, re.sub(r"^\D+", "label", stem))
        label = next((path for path in options if path.is_file() and path != image), None)
        channel = CHANNEL.fullmatch(stem)
        if label is None and channel:
            label = next(filter(Path.is_file, _label_options(labels, channel[1])), None)
            stem = channel[1] if label else stem
        if label is None:
            raise DataError(f"{image}: has no label; expected {options[2]}; unlabelled images belong into imagesTs")
        before = scans.get(stem)
        scans[stem] = before._replace(more=(*before.more, image)) if before else Scan(stem, image, label)
    return tuple(scans.values())


def _label_options(labels: Path, *stems: str) -> list[Path]:
    return [labels / f"{stem}{end}" for stem, end in itertools.product(stems, (".nii.gz", ".nii"))]


def _unmatched(folder: Path, channels: bool) -> tuple[Scan, ...]:
    """Images without labels, their channels joined where the labelled ones have numbers."""
    scans: dict[str, Scan] = {}
    for image in _volumes(folder):
        channel = CHANNEL.fullmatch(stem_of(image)) if channels else None
        name = channel[1] if channel else stem_of(image)
        before = scans.get(name)
        scans[name] = before._replace(more=(*before.more, image)) if before else Scan(name, image, None)
    return tuple(scans.values())
