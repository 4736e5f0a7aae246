"""What a worker keeps from trial to trial: reading a data set again for each of hundreds of trials would take longer
than some of them train."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Shelf:
    """Data that has been read, by the function that read it and what it was called with.

    Each function keeps its latest few results; the one unused for longest goes first.
    """

    def __init__(self) -> None:
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}

    def keeps(self, most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate a function of hashable arguments so that its latest results stay on this shelf.

        Args:
            most: So many results are kept.
        """
        def decorate(read: Callable[P, T]) -> Callable[P, T]:
            @wraps(read)
            def kept(*args: P.args, **kwargs: P.kwargs) -> T:
                results = self._kept.setdefault(f"{read.__module__}.{read.__qualname__}", OrderedDict())
                key = (args, tuple(sorted(kwargs.items())))
                if key not in results:
                    results[key] = read(*args, **kwargs)
                results.move_to_end(key)
                while len(results) > most:
                    results.popitem(last=False)
                value: T = results[key]
                return value

            return kept

        return decorate

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def clear(self) -> None:
        """Forget everything: the next call of each function reads again."""
        self._kept.clear()


WORKER = Shelf()  # this process's own: a worker is a process, and trials follow each other in it
