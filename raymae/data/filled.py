"""Tables whose missing cells are to be filled: read with the types that a network has learned, given back as they were.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raymae.data.delimited import Cells, read_cells
from raymae.data.frames import Frame, stored, typed
from raymae.data.tables import measured, table_of
from raymae.errors import DataError, unknown
from raymae.spec.sweep import Reading

WHOLE = re.compile(r"[+-]?\d+")
Categories = Sequence[Sequence[Any]]


@dataclass(frozen=True, eq=False)
class GivenTable:
    """A table as it was given. R rows; C columns that are filled.

    Attributes:
        frame: All of it as a pandas frame; of a text file, its columns that are filled with types, the others as text.
        places: Where the columns that are filled are in it.
        units_RC: Those as numbers and codes of categories, NaN where a cell is missing or of an unknown category.
        missing_RC: Which cells are missing.
        cells: The text file, if it is one.
    """

    frame: Any
    places: Sequence[int]
    units_RC: np.ndarray
    missing_RC: np.ndarray
    cells: Cells | None = None

    def filled(self, values_RC: np.ndarray, codes_RC: np.ndarray, categories: Categories) -> Any:
        """The frame with its missing cells filled; other cells and all types are as they were.

        Args:
            values_RC: What is filled into numeric columns, in the file's units.
            codes_RC: The category that is filled into others.
            categories: Of every column; () of a numeric one.
        """
        import pandas as pd

        columns = [self.frame.iloc[:, place] for place in range(self.frame.shape[1])]
        for column, place in enumerate(self.places):
            missing_R, names = self.missing_RC[:, column], categories[column]
            if missing_R.any():
                new_R = values_RC[:, column]
                if names:
                    new_R = np.array([*names, None], dtype=object)[codes_RC[:, column].astype(int)]
                columns[place] = filled(columns[place], missing_R, new_R, keep_integers=True)
        done = pd.concat(columns, axis=1) if columns else self.frame
        done.columns = self.frame.columns
        return done

    def as_text(self, done: Any) -> Any:
        """What `filled` made of a text file as the text that is written: every given cell as it stood there."""
        import pandas as pd

        assert self.cells is not None
        columns = [column.to_pandas().astype(object) for column in self.cells.columns]
        for column, place in enumerate(self.places):
            missing_R, given = self.missing_RC[:, column], columns[place][~self.missing_RC[:, column]]
            if missing_R.any():
                new = done.iloc[:, place].to_numpy(dtype=object)
                written = dict(zip(new[~missing_R], given, strict=True))
                whole = bool(len(given)) and all(map(WHOLE.fullmatch, given))
                columns[place][missing_R] = [written[value] if isinstance(value, (str, bool)) and value in written
                                             else _as_written(value, self.cells.decimal, whole)
                                             for value in new[missing_R]]
        return pd.DataFrame(dict(enumerate(columns)))


def _as_written(value: Any, decimal: str, whole: bool) -> str:
    if isinstance(value, float):
        value = round(value) if whole else repr(float(value)).replace(".", decimal)
    return str(value)


def given_table(source: Any, columns: Sequence[str], categories: Categories, reading: Reading) -> GivenTable:
    """Read a table that is to be filled.

    Args:
        source: A path, of text or Parquet, or a pandas frame.
        columns: The columns that are filled; others are left as they are.
        categories: Of each; () of a numeric one.
        reading: How a text file is written, and which words stand for missing cells.

    Raises:
        DataError: It is malformed, a column is not there, or one that was numeric is not.
    """
    reading = reading.model_copy(update={"columns": (), "drop": ()})
    cells, origin = None, "the frame"
    frame = source
    if isinstance(source, (str, Path)):
        path, origin = Path(source), str(source)
        if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
            frame = stored(path).columns
        else:
            cells = read_cells(path, reading, "table")
            frame = _text(cells)
    names = [str(name).strip() for name in frame.columns]
    for name in columns:
        if names.count(name) != 1:
            problem = f"{name!r} occurs more than once" if name in names else unknown("column", name, names)
            raise DataError(f"{origin}: {problem}; the network needs every column that it was trained on: "
                            f"{', '.join(columns)}")
    if not len(frame):
        raise DataError(f"{origin}: holds no rows")
    places = [names.index(name) for name in columns]
    chosen = frame.iloc[:, places].set_axis(list(columns), axis=1)
    numeric = tuple(name for name, known in zip(columns, categories, strict=True) if not known)
    types, _ = typed(Frame(chosen, cells.decimal if cells else ".", cells is not None, ()), reading, numeric)
    types = _with_text(types, chosen, columns, categories) if cells else types
    missing_RC = types.isna().to_numpy()
    units_RC = coded(types, columns, categories, origin)
    if cells is not None:
        parts = [frame.iloc[:, place] for place in range(frame.shape[1])]
        for column, place in enumerate(places):
            parts[place] = types.iloc[:, column]
        import pandas as pd

        frame = pd.concat(parts, axis=1).set_axis(names, axis=1)
    return GivenTable(frame, places, units_RC, missing_RC, cells)


def _text(cells: Cells) -> Any:
    import pandas as pd

    frame = pd.DataFrame(dict(enumerate(column.to_pandas().astype(object) for column in cells.columns)))
    return frame.set_axis(list(cells.names), axis=1)


def _with_text(types: Any, written: Any, columns: Sequence[str], categories: Categories) -> Any:
    """Columns whose categories are text as text, also where all cells of this file look like numbers."""
    types = types.copy()
    for name, known in zip(columns, categories, strict=True):
        if known and all(isinstance(value, str) for value in known):
            types[name] = written[name].astype(object).where(types[name].notna(), None)
    return types


def coded(frame: Any, columns: Sequence[str], categories: Categories, origin: str = "the table to fill") -> np.ndarray:
    """Columns of a frame in the codes of a table that was learned from: float64 (R, C).

    NaN where a cell is missing or of a category that the table does not have.

    Args:
        frame: Has the columns, in this order.
        columns: Their names.
        categories: Of each; () of a numeric one.
        origin: The table, for messages.

    Raises:
        DataError: A column that was numeric is not.
    """
    import pandas as pd

    parts = []
    for place, (name, known) in enumerate(zip(columns, categories, strict=True)):
        series = frame.iloc[:, place]
        if known:
            code_of = {value: float(code) for code, value in enumerate(known)}
            parts.append(np.array([np.nan if pd.isna(value) else code_of.get(value, np.nan) for value in series]))
        else:
            one = series.to_frame(name)
            parts.append(table_of(one, numeric=(name,), origin=origin).values_RC[:, 0])
    return np.column_stack(parts)


def filled(series: Any, missing_R: np.ndarray, new_R: np.ndarray, *, keep_integers: bool = False) -> Any:
    """A column with something in its missing cells; observed ones keep their values, and types where they can.

    Args:
        series: The column.
        missing_R: Which cells are missing.
        new_R: What is put there.
        keep_integers: Whether a column of integers stays one, and what is filled in is rounded; else it becomes one of
            fractions.
    """
    import pandas as pd

    new = new_R[missing_R]
    if pd.api.types.is_integer_dtype(series.dtype):
        series, new = (series.copy(), np.round(new)) if keep_integers else (series.astype("Float64"), new)
    else:
        series = series.copy()
    if isinstance(series.dtype, pd.CategoricalDtype):  # of a part of a table, which may lack what was learned from
        known = set(series.cat.categories)
        series = series.cat.add_categories([value for value in dict.fromkeys(new) if value not in known])
    elif measured(series)[1] and new_R.dtype != object:
        new = _as_time(series, new)
    series[missing_R] = new.astype(series.dtype) if isinstance(series.dtype, np.dtype) else new
    return series


def _as_time(series: Any, days: np.ndarray) -> Any:
    """Days as what a column of dates or durations holds, to the second."""
    import pandas as pd

    spans = pd.to_timedelta(np.round(days * 86_400), unit="s")
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return spans.astype(series.dtype)
    moments = pd.Timestamp(0, tz="UTC") + spans
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return moments.tz_convert(series.dtype.tz)
    moments = moments.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(series.dtype):
        return moments.astype(series.dtype)
    first = series.dropna().iloc[0] if series.notna().any() else None
    return np.array([moment.date() if type(first) is dt.date else moment for moment in moments], dtype=object)
