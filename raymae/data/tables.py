"""Tables from CSV and Parquet files: numeric and categorical columns, with missing cells.

Types are inferred and can be overridden: a column whose cells are all numbers, dates or durations is numeric, every
other one categorical; one that is nearly numeric is an error. Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raymae.data.delimited import as_numbers
from raymae.data.frames import read_frame, typed
from raymae.data.groups import cut, numbered
from raymae.errors import DataError, unknown
from raymae.spec.names import listed
from raymae.spec.sweep import Reading

MAX_CATEGORIES = 256
MAX_CODES = 32  # so many whole numbers may stand beside text in a column of categories
FOUND_OUT = Reading()
OF_A_FILE = "name what stands for a missing cell under data.missing, or name the column under numeric or categorical"


@dataclass(frozen=True, eq=False)
class Table:
    """R rows of C columns.

    Attributes:
        values_RC: float64; numbers in the file's units, categories as codes 0, 1, ...; NaN where a cell is missing.
        columns: C names.
        categories: For every column its categories in the order of their codes; () for a numeric one.
        origin: The file, for messages; or `synthetic`.
        groups: The household, site or person of every row; None where not known.
        notes: What a person should know of how it was read.
    """

    values_RC: np.ndarray
    columns: tuple[str, ...]
    categories: tuple[tuple[Any, ...], ...]
    origin: str
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_categorical(self) -> np.ndarray:
        """Which columns hold categories: bool (C,)."""
        return np.array([bool(names) for names in self.categories])


def read_table(
    path: str | os.PathLike[str], *, categorical: Sequence[str] | str = (), numeric: Sequence[str] | str = (),
    drop: Sequence[str] | str = (), group: str = "", reading: Reading = FOUND_OUT,
) -> Table:
    """Read a table. `housing.csv` in its official form needs no arguments.

    Args:
        path: `.parquet`, a folder of such files, or text with a header line; an empty cell is a missing one.
        categorical: Columns of numbers that are categories: names, or a text that separates them by commas.
        numeric: Columns that must be numbers: a cell that is none is an error instead of making a category of it.
        drop: Columns left out, such as an identifier, beside those of `reading`.
        group: The column that says which rows belong together, left out too; where it is empty, the row is alone.
        reading: How a text file is written, which words stand for missing cells, and which columns are read.

    Raises:
        DataError: The file is missing or malformed; names file, column and, where one cell is wrong, its row.
    """
    path = Path(path)
    frame = read_frame(path, reading)
    names = list(frame.columns.columns)
    categorical, numeric, drop = (_named(columns, names) for columns in (categorical, numeric, drop))
    drop = (*drop, *reading.drop)
    for name in (*categorical, *numeric, *drop, *reading.columns, *filter(None, [group])):
        if name not in names:
            raise DataError(f"{path}: {unknown('column', name, names)}")
    both = set(categorical) & set(numeric)
    if both:
        raise DataError(f"{path}: column {min(both)!r} cannot be both categorical and numeric; name it once")
    if group and group in (*categorical, *numeric):
        raise DataError(f"{path}: column {group!r} says which rows belong together, so it is no column to impute; name "
                        "it under group only")
    kept = [name for name in names if name in (reading.columns or names) and name not in drop and name != group]
    left, notes = typed(frame._replace(columns=frame.columns[kept]), reading, numeric)
    table = table_of(left, categorical=categorical, numeric=numeric, origin=str(path), decimal=frame.decimal)
    notes = (*frame.notes, *notes, *table.notes)
    return replace(table, groups=_groups(frame.columns[group]) if group else None, notes=notes)


def _named(columns: Sequence[str] | str, names: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(columns, str):
        return tuple(columns)
    return (columns,) if columns in names else listed(columns)  # a comma may be part of a name


def _groups(column: Any) -> tuple[str, ...]:
    there = zip(column, column.notna() & (column.astype(str) != ""), strict=True)
    return tuple(str(value) if known else f"row {row} alone" for row, (value, known) in enumerate(there, start=1))


def table_of(
    frame: Any, *, categorical: Sequence[str] = (), numeric: Sequence[str] = (), origin: str = "the table",
    decimal: str = ".", remedy: str = OF_A_FILE,
) -> Table:
    """A pandas frame as a table; see `read_table`.

    Args:
        frame: Numbers, booleans, text, dates and durations.
        categorical: Columns of numbers that are categories.
        numeric: Columns that must be numbers.
        origin: The file, for messages.
        decimal: In numbers that are text.
        remedy: What to do about a column that is taken for categories and should not be.

    Raises:
        DataError: No rows or columns, a column of something else, one with too many categories, or nearly numeric.
    """
    if not len(frame) or not len(frame.columns):
        raise DataError(f"{origin} must hold at least one row and one column, got {len(frame)} x {len(frame.columns)}")
    parts, categories, notes = [], [], []
    for name in frame.columns:
        column, unit = (frame[name], "") if name in categorical else measured(frame[name])
        notes += [f"{name!r} is in {unit}"] if unit else []
        told = _Told(origin, str(name), remedy)
        if name not in categorical and _is_numeric(column, name in numeric):
            values_R, names = _numbers(column, told), ()
        else:
            if name not in categorical:
                _refuse_nearly_numeric(column, decimal, told)
            values_R, names = _categories(column, told)
        parts.append(values_R)
        categories.append(names)
    return Table(np.column_stack(parts), tuple(map(str, frame.columns)), tuple(categories), origin, notes=tuple(notes))


def split_rows(
    num_rows: int, fractions: tuple[float, float, float], seed: int, groups: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Rows of `train`, `val` and `test`, drawn from the seed: int64, ascending, each once.

    Args:
        num_rows: R.
        fractions: Shares of the three splits.
        seed: Draws the order.
        groups: Of every row: shares are then of groups, which stay whole. None where they are not known.

    Raises:
        DataError: A split that should hold rows would be empty.
    """
    group_R = numbered(groups, num_rows)
    total = int(group_R.max(initial=-1)) + 1
    first = round(fractions[0] * total)
    second = first + round(fractions[1] * total)
    order = np.random.default_rng(seed).permutation(total)
    parts = dict(zip(("train", "val", "test"), cut(group_R, order, [first, second]), strict=True))
    empty = [name for name, share in zip(parts, fractions, strict=True) if share and not len(parts[name])]
    if empty:
        what = "row" if groups is None else "group"
        remedy = "" if groups is None else "; let settings.group name a column that tells more groups apart"
        raise DataError(f"{total} {what}s are too few to split by {fractions}: no {what} is left for "
                        f"{empty[0]}{remedy}")
    return parts


