"""Labelled images from folders, zips and tar shards, decoded once into one array.

Two layouts are understood, in any of those containers: Tiny ImageNet's own (`train/<wnid>/images/*.JPEG`, `val/images`
with `val_annotations.txt`, `wnids.txt`), whose official val is the test split, and a folder per class, optionally under
`train/`, `val/` and `test/`.

Shape suffixes: N images, H and W pixels.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from raymae.data.find.locate import Located, cache_folder
from raymae.data.kept import built_once
from raymae.errors import DataError

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar")
TINY_SIZE = 64
FORMAT = 2  # of the decoded cache; part of its key


@dataclass(frozen=True)
class ImageSet:
    """Decoded images.

    Attributes:
        images_NHWC: uint8, RGB; may be memory-mapped.
        labels_N: int64, index into `classes`.
        split_N: int64, index into `SPLITS`; where nothing is `val`, a share of train has to be held out.
        classes: Names.
        names: Paths of the files inside the data set.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    split_N: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]


class _Image(NamedTuple):
    member: str
    split: str
    label: str


class _Tree(NamedTuple):
    """Files of a folder or archive: their relative names, and how to read one."""

    place: Path
    members: tuple[str, ...]
    read: Callable[[str], bytes]


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
    return _decode(tree, *_class_folders(tree), image_size, exact=False, kept=resized)


# -- containers --------------------------------------------------------------------------------------------------------


def open_tree(path: Path) -> _Tree:
    """The files of a folder, of the tar shards in a folder, of a zip or of a tar, below what they have in common.

    Raises:
        DataError: It cannot be read.
    """
    if path.is_dir():
        shards = sorted(item for item in path.iterdir() if item.name.endswith(ARCHIVES))
        return _from_shards(path, shards) if shards else _from_folder(path)
    if path.name.endswith(ARCHIVES):
        return _from_shards(path, [path])
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a whole zip or tar of images: {error}") from None
    return _below_common(path, archive.namelist(), archive.read)


def _from_folder(path: Path) -> _Tree:
    names = []
    for folder, folders, files in os.walk(path, followlinks=True):
        below = Path(folder).relative_to(path)
        names += [(below / name).as_posix() for name in files]
        if not folders and not files:
            names.append(f"{below.as_posix()}/")
    return _below_common(path, names, lambda name: (path / name).read_bytes())


def _from_shards(path: Path, shards: Sequence[Path]) -> _Tree:
    """Compressed tars have no random access, so the files' bytes are kept: 2 kB an image of Tiny ImageNet."""
    contents: dict[str, bytes] = {}
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                for item in archive:
                    stream = archive.extractfile(item) if item.isfile() else None
                    if stream is not None or item.isdir():
                        contents[item.name if stream else f"{item.name}/"] = stream.read() if stream else b""
        except Exception as error:  # tarfile, lzma and zlib each have errors of their own
            raise DataError(f"{shard} cannot be read: {error or type(error).__name__}; is the file whole?") from None
    return _below_common(path, contents, contents.__getitem__)


def _below_common(place: Path, names: Iterable[str], read: Callable[[str], bytes]) -> _Tree:
    """Files and empty folders (`name/`), without hidden ones and without a folder that holds all of them."""
    shown = {name for name in names if not re.search(r"(^|/)[._]", name)}
    parents = {f"{parent.as_posix()}/" for name in shown for parent in PurePosixPath(name).parents}
    members = sorted(shown - parents)
    prefix = ""
    while members:
        head, slash, _ = members[0][len(prefix):].partition("/")
        wider = f"{prefix}{head}/"
        if not slash or head in SPLITS or not all(name.startswith(wider) for name in members):
            break
        if not any("/" in name[len(wider):] for name in members):  # the only class
            break
        prefix = wider
    return _Tree(place, tuple(name[len(prefix):] for name in members), lambda name: read(prefix + name))


# -- layouts -----------------------------------------------------------------------------------------------------------


