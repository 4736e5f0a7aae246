"""Labelled images from folders, zips and tar shards, decoded once into one array.

Two layouts are understood, in any of those containers: Tiny ImageNet's own (`train/<wnid>/images/*.JPEG`, `val/images`
with `val_annotations.txt`, `wnids.txt`), whose official val is the test split, and a folder per class, optionally under
`train/`, `val/` and `test/`: see `class_folders`.

Shape suffixes: N images, H and W pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raymae.data.class_folders import LabelledFile, class_folders, left_out
from raymae.data.file_trees import FileTree, open_tree
from raymae.data.find.locate import Located, cache_folder
from raymae.data.kept import built_once
from raymae.data.pixels import as_rgb, content_of, read_image
from raymae.errors import DataError

SPLITS = ("train", "val", "test")
TINY_SUFFIXES = (".jpeg", ".jpg", ".png")
TINY_SIZE = 64
FORMAT = 3  # of the decoded cache; part of its key


@dataclass(frozen=True)
class ImageSet:
    """Decoded images.

    Attributes:
        images_NHWC: uint8, RGB; may be memory-mapped.
        labels_N: int64, index into `classes`.
        split_N: int64, index into `SPLITS`; where nothing is `val`, a share of train has to be held out.
        classes: Names.
        names: Paths of the files inside the data set.
        content_N: uint64, a hash of every image's pixels, by which copies are found; None where there cannot be any.
        published: Whether the splits are those of a published benchmark, in which copies stay.
        note: What has to be said of the files, or "".
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    split_N: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    content_N: np.ndarray | None = None
    published: bool = False
    note: str = ""


def read_images(found: Located, image_size: int) -> ImageSet:
    """Every image of a data set; decoded by the first process that asks, memory-mapped from the user cache afterwards.

    Args:
        found: Where it is; its fingerprint is the key of the cache.
        image_size: Pixels along both sides: images are resized on their shorter side and cropped to the centre. Tiny
            ImageNet is always read as it is, 64 x 64.

    Raises:
        DataError: A file cannot be read or the layout is not understood; names the file.
    """
    assert found.path is not None
    base = cache_folder() / "decoded" / f"{found.fingerprint.partition(':')[2]}-{FORMAT}"
    resized, native = base.with_name(f"{base.name}-{image_size}px"), base.with_name(f"{base.name}-native")
    cached = _load(native) or _load(resized)  # looked for first: listing a compressed tar takes seconds
    if cached is not None:
        return cached
    tree = open_tree(found.path)
    if {"wnids.txt", "val/val_annotations.txt"} & set(tree.members):
        return _decode(tree, *_tiny_layout(tree), TINY_SIZE, exact=True, kept=native)
    images, classes, note = class_folders(tree)
    note = "; ".join(filter(None, (note, left_out(tree.beside))))
    return _decode(tree, *_counted(tree, images, classes), image_size, exact=False, kept=resized, note=note)


# -- layouts -----------------------------------------------------------------------------------------------------------


def _tiny_layout(tree: FileTree) -> tuple[list[LabelledFile], tuple[str, ...]]:
    """Training images by folder, and the official val, whose labels are in `val_annotations.txt`, as test."""
    members = set(tree.members)
    for needed in ("wnids.txt", "val/val_annotations.txt"):
        if needed not in members:
            raise DataError(f"{tree.place}: {needed} is missing; Tiny ImageNet's layout has it")
    classes = tuple(sorted(tree.read("wnids.txt").decode(errors="replace").split()))
    known = set(classes)
    images = []
    for name in tree.members:
        parts = name.split("/")
        if parts[0] == "train" and parts[-1].lower().endswith(TINY_SUFFIXES):
            if parts[1] not in known:
                raise DataError(f"{tree.place}/{name}: unknown class {parts[1]}: wnids.txt does not list it")
            images.append(LabelledFile(name, "train", parts[1]))
    labels = {}
    lines = tree.read("val/val_annotations.txt").decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        where = f"{tree.place}/val/val_annotations.txt:{number}"
        if len(fields) < 2:
            raise DataError(f"{where}: expected an image's name, a tab and its class, got {line[:80]!r}")
        if fields[1] not in known:
            raise DataError(f"{where}: unknown class {fields[1]}: wnids.txt does not list it")
        labels[fields[0]] = fields[1]
        if f"val/images/{fields[0]}" not in members:
            raise DataError(f"{where}: names {fields[0]}, which val/images does not hold")
    for name in tree.members:
        if name.startswith("val/") and name.lower().endswith(TINY_SUFFIXES):
            image = name.rpartition("/")[2]
            if image not in labels:
                raise DataError(f"{tree.place}/{name} has no line in val/val_annotations.txt, so no label; "
                                "delete it or add its line")
            images.append(LabelledFile(name, "test", labels[image]))
    return _counted(tree, images, classes)


