"""Time series from CSV files: dates, numeric channels, regular steps. Every complaint names the line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from raymae.data.dates import look_like_dates, parse_dates
from raymae.data.delimited import Cells, as_numbers, missing_words, read_cells, without_missing
from raymae.data.steps import Steps, regular_steps
from raymae.errors import DataError, unknown
from raymae.spec.names import joined, listed
from raymae.spec.sweep import Reading

if TYPE_CHECKING:
    import pyarrow as pa

DATE = "date"  # the column of dates where none is named; where there is none so called, the only one like it
FOUND_OUT = Reading()
STEPS_OF_A_DAY = "steps without a calendar"
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp]\.?[Mm]\.?)?")


class WrittenDates(NamedTuple):
    """The dates of a file's rows, as they are written and what they say; see `Dates`."""

    cells: list[str]
    moments: list[datetime]
    way: str
    counted: bool


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
        name: Which of several series of a file; "" where it is the only one.
    """

    values_TC: np.ndarray
    channels: tuple[str, ...]
    target_index: int
    times: np.ndarray
    step_s: int
    origin: str
    calendar: str = ""
    notes: tuple[str, ...] = ()
    name: str = ""


def read_series(
    path: str | os.PathLike[str], *, target: str, date_column: str = DATE, reading: Reading = FOUND_OUT
) -> Series:
    """Read the only series of a text file; see `read_all_series`."""
    (series,) = read_all_series(path, target=target, date_column=date_column, reading=reading)
    return series


def read_all_series(
    path: str | os.PathLike[str], *, target: str, date_column: str = DATE, reading: Reading = FOUND_OUT
) -> tuple[Series, ...]:
    """Read a text file whose columns, except those of dates, are all numeric channels.

    It holds one series, or one for every value of `data.group`, in the order in which they begin.

    Args:
        path: With a header line.
        target: The channel to forecast; "" for the first, where none is.
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
    for name in (*reading.columns, *reading.drop, *filter(None, [reading.group])):
        if name not in columns:
            raise DataError(f"{path}:{cells.first}: {unknown('column', name, columns)}")
    if reading.group is not None and reading.group in (*dated, target):
        other = "settings.target" if reading.group == target else "settings.date_column"
        raise DataError(f"{path}:{cells.first}: data.group and {other} both name {reading.group!r}; data.group tells "
                        "several series apart, name another column")
    channels = tuple(name for name in columns if name not in dated and name not in reading.drop
                     and name in (reading.columns or columns) and name != reading.group)
    if not channels or (target and target not in channels):
        raise DataError(f"{path}:{cells.first}: {unknown('target', target, channels)}")
    if len(cells.columns[0]) < 2:
        raise DataError(f"{path} holds {len(cells.columns[0])} rows below its header; a series needs at least two")
    values_TC, told = _values(cells, [columns[name] for name in channels], channels, reading)
    dates = _dates(cells, [columns[name] for name in dated], dated, reading)
    notes = [*cells.notes, *notes, *([STEPS_OF_A_DAY if dates.counted else dates.way] if dates.way else [])]
    found = []
    for name, rows in _rows_by_group(cells, columns, reading).items():
        steps = _steps(cells, dates, rows, name, reading)
        own_TC = values_TC[rows[::-1] if steps.turned else rows]
        if reading.fill is not None and np.isnan(own_TC).any():
            own_TC = _all_filled(cells, own_TC, channels, name, reading.fill)
        found.append(Series(np.ascontiguousarray(own_TC), channels, channels.index(target) if target else 0,
                            steps.times, steps.step_s, str(path), "steps" if dates.counted else steps.calendar,
                            (*notes, *steps.notes, *told), name))
    return tuple(found)


def _rows_by_group(cells: Cells, columns: dict[str, pa.Array], reading: Reading) -> dict[str, np.ndarray]:
    """The rows of every series by its name, in the order of the file."""
    import pyarrow.compute as pc

    if reading.group is None:
        return {"": np.arange(len(cells.columns[0]))}
    coded = pc.dictionary_encode(columns[reading.group])
    names, group_T = coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)
    if "" in names:
        row = int(np.argmax(group_T == names.index("")))
        raise DataError(f"{cells.path}:{cells.line_of(row)}: column {reading.group!r} is empty; data.group says by it "
                        "which series a row is of")
    order_T = np.argsort(group_T, kind="stable")
    return dict(zip(names, np.split(order_T, np.cumsum(np.bincount(group_T))[:-1]), strict=True))


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
    filled = f", filled by data.fill={reading.fill}" if reading.fill else ""
    return values_TC, [f"{missing_TC.mean():.2%} of the cells missing{filled}"]


def _all_filled(cells: Cells, values_TC: np.ndarray, names: Sequence[str], series: str, fill: str) -> np.ndarray:
    empty_C = np.isnan(values_TC).all(axis=0)
    if empty_C.any():
        of = f" of series {series!r}" if series else ""
        raise DataError(f"{cells.path}: column {names[int(np.argmax(empty_C))]!r}{of} has no cell to fill from; leave "
                        "it out by data.drop")
    return np.column_stack([_filled(values_T, fill) for values_T in values_TC.T])


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
                    f"it: set {other}, or name the columns to read under data.columns; if it tells several series of "
                    f"the file apart, set data.group: {joined([name])}")


def _dates(cells: Cells, columns: Sequence[pa.Array], names: Sequence[str], reading: Reading) -> WrittenDates:
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
    return WrittenDates(dates, moments, found.way, found.counted)


def _steps(cells: Cells, dates: WrittenDates, rows: np.ndarray, series: str, reading: Reading) -> Steps:
    """The steps of a series between its rows."""
    several = "" if reading.group is not None or len({*dates.moments}) == len(dates.moments) else \
        "; if the file holds several series, set data.group to the column that tells them apart"

    def tell(row: int, rule: str) -> str:
        here, then = int(rows[row]), int(rows[row + 1])
        first, second = cells.line_of(here), cells.line_of(then)
        of = f"series {series!r}: " if series else ""
        return (f"{cells.path}:{second}: {of}{rule}: {dates.cells[here]!r} (line {first}) is followed by "
                f"{dates.cells[then]!r}{several}")

    return regular_steps([dates.moments[row] for row in rows], reading.timezone, tell, str(cells.path))


def _joined(parts: tuple[str, ...]) -> str:
    """Parts of a date as one text: year, month and day with dashes between, where they are numbers, then the time."""
    days = [part for part in parts[:3] if part.isdigit()]
    rest = list(parts[len(days):]) if len(days) > 1 else list(parts)
    if len(days) > 1:
        rest = [f"{part}:00" if part.isdigit() else part for part in rest]
        return " ".join(["-".join(days), *rest])
    return " ".join(rest)
