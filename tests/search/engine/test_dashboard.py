"""The dashboard of an embedded Ray is started once, after the first report, and its failure costs nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private import node as ray_node
from ray._private import utils

from raymae.search.engine.dashboard import LateDashboard


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Ray's own start of the API server was called with."""
    calls: list[Any] = []

    def start(node: Any, *, fails: bool = False, **options: Any) -> None:
        calls.append((threading.current_thread().name, options))
        if fails:
            raise RuntimeError("no port\nat all")
        node.webui_url = "127.0.0.1:1"

    monkeypatch.setattr(ray_node.Node, "start_api_server", start)
    return calls


def begun(**options: Any) -> tuple[LateDashboard, list[str], list[str]]:
    late, urls, failures = LateDashboard(), [], []
    with late.put_off():
        ray_node.Node.start_api_server(SimpleNamespace(), include_dashboard=True, **options)
    late.tell(urls.append, failures.append)
    return late, urls, failures


def test_it_starts_with_the_first_report_in_a_thread_that_stays(started: list[Any]) -> None:
    late, urls, failures = begun()
    late.beat(None)  # type: ignore[arg-type]
    assert not started, "Ray has started without it"
    for _ in range(3):
        late.reported({}, None)  # type: ignore[arg-type]
    late.wait(10)
    assert started == [("dashboard", {"include_dashboard": True})]
    assert (urls, failures) == (["http://127.0.0.1:1"], [])
    assert late._thread is not None
    assert late._thread.is_alive(), "Ray's processes die with the thread that started them"
    late.end()
    late._thread.join(10)
    assert not late._thread.is_alive()


def test_what_it_needs_is_not_imported_before(monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    monkeypatch.setattr(utils, "get_dashboard_dependency_error", lambda: ImportError("Ray's own way to find out"))
    late = LateDashboard()
    with late.put_off():
        assert utils.get_dashboard_dependency_error() is None
    assert utils.get_dashboard_dependency_error() is not None
    monkeypatch.setattr("raymae.search.engine.dashboard.NEEDS", ("aiohttp", "no_such_package"))
    with late.put_off():
        assert utils.get_dashboard_dependency_error() is not None, "where something is missing, Ray says what"


def test_one_that_does_not_start_is_a_sentence(started: list[Any]) -> None:
    late, urls, failures = begun(fails=True)
    late.start()
    late.wait(10)
    assert urls == []
    assert failures == ["the dashboard could not be started: no port"]
    late.end()


def test_a_sweep_without_a_report_waits_for_nothing(started: list[Any]) -> None:
    late, _, _ = begun()
    late.wait(10)
    late.end()
    assert not started
    assert ray_node.Node.start_api_server.__name__ == "start", "Ray has its own method back"
