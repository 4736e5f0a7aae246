"""Time series from CSV files: one date column, numeric channels, regular steps. Every complaint names the line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import numpy as np

from raymae.errors import DataError, unknown

_UNPADDED = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?")


@dataclass(frozen=True, eq=False)
class Series:
    """A multivariate series with regular steps. T steps, C channels.

    Attributes:
        values_TC: float64 (T, C), in the file's units, finite.
        channels: C names.
        target_index: Which channel is forecast and scored.
        times: datetime64[s] (T,), ascending, UTC if the file has time zones.
        step_s: Seconds between rows.
        origin: The file, for messages; or `synthetic`.
    """

    values_TC: np.ndarray
    channels: tuple[str, ...]
    target_index: int
    times: np.ndarray
    step_s: int
    origin: str


def read_series(path: str | os.PathLike[str], *, target: str, date_column: str = "date") -> Series:
    """Read a CSV file whose columns, except the date column, are all numeric channels.

    Args:
        path: UTF-8, comma-separated, with a header line.
        target: The channel to forecast.
        date_column: Its dates are written year first (ISO 8601 or 2016/7/1 13:00).

    Raises:
        DataError: The file is missing or malformed; names file, line and column.
    """
    path = Path(path)
    raw, text = _text(path)
    header = _header(path, text)
    channels = tuple(name for name in header if name != date_column)
    if date_column not in header:
        raise DataError(f"{path}:1: {unknown('date column', date_column, header)}")
    if target not in channels:
        raise DataError(f"{path}:1: {unknown('target', target, channels)}")
    values_TC, dates = _cells(path, raw, text, header, date_column)
    times, step_s = _times(path, text, dates, date_column)
    return Series(values_TC, channels, channels.index(target), times, step_s, str(path))


def _text(path: Path) -> tuple[bytes, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise DataError(f"cannot read the series {path}: {reason}") from None
    if not raw.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path} is empty; a series needs a header line and at least two rows")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: must be UTF-8 text: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise DataError(f"{path} must be a text file, it holds zero bytes; is it compressed or UTF-16?")
    return raw, text


def _header(path: Path, text: str) -> list[str]:
    header = next(cells for _, cells in _lines(text))
    if len(header) < 2:
        raise DataError(f"{path}:1: needs a date column and at least one channel, separated by commas; got {header}")
    if "" in header:
        raise DataError(f"{path}:1: column {header.index('') + 1} has no name; name it, or drop it if it is an index")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{path}:1: column names must differ, {', '.join(map(repr, twice))} occurs more than once")
    return header


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, the header included, with the number of the line it ends on."""
    reader = csv.reader(io.StringIO(text, newline=""))
    return ((reader.line_num, cells) for cells in reader if cells)


def _line_of(text: str, row: int) -> tuple[int, list[str]]:
    """Line number and cells of a data row, counted from 0."""
    return next(item for index, item in enumerate(_lines(text)) if index == row + 1)


def _cells(path: Path, raw: bytes, text: str, header: list[str], date_column: str) -> tuple[np.ndarray, list[str]]:
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    types = {name: pa.string() if name == date_column else pa.float64() for name in header}
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(raw),
            read_options=pa_csv.ReadOptions(use_threads=False),  # trials are many, cores are few
            convert_options=pa_csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid as error:
        _explain(path, text, header, date_column, str(error))
    if table.num_rows < 2:
        raise DataError(f"{path} holds {table.num_rows} rows below its header; a series needs at least two")
    names = [name for name in header if name != date_column]
    values_TC = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64, copy=False)
    odd_TC = ~np.isfinite(values_TC)
    if odd_TC.any():
        row, column = map(int, np.argwhere(odd_TC)[0])
        where = f"{path}:{_line_of(text, row)[0]}: column {names[column]!r}"
        if np.isinf(values_TC[row, column]):
            raise DataError(f"{where} is infinite; {int(np.isinf(values_TC).sum())} such cells, correct or drop them")
        num_missing = int(np.isnan(values_TC).sum())
        raise DataError(f"{where} is missing; {num_missing} such cells in all; fill them, or drop the column")
    return np.ascontiguousarray(values_TC), table[date_column].to_pylist()


def _explain(path: Path, text: str, header: list[str], date_column: str, reason: str) -> NoReturn:
    """Find what pyarrow could not read, which says the column at best, and say the line."""
    for line, cells in list(_lines(text))[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}:{line}: has {len(cells)} cells, the header has {len(header)}")
        for name, cell in zip(header, cells, strict=True):
            if name != date_column and cell and not _is_number(cell):
                raise DataError(f"{path}:{line}: column {name!r} must be numeric, got {cell!r}; drop or encode it")
    raise DataError(f"{path} cannot be read as CSV: {reason}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in {"NA", "N/A", "n/a", "#N/A", "#NA", "NULL", "null"}  # pyarrow's words for a missing cell
    return "_" not in cell


def _times(path: Path, text: str, dates: list[str], date_column: str) -> tuple[np.ndarray, int]:
    parsed = [_date(cell) for cell in dates]
    if None in parsed:
        row = parsed.index(None)
        raise DataError(f"{path}:{_line_of(text, row)[0]}: {date_column} {dates[row]!r} is not a date; write it as "
                        f"2016-07-01 13:00:00 ({parsed.count(None)} such cells)")
    micros = np.array(parsed, dtype="datetime64[us]").astype(np.int64)
    gaps = np.diff(micros)

    def complain(row: int, rule: str) -> NoReturn:
        first, second = _line_of(text, row)[0], _line_of(text, row + 1)[0]
        raise DataError(f"{path}:{second}: {rule}: {dates[row]!r} (line {first}) is followed by {dates[row + 1]!r}")

    if (gaps == 0).any():
        complain(int(np.argmax(gaps == 0)), f"a timestamp occurs twice in a row, {int((gaps == 0).sum())} times in all")
    if (gaps < 0).any():
        complain(int(np.argmax(gaps < 0)), "timestamps must ascend; sort the rows by date")
    values, counts = np.unique(gaps, return_counts=True)
    usual = int(values[np.argmax(counts)])
    if (gaps != usual).any():
        complain(int(np.argmax(gaps != usual)), f"steps must be equal, mostly {usual / 1e6:g} s here, "
                 f"{int((gaps != usual).sum())} differ; resample the series or fill the gap")
    if usual % 1_000_000 or micros[0] % 1_000_000:
        raise DataError(f"{path}: timestamps must be whole seconds, got steps of {usual / 1e6:g} s")
    return (micros // 1_000_000).astype("datetime64[s]"), usual // 1_000_000


def _date(cell: str) -> datetime | None:
    """A date written year first; never a guess between day and month. None if it is not one."""
    try:
        value = datetime.fromisoformat(cell)
    except ValueError:
        match = _UNPADDED.fullmatch(cell.strip())
        if match is None:
            return None
        try:
            value = datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
        except ValueError:
            return None
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
