"""Data sets on object stores, copied once to every machine that needs them.

A copy lies in `<cache>/remote/<key>`, where the key is made of the location and of every file's name, size and time of
change: what changes in the bucket is copied anew, and what a trial is reading stays as it is. The folder gets its name
when it is complete, under a lock, so that the processes of a machine fetch it once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from raymae.data.find.registry import File
from raymae.data.kept import built_once
from raymae.errors import DataError
from raymae.spec.uri import open_uri

CHUNK = 1 << 22  # bytes


def copy_path(uri: str, folder: Path) -> Path:
    """A local copy of a file, or of a folder with everything in it.

    Args:
        uri: Where it is.
        folder: The cache for copies.

    Raises:
        DataError: It does not exist, cannot be read, or there is no room.
    """
    with _explained(uri):
        filesystem, path = open_uri(uri)
        found = _listed(filesystem, path)
        if not found:
            raise DataError(f"{uri} does not exist; correct it, or give this machine the right to read it")
        base = PurePosixPath(path)
        return _copied(uri, filesystem, found, base.parent, folder) / base.name


def copy_files(uri: str, files: Sequence[File], folder: Path) -> Path:
    """A local root with a data set's files, each under the name it has below `uri`.

    Args:
        uri: The root on the object store.
        files: The data set's.
        folder: The cache for copies.

    Raises:
        DataError: A file is missing there, the location cannot be read, or there is no room.
    """
    with _explained(uri):
        filesystem, path = open_uri(uri)
        found: list[Any] = []
        for file in files:
            listed = (_listed(filesystem, f"{path}/{name}") for name in (file.path, *file.alternatives))
            first = next(filter(None, listed), None)
            if first is None:
                raise DataError(f"no {' or '.join((file.path, *file.alternatives))}")
            found += first
        return _copied(uri, filesystem, found, PurePosixPath(path), folder)


def _listed(filesystem: Any, path: str) -> list[Any]:
    """The file, or all files below the folder; empty where there is neither."""
    from pyarrow import fs

    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return [info]
    if info.type == fs.FileType.NotFound:
        return []
    below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted((one for one in below if one.is_file), key=lambda one: str(one.path))


def _copied(uri: str, filesystem: Any, found: Sequence[Any], base: PurePosixPath, folder: Path) -> Path:
    """The folder of the complete copy."""
    state = [(str(one.path), one.size, one.mtime_ns) for one in found]
    key = hashlib.sha256(repr((uri, state)).encode()).hexdigest()[:24]

    def copy(part: Path) -> None:
        for one in found:
            _fetch(filesystem, str(one.path), one.size, part / PurePosixPath(one.path).relative_to(base))

    return built_once(folder / key, copy)


def _fetch(filesystem: Any, path: str, size: int, to: Path) -> None:
    if ".." in to.parts:
        raise DataError(f"{path}: a name on an object store must not hold `..`")
    to.parent.mkdir(parents=True, exist_ok=True)
    with filesystem.open_input_stream(path, compression=None) as source, to.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        if file.tell() != size:
            raise DataError(f"{path}: {file.tell()} bytes came of {size}: it was changed, or cut off, while it was "
                            "copied; try again")


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:300]
        raise DataError(f"{uri} cannot be copied to this machine: {reason}") from None
