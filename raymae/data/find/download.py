"""Checksums of files and folders, and downloads that are checked before they get their name."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from raymae.data.file_trees import folder_files
from raymae.data.find.bundled import write_bundled
from raymae.data.find.registry import Dataset, File
from raymae.errors import DataError

TIMEOUT_S = (10, 60)  # to connect; between two packets


def difference(file: File, path: Path) -> str:
    """How a found file differs from the official one; "" if it does not, or if there is no official checksum.

    The checksum is that of the download; a folder into which it was unpacked has none.
    """
    if file.md5 is None or path.is_dir():
        return ""
    md5 = digest(path, "md5")
    if md5 == file.md5:
        return ""
    size = f" {path.stat().st_size} bytes," if file.num_bytes else ""
    official = f" {file.num_bytes} bytes," if file.num_bytes else ""
    return f"{path} is not the official file:{size} md5 {md5}, official is{official} md5 {file.md5}"


def digest(path: Path, kind: Literal["md5", "sha256"]) -> str:
    """Hex hash of a file's bytes, or of a folder's file names and bytes.

    Raises:
        DataError: It cannot be read.
    """
    try:
        if path.is_dir():
            names = sorted(name for name in folder_files(path) if (path / name).is_file())
            lines = "".join(f"{name} {digest(path / name, kind)}\n" for name in names)
            return hashlib.new(kind, lines.encode(), usedforsecurity=False).hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def download_files(known: Dataset, root: Path) -> tuple[Path, ...]:
    """Fetch every file into a root, or write it from the library that has it. One gets its name only when whole and
    checked, so two processes may do it at once.

    Raises:
        DataError: Why it failed.
    """
    import pooch

    if any(file.url is None and not file.bundled for file in known.files):
        raise DataError(f"has to be had by hand: {known.manual}")
    paths = []
    for file in known.files:
        target = root / file.path
        paths.append(target)
        if file.url is None:
            write_bundled(file.bundled, target)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)  # pooch's own mkdir fails if another process is quicker
            with _quiet_pooch():
                pooch.retrieve(file.url, known_hash=f"md5:{file.md5}", fname=target.name, path=target.parent,
                               downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S, chunk_size=1 << 16))
            with contextlib.suppress(PermissionError):  # another user's, already there
                target.chmod(0o644)  # pooch leaves 600, which other users of a shared folder cannot read
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong checksum is a ValueError
            raise DataError(f"{file.url}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
    return tuple(paths)


_ONE_AT_A_TIME = threading.Lock()  # the level of pooch's logger is shared by all threads


@contextlib.contextmanager
def _quiet_pooch() -> Iterator[None]:
    import pooch

    logger = pooch.get_logger()
    with _ONE_AT_A_TIME:
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
