"""Pictures without labels, to pretrain on: every one in a folder, a zip or a tar, in folders below it or in none.

Decoded once, resized and kept as bytes in a file in the cache, which all workers of a machine map.

Shape suffixes: N pictures, H and X rows and columns, C colours, S edge of square ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raymae.data.class_folders import left_out
from raymae.data.file_trees import open_tree
from raymae.data.find.locate import Located, cache_folder
from raymae.data.images import ImageSet
from raymae.data.kept import built_once
from raymae.data.pixels import SUFFIXES, as_rgb, content_of, is_picture, read_image, upright_size
from raymae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1  # of the decoded cache; part of its key
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures.

    Attributes:
        store: uint8, their pixels one after the other; memory-mapped.
        sizes_N2: Rows and columns of each.
        names: Paths of the files inside the corpus.
        content_N: uint64, a hash of every picture's pixels before they were resized.
        note: What has to be said of the files, or "".
    """

    store: np.ndarray
    sizes_N2: np.ndarray
    names: tuple[str, ...]
    content_N: np.ndarray
    note: str

    @cached_property
    def images(self) -> tuple[np.ndarray, ...]:
        """`[H, X, 3]`, uint8, each of its own size."""
        ends = np.cumsum(3 * self.sizes_N2.prod(axis=1))[:-1]
        return tuple(flat.reshape(*size, 3) for flat, size in zip(np.split(self.store, ends), self.sizes_N2.tolist(),
                                                                  strict=True))

    @property
    def images_NSSC(self) -> np.ndarray:  # noqa: N802
        """Of square ones: uint8."""
        return self.store.reshape(len(self.names), *self.sizes_N2[0].tolist(), 3)


def read_pictures(found: Located, size: int, *, square: bool) -> Pictures:
    """Every picture of a corpus, decoded by the first process that asks.

    Args:
        found: Where it is; its fingerprint is the key of the cache.
        size: Length of the shorter side, in pixels, to which pictures are resized.
        square: Cropped to the middle of the longer side.

    Raises:
        DataError: There is none, or one is damaged; names it. Or the cache cannot be written.
    """
    assert found.path is not None
    path, of = found.path, "square" if square else "px"
    folder = cache_folder() / "decoded" / f"corpus-{found.fingerprint.partition(':')[2]}-{size}{of}-{FORMAT}"

    def build(part: Path) -> None:
        tree = open_tree(path)
        names = [name for name in tree.members if is_picture(name) and not _is_label_map(name, tree.members)]
        if not names:
            raise DataError(f"{path} holds no image ({', '.join(SUFFIXES[:8])}, …) to pretrain on")
        others = [name for name in (*tree.members, *tree.beside) if not is_picture(name) and not name.endswith("/")]
        sizes = np.full((len(names), 2), size)
        if not square:
            sizes = np.array([*_each(names, lambda name: _size(tree.read(name), f"{path}/{name}", size))])
        ends = np.cumsum(3 * sizes.prod(axis=1))
        store = np.lib.format.open_memmap(part / "pixels.npy", mode="w+", dtype=np.uint8, shape=(int(ends[-1]),))
        content_N = np.zeros(len(names), np.uint64)

        def decode(row: int) -> None:
            image = read_image(tree.read(names[row]), f"{path}/{names[row]}", as_rgb)
            pixels = _fitted(image, (int(sizes[row, 0]), int(sizes[row, 1])))
            content_N[row] = content_of(np.asarray(image))
            store[ends[row] - pixels.size : ends[row]] = pixels.ravel()

        for _ in _each(range(len(names)), decode):
            pass
        store.flush()
        np.savez(part / "sizes.npz", sizes_N2=sizes, content_N=content_N)
        (part / "names.json").write_text(json.dumps({"names": names, "note": left_out(others)}))

    return _load(_kept(folder, build))


def _is_label_map(name: str, members: tuple[str, ...]) -> bool:
    """Whether a picture is numbers of classes, in a data set of scenes: see `raymae.data.scenes`."""
    before, found, rest = f"/{name}".partition("/annotations/")
    images = f"{before}/images/"[1:]
    return bool(found and rest) and _has_folder(images, members)


@lru_cache(maxsize=64)
def _has_folder(images: str, members: tuple[str, ...]) -> bool:
    return any(member.startswith(images) for member in members)


def _kept(folder: Path, build: Callable[[Path], None]) -> Path:
    try:
        return built_once(folder, build)
    except OSError as error:
        raise DataError(f"{folder}: decoded pictures cannot be kept there: {error.strerror}; set $RAYMAE_CACHE to a "
                        "folder with room") from None


def _load(folder: Path) -> Pictures:
    try:
        store = np.load(folder / "pixels.npy", mmap_mode="c")  # torch wants writable memory; the file stays as it is
        with np.load(folder / "sizes.npz") as arrays:
            sizes_N2, content_N = arrays["sizes_N2"], arrays["content_N"]
        told = json.loads((folder / "names.json").read_text())
        return Pictures(store, sizes_N2, tuple(told["names"]), content_N, str(told["note"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"{folder}: a damaged copy of decoded pictures ({error}), which is deleted now; run the same "
                        "again") from None


def _each(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(make, items)


def _size(content: bytes, name: str, size: int) -> tuple[int, int]:
    """Rows and columns of a picture whose shorter side gets this length; only its header is read."""
    columns, rows = read_image(content, name, upright_size)
    scale = size / min(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _fitted(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Pixels in this size, rows first, of the middle of the longer side."""
    from PIL import Image, ImageOps

    rows, columns = size
    if image.size != (columns, rows):
        image = ImageOps.fit(image, (columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(image)


# -- what is scored ----------------------------------------------------------------------------------------------------


def content_of_set(found: Located, images: ImageSet) -> np.ndarray:
    """The hash of every image of a labelled set, as its file has it: uint64 `[N]`, see `Pictures.content_N`."""
    assert images.content_N is not None
    if images.published:  # decoded as they are
        return images.content_N
    assert found.path is not None
    path = found.path

    def hashes() -> list[int]:
        read = open_tree(path).read
        return [*_each(images.names, lambda name: _content(read(name), f"{path}/{name}"))]

    return _hashes(f"{found.fingerprint.partition(':')[2]}-{len(images.names)}", hashes)


def content_of_files(paths: Sequence[Path]) -> np.ndarray:
    """The hash of the pixels of every file, uint64 `[N]`.

    Raises:
        DataError: One is damaged.
    """
    stats = [path.stat() for path in paths]
    lines = [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(paths, stats, strict=True)]
    return _hashes(hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
                   lambda: [*_each(paths, lambda path: _content(path.read_bytes(), str(path)))])


def _content(content: bytes, name: str) -> int:
    """The hash of a file's pixels."""
    return content_of(np.asarray(read_image(content, name, as_rgb)))


def _hashes(key: str, make: Callable[[], list[int]]) -> np.ndarray:
    """Hashes of many pictures, made once and kept in the cache."""
    def build(part: Path) -> None:
        np.save(part / "content.npy", np.array(make(), np.uint64))

    kept: np.ndarray = np.load(_kept(cache_folder() / "decoded" / f"content-{key}-{FORMAT}", build) / "content.npy")
    return kept
