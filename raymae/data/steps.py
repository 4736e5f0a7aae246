"""The steps of a series: equally long, or equal on a calendar; rows newest first are turned round."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn
from zoneinfo import ZoneInfo

import numpy as np

from raymae.errors import DataError

MICRO = 1_000_000
DAY = 86_400 * MICRO
MONTHS = {1: "monthly", 3: "quarterly", 12: "yearly"}
HOLIDAYS = 0.08  # share of business days that a calendar of exchanges may leave out
LONGEST_HOLIDAY = 5  # of business days in a row


class Steps(NamedTuple):
    """Moments in order.

    Attributes:
        times: datetime64[s] (T,), ascending.
        step_s: Seconds between rows; on a calendar those of the usual step; 0 of a single row.
        calendar: `months`, `business days`, or "" where steps are equally long.
        turned: Whether rows are newest first in the file.
        notes: What a person should know of how it was read.
    """

    times: np.ndarray
    step_s: int
    calendar: str
    turned: bool
    notes: tuple[str, ...]


def regular_steps(moments: list[datetime], zone: str | None, tell: Callable[[int, str], str], origin: str) -> Steps:
    """Find the step of a series.

    Args:
        moments: Of the rows, as they stand in the file.
        zone: Whose local time they are; None if they are not to be converted.
        tell: Makes a message of a row, counted from 0, that does not follow from the one before, and a rule.
        origin: The file, for messages.

    Raises:
        DataError: Rows are out of order, twice there, or missing.
    """
    def complain(wrong: np.ndarray, rule: str) -> NoReturn:
        row = int(np.argmax(wrong))
        raise DataError(tell(len(wrong) - row - 1 if turned else row, rule))

    micros = _micros(moments)
    if len(micros) < 2:
        return Steps((micros // MICRO).astype("datetime64[s]"), 0, "", False, ())
    gaps = np.diff(micros)
    turned = bool((gaps <= 0).all() and (gaps < 0).any())
    ordered = moments[::-1] if turned else moments
    if zone is not None:
        ordered = _in_utc(ordered, ZoneInfo(zone))
    if turned or zone is not None:
        micros = _micros(ordered)
        gaps = np.diff(micros)
    if (gaps == 0).any():
        complain(gaps == 0, f"a timestamp occurs twice in a row, {int((gaps == 0).sum())} times in all")
    if (gaps < 0).any():
        complain(gaps < 0, "timestamps must ascend; sort the rows by date")
    values, counts = np.unique(gaps, return_counts=True)
    usual, calendar, notes = int(values[np.argmax(counts)]), "", []
    if (gaps != usual).any():
        calendar, told = _calendar(micros)
        notes.append(told)
        if not calendar:
            odd = gaps != usual
            if gaps.min() >= 28 * DAY:  # months are unequal by themselves
                apart = np.diff(micros.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64))
                left_out = apart != np.bincount(apart).argmax()
                odd = left_out if left_out.any() else odd
            complain(odd, f"steps must be equal, mostly {usual / MICRO:g} s here, {int(odd.sum())} differ; "
                     f"resample the series or fill the gap{_summer_time(ordered, gaps, usual, zone)}")
    if usual % MICRO or micros[0] % MICRO:
        raise DataError(f"{origin}: timestamps must be whole seconds, got steps of {usual / MICRO:g} s")
    notes += ["newest first, turned round"] if turned else []
    return Steps((micros // MICRO).astype("datetime64[s]"), usual // MICRO, calendar, turned, tuple(notes))


def _micros(moments: list[datetime]) -> np.ndarray:
    return np.array(moments, dtype="datetime64[us]").astype(np.int64)


def _in_utc(moments: list[datetime], zone: ZoneInfo) -> list[datetime]:
    """Local times in UTC; of an hour that summer time repeats, the second is the one that follows the first."""
    result: list[datetime] = []
    for moment in moments:
        there = moment.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
        if result and there <= result[-1]:
            there = moment.replace(tzinfo=zone, fold=1).astimezone(UTC).replace(tzinfo=None)
        result.append(there)
    return result


def _summer_time(ordered: list[datetime], gaps: np.ndarray, usual: int, zone: str | None) -> str:
    """What else may be wrong where an hour lacks in spring."""
    rows = np.flatnonzero(gaps != usual)
    hour = timedelta(hours=1) / timedelta(microseconds=1)
    spring = all(ordered[row].month in (3, 4, 9, 10, 11) and ordered[row].weekday() >= 5 for row in rows)
    if zone is not None or not spring or not (np.abs(gaps[rows] - usual) == hour).all():
        return ""
    return "; if these are local times with summer time (daylight saving), set data.timezone, such as Europe/Oslo"


def _calendar(micros: np.ndarray) -> tuple[str, str]:
    """The calendar on which unequal steps are equal, and what is said of it; "" where there is none."""
    moments = micros.astype("datetime64[us]")
    months = moments.astype("datetime64[M]")
    apart = np.diff(months.astype(np.int64))
    within = (moments - months).astype(np.int64)  # time since the month began
    to_its_end = ((months + 1).astype("datetime64[us]") - moments).astype(np.int64)
    same_day = (within == within[0]).all() or (to_its_end == to_its_end[0]).all()
    if same_day and apart[0] > 0 and (apart == apart[0]).all():
        return "months", MONTHS.get(int(apart[0]), f"every {int(apart[0])} months")
    days = moments.astype("datetime64[D]")
    same_hour = ((micros % DAY) == micros[0] % DAY).all()
    if same_hour and np.is_busday(days).all():
        steps = np.busday_count(days[:-1], days[1:])
        left_out = int((steps - 1).sum())
        if steps.max() <= LONGEST_HOLIDAY and left_out <= HOLIDAYS * len(days):
            return "business days", "business days" + (f", {left_out} of them left out as holidays" if left_out else "")
    return "", ""


def following(times: np.ndarray, step_s: int, calendar: str, count: int) -> np.ndarray:
    """The moments after the last one: datetime64[s] (count,).

    Args:
        times: Ascending, datetime64[s], at least two.
        step_s: As `Steps` has it.
        calendar: Likewise; holidays that it leaves out are not known of the future.
        count: How many.
    """
    last, ahead = times[-1], np.arange(1, count + 1)
    if calendar == "business days":
        days = last.astype("datetime64[D]")
        return (np.busday_offset(days, ahead) + (last - days)).astype("datetime64[s]")
    if calendar != "months":
        return (last + (ahead * step_s).astype("timedelta64[s]")).astype("datetime64[s]")
    months = times[-2:].astype("datetime64[M]")
    within = times[-2:] - months
    later = months[1] + ahead * (months[1] - months[0])
    if within[0] == within[1]:
        return (later + within[1]).astype("datetime64[s]")
    return ((later + 1) - (months[1] + 1 - last)).astype("datetime64[s]")  # each at its month's end
