"""The file of a table as a pandas frame: which columns there are, which cells are missing, what is a number.

What is left out, and which words are taken for missing cells, is said.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raymae.data.delimited import MISSING, as_numbers, missing_words, read_cells, without_missing
from raymae.errors import DataError
from raymae.spec.sweep import Reading

NAMELESS = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")  # pandas' names for a column without one
ROW_NAMES = ("index", "rownames", "row_names", "rowname")  # what row numbers are called that were saved on the way
LISTED = 6  # columns whose words for missing cells are said
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")


class Frame(NamedTuple):
    """A table's file.

    Attributes:
        columns: A pandas frame; of a text file every cell is text.
        decimal: In numbers that are text.
        written: Whether it is a text file, whose types are to be inferred.
        notes: What a person should know of how it was read.
    """

    columns: Any
    decimal: str
    written: bool
    notes: tuple[str, ...]


def read_frame(path: Path, reading: Reading) -> Frame:
    """Read Parquet, a folder of Parquet files, or text with a header line. Row numbers are left out.

    Raises:
        DataError: It is missing or malformed, a column has no name, or two have the same.
    """
    is_stored = path.is_dir() or path.suffix.lower() in (".parquet", ".pq")
    frame = stored(path) if is_stored else _written(path, reading)
    names = list(frame.columns.columns)
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: column names must differ, {twice[0]!r} occurs more than once")
    notes, kept = list(frame.notes), []
    for place, name in enumerate(names):
        cells = frame.columns.iloc[:, place]
        if not NAMELESS.fullmatch(name) and name not in ROW_NAMES:
            kept.append(place)
        elif NAMELESS.fullmatch(name) and (cells.isna() | (cells.astype(str) == "")).all():
            notes.append(f"column {place + 1}, without a name or a cell, left out")
        elif _are_row_numbers(cells):
            notes.append(f"row numbers in column {place + 1} ({repr(name) if name else 'without a name'}) left out")
        elif not name:
            raise DataError(f"{path}: column {place + 1} has no name; name it, or take it out")
        else:
            kept.append(place)
    return frame._replace(columns=frame.columns.iloc[:, kept], notes=tuple(notes))


def stored(path: Path) -> Frame:
    """Read Parquet, with an index that has a name as columns in front.

    Raises:
        DataError: It is missing or malformed, or two columns have the same name.
    """
    import pandas as pd
    import pyarrow as pa

    if path.is_dir() and not any(path.rglob("*.parquet")):
        raise DataError(f"cannot read the table {path}: is a folder without Parquet files")
    if not path.exists():
        raise DataError(f"cannot read the table {path}: no such file")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} is neither CSV with a header line nor Parquet: {reason}") from None
    named = [name for name in frame.index.names if name is not None]
    unnamed = not isinstance(frame.index, pd.RangeIndex) and len(named) < frame.index.nlevels
    twice = [name for name in named if name in frame.columns]
    if twice:
        raise DataError(f"{path}: column names must differ, {twice[0]!r} is a column and the index")
    frame = frame.reset_index(named).reset_index(drop=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    return Frame(frame, ".", False, ("an index without a name left out",) if unnamed else ())


def _written(path: Path, reading: Reading) -> Frame:
    import pandas as pd

    cells = read_cells(path, reading, "table")
    if len(cells.names) == 1:
        raise DataError(f"{path} holds one column, and a cell is told from others of its row; if cells are separated "
                        f"by something else than {', '.join(('`,`', '`;`', 'tabs'))} or `|`, set data.separator")
    frame = pd.DataFrame(dict(enumerate(column.to_pandas().astype(object) for column in cells.columns)))
    frame.columns = list(cells.names)
    return Frame(frame, cells.decimal, True, cells.notes)


def _are_row_numbers(cells: Any) -> bool:
    import pyarrow as pa

    numbers, wrong = as_numbers(pa.array(cells.astype(str), pa.string()), ".")
    start = numbers[0] if len(numbers) else 2
    return not wrong.any() and start in (0, 1) and np.array_equal(numbers, np.arange(len(numbers)) + start)


def typed(frame: Frame, reading: Reading, numeric: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """Give every column its type, and its missing cells; and say which words were taken for missing.

    Args:
        frame: Some columns of a file.
        reading: Which words stand for missing cells; in Parquet, which has its own, those that are given.
        numeric: Columns that must be numbers.
    """
    import pandas as pd

    words = missing_words(reading) if frame.written else frozenset(reading.missing)
    columns, told = {}, []
    for name in frame.columns.columns:
        columns[name], counts = _column(frame.columns[name], words, frame, name in numeric)
        usual = " ".join(f"{word!r} {count:,} times" for word, count in counts.items())
        told += [f"{usual} in {name!r}"] if counts else []
    more = f" and {len(told) - LISTED} more columns" if len(told) > LISTED else ""
    notes = (f"taken for missing: {', '.join(told[:LISTED])}{more}",) if told else ()
    return pd.DataFrame(columns, index=frame.columns.index), notes


def _column(cells: Any, words: frozenset[str], frame: Frame, numeric: bool) -> tuple[Any, dict[str, int]]:
    import pandas as pd
    import pyarrow as pa

    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        standing = {word: float(word) for word in words - MISSING if re.fullmatch(r"[+-]?\d+(\.\d*)?", word)}
        counts = {word: int((cells == value).sum()) for word, value in standing.items()}
        return cells.mask(cells.isin(list(standing.values()))), {word: count for word, count in counts.items() if count}
    text = cells[cells.notna()]
    if not len(text) or not all(isinstance(cell, str) for cell in text):
        return cells, {}
    there, counts = without_missing(pa.array(cells.where(cells.notna(), None), pa.string()), words)
    values = pd.Series(there.to_pandas().astype(object).to_numpy(), index=cells.index)
    return (_inferred(there, values, frame.decimal, numeric) if frame.written else values), counts


def _inferred(cells: Any, values: Any, decimal: str, numeric: bool) -> Any:
    """A column of a text file as numbers, booleans or text."""
    import pandas as pd

    numbers, wrong = as_numbers(cells, decimal)
    if not wrong.any():
        whole = numbers[~np.isnan(numbers)]
        if not np.isnan(numbers).any() and (np.abs(whole) < 2**53).all() and (whole == np.round(whole)).all():
            return pd.Series(numbers.astype(np.int64), index=values.index)  # whose categories are 1, not 1.0
        return pd.Series(numbers, index=values.index)
    if numeric:  # which cell is none is said elsewhere
        return values.where(pd.Series(wrong | np.isnan(numbers), index=values.index), pd.Series(numbers))
    if set(values.dropna()) <= {*TRUE, *FALSE}:
        return values.map({**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}).astype(object)
    return values
