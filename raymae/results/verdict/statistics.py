"""Means, differences and how sure they are.

A score has two sources of chance: the seed that a network was trained from, and the examples that happen to be in the
test split. The variance of a difference is the sum of both (a crossed design, Owen 2007, doi:10.1214/07-AOAS122):
that over seeds as in Welch's test (Welch 1947, doi:10.1093/biomet/34.1-2.28) or, where replicates of equal seed are
paired, of their differences; that over examples by a bootstrap of the groups they belong to (`units`). What both
contain, the interaction of seed and example, is counted once. Degrees of freedom follow Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from raymae.results.verdict import anytime

LEVEL = 0.95
POWER = 0.8
MOST_NEEDED = 100_000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """A mean over replicates.

    Attributes:
        mean: The mean.
        sd: Standard deviation over replicates; None for one.
        ci95: 95 % interval over seeds and test examples; over seeds alone where the scores by example are not known.
        ci95_seeds: 95 % interval over seeds for these very test examples (Student's t); None for one replicate.
    """

    mean: float
    sd: float | None
    ci95: Interval | None
    ci95_seeds: Interval | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        arm: Name of the arm, for messages.
        scores: Its finite scores by seed, at least one.
        fixed: Whether every seed gives the same score, so that its one score is exact.
        resampled_BS: The scores on resampled test examples, in the order of `scores`; None where they are not known.
    """

    arm: str
    scores: dict[int, float]
    fixed: bool
    resampled_BS: np.ndarray | None = None

    @property
    def values(self) -> list[float]:
        """The scores, by seed."""
        return [self.scores[seed] for seed in sorted(self.scores)]

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return math.fsum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True)
class Evidence:
    """A difference of means, and the variances of it.

    Attributes:
        value: The difference.
        n: Replicates of the smaller side that is not fixed; 1 where nothing was repeated.
        seeds: Variance of `value` over seeds; None where nothing was repeated.
        seeds_df: Its degrees of freedom.
        units: Variance over test examples beyond what `seeds` contains; None where it is not known.
        units_df: Its degrees of freedom.
        sequential: Whether intervals must hold at every look.
        note: Why there is no variance over seeds or examples, or "".
    """

    value: float
    n: int
    seeds: float | None
    seeds_df: float = math.inf
    units: float | None = None
    units_df: float = math.inf
    sequential: bool = False
    note: str = ""

    def interval(self, level: float = LEVEL, *, units: bool = True) -> Interval | None:
        """An interval of the difference; None where there is none.

        Args:
            level: Its coverage.
            units: Also over test examples, where that is known.
        """
        half = self.half_width(1 - level, units=units)
        return None if half is None or math.isinf(half) else (self.value - half, self.value + half)

    def half_width(self, alpha: float, *, units: bool = True) -> float | None:
        """Half the length of the interval that misses the truth with chance `alpha`; None where there is none."""
        over_units = self.units if units else None
        if self.seeds is None and over_units is None:
            return None
        if self.sequential and self.seeds is not None:
            # the test examples are the same at every look, so theirs is one interval, and the chances add up
            half = anytime.half_width(self.n, self.seeds * self.n, alpha if over_units is None else alpha / 2)
            return half if over_units is None else half + _quantile(alpha / 2, self.units_df) * math.sqrt(over_units)
        return max(_quantile(alpha, df) * math.sqrt(variance) for variance, df in self._both(over_units))

    def p(self, *, units: bool = True) -> float | None:
        """p-value of no difference; None where there is no interval."""
        over_units = self.units if units else None
        if self.seeds is None and over_units is None:
            return None
        if not self.sequential or self.seeds is None:
            return max(_tail(abs(self.value), variance, df, 2) for variance, df in self._both(over_units))
        if over_units is None:
            return anytime.p_value(self.n, self.value, self.seeds * self.n)
        return _least_alpha(lambda alpha: (self.half_width(alpha) or 0.0) < abs(self.value))

    def p_equal(self, margin: float) -> float | None:
        """p-value of a difference of at least `margin` either way, by two one-sided tests (Schuirmann 1987)."""
        if self.seeds is None and self.units is None:
            return None
        room = margin - abs(self.value)
        if not self.sequential or self.seeds is None:
            return max(_tail(room, variance, df, 1) for variance, df in self._both(self.units))
        return _least_alpha(lambda alpha: (self.half_width(alpha) or 0.0) < room)

    def _both(self, units: float | None) -> list[tuple[float, float]]:
        """Variance of the difference and its degrees of freedom: over seeds and examples, and over seeds alone.

        The wider of the two counts: with two or three seeds their variance is hardly known, and adding a known one to
        it must not make the interval narrower.
        """
        alone = [] if self.seeds is None else [(self.seeds, self.seeds_df)]
        return alone if units is None else [_sum(((self.seeds or 0.0, self.seeds_df), (units, self.units_df))), *alone]

    def detectable(self, alpha: float) -> float | None:
        """The least true difference that a sweep like this one finds with 80 % power; None where it finds none."""
        if self.seeds is None and self.units is None:
            return None
        least = self._detectable(alpha, 1.0, 1.0)
        return None if math.isinf(least) else least

    def _detectable(self, alpha: float, more_seeds: float, more_units: float) -> float:
        """The same with so many times the replicates and so many times the test examples."""
        from scipy import stats

        n = self.n * more_seeds
        seeds, units = (self.seeds or 0.0) / more_seeds, (self.units or 0.0) / more_units
        if self.sequential and self.seeds is not None:
            half = anytime.half_width(round(n), seeds * n, alpha if self.units is None else alpha / 2)
            half += _quantile(alpha / 2, self.units_df) * math.sqrt(units)
            return half + float(stats.norm.ppf(POWER)) * math.sqrt(seeds + units)
        seeds_df = self.seeds_df * (n - 1) / max(self.n - 1, 1)
        known = [_sum(((seeds, seeds_df), (units, self.units_df * more_units)))]
        known += [] if self.seeds is None else [(seeds, seeds_df)]
        return max((_quantile(alpha, df) + float(stats.t.ppf(POWER, df))) * math.sqrt(variance)
                   for variance, df in known)

    def more_seeds(self, alpha: float) -> int | None:
        """Replicates per arm for 80 % power at the observed difference; None where no number is enough."""
        if self.seeds is None or not self.value:
            return None
        return _least_number(lambda n: self._detectable(alpha, n / self.n, 1.0) <= abs(self.value), self.n)

    def more_units(self, alpha: float, now: int) -> int | None:
        """Test examples for 80 % power at the observed difference, of which there are `now`; None as above."""
        if self.units is None or not self.value:
            return None
        return _least_number(lambda n: self._detectable(alpha, 1.0, n / now) <= abs(self.value), now)


