"""The verdict as intervals: what each arm scored, and each difference around 0 with its better side named.

The page draws these panels with plotly, `raymae report --figure` as SVG; both get rows, axis and words from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raymae.results.verdict.arms_table import mean_cells
from raymae.results.verdict.numbers import interval_decimals, number
from raymae.results.verdict.verdict import Pair, Verdict
from raymae.spec.factors import said

# an arm's colour is its place in the task's own list of arms, so that it is the same in every sweep and figure
LIGHT = ("#0b6fb8", "#c2410c", "#0a7d4f", "#8a3ab9", "#9a6700", "#be185d", "#0e7490", "#4d5766", "#6b7f00", "#7c2d12")
DARK = ("#5cb3ff", "#ff9a5c", "#4fd39a", "#cf9bff", "#e8bd3c", "#ff8cc0", "#4fd8ec", "#b6c0cc", "#c3d94f", "#f0a98c")
REACH = 4  # a row further from the important ones than so many of their widths would squeeze them into dots
SHORT = 12  # characters of an arm's name that still fit beside "better"


@dataclass(frozen=True)
class Row:
    """One 95 % interval, of an arm or of `a − b` in the colour of `a`.

    Attributes:
        primary: Whether it is the comparison that the sweep is for.
        beyond: -1 or 1 where it lies left or right of the axis, else 0.
        note: Why there is no interval, or nothing.
    """

    label: str
    arm: str
    value: float
    interval: tuple[float, float] | None
    text: str
    primary: bool = False
    beyond: int = 0
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Intervals over one axis, the most important first.

    Attributes:
        left: What the side left of 0 means; empty where there is no 0. `right` likewise.
        missing: Why there are no rows; empty where there are some.
    """

    title: str
    rows: tuple[Row, ...]
    axis: tuple[float, float]
    left: str = ""
    right: str = ""
    missing: str = ""


def arms_panel(verdict: Verdict) -> Panel:
    """The test scores of the arms, best first."""
    objective = verdict.objective
    scored = [(arm, score) for arm in verdict.arms if (score := verdict.test(arm)) is not None]
    texts = (mean + (f" ± {half}" if half else "") for mean, half in mean_cells(score for _, score in scored))
    rows = [Row(arm.arm, arm.arm, score.mean, score.ci95, text)
            for (arm, score), text in zip(scored, texts, strict=True)]
    anchors = [row for row, (arm, _) in zip(rows, scored, strict=True) if arm.kind != "reference"] or rows
    better = "less" if objective.mode == "min" else "more"
    over = "seeds and test examples" if verdict.rule is not None and verdict.rule.units else "seeds"
    title = f"Test {objective.metric}, mean and 95 % interval over {over}; {better} is better"
    return _panel(title, rows, anchors, missing="No arm has a test score yet.")


def differences_panel(verdict: Verdict) -> Panel:
    """The differences between arms, the primary one first, around 0."""
    objective, pairs = verdict.objective, verdict.pairs
    rows = []
    shares = [per_cent(pair, verdict) for pair in pairs]
    for pair, share in zip(pairs, shares, strict=True):
        text = _plainly(pair) if share is None else share
        rows.append(Row(f"{pair.a} − {pair.b}", pair.a, pair.difference, pair.ci95, text,
                        primary=pair.primary, note=pair.note))
    first = {pair.a for pair in pairs}
    subject = first.pop() if len(first) == 1 and max(map(len, first)) <= SHORT else "first arm"
    sides = (f"{subject} better", f"{subject} worse")
    left, right = sides if objective.mode == "min" else sides[::-1]
    title = f"Difference in test {objective.metric} with its 95 % interval{_in_per_cent(shares)}"
    return _panel(title, rows, rows[:1], zero=True, left=left, right=right,
                  missing="No difference yet: it takes the test scores of two arms.")


