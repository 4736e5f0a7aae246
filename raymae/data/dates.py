"""Dates as files write them: the one way of writing them that fits a whole column.

Nothing is guessed between day and month: where every date can be either, an error offers both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from raymae.errors import DataError

Parser = Callable[[str], datetime | None]

_TIME = r"(?:,?[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.0*)?)?(?:\s*([AaPp])\.?[Mm]\.?)?)?"
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})" + _TIME)
_YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})" + _TIME)
_COMPACT = re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})" + _TIME)
_MONTH = re.compile(r"(\d{4})[-/. ]?M?(\d{1,2})")
_QUARTER = re.compile(r"(\d{4})[-/. ]?[Qq]([1-4])")
_YEAR = re.compile(r"1[5-9]\d{2}|2[01]\d{2}")
_MIDNIGHT = re.compile(r"(.*[ T])24:00(:00(\.0*)?)?")
_NAMED = ("%Y %b", "%b %Y", "%b %y", "%d %b %Y", "%d %b %y", "%b %d %Y")  # with names of months in English
_EPOCHS = ((1e11, 1, "seconds"), (1e14, 1_000, "milliseconds"), (1e17, 1_000_000, "microseconds"),
           (1e20, 1_000_000_000, "nanoseconds"))
FIRST_EPOCH = 1e8  # 1973; a smaller whole number counts steps


class Dates(NamedTuple):
    """A column of dates.

    Attributes:
        moments: As datetimes, in UTC where the file has time zones; None where a cell is no date.
        way: How they are written, where that is worth a word.
        counted: Whether they are numbers of steps, without a calendar; each then stands for a day.
    """

    moments: list[datetime | None]
    way: str = ""
    counted: bool = False


def parse_dates(cells: Sequence[str], date_format: str | None, where: str) -> Dates:
    """Read a column of dates in the way that fits most of its cells.

    Args:
        cells: As they are written.
        date_format: For `strptime`; None to find out.
        where: File and column, for messages.

    Raises:
        DataError: Each date could be of two days.
    """
    if date_format is not None:
        return Dates([_by_format(cell, date_format) for cell in cells])
    best = Dates([_iso(cell) for cell in cells])
    if None not in best.moments:
        return best
    others: tuple[tuple[str, Parser], ...] = (("quarters", _quarter), ("months", _month), ("names of months", _names))
    for way, parser in (*_numeric(cells, where), *others):
        found = Dates([parser(cell) for cell in cells], way, way == "steps")
        if found.moments.count(None) < best.moments.count(None):
            best = found
    return best


def look_like_dates(cells: Sequence[str]) -> bool:
    """Whether cells, whatever their column is called, are dates; numbers alone are none."""
    few = list(dict.fromkeys(cells))[:50]
    parsers: tuple[Parser, ...] = (
        _iso, _quarter, _names, _month, lambda cell: _year_last(cell, True) or _year_last(cell, False))
    if any(re.fullmatch(r"[+-]?[\d.,]+", cell) and not _YEAR_LAST.fullmatch(cell) for cell in few):
        return False
    return bool(few) and any(all(parser(cell) is not None for cell in few) for parser in parsers)


def _numeric(cells: Sequence[str], where: str) -> list[tuple[str, Parser]]:
    """The ways that only the whole column decides between."""
    matches = [_YEAR_LAST.fullmatch(cell.strip()) for cell in cells]
    parts = [(int(match[1]), int(match[2])) for match in matches if match]
    if parts and len(parts) > len(cells) / 2:
        day_first, month_first = (max(pair[place] for pair in parts) > 12 for place in (0, 1))
        if day_first != month_first:
            way = "dates day-first" if day_first else "dates month-first"
            return [(way, lambda cell: _year_last(cell, day_first))]
        if not day_first:
            cell = next(match[0] for match in matches if match)
            raise DataError(f"{where}: {cell!r} and every other date can be day-first or month-first; set "
                            f"data.date_format to {_format(cell, '%d', '%m')!r} or {_format(cell, '%m', '%d')!r}")
        return []
    if not all(re.fullmatch(r"-?\d+(\.0*)?", cell) for cell in cells):
        return []
    numbers = [float(cell) for cell in cells]
    if all(_COMPACT.fullmatch(cell) and _compact(cell) for cell in cells):
        return [("dates without signs between", _compact)]
    if all(_YEAR.fullmatch(cell) for cell in cells):
        return [("years", lambda cell: datetime(int(cell), 1, 1))]
    if all(re.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])", cell) for cell in cells):
        return [("months", _month)]
    if min(numbers) >= FIRST_EPOCH:
        per_second, unit = next(((per, unit) for most, per, unit in _EPOCHS if max(numbers) < most), (1, "seconds"))
        return [(f"Unix time in {unit}", lambda cell: _epoch(cell, per_second))]
    return [("steps", lambda cell: _after(float(cell)))]


def _after(days: float) -> datetime | None:
    try:
        return datetime(1970, 1, 1) + timedelta(days=days)
    except OverflowError:
        return None


def _epoch(cell: str, per_second: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1) + timedelta(microseconds=int(cell.partition(".")[0]) * 1_000_000 // per_second)
    except OverflowError:
        return None


def _format(cell: str, first: str, second: str) -> str:
    """The format of a date that ends in its year, for `strptime`."""
    match = _YEAR_LAST.fullmatch(cell)
    assert match is not None
    sign = cell[len(match[1])]
    time = cell[match.end(3):]
    for number, part in ((match[4], "%I" if match[7] else "%H"), (match[5], "%M"), (match[6], "%S")):
        time = time.replace(number, part, 1) if number else time
    return f"{first}{sign}{second}{sign}{'%Y' if len(match[3]) == 4 else '%y'}{time}"


def _iso(cell: str) -> datetime | None:
    """A date written year first."""
    try:
        value = datetime.fromisoformat(cell)
    except ValueError:
        return _midnight(cell, _iso) or _matched(_YEAR_FIRST.fullmatch(cell.strip()), 0, 1, 2)
    if cell.isdigit():
        return None  # of 20240101 the whole column decides
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _midnight(cell: str, parser: Parser) -> datetime | None:
    """24:00 is 00:00 of the next day."""
    match = _MIDNIGHT.fullmatch(cell)
    value = parser(f"{match[1]}00:00") if match else None
    return value + timedelta(days=1) if value else None


def _year_last(cell: str, day_first: bool) -> datetime | None:
    match = _YEAR_LAST.fullmatch(cell.strip())
    day, month = (0, 1) if day_first else (1, 0)
    return _matched(match, 2, month, day) if match else _midnight(cell, lambda other: _year_last(other, day_first))


def _compact(cell: str) -> datetime | None:
    return _matched(_COMPACT.fullmatch(cell.strip()), 0, 1, 2)


def _matched(match: re.Match[str] | None, year: int, month: int, day: int) -> datetime | None:
    """The date of a match, whose groups are three parts of a day, then those of a time."""
    if match is None:
        return None
    *parts, hour, minute, second, half = match.groups()
    hours = int(hour or 0) % 12 + 12 * (half in "Pp") if half else int(hour or 0)
    years = int(parts[year])
    if len(parts[year]) == 2:
        years += 2000 if years < 69 else 1900  # as strptime has it
    if hours == 24 and not int(minute) and not int(second or 0):
        return _shifted(_made(years, int(parts[month]), int(parts[day])))
    return _made(years, int(parts[month]), int(parts[day]), hours, int(minute or 0), int(second or 0))


def _shifted(value: datetime | None) -> datetime | None:
    return value + timedelta(days=1) if value else None


def _made(*parts: int) -> datetime | None:
    try:
        return datetime(*parts)  # type: ignore[arg-type]
    except ValueError:
        return None


def _month(cell: str) -> datetime | None:
    match = _MONTH.fullmatch(cell.strip())
    return _made(int(match[1]), int(match[2]), 1) if match and len(cell.strip()) > 5 else None


def _quarter(cell: str) -> datetime | None:
    match = _QUARTER.fullmatch(cell.strip())
    return datetime(int(match[1]), 3 * int(match[2]) - 2, 1) if match else None


def _names(cell: str) -> datetime | None:
    if not re.search(r"[A-Za-z]{3}", cell):
        return None
    day, *time = re.split(r"[ T](?=\d{1,2}:)", " ".join(re.sub(r"[-,./]", " ", cell).split()), maxsplit=1)
    short = re.sub(r"([A-Za-z]{3})[a-z]*", r"\1", day)  # January, Sept and Jan alike
    for form in _NAMED:
        value = _by_format(short, form)
        if value is not None:
            return value if not time else _iso(f"{value:%Y-%m-%d} {time[0]}")
    return None


def _by_format(cell: str, date_format: str) -> datetime | None:
    try:
        value = datetime.strptime(cell.strip(), date_format)
    except ValueError:
        return None
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
