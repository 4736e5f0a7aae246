"""Images with a class for every pixel, in the layout of ADE20K.

    objectInfo*.txt                              a header, then one class per line, its number first
    images/{training,validation}/*.jpg           or what else `pixels` reads, also in folders below
    annotations/{training,validation}/*.png      one channel: 0 = other, ignored; 1..K = the classes; see `scene_labels`

Everything is decoded once, resized and kept as bytes: small sets in memory, large ones in a file in the cache that is
mapped. How images become splits is said in `scene_splits`.

Shape suffixes: H and X rows and columns, C colours.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raymae.data.class_folders import left_out
from raymae.data.file_trees import HIDDEN, folder_files
from raymae.data.find.locate import cache_folder
from raymae.data.groups import group_of
from raymae.data.kept import built_once
from raymae.data.pixels import SUFFIXES, WIDE, as_rgb, is_picture, upright, upright_size
from raymae.data.scene_labels import ADE20K, IGNORED, LAYOUT, Labelling
from raymae.data.shelf import WORKER
from raymae.data.twins import file_keys
from raymae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 2  # of the decoded cache; part of its key
IN_MEMORY_BYTES = 1 << 29  # larger sets are mapped from a file, which all workers of a machine share
Value = TypeVar("Value")
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")  # formats that change a label map's numbers along edges


@dataclass(frozen=True)
class Scenes:
    """Images, and their label maps where they have any.

    Attributes:
        names: File names without suffix, with the folders they lie in below the split's.
        images: `[H, X, 3]`, uint8, each of its own size.
        labels: `[H, X]`, uint8: 0..K-1, or `IGNORED`; empty for images without labels.
        groups: The drive or place of each; empty where none is known.
        files: Of labelled images the files of the label maps, which `native_label` reads in their own size; empty where
            there are none, as of generated images.
        sources: The files of the images; empty where there are none.
        labelling: What the numbers in `files` mean.
    """

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...] = ()
    groups: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()
    labelling: Labelling = ADE20K

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: Sequence[int]) -> Scenes:
        """Some of them, in this order."""
        chosen = list(chosen)

        def of(values: tuple[Value, ...]) -> tuple[Value, ...]:
            return tuple(values[i] for i in chosen) if values else ()

        return replace(self, names=of(self.names), images=of(self.images), labels=of(self.labels),
                       groups=of(self.groups), files=of(self.files), sources=of(self.sources))


def pairs(folder: Path, split: str) -> dict[str, tuple[Path, Path | None]]:
    """Every image of an official split with its label map, by name, ascending.

    Raises:
        DataError: A folder is missing or empty, or a file has no partner.
    """
    images, masks = (_listed(folder / kind / split) for kind in ("images", "annotations"))
    for stem, path in images.items():
        if stem not in masks:
            raise DataError(f"{folder / 'annotations' / split / (stem + '.png')} is missing: {path} has no label map; "
                            "add it, or move the image away")
    for stem, path in masks.items():
        if stem not in images:
            raise DataError(f"{path} has no image {stem} in {folder / 'images' / split}; add it, or move the label map "
                            "away")
    return {stem: (path, masks[stem]) for stem, path in images.items()}


def unlabelled_folder(folder: Path) -> Path:
    """Where images without labels lie: in the data set's folder, beside it, or beside ADE20K under the same root.

    Raises:
        DataError: In none of these places.
    """
    places = [folder / "unlabelled_images", folder.parent / "unlabelled_images",
              folder.parent / "ade20k" / "unlabelled_images"]
    for place in places:
        if place.is_dir():
            return place
    raise DataError("unlabelled=true, but there is no folder of images without labels; looked for "
                    f"{', '.join(map(str, places))}")


@WORKER.keeps(4)
def read_unlabelled(
    folder: Path, image_size: int, without: frozenset[str] = frozenset(), pattern: str = "",
    apart: frozenset[str] = frozenset(), scored: tuple[Path, ...] = (),
) -> Scenes:
    """Images to pretrain on.

    Args:
        folder: Holds them.
        image_size: Length of every image's shorter side, in pixels, to which it is resized.
        without: Names that are left out, for they are in a split that is scored.
        pattern: Says the group in a name, see `group_of`; an image without is its own. "" where no group is known.
        apart: Groups that are left out, for they are in a split that is scored.
        scored: Files of images that are scored, of which copies are left out.

    Raises:
        DataError: The folder is missing or empty, or a file is damaged.
    """
    listed = _listed(folder)
    group = {name: (pattern and group_of(pattern, PurePosixPath(name).name)) or name for name in listed}
    chosen = {name: path for name, path in listed.items() if name not in without and group[name] not in apart}
    keys = file_keys([*chosen.values(), *scored])
    taken = {*keys[len(chosen):]}
    chosen = {name: path for (name, path), key in zip(chosen.items(), keys, strict=False) if key not in taken}
    found = read_pairs([(path, None) for path in chosen.values()], image_size, 0, names=tuple(chosen))
    return replace(found, groups=tuple(group[name] for name in found.names)) if pattern else found


def _listed(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; {LAYOUT}")
    found: dict[str, Path] = {}
    for path in sorted(folder / name for name in _files(folder) if is_picture(name)):
        other = found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        if other != path:
            raise DataError(f"{other} and {path} are two files of one name; remove one")
    if not found:
        raise DataError(f"{folder} is empty: it holds no {', '.join(SUFFIXES[:8])}, … file")
    return found


def _files(folder: Path) -> list[str]:
    return [name for name in folder_files(folder) if not name.endswith("/") and not HIDDEN.search(name)]


def not_pictures(folder: Path) -> str:
    """Say in a dry run which files of the official splits are no pictures, or ""."""
    names = [f"{kind}/{split}/{name}" for kind in ("images", "annotations") for split in ("training", "validation")
             for name in _files(folder / kind / split) if not is_picture(name)]
    return left_out(sorted(names))


# -- decoding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """One image to decode: its files and the size it gets."""

    image: Path
    mask: Path | None
    size: tuple[int, int]  # rows, columns

    @property
    def num_bytes(self) -> int:
        return math.prod(self.size) * (3 if self.mask is None else 4)

    def parts(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        pixels = math.prod(self.size)
        image = flat[: 3 * pixels].reshape(*self.size, 3)
        return image, flat[3 * pixels :].reshape(self.size) if self.mask is not None else None


def read_pairs(
    files: Sequence[tuple[Path, Path | None]], image_size: int, num_classes: int,
    labelling: Labelling = ADE20K, *, names: tuple[str, ...] = (),
) -> Scenes:
    """Decode images with their label maps.

    Args:
        files: Of every image, and of its label map.
        image_size: Length of every image's shorter side, in pixels, to which it is resized.
        num_classes: K.
        labelling: What the numbers in label maps mean.
        names: Of every image; those of the files if empty.

    Raises:
        DataError: A file is damaged, of the wrong size or holds an impossible label; names the file.
    """
    plans = [_plan(image, mask, image_size) for image, mask in files]
    ends = np.cumsum([plan.num_bytes for plan in plans]).tolist()
    flats = [slice(end - plan.num_bytes, end) for plan, end in zip(plans, ends, strict=True)]

    def decode(store: np.ndarray) -> None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            rows = zip(plans, flats, strict=True)
            for _ in pool.map(lambda row: _decode(row[0], store[row[1]], num_classes, labelling), rows):
                pass

    total = ends[-1] if ends else 0
    if total <= IN_MEMORY_BYTES:
        store = np.empty(total, np.uint8)
        decode(store)
    else:
        store = _mapped(_key(plans, image_size, num_classes, labelling), total, decode)
    parts = [plan.parts(store[flat]) for plan, flat in zip(plans, flats, strict=True)]
    return Scenes(names or tuple(plan.image.stem for plan in plans), tuple(image for image, _ in parts),
                  tuple(label for _, label in parts if label is not None),
                  files=tuple(plan.mask for plan in plans if plan.mask is not None),
                  sources=tuple(plan.image for plan in plans), labelling=labelling)


def _mapped(key: str, total: int, decode: Callable[[np.ndarray], None]) -> np.ndarray:
    """That many bytes, decoded once and kept in a file."""
    folder = cache_folder() / "decoded" / f"scenes-{key}"
    path = folder / "pixels.bin"

    def fill(part: Path) -> None:
        store = np.memmap(part / path.name, np.uint8, "w+", shape=(total,))
        decode(store)
        store.flush()

    try:
        if path.exists() and path.stat().st_size != total:  # damaged since
            shutil.rmtree(folder)
        built_once(folder, fill)
    except OSError as error:
        raise DataError(f"{path}: {total:,} bytes of decoded images cannot be kept there: {error.strerror}; set "
                        "$RAYMAE_CACHE to a folder with room, or use a smaller image_size") from None
    return np.memmap(path, np.uint8, "r", shape=(total,))


def _key(plans: Sequence[_Plan], image_size: int, num_classes: int, labelling: Labelling) -> str:
    lines = [f"{FORMAT} {image_size} {num_classes} {labelling.first} {labelling.ignore}"]
    for plan in plans:
        lines += [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (plan.image, plan.mask) if path]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _plan(image: Path, mask: Path | None, image_size: int) -> _Plan:
    """Only headers are read."""
    with _opened(image) as opened:
        columns, rows = upright_size(opened)
    if mask is not None:
        with _opened(mask) as opened:
            size, mode, kind = upright_size(opened), opened.mode, opened.format
        if kind in LOSSY:
            raise DataError(f"{mask} is a label map saved as {kind}, which blurs its numbers along every edge into "
                            "other classes; save label maps as PNG, from what they were made of")
        if size != (columns, rows):
            raise DataError(f"{mask} is {size[0]} x {size[1]} pixels, its image {image} is {columns} x {rows}; "
                            "they must be of one size")
        if mode not in ("L", "P", "1", *WIDE):
            raise DataError(f"{mask} has colour mode {mode}; a label map has one channel, with 0 = ignored and a "
                            "number for every class")
    return _Plan(image, mask, _fitting(rows, columns, image_size))


def _fitting(rows: int, columns: int, image_size: int) -> tuple[int, int]:
    """The size, rows first, of which the shorter side is that long."""
    scale = image_size / min(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _decode(row: _Plan, flat: np.ndarray, num_classes: int, labelling: Labelling) -> None:
    from PIL import Image

    size = (row.size[1], row.size[0])
    image_HXC, label_HX = row.parts(flat)
    image_HXC[:] = _sized(_rgb(row.image), size)
    if row.mask is None or label_HX is None:
        return
    values = _values(row.mask)
    labelling.check(values, num_classes, row.mask)
    mask = Image.fromarray(labelling.coded(values))
    label_HX[:] = np.asarray(mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST))


def _rgb(path: Path) -> Image.Image:
    with _opened(path) as opened:
        return _loaded(opened, path, as_rgb)


def _sized(rgb: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """An image of that many columns and rows."""
    from PIL import Image

    return np.asarray(rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BICUBIC))


def read_scene(path: Path) -> np.ndarray:
    """An image of whatever size as it is decoded for training: uint8 `[H, X, 3]`.

    Raises:
        DataError: The file is damaged.
    """
    return np.asarray(_rgb(path))


def fitted_scene(image_HXC: np.ndarray, image_size: int) -> np.ndarray:
    """An image resized as for training.

    Args:
        image_HXC: uint8.
        image_size: Length of the shorter side that it gets, in pixels.
    """
    from PIL import Image

    image = Image.fromarray(image_HXC)
    rows, columns = _fitting(image.height, image.width, image_size)
    return _sized(image, (columns, rows))


def native_label(path: Path, labelling: Labelling) -> np.ndarray:
    """A label map of `Scenes.files` in the size of its file: uint8 `[H, X]`, 0..K-1 or `IGNORED`.

    It is read anew each time: a large set's would not fit into memory.

    Raises:
        DataError: The file is damaged, since it was decoded for training.
    """
    return labelling.coded(_values(path))


def _values(mask: Path) -> np.ndarray:
    """The numbers that a label map's file holds."""
    with _opened(mask) as opened:
        return np.asarray(_loaded(opened, mask, upright)).astype(np.int64)


def _opened(path: Path) -> Image.Image:
    """An image file, whose header can be read."""
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from None


def _loaded(opened: Image.Image, path: Path, decode: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        return decode(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    said = " ".join(str(error).split())
    return DataError(f"{path} is not a readable image: {said}; fetch it again, or move it away with its partner")


def class_pixels(scenes: Scenes, num_classes: int) -> np.ndarray:
    """Labelled pixels of every class, int64 `[K]`."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for label in scenes.labels:
        counts += np.bincount(label.ravel(), minlength=IGNORED + 1)
    return counts[:num_classes]
