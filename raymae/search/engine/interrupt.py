"""Ctrl-C once: finish what is being reported, print the verdict so far, exit 130. Twice: at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM after a `with` block in the main thread; elsewhere do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible(on_first: Callable[[], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM for the length of a `with` block in the main thread; elsewhere do nothing.

    Args:
        on_first: Called at the first signal, inside the handler. A second signal ends the process at once; what has
            been reported is on storage, and the next run of the sweep goes on from there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handle(number: int, frame: FrameType | None) -> Any:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(EXIT_CODE)
        on_first()

    with signals_kept():
        for number in SIGNALS:
            signal.signal(number, handle)
        yield
