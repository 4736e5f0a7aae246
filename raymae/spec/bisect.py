"""A factor that is bisected: two ends, and cells between them that are opened one after another.

    label_fraction: {bisect: [0.02, 1], cells: 6}

Halves are geometric where the ends are positive and more than ten times apart, and whole numbers where the parameter
is one. All values lie on one grid, of few digits; where rules forbid a half, the allowed value nearest to it stands in.
"""

from __future__ import annotations

import decimal
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import count, groupby, islice, takewhile
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from raymae.errors import shorten
from raymae.spec.names import as_text
from raymae.spec.space import Model, Scalar

FAR_APART = 10.0  # ends whose quotient is more are halved by their logarithm
MOST_BISECTED = 8  # cells: they place a change within a 64th of the range, and each is a sweep of its own
DIGITS = 3  # of a half, more where the smallest bracket needs them: it is in the names of trials
MOST_DIGITS = 15
MOST_TRIED = 1000  # values of a bracket that the rules are asked about, from its half outwards


class BisectSpec(Model):
    """Where a factor's value is looked for at which the answer changes, and with how many cells."""

    bisect: tuple[int | float, int | float] = Field(
        strict=False, description="The two ends, lower first. Their cells are run first; then the half of the bracket "
        "in which the answer changes is opened as a new cell, again and again."
    )
    cells: int = Field(6, ge=3, le=MOST_BISECTED, description="Cells at most, with those of the ends.")
    log: bool | None = Field(None, description="Halve by the logarithm; by default where the ends are positive and "
                             "more than ten times apart.")
    tolerance: float = Field(0.02, gt=0, lt=1, description="A bracket of at most this share of the whole range is not "
                             "halved; where halves are by the logarithm, of its logarithm.")

    @field_validator("bisect", mode="before")
    @classmethod
    def _two_numbers(cls, value: Any) -> Any:
        numbers = [one for one in value if isinstance(one, (int, float)) and not isinstance(one, bool)
                   and math.isfinite(one)] if isinstance(value, (list, tuple)) else []
        if len(numbers) != 2 or len(value) != 2 or not numbers[0] < numbers[1]:
            raise ValueError(f"needs [low, high], two finite numbers with low < high, got {shorten(value)}; to "
                             "compare at these values alone list them without bisect")
        return numbers

    @model_validator(mode="after")
    def _has_logarithm(self) -> BisectSpec:
        if self.log and self.bisect[0] <= 0:
            raise ValueError(f"log needs ends above 0, got {list(self.bisect)}; say log: false, or leave it out")
        return self

    @property
    def by_log(self) -> bool:
        """Whether halves are geometric."""
        low, high = self.bisect
        return low > 0 and high / low > FAR_APART if self.log is None else self.log

    def values(self, opened: Sequence[float]) -> list[Scalar]:
        """The ends and what was opened between them, in order."""
        return [*sorted({*self.bisect, *opened})]

    def is_narrow(self, low: float, high: float) -> bool:
        """Whether two values are close enough together for none to be looked for between them."""
        return self._scaled(high) - self._scaled(low) <= self._smallest

    def half(self, low: float, high: float, among: Iterable[int | float]) -> int | float | None:
        """The value between two others at which a cell is opened next; None where there is none, or they are close
        enough together.

        Args:
            low: The lower one.
            high: The higher one.
            among: The values that may be opened (see `halves`); the one nearest the middle is taken.
        """
        if self.is_narrow(low, high):
            return None
        inside = sorted(value for value in among if low < value < high)
        return min(inside, key=self._away(self._middle(low, high)), default=None)

    def halves(
        self, *, whole: bool, allowed: Callable[[int | float], bool] = lambda value: True
    ) -> list[int | float]:
        """Every value that may come to be opened, whichever way the answers point; `half` finds each in its bracket.

        Args:
            whole: Whether the parameter is a whole number.
            allowed: Whether the rules of the sweep admit a value.
        """
        return list(self._halves(*self.bisect, self.cells - 2, whole, allowed))

    def _halves(
        self, low: float, high: float, left: int, whole: bool, allowed: Callable[[int | float], bool]
    ) -> Iterator[int | float]:
        if not left or self.is_narrow(low, high):
            return
        tried = islice(self.between(low, high, whole=whole), MOST_TRIED)
        if (found := next(filter(allowed, tried), None)) is not None:
            yield found
            yield from self._halves(low, found, left - 1, whole, allowed)
            yield from self._halves(found, high, left - 1, whole, allowed)

    def between(self, low: float, high: float, *, whole: bool) -> Iterator[int | float]:
        """The values of the grid between two others, from the middle outwards."""
        middle = self._middle(low, high)
        near = [takewhile(lambda value: low < value < high, self._grid(middle, sign, whole)) for sign in (-1, 1)]
        return (value for value, _ in groupby(heapq.merge(*near, key=self._away(middle))))

    def _grid(self, middle: float, sign: int, whole: bool) -> Iterator[int | float]:
        """The values of the grid from a middle on, upwards, or downwards for a negative sign."""
        context = decimal.Context(self._digits, decimal.ROUND_CEILING if sign > 0 else decimal.ROUND_FLOOR)
        if self.by_log and not whole:
            value = context.create_decimal_from_float(middle)
            while True:
                yield float(value)
                value = context.next_plus(value) if sign > 0 else context.next_minus(value)
        step = Decimal(1) if whole else Decimal(1).scaleb(self._exponent + 1 - self._digits)
        for number in count(int((Decimal(middle) / step).to_integral_value(context.rounding)), sign):
            yield number if whole else float(number * step)

    @property
    def _digits(self) -> int:
        """Of the values: the smallest bracket that is halved holds at least one."""
        def step(digits: int) -> float:
            return math.log1p(10.0 ** (1 - digits)) if self.by_log else 10.0 ** (self._exponent + 1 - digits)

        enough = (digits for digits in range(DIGITS, MOST_DIGITS) if step(digits) <= self._smallest / 2)
        return next(enough, MOST_DIGITS)

    @property
    def _exponent(self) -> int:
        """Of the first digit of the end that is larger in size."""
        return math.floor(math.log10(max(map(abs, self.bisect))))

    @property
    def _smallest(self) -> float:
        """The bracket that is no longer halved, on the scale of the halves."""
        low, high = map(self._scaled, self.bisect)
        return self.tolerance * (high - low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.by_log else value

    def _middle(self, low: float, high: float) -> float:
        middle = (self._scaled(low) + self._scaled(high)) / 2
        return math.exp(middle) if self.by_log else middle

    def _away(self, middle: float) -> Callable[[float], float]:
        """How far a value is from a middle, on the scale of the halves."""
        return lambda value: abs(self._scaled(value) - self._scaled(middle))


Asked = Annotated[
    Annotated[list[Scalar], Tag("list")] | Annotated[BisectSpec, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, (Mapping, BisectSpec)) else "list"),
]


def _several(value: Any) -> Any:
    """Lists of names within a factor's values, as the text that stands for them."""
    if not isinstance(value, Mapping):
        return value
    return {key: [as_text(item) for item in items] if isinstance(items, (list, tuple)) else items
            for key, items in value.items()}


def _distinct(value: dict[str, list[Scalar] | BisectSpec]) -> dict[str, list[Scalar] | BisectSpec]:
    for name, items in value.items():
        if isinstance(items, BisectSpec):
            if len(value) > 1:
                others = ", ".join(other for other in value if other != name)
                raise ValueError(f"{name} is bisected, and a bisected factor stands alone: the change may lie "
                                 f"elsewhere at each value of {others}. Fix the others under settings or training, in "
                                 "a sweep for each value")
        elif not items:
            raise ValueError(f"{name} lists no value; leave the factor out, or list the values to compare at")
        elif len({(isinstance(item, bool), item) for item in items}) < len(items):
            raise ValueError(f"{name} lists a value twice: {shorten(items)}")
    return value


AskedFactors = Annotated[dict[str, Asked], BeforeValidator(_several), AfterValidator(_distinct)]
