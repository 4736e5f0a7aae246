"""What whoever started a sweep is told before its first trial ends."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from raymae.search.live.display import STARTING, Display


def printed(display: Display) -> str:
    console: Any = display._console
    return str(console.file.getvalue())


def plain_lines() -> Display:
    return Display.for_terminal(Console(file=io.StringIO(), width=300))


def test_the_dashboards_token_and_the_browser_are_one_command_each() -> None:
    display = plain_lines()
    display.connected("http://127.0.0.1:8265", "/results of mine/ett")
    text = printed(display)
    assert "dashboard http://127.0.0.1:8265\n" in text
    assert "RAY_AUTH_MODE=token ray get-auth-token\n" in text
    assert "raymae serve '/results of mine'\n" in text
    assert STARTING in text


def test_without_a_dashboard_there_is_no_token_and_on_an_object_store_nothing_to_serve() -> None:
    display = plain_lines()
    display.connected("", "s3://bucket/ett")
    assert "token" not in printed(display)
    assert "serve" not in printed(display)


def test_a_dashboard_that_comes_later_is_announced_and_then_told_with_its_token() -> None:
    display = plain_lines()
    display.connected("", "x/ett", later=True)
    assert "its dashboard starts after the first report\n" in printed(display)
    assert "token" not in printed(display)
    display.dashboard("http://127.0.0.1:8265")
    assert "dashboard http://127.0.0.1:8265\n" in printed(display)
    assert "RAY_AUTH_MODE=token ray get-auth-token\n" in printed(display)


def test_workers_start_until_the_first_report() -> None:
    display = plain_lines()
    assert display._note == "starting Ray"
    display.connected("", "x/ett")
    assert display._note == STARTING
    display.reported({}, None)  # type: ignore[arg-type]
    assert display._note == ""
    display.waiting(1, 2)
    display.reported({}, None)  # type: ignore[arg-type]
    assert "waiting for nodes" in display._note