def _counted(
    tree: FileTree, images: list[LabelledFile], classes: tuple[str, ...]
) -> tuple[list[LabelledFile], tuple[str, ...]]:
    if len(classes) < 2:
        raise DataError(f"{tree.place}: {len(classes)} class found; telling classes apart needs at least 2")
    counts = Counter(image.label for image in images if image.split == "train")
    for name in classes:
        if counts[name] < 2:
            held = "is empty" if not counts[name] else "holds 1 image"
            raise DataError(f"{tree.place}: the training folder of class {name} {held}; a class needs at least 2 "
                            "images, one to learn from and one to select on")
    return images, classes


# -- decoding ----------------------------------------------------------------------------------------------------------


def _decode(
    tree: FileTree, images: Sequence[LabelledFile], classes: tuple[str, ...], size: int, *, exact: bool, kept: Path,
    note: str = "",
) -> ImageSet:
    order = {name: index for index, name in enumerate(classes)}
    names = tuple(image.member for image in images)
    labels_N = np.array([order[image.label] for image in images], dtype=np.int64)
    split_N = np.array([SPLITS.index(image.split) for image in images], dtype=np.int64)
    content_N = np.zeros(len(images), np.uint64)
    shape = (len(images), size, size, 3)

    def fill(images_NHWC: Any) -> None:
        def read(index: int) -> None:
            member = images[index].member
            images_NHWC[index] = pixels = decoded(tree.read(member), f"{tree.place}/{member}", size, exact=exact)
            content_N[index] = content_of(pixels)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(read, range(len(images))):
                pass

    def build(folder: Path) -> None:
        images_NHWC = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        fill(images_NHWC)
        images_NHWC.flush()
        np.savez(folder / "labels.npz", labels_N=labels_N, split_N=split_N, content_N=content_N, published=exact)
        (folder / "note.json").write_text(json.dumps(note))
        (folder / "classes.json").write_text(json.dumps(classes))
        (folder / "names.json").write_text(json.dumps(names))

    with contextlib.suppress(OSError):  # the cache cannot be written: memory has to do
        if (cached := _load(built_once(kept, build))) is not None:
            return cached
    images_NHWC = np.empty(shape, np.uint8)
    fill(images_NHWC)
    return ImageSet(images_NHWC, labels_N, split_N, classes, names, content_N, exact, note)


def decoded(content: bytes, name: str, size: int, *, exact: bool = False) -> np.ndarray:
    """RGB `[size, size, 3]`, uint8, as `as_rgb` decodes it.

    Args:
        content: Of an image's file.
        name: Of the file, for messages.
        size: Pixels along both sides; an image is resized on its shorter side and cropped to the centre.
        exact: Whether it must have that size.

    Raises:
        DataError: It is damaged, no image, or not of that size.
    """
    from PIL import Image, ImageOps

    image = read_image(content, name, as_rgb)
    if exact and image.size != (size, size):
        raise DataError(f"{name}: {image.size[0]} x {image.size[1]} pixels; every image of Tiny ImageNet is "
                        f"{size} x {size}. For images of other sizes use a folder per class without wnids.txt")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _load(kept: Path) -> ImageSet | None:
    """What an earlier process decoded; None if there is none, or a damaged one, which is removed."""
    if not kept.is_dir():
        return None
    try:
        images_NHWC = np.load(kept / "images.npy", mmap_mode="c")  # torch wants writable memory; the file stays as is
        with np.load(kept / "labels.npz") as arrays:
            labels_N, split_N, content_N = arrays["labels_N"], arrays["split_N"], arrays["content_N"]
            published = bool(arrays["published"])
        classes, names = (tuple(json.loads((kept / f"{part}.json").read_text())) for part in ("classes", "names"))
        note = str(json.loads((kept / "note.json").read_text()))
        if not len(images_NHWC) == len(labels_N) == len(split_N) == len(names) == len(content_N):
            raise ValueError("lengths differ")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        shutil.rmtree(kept, ignore_errors=True)
        return None
    return ImageSet(images_NHWC, labels_N, split_N, classes, names, content_N, published, note)
