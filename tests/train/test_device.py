from __future__ import annotations

import sys
import threading

import psutil
import pytest
import torch

from raymae.train import device


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's C library")
def test_what_a_thread_has_freed_is_given_back_by_a_large_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = psutil.Process().memory_info
    last = []

    def forest() -> None:
        trees = [bytes(3000) for _ in range(100_000)]
        last.append(trees[-1])  # lies above the others, so that nothing is given back by itself

    thread = threading.Thread(target=forest)
    thread.start()
    thread.join()
    grown = resident().rss
    device.give_back(torch.device("cpu"))
    if grown < device.LARGE_BYTES:
        assert resident().rss > grown - 50e6, "a small process keeps it"
    monkeypatch.setattr(device, "LARGE_BYTES", 0)
    device.give_back(torch.device("cpu"))
    assert resident().rss < grown - 200e6
