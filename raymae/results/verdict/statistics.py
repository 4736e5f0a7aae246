"""Means, differences and how sure they are, from plain numbers.

Means carry Student t intervals over the replicates' seeds. Differences are judged by Welch's t-test (Welch 1947,
doi:10.1093/biomet/34.1-2.28); a deterministic reference is the constant of a one-sample t-test. p-values also
come adjusted for all pairs of the sweep (Holm 1979, jstor:4615733).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """A mean over replicates, with their standard deviation and its 95 % t interval; None for one replicate."""

    mean: float
    sd: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        arm: Name of the arm, for messages.
        scores: Its finite scores, at least one.
        fixed: Whether every seed gives the same score, so that its one score is exact.
    """

    arm: str
    scores: Sequence[float]
    fixed: bool

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return math.fsum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Difference:
    """How far one side's mean is above the other's; interval and p-value, or a note of why there are none."""

    value: float
    ci95: Interval | None
    p: float | None
    note: str = ""


def statistics(values: Sequence[float]) -> Score:
    """Mean, standard deviation and 95 % t interval of the mean; the latter two are None for one value.

    Args:
        values: At least one finite number.
    """
    from scipy import stats

    n = len(values)
    if n == 1:
        return Score(values[0], None, None)
    if _constant(values):
        return Score(values[0], 0.0, (values[0], values[0]))
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Score(mean, sd, (mean - half, mean + half))


def difference(a: Side, b: Side) -> Difference:
    """Mean of `a` minus mean of `b`, with its interval and p-value, or why there are none."""
    value = a.mean - b.mean
    for side, other in ((a, b), (b, a)):
        if len(side.scores) < 2 and not (side.fixed and len(other.scores) > 1):
            note = f"{side.arm} has {len(side.scores)} scored replicate; an interval needs at least 2"
            return Difference(value, None, None, note)
    if _constant(a.scores) and _constant(b.scores):
        return Difference(value, None, None, "neither side varies over its replicates, so there is no interval")
    interval, p = _tested(a.scores, b.scores)
    if not all(map(math.isfinite, (*interval, p))):
        return Difference(value, None, None, "the scores are too nearly equal for an interval")
    return Difference(value, interval, p)


def _tested(x: Sequence[float], y: Sequence[float]) -> tuple[Interval, float]:
    """Interval of mean(x) - mean(y), and its p-value."""
    from scipy import stats

    with warnings.catch_warnings():
        # scipy warns of lost precision for nearly equal values; the interval is then honest about it anyway
        warnings.simplefilter("ignore", RuntimeWarning)
        if len(x) == 1:
            result = stats.ttest_1samp(y, x[0])
        elif len(y) == 1:
            result = stats.ttest_1samp(x, y[0])
        else:
            result = stats.ttest_ind(x, y, equal_var=False)
        low, high = map(float, result.confidence_interval(LEVEL))
    if len(x) == 1:
        return (x[0] - high, x[0] - low), float(result.pvalue)
    return ((low - y[0], high - y[0]) if len(y) == 1 else (low, high)), float(result.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for how many there are; None stays None."""
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, index) in enumerate(tested):
        reached = max(reached, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = reached
    return adjusted


def _constant(values: Sequence[float]) -> bool:
    return min(values) == max(values)
