"""The served pages in a real browser: no console errors, readable, live, and usable from the keyboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from served_folder import HOSTILE, Served, add_report, add_trial, make_sweep

from tests.browser import DESKTOP, PHONE, console, low_contrast, overflow, show


def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("path", [
    "", "sweep/alive", f"sweep/{quote(HOSTILE, safe='')}", "sweep/alive/trials", "sweep/alive/trial/mae-0001",
    f"sweep/{quote(HOSTILE, safe='')}/trial/scratch-0000", "compare",
], ids=["list", "sweep", "hostile", "trials", "trial", "failed", "compare"])
def test_pages_are_readable_and_quiet(served: Served, chromium: Any, path: str, size: tuple[int, int], dark: bool):
    show(chromium, served.url + path, size, dark=dark)
    assert chromium.find_element("tag name", "h1").text
    assert console(chromium) == []
    assert overflow(chromium) == 0
    assert low_contrast(chromium) == []
    assert "owned" not in chromium.title
    assert chromium.find_elements("css selector", "main img, main script") == []


def test_the_report_is_served_and_draws_in_its_sandbox(served: Served, chromium: Any):
    for name in ("done", HOSTILE):
        show(chromium, f"{served.url}sweep/{quote(name, safe='')}")
        chromium.find_element("link text", "Report").click()
        until(lambda: chromium.current_url.endswith("/report"))
        assert "it takes the test scores of two arms" in chromium.find_element("id", "plot-differences").text
        chromium.execute_script("document.getElementById('plot-by-trials').scrollIntoView({behavior: 'instant'})")
        until(lambda: chromium.find_elements("css selector", ".js-plotly-plot svg"))
        assert console(chromium) == []
        assert "owned" not in chromium.title
        assert chromium.execute_script("return window.origin") == "null"
        chromium.execute_script("scrollTo({top: 0, behavior: 'instant'})")
        for button in chromium.find_elements("css selector", "header button"):  # a sandbox has no storage to remember
            button.click()
        assert console(chromium) == []


def test_the_contrast_check_can_fail(served: Served, chromium: Any):
    show(chromium, served.url)
    chromium.execute_script("document.querySelector('h1').style.color = '#999'")
    assert [text for text in low_contrast(chromium) if "Sweeps" in text]


def test_progress_moves_without_a_reload(served: Served, chromium: Any):
    store = make_sweep(served.folder / "moving", {}, word="running")

    def text(name: str) -> str:  # in one step: an element found may be replaced before it is read
        return str(chromium.execute_script("return document.getElementById(arguments[0]).textContent", name))

    show(chromium, f"{served.url}sweep/moving")
    chromium.execute_script("window.sameDocument = true")
    assert "0 of 12 trials" in chromium.find_element("id", "progress").text
    add_trial(store, "mae-0000", 0.125)
    until(lambda: "1 of 12 trials" in text("progress"))
    until(lambda: "0.125" in text("arms"))
    show_list = f"{served.url}"
    assert chromium.execute_script("return window.sameDocument") is True
    show(chromium, show_list)
    make_sweep(served.folder / "born", {}, word="running")
    until(lambda: "born" in text("sweeps"))
    assert console(chromium) == []


def test_curves_and_a_trial_move_without_a_reload(served: Served, chromium: Any):
    running = {"trial_id": "mae-0000", "arm": "mae", "stage": "search", "attempt": 0, "phase": "finetune", "epoch": 1,
               "epochs": 4, "wall_s": 3.0, "best": 0.5}
    store = make_sweep(served.folder / "curves", {}, word="running", running=[running])
    count = "return document.querySelectorAll('#curves circle').length"
    names = "return [...document.querySelectorAll('#curves .name')].map((one) => one.textContent)"
    show(chromium, f"{served.url}sweep/curves")
    chromium.execute_script("window.sameDocument = true")
    assert chromium.execute_script(count) == 0
    for epoch in (1, 2, 3):
        add_report(store, "mae-0000", epoch, 0.5 / epoch)
        until(lambda: chromium.execute_script(count) == epoch)  # noqa: B023 - it is called within this turn
    assert chromium.execute_script(names) == ["mae-0000"]
    add_trial(store, "scratch-0000", 0.5)
    until(lambda: "scratch" in chromium.execute_script(names))
    assert chromium.execute_script("return window.sameDocument") is True
    inked = chromium.execute_script("return getComputedStyle(document.querySelector('#curves .curve')).stroke")
    assert inked not in ("none", "rgb(0, 0, 0)"), "an arm's curve has its arm's colour"
    chromium.find_element("link text", "mae-0000 finetune 1/4").click()
    until(lambda: chromium.title.startswith("mae-0000 of"))
    chromium.execute_script("window.sameDocument = true")
    add_report(store, "mae-0000", 4, 0.0625)
    until(lambda: chromium.execute_script(count) == 4)
    until(lambda: "0.06250" in chromium.execute_script("return document.getElementById('log').textContent"))
    assert chromium.execute_script("return window.sameDocument") is True
    assert console(chromium) == []


def test_the_filter_and_the_keyboard(served: Served, chromium: Any):
    from selenium.webdriver.common.keys import Keys

    show(chromium, served.url)

    def press(keys: str) -> None:
        chromium.switch_to.active_element.send_keys(keys)

    press(Keys.TAB)
    assert chromium.switch_to.active_element.text == "Skip to content"
    press(Keys.ENTER)
    press(Keys.TAB)
    assert chromium.switch_to.active_element.get_attribute("id") == "filter"
    press("done")
    cards = chromium.find_elements("css selector", ".card")
    assert [card.find_element("tag name", "h2").text for card in cards if card.is_displayed()] == ["done"]
    press(Keys.TAB)
    assert chromium.switch_to.active_element.text == "done"
    width = chromium.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
    assert float(width.removesuffix("px")) >= 2
    press(Keys.ENTER)
    until(lambda: chromium.title == "done")
    chromium.back()
    chromium.find_element("tag name", "body").send_keys("/")
    assert chromium.switch_to.active_element.get_attribute("id") == "filter"


def test_a_lost_connection_is_said(served: Served, chromium: Any):
    show(chromium, served.url)
    chromium.execute_cdp_cmd("Network.enable", {})
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    try:
        chromium.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **offline})
        until(lambda: "no connection" in chromium.find_element("id", "link").text)
    finally:
        chromium.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **offline})
    until(lambda: chromium.find_element("id", "link").text == "")
