"""Who watches a sweep: told what happens to it, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from raymae.results.store.columns import Row
from raymae.results.views.progress import Progress
from raymae.search.messages import Message


class Observer(Protocol):
    """Told what happens to a sweep, after it has gone to the store. No method may raise or take long."""

    def warned(self, text: str) -> None:
        """Take something that a person should know now."""

    def reported(self, row: Row, message: Message) -> None:
        """Take one report: its row, and the worker's message that it was made of."""

    def ended(self, row: Row, progress: Progress) -> None:
        """Take the row of a trial that ended, and how far the sweep is with it."""

    def beat(self, progress: Progress) -> None:
        """Take how far the sweep is, every few seconds, from a thread of its own."""


class Observers:
    """Passes on to every observer, in their order, what one is told.

    Args:
        observers: Those that watch from the start.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._all = tuple(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more observer from now on; other threads may be telling the others meanwhile."""
        self._all = (*self._all, observer)

    def warned(self, text: str) -> None:
        """Pass on a warning."""
        for observer in self._all:
            observer.warned(text)

    def reported(self, row: Row, message: Message) -> None:
        """Pass on a report."""
        for observer in self._all:
            observer.reported(row, message)

    def ended(self, row: Row, progress: Progress) -> None:
        """Pass on the end of a trial."""
        for observer in self._all:
            observer.ended(row, progress)

    def beat(self, progress: Progress) -> None:
        """Pass on a sign of life."""
        for observer in self._all:
            observer.beat(progress)
