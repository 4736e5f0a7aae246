"""Tables from CSV and Parquet files: numeric and categorical columns, with missing cells.

Types are inferred and can be overridden: a column whose cells are all numbers is numeric, every other one categorical.
Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raymae.data.groups import cut, numbered
from raymae.errors import DataError, unknown

MAX_CATEGORIES = 256


@dataclass(frozen=True, eq=False)
class Table:
    """R rows of C columns.

    Attributes:
        values_RC: float64; numbers in the file's units, categories as codes 0, 1, ...; NaN where a cell is missing.
        columns: C names.
        categories: For every column its categories in the order of their codes; () for a numeric one.
        origin: The file, for messages; or `synthetic`.
        groups: The household, site or person of every row; None where not known.
    """

    values_RC: np.ndarray
    columns: tuple[str, ...]
    categories: tuple[tuple[Any, ...], ...]
    origin: str
    groups: tuple[str, ...] | None = None

    @property
    def is_categorical(self) -> np.ndarray:
        """Which columns hold categories: bool (C,)."""
        return np.array([bool(names) for names in self.categories])


def read_table(
    path: str | os.PathLike[str], *, categorical: Sequence[str] = (), numeric: Sequence[str] = (),
    drop: Sequence[str] = (), group: str = "",
) -> Table:
    """Read a table. `housing.csv` in its official form needs no arguments.

    Args:
        path: `.parquet`, or UTF-8 CSV with a header line; an empty cell is a missing one.
        categorical: Columns of numbers that are categories.
        numeric: Columns that must be numbers: a cell that is none is an error instead of making a category of it.
        drop: Columns left out, such as an identifier.
        group: The column that says which rows belong together, left out too; where it is empty, the row is alone.

    Raises:
        DataError: The file is missing or malformed; names file, column and, where one cell is wrong, its row.
    """
    path = Path(path)
    frame = _frame(path)
    twice = [name for name in frame.columns if list(frame.columns).count(name) > 1]
    if twice:
        raise DataError(f"{path}: column names must differ, {twice[0]!r} occurs more than once")
    for name in (*categorical, *numeric, *drop, *filter(None, [group])):
        if name not in frame.columns:
            raise DataError(f"{path}: {unknown('column', name, list(map(str, frame.columns)))}")
    both = set(categorical) & set(numeric)
    if both:
        raise DataError(f"{path}: column {min(both)!r} cannot be both categorical and numeric; name it once")
    if group and group in (*categorical, *numeric):
        raise DataError(f"{path}: column {group!r} says which rows belong together, so it is no column to impute; name "
                        "it under group only")
    left = frame.drop(columns=[name for name in frame.columns if name in drop or name == group])
    table = table_of(left, categorical=categorical, numeric=numeric, origin=str(path))
    return replace(table, groups=_groups(frame[group])) if group else table


def _groups(column: Any) -> tuple[str, ...]:
    there = zip(column, column.notna(), strict=True)
    return tuple(str(value) if known else f"row {row} alone" for row, (value, known) in enumerate(there, start=1))


def table_of(
    frame: Any, *, categorical: Sequence[str] = (), numeric: Sequence[str] = (), origin: str = "the table",
) -> Table:
    """A pandas frame as a table; see `read_table`.

    Raises:
        DataError: No rows or columns, a column of something else, or one with too many categories.
    """
    if not len(frame) or not len(frame.columns):
        raise DataError(f"{origin} must hold at least one row and one column, got {len(frame)} x {len(frame.columns)}")
    parts, categories = [], []
    for name in frame.columns:
        values_R, names = _column(frame[name], str(name), name in categorical, name in numeric, origin)
        parts.append(values_R)
        categories.append(names)
    return Table(np.column_stack(parts), tuple(map(str, frame.columns)), tuple(categories), origin)


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


def _frame(path: Path) -> Any:
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise DataError(f"cannot read the table {path}: no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(path, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty; a table needs a header line and at least one row") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text: {error.reason} at byte {error.start}") from None
    except (OSError, ValueError, pd.errors.ParserError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} is neither CSV with a header line nor Parquet: {reason}") from None


def _column(series: Any, name: str, categorical: bool, numeric: bool, origin: str) -> tuple[np.ndarray, tuple]:
    import pandas as pd

    present = series.notna().to_numpy()
    if not categorical and not pd.api.types.is_bool_dtype(series) and (
        numeric or pd.api.types.is_numeric_dtype(series) or not present.any()
    ):
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = np.flatnonzero(present & np.isnan(numbers))
        if len(wrong):
            raise DataError(f"{origin}: column {name!r} must be numeric, but row {wrong[0] + 1} holds "
                            f"{series.iloc[wrong[0]]!r}; leave it empty if it is missing")
        if np.isinf(numbers).any():
            raise DataError(f"{origin}: column {name!r} must hold finite numbers, but row "
                            f"{np.flatnonzero(np.isinf(numbers))[0] + 1} holds {numbers[np.isinf(numbers)][0]}")
        return numbers, ()
    try:
        names = sorted(set(series[present]), key=lambda value: (type(value).__name__, value))
    except TypeError:
        raise DataError(f"{origin}: column {name!r} holds {type(series[present].iloc[0]).__name__} cells; "
                        "numbers, text or booleans are understood; drop it or convert it") from None
    if len(names) > MAX_CATEGORIES:
        raise DataError(f"{origin}: column {name!r} would have {len(names):,} categories, at most {MAX_CATEGORIES} are "
                        "understood; drop it if it is an identifier or a date, or name it under numeric")
    code_of = {value: float(code) for code, value in enumerate(names)}
    return np.array([code_of[value] if there else np.nan for value, there in zip(series, present, strict=True)]), \
        tuple(names)
