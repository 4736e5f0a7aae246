"""Where the answer changes along a factor that is bisected, as the verdict holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raymae.results.verdict.statistics import Interval

End = Literal["", "cells", "narrow", "no value", "not compared"]
"""Why no cell is opened between two others: as many are open as there may be, they are close enough together, no value
between them is allowed, or the one that is open there has no comparison."""


@dataclass(frozen=True)
class Side:
    """The primary comparison in a cell beside the change, or at an end of the range.

    Attributes:
        value: The factor's value there.
        difference: The first arm minus the second.
        ci95: Its 95 % interval; None where there is none.
        verdict: What is said of it, adjusted for all comparisons in all cells.
        better: Whether the estimated difference favours the first arm, by more than the margin where one is declared.
    """

    value: int | float
    difference: float
    ci95: Interval | None
    verdict: str
    better: bool


@dataclass(frozen=True)
class Place:
    """Between which two cells the answer changes, by the sign of the estimated difference.

    Signs and not words are followed: a word is adjusted for all comparisons in all cells, and every cell that is opened
    could take back the words that it was opened by.

    Attributes:
        factor: The factor that is bisected.
        a: The first arm of the comparison; "" before there is any.
        b: The second.
        below: The cell beside the change at the lower value, or the lower end where nothing changes; None before both
            ends have a comparison.
        above: Likewise, at the higher value.
        changes: How often the sign changes from cell to cell; of several changes the first is meant.
        opened: Cells that are open, the ends among them.
        most: Cells at most.
        next: The value whose cell is to be opened next; None where there is nothing more to look for.
        end: Why there is none in the bracket; "" where there is one, or no bracket.
    """

    factor: str
    a: str
    b: str
    below: Side | None
    above: Side | None
    changes: int
    opened: int
    most: int
    next: int | float | None = None
    end: End = ""

    @property
    def bracket(self) -> tuple[float, float] | None:
        """The two values between which the answer changes; None where it does not, or nobody knows yet."""
        return (self.below.value, self.above.value) if self.changes and self.below and self.above else None

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Place:
        """What a verdict's JSON holds."""
        return cls(**{**found, **{name: _side(found[name]) for name in ("below", "above")}})


def _side(found: Mapping[str, Any] | None) -> Side | None:
    return None if found is None else Side(**{**found, "ci95": found["ci95"] and (found["ci95"][0], found["ci95"][1])})
