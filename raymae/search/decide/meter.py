"""What the nodes of a cluster have cost since a sweep joined it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Reading:
    """What had been spent at a moment, what is up costs in an hour, and the most that has been up at once."""

    at: float
    spent: float
    rate: float
    most: float


class Meter:
    """Adds up dollars from looks at what is up.

    Between two looks the dearer of both counts: a node that came or went in between is paid for all the time. One
    thread looks, others may ask meanwhile.

    Args:
        clock: Seconds, monotonic.
        earlier: Dollars that an earlier run of the sweep has spent, which count.
    """

    def __init__(self, clock: Callable[[], float], earlier: float = 0.0) -> None:
        self._clock = clock
        self._read = _Reading(clock(), earlier, 0.0, 0.0)

    def look(self, rate: float) -> None:
        """Enter what all nodes that are up now cost, in dollars per hour."""
        now, last = self._clock(), self._read
        hours = (now - last.at) / 3600
        spent = last.spent + max(last.rate, rate if last.most else 0.0) * hours
        self._read = _Reading(now, spent, rate, max(last.most, rate))

    @property
    def spent(self) -> float:
        """Dollars until now."""
        last = self._read
        return last.spent + last.rate * (self._clock() - last.at) / 3600

    def seconds_left(self, dollars: float) -> float | None:
        """Seconds until so many dollars are spent, with as much up as there has been at once; None before the first
        look."""
        left, most = dollars - self.spent, self._read.most
        if left <= 0:
            return 0.0
        return 3600 * left / most if most else None