def statistics(side: Side, num_groups: int = 0) -> Score:
    """Mean, standard deviation and 95 % intervals of an arm's scores.

    Args:
        side: The arm.
        num_groups: Groups of test examples, where scores on resampled ones are known.
    """
    values = side.values
    mean = values[0] if _constant(values) else side.mean
    if len(values) == 1 and not side.fixed:
        return Score(mean, None, None)
    sd = None if len(values) == 1 else float(np.std(values, ddof=1)) if not _constant(values) else 0.0
    nothing = Side("", dict.fromkeys(side.scores, 0.0), fixed=True)
    found = evidence(side, nothing, num_groups=num_groups)
    return Score(mean, sd, found.interval(), found.interval(units=False) if len(values) > 1 else None)


def evidence(
    a: Side, b: Side, *, num_groups: int = 0, paired: bool = False, sequential: bool = False
) -> Evidence:
    """What is known of mean of `a` minus mean of `b`.

    Args:
        a: One side.
        b: The other.
        num_groups: Groups of test examples.
        paired: Replicates of equal seed are compared; otherwise the two sides' replicates are independent.
        sequential: Intervals must hold at every look; both sides then count in order of seeds.
    """
    value = a.mean - b.mean
    for side, other in ((a, b), (b, a)):
        if len(side.scores) < 2 and not side.fixed:
            note = f"{side.arm} has {len(side.scores)} scored replicate; an interval needs at least 2"
            return Evidence(value, 1, None, note=note)
        if side.fixed and other.fixed and a.resampled_BS is None:
            return Evidence(value, 1, None, note="neither side varies over its replicates, so there is no interval")
    together = (paired or sequential) and not (a.fixed or b.fixed)
    if together:
        pairs = _pairs(a, b)
        differences = [a.scores[x] - b.scores[y] for x, y in pairs]
        n, seeds, df = len(pairs), _variance(differences) / max(len(pairs), 1), len(pairs) - 1.0
        value = math.fsum(differences) / n if paired else value
    else:
        random = [side for side in (a, b) if not side.fixed]
        parts = [_variance(side.values) / len(side.scores) for side in random]
        n, seeds = min((len(side.scores) for side in random), default=1), math.fsum(parts)
        below = sum(part**2 / (len(side.scores) - 1) for part, side in zip(parts, random, strict=True))
        df = seeds**2 / below if below else math.inf
    over_seeds = None if a.fixed and b.fixed else seeds
    units = _over_units(a, b, together, seeds)
    if not seeds and not units:
        varies = "the scores are too nearly equal for an interval" if units == 0 else \
            "neither side varies over its replicates, so there is no interval"
        return Evidence(value, n, None, note=varies)
    return Evidence(value, n, over_seeds, df, units, max(num_groups - 1.0, 1.0), sequential)


