"""Numbers as people read them: so many significant digits, columns that line up, p-values, durations."""

from __future__ import annotations

import math
from collections.abc import Iterable


def significant(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits, without an exponent where that is readable."""
    if value is None:
        return "–"
    if value and not 1e-6 <= abs(value) < 10**7:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:.{places(value, digits)}f}".replace("-", "−")


def number(value: float | None, decimals: int | None) -> str:
    """A number of a column whose numbers have so many decimals; None: as many as it needs itself."""
    if value is None or decimals is None:
        return significant(value)
    shown = f"{value:.{decimals}f}"
    if value < 0 and not shown.strip("-0."):  # −0.000002 to six decimals is not −0.000000
        return significant(value, 1)
    return shown.replace("-", "−")


def column(values: Iterable[float | None]) -> list[str]:
    """The numbers of a column with the same number of decimals, unless it spans too much."""
    numbers = list(values)
    decimals = aligned(numbers)
    return [number(value, decimals) for value in numbers]


def aligned(values: Iterable[float | None], digits: int = 4, missing: int | None = 1) -> int | None:
    """Decimals that give the smallest number of a column so many digits; None where the column spans too much."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return missing
    if max(sizes) / min(sizes) > 100 or not 1e-9 <= min(sizes) < 10**7:
        return None
    return places(min(sizes), digits)


def interval_decimals(intervals: Iterable[tuple[float, float] | None]) -> int | None:
    """Decimals that show two digits of the narrowest half-width; None without one, or where widths differ too much."""
    return aligned([half_width(interval) for interval in intervals], 2, missing=None)


def span(interval: tuple[float, float] | None) -> str:
    """An interval from end to end, such as `0.10 to 0.20`: two digits of its half-width, at both ends."""
    decimals = interval_decimals([interval])
    return "–" if interval is None else " to ".join(number(end, decimals) for end in interval)


def half_width(interval: tuple[float, float] | None) -> float | None:
    """Half the length of an interval."""
    return None if interval is None else (interval[1] - interval[0]) / 2


def places(value: float, digits: int) -> int:
    """Decimals that show so many significant digits of a number."""
    return 0 if value == 0 else max(0, min(12, digits - 1 - math.floor(math.log10(abs(value)))))


def p_value(p: float | None) -> str:
    """`p = 0.004`, or `p < 0.001`."""
    if p is None:
        return "p –"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def p_cell(p: float | None) -> str:
    """A p-value under a heading that says so: `0.004`, or `< 0.001`."""
    return p_value(p).removeprefix("p ").removeprefix("= ")


def duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 05 s` or `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """A difference and its 95 % interval, with one sign for minus."""
    decimals = interval_decimals([interval])
    if decimals is None or interval is None:
        return significant(value)
    value_text, low, high = (number(end, decimals) for end in (value, *interval))
    return f"{value_text} ({low} to {high})"
