"""Warnings of silence, on a clock that the test moves."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from raymae.search.engine import watchdog


class Sweep:
    """A conductor as the watchdog sees one: when something last happened, and what it was told."""

    interrupted = False

    def __init__(self) -> None:
        self.now, self.last_event = 1000.0, 0.0
        self.told: list[str] = []
        self.looked = threading.Semaphore(0)

    def clock(self) -> float:
        self.looked.release()
        return self.now

    def is_over(self) -> bool:
        return False

    def warn(self, message: str) -> None:
        self.told.append(message)

    def looks(self, times: int = 3) -> None:
        """Wait until the watchdog has looked some more, with what the clock says now."""
        while self.looked.acquire(blocking=False):
            pass
        for _ in range(times):
            assert self.looked.acquire(timeout=10)


def test_it_warns_of_silence_and_of_twice_as_long_a_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "explain", lambda keeper: "its slot waits")
    sweep = Sweep()
    with watchdog.watched(sweep, SimpleNamespace(keeper=None), silence_s=0.1):  # type: ignore[arg-type]
        sweep.looks()
        assert sweep.told == []  # 1,000 s without an event went by before there were workers to report
        sweep.now += 60
        sweep.looks()
        assert sweep.told == ["no report for 1 min 00 s: its slot waits"]
        sweep.now += 50
        sweep.looks()
        assert len(sweep.told) == 1
        sweep.now += 20
        sweep.looks()
        assert sweep.told[1:] == ["no report for 2 min 10 s: its slot waits"]
        sweep.last_event = sweep.now
        sweep.looks()
        sweep.now += 30
        sweep.looks()
        assert sweep.told[2:] == ["no report for 30.0 s: its slot waits"]