def _tiny_layout(tree: _Tree) -> tuple[list[_Image], tuple[str, ...]]:
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
        if parts[0] == "train" and parts[-1].lower().endswith(SUFFIXES):
            if parts[1] not in known:
                raise DataError(f"{tree.place}/{name}: unknown class {parts[1]}: wnids.txt does not list it")
            images.append(_Image(name, "train", parts[1]))
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
        if name.startswith("val/") and name.lower().endswith(SUFFIXES):
            image = name.rpartition("/")[2]
            if image not in labels:
                raise DataError(f"{tree.place}/{name} has no line in val/val_annotations.txt, so no label; "
                                "delete it or add its line")
            images.append(_Image(name, "test", labels[image]))
    return _counted(tree, images, classes)


def _class_folders(tree: _Tree) -> tuple[list[_Image], tuple[str, ...]]:
    """`<class>/image`, or the same below `train`, `val` and `test`; where val is there without test, it is the test."""
    found = [name for name in tree.members if name.lower().endswith(SUFFIXES) or name.endswith("/")]
    if all(name.endswith("/") for name in found):
        raise DataError(f"{tree.place} holds no image ({', '.join(SUFFIXES)}); expected a folder per class, or "
                        "train/, val/ and test/ with a folder per class each")
    split_up = all(name.split("/")[0] in SPLITS for name in found)
    depth = 1 if split_up else 0
    images, classes = [], set()
    for name in found:
        *folders, file = name.split("/")
        if len(folders) <= depth:
            if not file:
                continue
            raise DataError(f"{tree.place}/{name} lies in no class folder; expected "
                            f"{'train/' if split_up else ''}<class>/{file}")
        split = folders[0] if split_up else "train"
        if split == "train":
            classes.add(folders[depth])
        if file:
            images.append(_Image(name, split, folders[depth]))
    if "test" not in {image.split for image in images}:
        images = [image._replace(split="test") if image.split == "val" else image for image in images]
    for image in images:
        if image.label not in classes:
            raise DataError(f"{tree.place}/{image.member}: unknown class {image.label}: train/ does not have it")
    return _counted(tree, images, tuple(sorted(classes)))


def _counted(tree: _Tree, images: list[_Image], classes: tuple[str, ...]) -> tuple[list[_Image], tuple[str, ...]]:
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
    tree: _Tree, images: Sequence[_Image], classes: tuple[str, ...], size: int, *, exact: bool, kept: Path
) -> ImageSet:
    order = {name: index for index, name in enumerate(classes)}
    names = tuple(image.member for image in images)
    labels_N = np.array([order[image.label] for image in images], dtype=np.int64)
    split_N = np.array([SPLITS.index(image.split) for image in images], dtype=np.int64)
    shape = (len(images), size, size, 3)

    def fill(images_NHWC: Any) -> None:
        def read(index: int) -> None:
            member = images[index].member
            images_NHWC[index] = _pixels(tree.read(member), f"{tree.place}/{member}", size, exact=exact)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(read, range(len(images))):
                pass

    def build(folder: Path) -> None:
        images_NHWC = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        fill(images_NHWC)
        images_NHWC.flush()
        np.savez(folder / "labels.npz", labels_N=labels_N, split_N=split_N)
        (folder / "classes.json").write_text(json.dumps(classes))
        (folder / "names.json").write_text(json.dumps(names))

    with contextlib.suppress(OSError):  # the cache cannot be written: memory has to do
        if (cached := _load(built_once(kept, build))) is not None:
            return cached
    images_NHWC = np.empty(shape, np.uint8)
    fill(images_NHWC)
    return ImageSet(images_NHWC, labels_N, split_N, classes, names)


def _pixels(content: bytes, name: str, size: int, *, exact: bool) -> np.ndarray:
    """RGB `[H, W, 3]`, uint8; greyscale is repeated."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ... on damaged files
        reason = "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
        raise DataError(f"{name}: damaged image of {len(content)} bytes: {reason}; restore or delete it") from None
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
            labels_N, split_N = arrays["labels_N"], arrays["split_N"]
        classes, names = (tuple(json.loads((kept / f"{part}.json").read_text())) for part in ("classes", "names"))
        if not len(images_NHWC) == len(labels_N) == len(split_N) == len(names):
            raise ValueError("lengths differ")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        shutil.rmtree(kept, ignore_errors=True)
        return None
    return ImageSet(images_NHWC, labels_N, split_N, classes, names)
