"""Lists of volumes: MONAI's datalists, the Decathlon's `dataset.json` and nnU-Net's, which names no files.

An image may be one file, a list of one file a channel, or nnU-Net's `case_0000`, `case_0001`, ….
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raymae.data.twins import file_keys
from raymae.data.volume_files import Scan
from raymae.errors import DataError

CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's number of a channel behind the case's name


class Listed(NamedTuple):
    """What a list names under one key: its scans, the fold of each, if they have any, and what must be said."""

    scans: tuple[Scan, ...]
    folds: Mapping[Path, int]
    note: str = ""


def read_list(path: Path) -> dict[str, Any]:
    """Read a list of volumes; of nnU-Net's, which need not name files, the key `training` may be missing.

    Raises:
        DataError: It is no JSON, or has neither `training` nor nnU-Net's keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())[:200]}") from None
    if isinstance(content, dict) and isinstance(content.get("dataset"), dict) and "training" not in content:
        cases = content["dataset"].values()  # nnU-Net's with files by case
        content["training"] = [{**case, "image": case.get("images")} for case in cases if isinstance(case, dict)]
    nnunet = isinstance(content, dict) and "training" not in content and {"channel_names", "file_ending"} & {*content}
    if not nnunet and not (isinstance(content, dict) and isinstance(content.get("training"), list)):
        raise DataError(f"{path}: needs a list `training` of {{image, label}} pairs")
    return dict(content)


def listed_pairs(path: Path, listed: Mapping[str, Any], key: str) -> Listed:
    """The labelled scans that a list names under a key, each once, ascending.

    Raises:
        DataError: An entry lacks a part, or its file is missing, or one image has two labels.
    """
    found: dict[object, Scan] = {}
    folds: dict[Path, int] = {}
    again = 0
    entries = listed.get(key) or ()
    for entry in entries:
        if not isinstance(entry, dict) or not entry.get("image") or not entry.get("label"):
            raise DataError(f"{path}: every entry of `{key}` needs an image and a label, got {entry!r:.120}")
        image, *more = _there(path, entry["image"])
        labels = _there(path, entry["label"])
        if len(labels) > 1:
            raise DataError(f"{path}: {entry['image']!r:.120} has {len(labels)} label files; join them into one, with "
                            "a number for every class")
        name = _case(image) if _is_numbered(path, entry["image"]) else stem_of(image)
        scan = Scan(name, image, labels[0], more=tuple(more))
        same = found.setdefault(tuple(map(os.path.realpath, (image, *more))), scan)
        if same.label != scan.label:
            raise DataError(f"{path}: lists {image} with two labels, {same.label} and {scan.label}; remove one entry")
        again += same is not scan
        if isinstance(fold := entry.get("fold"), int):
            folds[scan.image] = fold
    if folds and len(folds) < len(found):
        raise DataError(f"{path}: some entries of `{key}` have a `fold` and some not; give it to all or to none")
    note = f"{again:,} entries of `{key}` are listed again and taken once" if again else ""
    return Listed(tuple(sorted(found.values())), folds, note)


def listed_images(path: Path, listed: Mapping[str, Any]) -> tuple[tuple[Scan, ...], str]:
    """What the list calls `test` (no labels are public), and how many of it are not here, which does no harm."""
    entries = [entry.get("image") if isinstance(entry, dict) else entry for entry in listed.get("test") or ()]
    found, absent = {}, 0
    for entry in filter(None, entries):
        files = [file for item in _items(entry) for file in _files(path, item)]
        if not files:
            absent += 1
            continue
        found[files[0]] = Scan(stem_of(files[0]), files[0], None, more=tuple(files[1:]))
    return tuple(sorted(found.values())), f"{absent:,} images of `test` are listed, but not there" if absent else ""


def label_classes(path: Path, listed: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The classes' names and their numbers in label files; a background that is not named is added.

    Raises:
        DataError: They are not understood.
    """
    labels = listed.get("labels")
    if isinstance(labels, list):
        labels = {str(index): name for index, name in enumerate(labels)}
    by_number: dict[int, str] = {}
    if isinstance(labels, dict) and all(re.fullmatch(r"\d{1,5}", str(key)) for key in labels):
        by_number = {int(key): str(name) for key, name in labels.items()}
    elif isinstance(labels, dict) and all(re.fullmatch(r"\d{1,5}", str(number)) for number in labels.values()):
        by_number = {int(number): str(name) for name, number in labels.items()}  # nnU-Net's, name to number
    elif isinstance(labels, dict) and any(isinstance(number, list) for number in labels.values()):
        raise DataError(f"{path}: `labels` has regions of several numbers, which overlap; name each number once, got "
                        f"{labels!r:.120}")
    if not by_number or len(by_number) < len(labels or ()):
        raise DataError(f"{path}: needs `labels` that name 0, 1, …, got {labels!r:.120}")
    if "ignore" in by_number.values():
        raise DataError(f"{path}: `labels` has nnU-Net's `ignore`, voxels that nobody labelled, which is not "
                        "understood; leave such volumes out")
    if {*by_number} != {0}:
        by_number.setdefault(0, "background")
    if len(by_number) < 2:
        raise DataError(f"{path}: `labels` names {len(by_number)} class; the background and one more are needed")
    return tuple(by_number[value] for value in sorted(by_number)), tuple(sorted(by_number))


def modalities(listed: Mapping[str, Any]) -> tuple[str, ...]:
    """The name of every channel, as `modality` or nnU-Net's `channel_names` says."""
    found = listed.get("modality") or listed.get("channel_names") or {}
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found, key=lambda key: (len(str(key)), str(key)))]
    return tuple(map(str, found)) if isinstance(found, list) else (str(found),)


def numbered_channels(image: Path) -> list[Path]:
    """nnU-Net's files of a case, `case_0000.nii.gz` and so on, where the list says `case.nii.gz`."""
    stem = glob.escape(str(image.parent / stem_of(image)))
    ends = ("_[0-9][0-9][0-9][0-9].nii.gz", "_[0-9][0-9][0-9][0-9].nii")
    return one_each([Path(file) for end in ends for file in glob.glob(stem + end)])


def one_each(paths: list[Path]) -> list[Path]:
    """Files by name, and of a `.nii` beside its `.nii.gz` the packed one.

    Raises:
        DataError: The two hold different voxels.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (stem_of(path), path.suffix != ".gz")):
        other = found.setdefault(stem_of(path), path)
        if other != path and len({*file_keys([other, path])}) > 1:
            raise DataError(f"{path} and {other} are one volume by name, but hold different voxels; remove one")
    return list(found.values())


def stem_of(path: Path) -> str:
    """A file's name without `.nii` or `.nii.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _case(path: Path) -> str:
    match = CHANNEL.fullmatch(stem_of(path))
    return match[1] if match else stem_of(path)


def _is_numbered(path: Path, entry: object) -> bool:
    """Whether an entry names a case of which only numbered channels are there."""
    return isinstance(entry, str) and not (path.parent / entry).is_file()


def _items(entry: object) -> list[str]:
    return [str(item) for item in entry] if isinstance(entry, list) else [str(entry)]


def _files(path: Path, item: str) -> list[Path]:
    direct = path.parent / item
    return [direct] if direct.is_file() else numbered_channels(direct)


def _there(path: Path, entry: object) -> list[Path]:
    """The files of an entry, which is one name or a list of them."""
    found = []
    for item in _items(entry):
        files = _files(path, item)
        if not files:
            raise DataError(f"{path.parent / item}: is missing, but {path} lists it; add the file, or remove its entry")
        found += files
    return found
