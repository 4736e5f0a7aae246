"""A factor that is bisected: two ends, and cells between them that are opened one after another.

    label_fraction: {bisect: [0.02, 1], cells: 6}

Halves are geometric where the ends are positive and more than ten times apart, and whole numbers where the parameter
is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from raymae.errors import shorten
from raymae.spec.names import as_text
from raymae.spec.space import Model, Scalar

FAR_APART = 10.0  # ends whose quotient is more are halved by their logarithm
MOST_BISECTED = 8  # cells: they place a change within a 64th of the range, and each is a sweep of its own
DIGITS = 3  # of a half: it is in the names of trials


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

    def half(self, low: float, high: float, *, whole: bool) -> int | float | None:
        """The value between two others at which a cell is opened next; None where they are close enough together.

        Args:
            low: The lower one.
            high: The higher one.
            whole: Whether the parameter is a whole number.
        """
        least, most = map(math.log, self.bisect) if self.by_log else self.bisect
        scaled = (math.log(low), math.log(high)) if self.by_log else (low, high)
        if scaled[1] - scaled[0] <= self.tolerance * (most - least):
            return None
        exact = sum(scaled) / 2
        exact = math.exp(exact) if self.by_log else exact
        found = round(exact) if whole else float(f"{exact:.{DIGITS}g}")
        return found if low < found < high else None

    def halves(self, *, whole: bool) -> list[int | float]:
        """Every value that may come to be opened, whichever way the answers point."""
        return list(self._halves(*self.bisect, self.cells - 2, whole=whole))

    def _halves(self, low: float, high: float, left: int, *, whole: bool) -> Iterator[int | float]:
        found = self.half(low, high, whole=whole) if left else None
        if found is not None:
            yield found
            yield from self._halves(low, found, left - 1, whole=whole)
            yield from self._halves(found, high, left - 1, whole=whole)


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
