"""News go to a web hook for real, each once; one that fails is a line in the log and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from raymae.errors import BudgetSpentError, SpecError
from raymae.search import run
from raymae.search.live.news import MOST, News, receivers
from raymae.spec.record import RecordSpec

pytest.importorskip("apprise", reason="needs apprise: pip install 'raymae[notify]'")


class Hook(BaseHTTPRequestHandler):
    heard: list[tuple[str, str]]
    answer = 200

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append((told["title"], told["message"]))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hook() -> Iterator[Any]:
    handler = type("One", (Hook,), {"heard": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(url=f"json://127.0.0.1:{server.server_port}/hook", handler=handler, heard=handler.heard)
    server.shutdown()
    server.server_close()
    thread.join()


def progress(ended: int = 3) -> Any:
    return SimpleNamespace(num_ended=ended, num_planned=10)


def test_the_end_warnings_and_a_budget_nearly_spent_are_told(hook: Any) -> None:
    share = [0.5]
    news = News("ett", [hook.url])
    news.follow(lambda: share[0], lambda text: pytest.fail(text))
    news.beat(progress())
    news.warned("arm gru is given up: its first 3 trials all failed the same way: boom")
    share[0] = 0.93
    news.beat(progress())
    news.beat(progress())  # once is enough
    news.over("finished", "Undecided whether it helps")
    assert hook.heard == [
        ("ett: warning", "arm gru is given up: its first 3 trials all failed the same way: boom"),
        ("ett: budget", "93% of the budget is spent; 3 of 10 trials have ended"),
        ("ett: finished", "Undecided whether it helps"),
    ]


def test_there_is_an_end_to_it_and_the_end_is_told(hook: Any) -> None:
    news = News("ett", [hook.url])
    for number in range(MOST + 5):
        news.warned(f"warning {number}")
    news.over("failed", "no disk")
    assert len(hook.heard) == MOST + 1
    assert hook.heard[-1] == ("ett: failed", "no disk")


@pytest.mark.parametrize("fault", ["refused", "gone"])
def test_a_failing_service_is_said_once_and_hurts_nobody(hook: Any, fault: str) -> None:
    hook.handler.answer = 500
    url = hook.url if fault == "refused" else "json://127.0.0.1:1/hook"
    said: list[str] = []
    news = News("ett", [url])

    def warn(text: str) -> None:
        said.append(text)
        news.warned(text)  # as the conductor does: every observer is told

    news.follow(lambda: None, warn)
    news.warned("one")
    news.warned("two")
    news.over("finished", "done")
    assert len(said) == 1
    assert said[0].startswith("news could not be sent (ett: warning)")


def test_a_secret_may_stay_in_the_environment(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HOOK", hook.url)
    news = News("ett", ["${MY_HOOK}"])
    news.over("finished", "done")
    assert hook.heard == [("ett: finished", "done")]
    monkeypatch.delenv("MY_HOOK")
    with pytest.raises(SpecError, match=r"notify.0: \$\{MY_HOOK\} is not set in the environment"):
        receivers(["${MY_HOOK}"])


@pytest.mark.parametrize(("url", "said"), [
    ("nosuch://user:secret@host", "nosuch://… is no address that apprise knows"), ("hello", "a text without ://"),
    ("slack://$", "slack://…: Invalid placeholder"),
])
def test_an_address_that_cannot_be_told_is_refused_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        receivers(["json://localhost/", url])
    assert said in str(refused.value)
    assert "notify.1" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_addresses_nothing_is_imported_and_nothing_started() -> None:
    before = threading.active_count()
    news = News("ett", [])
    news.warned("x")
    news.over("finished", "done")
    assert threading.active_count() == before


@pytest.mark.parametrize(("failure", "title"), [
    (BudgetSpentError("the budget is spent"), "ett: budget spent"), (RuntimeError("boom"), "ett: failed"),
    (KeyboardInterrupt(), "ett: interrupted"),
])
def test_every_end_of_a_sweep_is_told(hook: Any, monkeypatch: pytest.MonkeyPatch, failure: Any, title: str) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(run, "_run", broken)
    plan: Any = SimpleNamespace(spec=SimpleNamespace(name="ett", notify=[hook.url], record=RecordSpec()))
    with pytest.raises(type(failure)):
        run.run_sweep(plan)
    assert [told for told, _ in hook.heard] == [title]