def _over_units(a: Side, b: Side, together: bool, seeds: float) -> float | None:
    """Variance over test examples of the difference of means, without what the variance over seeds contains already."""
    sides = [side for side in (a, b) if side.arm]
    if any(side.resampled_BS is None for side in sides):
        return None
    mean_B = np.zeros(())
    for side, sign in zip(sides, (1, -1), strict=False):
        assert side.resampled_BS is not None
        mean_B = mean_B + sign * side.resampled_BS.mean(axis=1)
    both = float(np.var(mean_B, ddof=1))
    if together and len(sides) == 2:
        order_a, order_b = sorted(a.scores), sorted(b.scores)
        chosen = [(order_a.index(x), order_b.index(y)) for x, y in _pairs(a, b)]
        assert a.resampled_BS is not None
        assert b.resampled_BS is not None
        shared = _interaction(np.stack([a.resampled_BS[:, x] - b.resampled_BS[:, y] for x, y in chosen], axis=1))
    else:
        shared = sum(_interaction(side.resampled_BS) for side in sides if not side.fixed
                     and side.resampled_BS is not None)
    return max(both - min(shared, seeds), 0.0)


def _interaction(resampled_BS: np.ndarray) -> float:
    """The part of the variance of a mean over seeds that is due to other examples suiting other seeds."""
    n = resampled_BS.shape[1]
    if n < 2:
        return 0.0
    own_BS = resampled_BS - resampled_BS.mean(axis=1, keepdims=True)
    return float(np.var(own_BS, axis=0, ddof=1).mean()) / (n - 1)


def _pairs(a: Side, b: Side) -> list[tuple[int, int]]:
    """Replicates of equal seed; where there are fewer than two, in order of seeds."""
    same = sorted(a.scores.keys() & b.scores.keys())
    if len(same) > 1:
        return [(seed, seed) for seed in same]
    return list(zip(sorted(a.scores), sorted(b.scores), strict=False))


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for how many there are (Holm 1979, jstor:4615733); None stays None."""
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped,unused-ignore]

    tested = [p for p in p_values if p is not None]
    found = iter(multipletests(tested, method="holm")[1].tolist() if tested else ())
    return [None if p is None else float(next(found)) for p in p_values]


def holm_level(p_values: Sequence[float | None], index: int) -> float:
    """Chance of an error that Holm's procedure leaves to a comparison: .05 over those that are not more certain."""
    own = p_values[index]
    assert own is not None
    before = sum(p is not None and (p, place) < (own, index) for place, p in enumerate(p_values))
    return (1 - LEVEL) / (sum(p is not None for p in p_values) - before)


def _sum(parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The sum of variances, each with its degrees of freedom, and the sum's (Satterthwaite 1946, jstor:3002019)."""
    held = [(part, df) for part, df in parts if part]
    variance, below = math.fsum(part for part, _ in held), math.fsum(part**2 / df for part, df in held)
    return variance, variance**2 / below if below else math.inf


def _quantile(alpha: float, df: float) -> float:
    from scipy import stats

    return float(stats.norm.isf(alpha / 2) if math.isinf(df) else stats.t.isf(alpha / 2, df))


def _tail(distance: float, variance: float, df: float, sides: int) -> float:
    from scipy import stats

    if not variance:
        return 1.0 if distance <= 0 else 0.0
    scaled = distance / math.sqrt(variance)
    return float(sides * (stats.norm.sf(scaled) if math.isinf(df) else stats.t.sf(scaled, df)))


def _least_alpha(excludes: Callable[[float], bool]) -> float:
    """The smallest chance of an error at which an interval still excludes something, to three digits; 1 at none."""
    if not excludes(0.999):
        return 1.0
    low, high = -30.0, math.log10(0.999)
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(10**middle) else (middle, high)
    return float(10**high)


def _least_number(enough: Callable[[int], bool], now: int) -> int | None:
    """The smallest number from `now` on that is enough; None where none within reason is."""
    high = max(now, 2)
    while not enough(high):
        high *= 2
        if high > MOST_NEEDED * max(now, 1):
            return None
    low = max(now, 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _variance(values: Sequence[float]) -> float:
    return 0.0 if len(values) < 2 or _constant(values) else float(np.var(values, ddof=1))


def _constant(values: Sequence[float]) -> bool:
    return min(values) == max(values)
