"""What Ray Train's controllers share when they are threads of one process."""

from __future__ import annotations

import threading
import time

import pytest
from ray.train.v2._internal.logging import LoggingManager

from raymae.search.engine.training import logging_once


def test_logging_is_configured_once_and_nobody_goes_on_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that were configured at once waited for each other for ever: logging's lock and a handler's."""
    configured: list[object] = []

    def slowly(context: object) -> None:
        time.sleep(0.05)
        configured.append(context)

    monkeypatch.setattr(LoggingManager, "configure_controller_logger", staticmethod(slowly))
    logging_once()
    seen: list[int] = []

    def controller(number: int) -> None:
        LoggingManager.configure_controller_logger(number)
        seen.append(len(configured))

    threads = [threading.Thread(target=controller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [1] * 8
