"""The parameters of trials as numbers from 0 to 1, for a surrogate, and the values at which it is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Space

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

STEPS = 13  # values of a range at which the difference is computed
MOST_LEVELS = 12  # whole numbers that are taken one by one
FEW = 8  # values of a parameter outside the space that are taken one by one


@dataclass(frozen=True)
class Feature:
    """A parameter.

    Attributes:
        name: Its name.
        levels: Its values one by one, numbers in their order; empty for a range.
        log: Whether a range is logarithmic.
        whole: Whether a range is of whole numbers.
        low: The least value of a range.
        high: The greatest.
    """

    name: str
    levels: tuple[Scalar, ...] = ()
    log: bool = False
    whole: bool = False
    low: float = 0.0
    high: float = 1.0

    @property
    def ordered(self) -> bool:
        """Whether values lie on a line: those of a range, and levels that are numbers."""
        return all(is_number(level) for level in self.levels)

    def encode(self, values: Sequence[Scalar]) -> np.ndarray:
        """Values as (number of values, columns); one that an arm does not have lies between all others."""
        if not self.ordered:  # two different ones are 1 apart
            return np.array([[float(value == level) / math.sqrt(2) for level in self.levels] for value in values])
        return np.array([[self._place(value)] for value in values])

    def _place(self, value: Scalar) -> float:
        if value is None or (self.levels and value not in self.levels):
            return 0.5
        if self.levels:
            return self.levels.index(value) / max(1, len(self.levels) - 1)
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, float(value)))
        return (at - low) / (high - low)

    def asked(self, first: Iterable[Scalar], second: Iterable[Scalar] | None) -> list[Scalar]:
        """The values at which arms are compared: among those tried, by both where both have the parameter.

        Args:
            first: What the first arm tried.
            second: What the second tried; None where it does not vary there.
        """
        both = [list(tried) for tried in (first, second) if tried is not None]
        if self.levels:
            return [level for level in self.levels if all(level in tried for tried in both)]
        low = max(min(float(value) for value in tried if value is not None) for tried in both)
        high = min(max(float(value) for value in tried if value is not None) for tried in both)
        if low >= high:
            return []
        if self.log:
            return [float(value) for value in np.geomspace(low, high, STEPS)]
        found = np.linspace(low, high, STEPS)
        return [int(value) for value in dict.fromkeys(found.round())] if self.whole else [float(v) for v in found]


def feature(name: str, space: Space, tried: Iterable[Scalar]) -> Feature:
    """A parameter, by its place in the space and what was tried of it.

    Args:
        name: Its name.
        space: The sweep's.
        tried: Its values in all trials that have it.
    """
    distribution, values = space.get(name), list(dict.fromkeys(tried))
    numbers = [float(value) for value in values if is_number(value) and value is not None]
    whole = isinstance(distribution, IntRange)
    if len(numbers) < len(values) or isinstance(distribution, Choice) or (whole and len(values) <= MOST_LEVELS) \
            or (distribution is None and len(values) <= FEW):
        return Feature(name, tuple(sorted(values, key=_order)))
    low, high = min(numbers), max(numbers)
    return Feature(name, (), isinstance(distribution, LogUniform) and low > 0, whole, low, high)


def is_number(value: Scalar) -> bool:
    """Whether a value has a place on a line: true and false have none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def values_of(column: pd.Series, distribution: object) -> list[Scalar]:
    """A column of trials as plain values; None where a trial does not have the parameter.

    A choice of which null is a value has it as `null`: an empty place in a column is either.
    """
    import pandas as pd

    null = "null" if isinstance(distribution, Choice) and None in distribution.choice else None
    return [null if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for value in column.astype(object)]


def _order(value: Scalar) -> tuple[bool, float, str]:
    number = float(value) if is_number(value) and value is not None else 0.0
    return not is_number(value), number, str(value)
