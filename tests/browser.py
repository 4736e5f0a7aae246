"""A headless Chromium, and what a page is held to in it. Fixtures for `conftest.py` of whoever needs them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for the session; each test opens its own pages in it."""
    pytest.importorskip("selenium", reason="needs selenium")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                     f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()


def show(browser: Any, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
    """Open a page at a size (CSS pixels) and in a colour scheme, with an empty console."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    console(browser)
    browser.get(url)


def console(browser: Any) -> list[str]:
    """What the console has said since it was last asked: warnings and errors."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]


def overflow(browser: Any) -> int:
    """By how many pixels the page is wider than its window."""
    return int(browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def low_contrast(browser: Any, least: float = 4.5) -> list[str]:
    """Texts whose contrast with their background is below WCAG's AA for normal text, each with its ratio."""
    return list(browser.execute_script(_CONTRAST, least))


def picture(browser: Any, path: Path) -> None:
    """The whole page as a PNG."""
    import base64

    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {
        "captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"],
                                                "scale": 1}})
    path.write_bytes(base64.b64decode(shot["data"]))


_CONTRAST = """
const least = arguments[0], found = [];
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
const linear = (c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = (rgb) => { const [r, g, b] = rgb.map(linear);
  return .2126 * r + .7152 * g + .0722 * b; };
const ground = (node) => { const layers = [];
  for (let one = node; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
  let rgb = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  for (const layer of layers.reverse()) rgb = over(layer, rgb);
  return rgb; };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = walker.nextNode(); text; text = walker.nextNode()) {
  const node = text.parentElement, style = getComputedStyle(node);
  if (!text.textContent.trim() || !node.getClientRects().length || style.visibility === "hidden") continue;
  if (node.closest("svg, script, style, noscript")) continue;
  const back = ground(node), front = over(parse(style.color), back);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
  if (ratio < least) found.push(`${ratio.toFixed(2)} ${node.tagName}: ${text.textContent.trim().slice(0, 40)}`);
}
return found;
"""
