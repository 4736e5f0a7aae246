"""Time series from CSV files: dates, numeric channels, regular steps. Every complaint names the line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from raymae.data.dates import look_like_dates, parse_dates
from raymae.data.delimited import Cells, as_numbers, missing_words, read_cells, without_missing
from raymae.data.steps import Steps, regular_steps
from raymae.errors import DataError, unknown
from raymae.spec.sweep import Reading, joined, listed

if TYPE_CHECKING:
    import pyarrow as pa

DATE = "date"  # the column of dates where none is named; where there is none so called, the only one like it
FOUND_OUT = Reading()
STEPS_OF_A_DAY = "steps without a calendar"
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp]\.?[Mm]\.?)?")


@dataclass(frozen=True, eq=False)
class Series:
    """A multivariate series with regular steps. T steps, C channels.

    Attributes:
        values_TC: float64 (T, C), in the file's units; NaN where a cell is missing.
        channels: C names.
        target_index: Which channel is forecast and scored.
        times: datetime64[s] (T,), ascending, UTC if the file has time zones.
        step_s: Seconds between rows; the usual ones where steps are equal on a calendar only.
        origin: The file, for messages; or `synthetic`.
        calendar: `months` or `business days` where steps are equal on it only; `steps` where times are only counted,
            a day for each; else "".
        notes: What a person should know of how it was read.
    """

    values_TC: np.ndarray
    channels: tuple[str, ...]
    target_index: int
    times: np.ndarray
    step_s: int
    origin: str
    calendar: str = ""
    notes: tuple[str, ...] = ()


def read_series(
    path: str | os.PathLike[str], *, target: str, date_column: str = DATE, reading: Reading = FOUND_OUT
) -> Series:
    """Read a text file whose columns, except those of dates, are all numeric channels.

    Args:
        path: With a header line.
        target: The channel to forecast.
        date_column: Its dates; several columns that make a date together are separated by commas.
        reading: How the file is written, and which columns are read.

    Raises:
        DataError: The file is missing or malformed; names file, line and column.
    """
    path = Path(path)
    cells = read_cells(path, reading, "series")
    columns, notes = _columns(cells)
    dated = _dated(cells, columns, date_column)
    notes += [f"dates in {', '.join(map(repr, dated))}"] if dated != (DATE,) and date_column == DATE else []
    for name in (*reading.columns, *reading.drop):
        if name not in columns:
            raise DataError(f"{path}:{cells.first}: {unknown('column', name, columns)}")
    channels = tuple(name for name in columns if name not in dated and name not in reading.drop
                     and name in (reading.columns or columns))
    if target not in channels:
        raise DataError(f"{path}:{cells.first}: {unknown('target', target, channels)}")
    if len(cells.columns[0]) < 2:
        raise DataError(f"{path} holds {len(cells.columns[0])} rows below its header; a series needs at least two")
    values_TC, told = _values(cells, [columns[name] for name in channels], channels, reading)
    steps, counted, ways = _times(cells, [columns[name] for name in dated], dated, reading)
    notes = [*cells.notes, *notes, *ways, *steps.notes, *told]
    ordered_TC = np.ascontiguousarray(values_TC[::-1] if steps.turned else values_TC)
    return Series(ordered_TC, channels, channels.index(target), steps.times, steps.step_s, str(path),
                  "steps" if counted else steps.calendar, tuple(notes))


def _columns(cells: Cells) -> tuple[dict[str, pa.Array], list[str]]:
    """The columns by name, without those that have neither name nor cells, and what is said of them."""
    import pyarrow.compute as pc

    where, columns, notes = f"{cells.path}:{cells.first}", {}, []
    if len(cells.names) < 2:
        raise DataError(f"{where}: needs a date column and at least one channel, separated by commas; got "
                        f"{list(cells.names)}")
    twice = {name: None for name in cells.names if name and cells.names.count(name) > 1}
    if twice:
        raise DataError(f"{where}: column names must differ, {', '.join(map(repr, twice))} occurs more than once")
    for place, (name, column) in enumerate(zip(cells.names, cells.columns, strict=True), start=1):
        if not name and pc.all(pc.equal(column, "")).as_py():
            notes.append(f"column {place}, without a name or a cell, left out")
        elif not name and not look_like_dates(column.slice(0, 50).to_pylist()):
            raise DataError(f"{where}: column {place} has no name; name it, or drop it if it is an index")
        else:
            columns[name] = column
    return columns, notes


def _dated(cells: Cells, columns: dict[str, pa.Array], date_column: str) -> tuple[str, ...]:
    """The columns that hold the dates."""
    named = (date_column,) if date_column in columns else listed(date_column)
    unknown_ones = [name for name in named if name not in columns]
    if not unknown_ones:
        return named
    if date_column == DATE:
        found = [name for name, column in columns.items() if look_like_dates(column.slice(0, 50).to_pylist())]
        if len(found) == 1:
            return (found[0],)
    raise DataError(f"{cells.path}:{cells.first}: {unknown('date column', unknown_ones[0], columns)}; set "
                    "settings.date_column")


def _values(
    cells: Cells, columns: Sequence[pa.Array], names: Sequence[str], reading: Reading
) -> tuple[np.ndarray, list[str]]:
    words, parts = missing_words(reading), []
    for name, column in zip(names, columns, strict=True):
        numbers, wrong = as_numbers(column, cells.decimal)
        if wrong.any():  # words, which may stand for missing cells
            numbers, wrong = as_numbers(without_missing(column, words)[0], cells.decimal)
        if wrong.any():
            _refuse_text(cells, name, column, int(np.argmax(wrong)))
        parts.append(numbers)
    values_TC = np.column_stack(parts)
    odd_TC = np.isinf(values_TC)
    if odd_TC.any():
        row, column_ = map(int, np.argwhere(odd_TC)[0])
        raise DataError(f"{cells.path}:{cells.line_of(row)}: column {names[column_]!r} is infinite; "
                        f"{int(odd_TC.sum())} such cells, correct or drop them")
    missing_TC = np.isnan(values_TC)
    if not missing_TC.any():
        return values_TC, []
    if missing_TC.all(axis=0).any():
        name = names[int(np.argmax(missing_TC.all(axis=0)))]
        raise DataError(f"{cells.path}: column {name!r} has no cell to fill from; leave it out by data.drop")
    if reading.fill is None:
        return values_TC, [f"{missing_TC.mean():.2%} of the cells missing"]
    filled_TC = np.column_stack([_filled(values_T, reading.fill) for values_T in values_TC.T])
    return filled_TC, [f"{missing_TC.mean():.2%} of the cells missing, filled by data.fill={reading.fill}"]


def _filled(values_T: np.ndarray, fill: str) -> np.ndarray:
    """A channel without gaps; before its first cell and after its last one stands that cell."""
    rows, known = np.arange(len(values_T)), np.flatnonzero(~np.isnan(values_T))
    if fill == "interpolate":
        return np.interp(rows, known, values_T[known])
    before = np.searchsorted(known, rows, side="right") - 1
    result: np.ndarray = values_T[known[before.clip(0)]]
    return result


def _refuse_text(cells: Cells, name: str, column: pa.Array, row: int) -> NoReturn:
    cell = column[row].as_py()
    other = f"data.drop: [{joined([name])}]"
    if _TIME_OF_DAY.fullmatch(cell):
        other = f"settings.date_column: [{DATE}, {joined([name])}] if it belongs to the date, else {other}"
    raise DataError(f"{cells.path}:{cells.line_of(row)}: column {name!r} must be numeric, got {cell!r}; drop or encode "
                    f"it: set {other}, or name the columns to read under data.columns")


def _times(
    cells: Cells, columns: Sequence[pa.Array], names: Sequence[str], reading: Reading
) -> tuple[Steps, bool, list[str]]:
    """The steps, whether they are only counted, and how dates are written."""
    path, name = cells.path, " + ".join(names)
    dates = columns[0].to_pylist() if len(columns) == 1 else [_joined(row) for row in zip(
        *(column.to_pylist() for column in columns), strict=True)]
    found = parse_dates(dates, reading.date_format, f"{path}: column {name!r}")
    moments = [moment for moment in found.moments if moment is not None]
    if len(moments) < len(dates):
        row = found.moments.index(None)
        form = f"data.date_format={reading.date_format} does not fit it" if reading.date_format else \
            "write it as 2016-07-01 13:00:00, or set data.date_format"
        raise DataError(f"{path}:{cells.line_of(row)}: {name} {dates[row]!r} is not a date; {form} "
                        f"({len(dates) - len(moments)} such cells)")

    def tell(row: int, rule: str) -> str:
        first, second = cells.line_of(row), cells.line_of(row + 1)
        return (f"{path}:{second}: {rule}: {dates[row]!r} (line {first}) is followed by {dates[row + 1]!r}")

    steps = regular_steps(moments, reading.timezone, tell, str(path))
    return steps, found.counted, [STEPS_OF_A_DAY if found.counted else found.way] if found.way else []


def _joined(parts: tuple[str, ...]) -> str:
    """Parts of a date as one text: year, month and day with dashes between, where they are numbers, then the time."""
    days = [part for part in parts[:3] if part.isdigit()]
    rest = list(parts[len(days):]) if len(days) > 1 else list(parts)
    if len(days) > 1:
        rest = [f"{part}:00" if part.isdigit() else part for part in rest]
        return " ".join(["-".join(days), *rest])
    return " ".join(rest)