def measured(column: Any) -> tuple[Any, str]:
    """A column of dates or durations as numbers, and their unit; any other as it is, without one."""
    import pandas as pd

    first = next(iter(column[column.notna()]), None)
    if pd.api.types.is_datetime64_any_dtype(column) or isinstance(first, dt.date):
        moments = pd.to_datetime(column, utc=True, errors="coerce")
        return _in_days(moments - pd.Timestamp(0, tz="UTC")), "days since 1970"
    if pd.api.types.is_timedelta64_dtype(column) or isinstance(first, dt.timedelta):
        return _in_days(pd.to_timedelta(column, errors="coerce")), "days"
    return column, ""


def _in_days(spans: Any) -> Any:
    import pandas as pd

    return spans / pd.Timedelta(days=1)


class _Told(NamedTuple):
    """What messages say of a column."""

    origin: str
    name: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.origin}: column {self.name!r}"


def _is_numeric(column: Any, asked: bool) -> bool:
    import pandas as pd

    if asked or pd.api.types.is_bool_dtype(column):
        return asked and not pd.api.types.is_bool_dtype(column)
    if pd.api.types.is_numeric_dtype(column) or not column.notna().any():
        return True
    return pd.api.types.is_object_dtype(column) and all(_kind(value) is Number for value in column[column.notna()])


def _kind(value: Any) -> type:
    """The type that a cell has in common with others of its column: bool, Number, str, or its own."""
    for kind in (bool, np.bool_):
        if isinstance(value, kind):
            return bool
    return Number if isinstance(value, Number) else str if isinstance(value, str) else type(value)


def _numbers(column: Any, told: _Told) -> np.ndarray:
    import pandas as pd

    present = column.notna().to_numpy()
    plain = column.map(lambda value: float(value) if isinstance(value, Decimal) else value) if column.dtype == object \
        else column
    numbers = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(present & np.isnan(numbers))
    if len(wrong):
        raise DataError(f"{told} must be numeric, but row {wrong[0] + 1} holds {column.iloc[wrong[0]]!r}; leave it "
                        "empty if it is missing")
    if np.isinf(numbers).any():
        raise DataError(f"{told} must hold finite numbers, but row {np.flatnonzero(np.isinf(numbers))[0] + 1} holds "
                        f"{numbers[np.isinf(numbers)][0]}")
    return numbers


def _refuse_nearly_numeric(column: Any, decimal: str, told: _Told) -> None:
    """Raise where most cells are numbers in text, unless they are a few codes."""
    import pyarrow as pa

    present = column[column.notna()]
    if not all(isinstance(value, str) for value in present):
        return
    numbers, wrong = as_numbers(pa.array([str(value) for value in present], pa.string()), decimal)
    measures = numbers[~wrong]
    distinct = np.unique(measures[~np.isnan(measures)])
    codes = (distinct == np.round(distinct)).all() and len(distinct) <= min(MAX_CODES, len(measures) / 2)
    if len(measures) <= len(numbers) / 2 or codes:
        return
    rows = np.flatnonzero(column.notna().to_numpy())
    odd = f", but row {rows[wrong][0] + 1} holds {present.iloc[np.flatnonzero(wrong)[0]]!r}" if wrong.any() else \
        ", which are stored as text"
    raise DataError(f"{told} has numbers in {len(measures):,} of {len(numbers):,} cells{odd}; {told.remedy}")


def _categories(column: Any, told: _Told) -> tuple[np.ndarray, tuple[Any, ...]]:
    present = column.notna().to_numpy()
    names_of = {Number: "number", str: "text", bool: "boolean"}
    kinds = sorted({names_of.get(_kind(value), _kind(value).__name__) for value in column[present]})
    if len(kinds) > 1:
        raise DataError(f"{told} holds {' and '.join(kinds)} cells; make them one type")
    try:
        names = sorted(set(column[present]))
    except TypeError:
        raise DataError(f"{told} holds {kinds[0]} cells; numbers, text, booleans, dates and durations are understood; "
                        "drop it or convert it") from None
    if len(names) > MAX_CATEGORIES:
        raise DataError(f"{told} would have {len(names):,} categories, at most {MAX_CATEGORIES} are understood; drop "
                        f"it if it is an identifier or a date, or {told.remedy}")
    code_of = {value: float(code) for code, value in enumerate(names)}
    return np.array([code_of[value] if there else np.nan for value, there in zip(column, present, strict=True)]), \
        tuple(names)
