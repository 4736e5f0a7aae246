"""Files that a user has predictions made for: those of a kind in a folder, or a single one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymae.data.file_trees import HIDDEN, folder_files
from raymae.errors import DataError

TEXTS = (".csv", ".tsv", ".txt")
PACKED = ("", ".gz", ".bz2", ".xz", ".zip")
TABLES = (*(f"{end}{packed}" for end in (".csv", ".tsv") for packed in PACKED), ".parquet", ".pq")


def is_table(name: str) -> bool:
    """Whether a file's ending is one of a table or series; of `.txt`, which may be anything, it has to be named."""
    return name.lower().endswith(TABLES)


def files_of(source: Path, wanted: Callable[[str], bool], what: str) -> list[tuple[str, Path]]:
    """Names, below the folder, and paths of the files to predict for, in the order of names.

    Args:
        source: A folder, or a file of whatever name.
        wanted: Whether a name in a folder is of such a file.
        what: They, for messages, with some endings.

    Raises:
        DataError: There is none.
    """
    if source.is_file():
        return [(source.name, source)]
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder; name {what}, or a folder of such files")
    names = sorted(name for name in folder_files(source) if not HIDDEN.search(name) and wanted(name))
    if not names:
        raise DataError(f"{source} holds nothing to predict for; looked for {what}, also in folders below")
    return [(name, source / name) for name in names]


def bytes_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@contextmanager
def written_out(frame: Any, called: str) -> Iterator[Path]:
    """A frame as a text file, so that one reader reads everything, for as long as it is read.

    Args:
        frame: A pandas frame; an index with a name, or of dates, becomes a column.
        called: What messages call it in place of the file.

    Raises:
        DataError: What is raised in the block, with the frame's name.
    """
    import pandas as pd

    if isinstance(frame.index, (pd.DatetimeIndex, pd.PeriodIndex)) or any(frame.index.names):
        own = "date" if frame.index.nlevels == 1 and frame.index.name is None else None
        frame = frame.reset_index(names=own) if own else frame.reset_index()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.csv"
        frame.to_csv(path, index=False)
        try:
            yield path
        except DataError as error:
            raise DataError(str(error).replace(str(path), called)) from None


def listing(values: Sequence[str], most: int = 6) -> str:
    """Some names for a message, the first of many."""
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return ", ".join(map(repr, values[:most])) + more
