"""Files of answers: one table of all, or a file for each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raymae.errors import DataError
from raymae.tasks.predictor import Item

ENDINGS = (".csv", ".csv.gz", ".parquet", ".pq")


def require_ending(to: Path, endings: tuple[str, ...]) -> None:
    """Refuse a name that does not say how to write the file.

    Raises:
        DataError: Says which endings do.
    """
    if not to.name.lower().endswith(endings):
        raise DataError(f"{to}: cannot be written; its name must end with one of {', '.join(endings)}")


def require_folder(to: Path) -> None:
    """Refuse a name that is one of a file.

    Raises:
        DataError: It is.
    """
    if to.is_file() or to.name.lower().endswith((*ENDINGS, ".png", ".jpg", ".jpeg", ".nii", ".nii.gz")):
        raise DataError(f"{to}: several files are written for each input, so it must be the name of a folder")


def write_whole(to: Path, write: Callable[[Path], object]) -> Path:
    """Write a file beside its place and give it its name when it is whole.

    Args:
        to: The file; its folder is made.
        write: Writes it under another name of the same ending.

    Raises:
        DataError: It cannot be written.
    """
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=to.parent) as folder:
            part = Path(folder) / to.name
            write(part)
            os.replace(part, to)
    except OSError as error:
        raise DataError(f"{to}: cannot be written: {error.strerror or error}") from None
    return to


def write_table(frame: Any, to: Path) -> Path:
    """Write a pandas frame, as the file's ending says.

    Raises:
        DataError: It cannot be written.
    """
    def write(path: Path) -> None:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False, compression="infer")

    return write_whole(to, write)


class TableWriter:
    """All answers in one table, written at the end. An answer is a pandas frame.

    Args:
        to: `.csv`, `.csv.gz` or `.parquet`.
        named: Whether the first column, `file`, says which input a row is of.
    """

    def __init__(self, to: Path, *, named: bool) -> None:
        require_ending(to, ENDINGS)
        self.to, self.named = to, named
        self.frames: list[Any] = []

    def add(self, item: Item, inputs: Any, answer: Any) -> list[Path]:
        """Take an answer."""
        if self.named:
            answer.insert(0, "file", item.name, allow_duplicates=True)
        self.frames.append(answer)
        return []

    def close(self) -> list[Path]:
        """Write the table, if there is any answer."""
        import pandas as pd

        return [write_table(pd.concat(self.frames, ignore_index=True), self.to)] if self.frames else []