def cells_panel(verdict: Verdict, *, words: bool = True) -> Panel:
    """The difference that a sweep with factors is for, in every cell.

    Args:
        verdict: What was found.
        words: Say of each cell what is said of it.
    """
    objective, rows, shares = verdict.objective, [], []
    for one in verdict.each():
        for pair in one.pairs[:1]:
            shares.append(per_cent(pair, one))
            text = shares[-1] or _plainly(pair)
            label = ", ".join(map(said, (one.cell or {}).values()))
            # every cell is the comparison that the sweep is for; those that are shown to differ stand out
            rows.append(Row(label, pair.a, pair.difference, pair.ci95, f"{text}  {pair.verdict}" if words else text,
                            primary=pair.verdict in ("helps", "hurts"), note=pair.note))
    first = {pair.a for one in verdict.each() for pair in one.pairs[:1]}
    against = {pair.b for one in verdict.each() for pair in one.pairs[:1]}
    subject = first.pop() if len(first) == 1 and max(map(len, first)) <= SHORT else "first arm"
    sides = (f"{subject} better", f"{subject} worse")
    left, right = sides if objective.mode == "min" else sides[::-1]
    names = ", ".join(verdict.cells[0].cell) if verdict.cells else ""
    other = " or ".join(sorted(against)) or "another arm"
    title = (f"Difference in test {objective.metric} to {other} by {names}, with its 95 % interval"
             f"{_in_per_cent(shares)}")
    return _panel(title, rows, rows, zero=True, left=left, right=right,
                  missing="No difference yet: it takes the test scores of two arms in a cell.")


def per_cent(pair: Pair, verdict: Verdict) -> str | None:
    """A difference and its interval in per cent of the other arm's mean; None where that mean is not clearly above 0.

    R² has no scale of its own: beside a mean of −0.12 a difference of −0.41 is no 346 %.
    """
    (other,) = (arm.metrics[pair.metric] for arm in verdict.arms if arm.arm == pair.b)
    mean = other.mean
    if mean <= 0 or (other.ci95 is not None and other.ci95[0] <= 0):
        return None
    shares = [100 * value / abs(mean) for value in (pair.difference, *(pair.ci95 or ()))]
    half = (shares[2] - shares[1]) / 2 if len(shares) == 3 else abs(shares[0])
    decimals = 1 if not half else max(0, min(6, 1 - math.floor(math.log10(half))))
    difference, *interval = (("+" if share > 0 else "") + number(share, decimals) for share in shares)
    return f"{difference} %" + (f" ({' to '.join(interval)})" if interval else "")


def _plainly(pair: Pair) -> str:
    return number(pair.difference, interval_decimals([pair.ci95]))


def _in_per_cent(shares: Sequence[str | None]) -> str:
    """What a title says of the numbers on the right, some of which may be plain differences."""
    if shares and not any(shares):
        return ""
    where = " where that is clearly above 0" if None in shares else ""
    return f", and in % of the other arm's mean{where}"


def _panel(
    title: str, rows: Sequence[Row], anchors: Sequence[Row], *, zero: bool = False, missing: str, **sides: str
) -> Panel:
    """A panel whose axis fits its most important rows; a row that is far away becomes an arrow at the axis' end."""
    if not rows:
        return Panel(title, (), (0.0, 1.0), missing=missing, **sides)
    edges = [edge for row in anchors for edge in (row.value, *(row.interval or ()))] + [0.0] * zero
    low, high = min(edges), max(edges)
    width = high - low or abs(high) / 10 or 1.0
    near = [row for row in rows if low - REACH * width <= row.value <= high + REACH * width]
    edges += [min(max(edge, low - REACH * width), high + REACH * width)
              for row in near for edge in (row.value, *(row.interval or ()))]
    pad = 0.08 * (max(edges) - min(edges) or width)
    axis = (min(edges) - pad, max(edges) + pad)
    if zero:  # 0 never stands at the rim: both sides have a name
        axis = (min(axis[0], -0.25 * axis[1]), max(axis[1], -0.25 * axis[0]))
    placed = tuple(Row(**{**vars(row), "beyond": (row.value > axis[1]) - (row.value < axis[0])}) for row in rows)
    return Panel(title, placed, axis, missing="", **sides)


def ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """Round numbers between two ends, at most so many, each with its text."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    counts = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(count * step, number(count * step, decimals) if count else "0") for count in counts]


def places(arms: Iterable[str]) -> dict[str, int]:
    """From arm to the number of its colour and symbol.

    Args:
        arms: Every arm that the task has, in the task's order.
    """
    return {arm: index for index, arm in enumerate(arms)}
