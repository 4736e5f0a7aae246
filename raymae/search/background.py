"""Calls a function every few seconds beside a sweep, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeatedly(act: Callable[[], None], period_s: float, name: str, patience_s: float = 5.0) -> Iterator[None]:
    """Call `act` every so many seconds for the length of a `with` block.

    Args:
        act: Must not raise: that would end it silently.
        period_s: Seconds between an end and the next start; the first call comes after as many.
        name: Of the thread.
        patience_s: Seconds that the block's end waits for a call under way.
    """
    over = threading.Event()

    def go() -> None:
        while not over.wait(period_s):
            act()

    thread = threading.Thread(target=go, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience_s)
