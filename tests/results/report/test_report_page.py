"""The report's page in a real browser: quiet, drawn, readable, filtered, used from the keyboard, and inert."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from raymae.results.report.report import write_report
from raymae.results.verdict.effects import Effect, Explanation, Used
from tests.benchmarks.made_sweep import HOSTILE, make_sweep
from tests.browser import DESKTOP, PHONE, console, low_contrast, overflow, show

EXPLANATION = Explanation(
    "mae", "scratch", "val_mse", "min", (Used("mae", 60, 10), Used("scratch", 60, 10, stopped=2)), r2=0.8,
    effects=(
        Effect("mask_ratio", (0.2, 0.5, 0.8), (0.3, 0.0, -0.3), ((0.1, 0.5), (-0.2, 0.2), (-0.5, -0.1)),
               ("hurts", "", "helps"), (0.5,), "mae helps above mask_ratio 0.65, hurts below mask_ratio 0.35", False,
               False, False),
        Effect("patch_size", (4, 8), (0.1, -0.1), ((-0.2, 0.4), (-0.4, 0.2)), ("", ""), (),
               "no value of patch_size at which mae clearly helps or hurts", False, True, False),
    ))


def page(folder: Path, num_trials: int, num_reports: int = 6, **changes: Any) -> str:
    store = make_sweep(folder / "made", num_trials, num_reports, **changes)
    shares = {"mae": {"lr": 0.6, "mask_ratio": 0.4}, "scratch": {"lr": 1.0}}
    return Path(write_report(store, importance=shares, explanation=EXPLANATION)[0]).as_uri()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(tmp_path_factory.mktemp("plain"), 120, picture=True)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(tmp_path_factory.mktemp("hostile"), 60, hostile=True)


def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def scroll_through(browser: Any) -> None:
    """Every figure comes into view, and is drawn."""
    for plot in browser.find_elements("css selector", ".plot"):
        browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", plot)
        until(lambda plot=plot: plot.find_elements("css selector", ".main-svg")
              or "none" in plot.get_attribute("class"))


def rows(browser: Any) -> list[str]:
    return [str(text) for text in browser.execute_script(
        "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[0].textContent)")]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_is_readable_quiet_and_drawn(plain: str, chromium: Any, size: tuple[int, int], dark: bool) -> None:
    show(chromium, plain, size, dark=dark)
    scroll_through(chromium)
    plots = chromium.find_elements("css selector", ".plot")
    assert len(plots) == 5 + 4 + 5 + 2  # parameters; differences, arms, importance, parallel; the search; explained
    assert chromium.find_elements("css selector", ".plot.none") == []
    for plot in plots:  # a figure is drawn in steps
        until(lambda plot=plot: plot.find_elements("css selector", ".trace path, .trace rect, .bars path"))
    assert console(chromium) == []
    assert overflow(chromium) == 0
    assert low_contrast(chromium) == []
    assert chromium.execute_script("return [...document.images].every((one) => one.complete && one.naturalWidth)")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_first_figure_is_the_answer(plain: str, chromium: Any, size: tuple[int, int]) -> None:
    show(chromium, plain, size)
    first = chromium.find_elements("css selector", ".plot")[0]
    assert first.get_attribute("id") == "plot-differences"
    until(lambda: first.find_elements("css selector", ".main-svg"))
    frame, places = chromium.execute_script("""
        const plot = document.getElementById("plot-differences"), box = (one) => one.getBoundingClientRect();
        const ends = ({left, right, top, bottom}) => [left, right, top, bottom];
        return [ends(box(plot)), [...plot.querySelectorAll("text")].map((one) => [one.textContent, ends(box(one))])]""")
    for text, (left, right, top, bottom) in places:  # nothing is cut off
        assert frame[0] <= left <= right <= frame[1], text
        assert frame[2] <= top <= bottom <= frame[3], text
    (better,) = (place for text, place in places if text.endswith("better"))
    (worse,) = (place for text, place in places if "worse" in text)
    (zero,) = (place for text, place in places if text == "0")
    assert better[1] < (zero[0] + zero[1]) / 2 < worse[0]  # of an error, less is better
    (primary,) = (place for text, place in places if text.startswith("mae − scratch"))
    assert all(primary[2] <= place[2] for text, place in places if text.startswith("mae − "))
    assert any("%" in text for text, _ in places)


def test_axes_are_read_by_people(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    scroll_through(chromium)
    ticks = chromium.execute_script("""
        return Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) =>
            [plot.id, [...plot.querySelectorAll(".xtick text, .ytick text")].map((one) => one.textContent)]))""")
    numbers = [text for texts in ticks.values() for text in texts if text.lstrip("−")[:1].isdigit()]
    assert len(numbers) > 40
    assert [text for text in numbers if not text.lstrip("−").rstrip("%").replace(".", "", 1).isdigit()] == []
    assert ticks["response-1"][:4] == ["8", "12", "16", "24"]
    assert chromium.execute_script("return document.getElementById('response-1').layout.xaxis.type") == "category"
    assert {"0.0001", "0.001", "0.01"} <= set(ticks["response-2"])


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_links_land_on_their_sections(plain: str, chromium: Any, size: tuple[int, int]) -> None:
    show(chromium, plain, size)
    links = [link.get_attribute("href") for link in chromium.find_elements("css selector", "nav a")]
    for target in [link.split("#")[1] for link in links]:
        chromium.get("about:blank")  # nothing has been drawn or loaded on the way
        chromium.get(f"{plain}#{target}")
        until(lambda: chromium.execute_script("return document.documentElement.dataset.ready"))
        time.sleep(0.3)  # what comes into view is drawn
        top, left = chromium.execute_script("""
            const root = document.documentElement;
            return [document.getElementById(arguments[0]).getBoundingClientRect().top,
                    root.scrollHeight - root.clientHeight - root.scrollTop]""", target)
        assert abs(top) < 2 or (left < 2 and 0 < top < size[1]), target


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_ticks_stand_beside_each_other(plain: str, chromium: Any, size: tuple[int, int]) -> None:
    show(chromium, plain, size)
    scroll_through(chromium)
    until(lambda: len(chromium.find_elements("css selector", "#plot-response-2 .xtick, #response-2 .xtick")) > 1)
    axes = chromium.execute_script("""
        return [...document.querySelectorAll(".plot")].map((plot) => [plot.id,
            [...plot.querySelectorAll(".xtick text")].map((one) => [one.textContent, one.getBoundingClientRect().left,
                                                                    one.getBoundingClientRect().right])])""")
    for name, ticks in axes:
        if name == "plot-parallel":  # its names are slanted
            continue
        ticks.sort(key=lambda tick: tick[1])
        assert [(a[0], b[0]) for a, b in pairwise(ticks) if a[2] > b[1]] == [], name
        assert name != "response-2" or len(ticks) > 1  # the learning rate


def test_paper_has_every_figure_and_the_whole_tables(plain: str, chromium: Any) -> None:
    show(chromium, plain, dark=True)
    until(lambda: chromium.execute_script("return document.documentElement.dataset.ready"))
    chromium.execute_script("""
        addEventListener("beforeprint", () => {
            window.printed = {empty: [...document.querySelectorAll(".plot:not(.none)")].filter((one) =>
                                  !one.querySelector(".main-svg")).map((one) => one.id),
                              folded: document.querySelectorAll("details:not([open]):not(#columns)").length,
                              rows: document.querySelectorAll("#table tbody tr").length,
                              page: getComputedStyle(document.body).backgroundColor};
        })""")
    trials = int(chromium.find_element("id", "shown").text.split()[0])
    chromium.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    printed = chromium.execute_script("return window.printed")
    assert printed == {"empty": [], "folded": 0, "rows": trials, "page": "rgb(255, 255, 255)"}
    until(lambda: len(rows(chromium)) == min(50, trials))  # what is on the screen is as it was
    assert chromium.execute_script("return document.documentElement.className") == ""


def test_what_was_looked_at_fits_on_paper_and_on_the_screen_again(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    scroll_through(chromium)
    wide = """[...document.querySelectorAll(".plot")].filter((one) => {
        const {width, height} = one._fullLayout;
        return Math.abs(width - one.clientWidth) > 2 || Math.abs(height - one.clientHeight) > 2;
    }).map((one) => one.id)"""
    assert chromium.execute_script(f"return {wide}") == []
    chromium.execute_script(f"addEventListener('beforeprint', () => {{ window.cut = {wide}; }});")
    chromium.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert chromium.execute_script("return window.cut") == []
    scroll_through(chromium)
    until(lambda: chromium.execute_script(f"return {wide}") == [])


def test_compute_stands_beside_the_score(plain: str, chromium: Any) -> None:
    show(chromium, plain, PHONE)
    cells = chromium.find_elements("css selector", "#arms .scroll:first-of-type thead th")
    names = [cell.get_attribute("textContent") for cell in cells]
    assert names[2:5] == ["test mse", "95 % interval", "compute"]


def test_where_it_helps_is_marked(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    scroll_through(chromium)
    band, points, words = chromium.execute_script("""
        const {data, layout} = document.getElementById("effect-0");
        return [[...data[0].y], data[1].marker.color, layout.annotations.map((one) => [one.text, one.y])];""")
    assert band == [0.5, 0.2, -0.1, -0.5, -0.2, 0.1]
    assert points[0] == points[2] != points[1]  # filled where it is clear
    assert words == [["<b>mae worse</b>", 1], ["<b>mae better</b>", 0]]
    captions = [one.text for one in chromium.find_elements("css selector", "#effects figcaption")]
    assert captions == ["mae helps above mask_ratio 0.65, hurts below mask_ratio 0.35.",
                        "No value of patch_size at which mae clearly helps or hurts."]


def test_an_arm_has_one_colour(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    scroll_through(chromium)
    colors = chromium.execute_script("""
        const found = {};
        for (const id of ["response-0", "response-2", "plot-by-trials", "plot-finetune", "plot-importance"]) {
          for (const trace of document.getElementById(id).data) {
            (found[trace.name.split(", n = ")[0]] ??= new Set()).add(trace.line?.color ?? trace.marker.color);
          }
        }
        for (const name of document.querySelectorAll("#arms .arm")) {
          (found[name.textContent] ??= new Set()).add(name.style.getPropertyValue("--light"));
        }
        return Object.fromEntries(Object.entries(found).map(([arm, all]) => [arm, [...all]]))""")
    assert set(colors) == {"mae", "scratch", "gru", "persistence"}
    assert all(len(found) == 1 for found in colors.values()), colors
    assert len({found[0] for found in colors.values()}) == 4


def test_columns_are_chosen_from_the_keyboard(plain: str, chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    show(chromium, plain)

    def heads() -> list[str]:
        cells = chromium.find_elements("css selector", "#table thead th")
        return [cell.text.rstrip(" ▲▼") for cell in cells if cell.is_displayed()]

    def cells() -> int:
        return int(chromium.execute_script("return document.querySelector('#table tbody tr').cells.length"))

    until(heads)
    before = heads()
    assert cells() == len(before)
    summary = chromium.find_element("css selector", "#columns summary")
    summary.send_keys(Keys.ENTER)
    box = chromium.find_element("css selector", "#column-boxes input:not(:disabled)")
    summary.send_keys(Keys.TAB)
    assert chromium.switch_to.active_element == box
    box.send_keys(" ")
    assert heads() == [name for name in before if name != "arm"]
    assert cells() == len(before) - 1
    assert summary.text == f"Columns ({len(before) - 1} of {len(before)})"
    box.send_keys(Keys.ESCAPE)
    assert chromium.switch_to.active_element == summary
    assert not box.is_displayed()
    assert console(chromium) == []


def test_text_in_the_figures_has_contrast(plain: str, chromium: Any) -> None:
    for dark in (False, True):
        show(chromium, plain, DESKTOP, dark=dark)
        scroll_through(chromium)
        pairs = chromium.execute_script("""
            const texts = [...document.querySelectorAll('.plot text')];
            return texts.filter((text) => text.textContent.trim()).map((text) => [
                text.textContent, getComputedStyle(text).fill,
                getComputedStyle(text.closest('.plot')).backgroundColor])""")
        assert len(pairs) > 50
        assert [one for one in pairs if contrast(one[1], one[2]) < 4.5] == []


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two colours `rgb(…)`."""
    def light(color: str) -> float:
        parts = [float(part) / 255 for part in color.partition("(")[2].rstrip(")").split(",")[:3]]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_filter_works_on_table_and_figures(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    scroll_through(chromium)
    shown = chromium.find_element("id", "shown")
    until(lambda: "131 of 131" in shown.text)

    def points() -> int:
        chromium.execute_script("document.getElementById('response-2').scrollIntoView({behavior: 'instant'})")
        return int(chromium.execute_script(
            "return document.getElementById('response-2').data.filter((one) => one.mode === 'markers')"
            ".reduce((sum, one) => sum + one.x.length, 0)"))

    assert points() == 108  # the failed twelve have no score
    box = chromium.find_element("id", "text")
    for text, expected in [("mask_ratio>0.5", "mae"), ("arm=scratch status=completed", "scratch"), ("gru-00", "gru")]:
        box.clear()
        box.send_keys(text)
        until(lambda: "131 of 131" not in shown.text and rows(chromium))
        until(lambda expected=expected: {row.partition("-")[0] for row in rows(chromium)} == {expected})
    until(lambda: points() < 108)
    box.clear()
    box.send_keys("NaN at step 7")
    until(lambda: "12 of 131" in shown.text)
    box.clear()
    box.send_keys("no such trial")
    until(lambda: "0 of 131" in shown.text)
    until(lambda: chromium.find_elements("css selector", "#response-2.none"))
    box.clear()
    box.send_keys(" ")
    chromium.find_element("css selector", "#status option:nth-child(3)").click()
    until(lambda: "24 of 131" in shown.text or "12 of 131" not in shown.text)
    chromium.find_element("css selector", "#arm-boxes input").click()
    count = len(rows(chromium))
    until(lambda: len(rows(chromium)) <= count and not any(row.startswith("mae") for row in rows(chromium)))
    assert console(chromium) == []


def test_the_keyboard_is_enough(plain: str, chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    show(chromium, plain)

    def press(*keys: str) -> Any:
        for key in keys:
            chromium.switch_to.active_element.send_keys(key)
        return chromium.switch_to.active_element

    assert press(Keys.TAB).text == "Skip to the answer"
    assert press(Keys.ENTER).get_attribute("id") == "main"
    seen = []
    for _ in range(60):
        element = press(Keys.TAB)
        seen.append(element.get_attribute("id"))
        width = chromium.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
        assert float(width.removesuffix("px")) >= 1, seen
        if element.get_attribute("id") == "response-1":
            break
    order = [seen.index(name) for name in ("plot-differences", "plot-arms", "text", "status", "response-0")]
    assert order == sorted(order)
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = chromium.find_element("id", "said").get_attribute("textContent")
    assert "val mse" in said
    assert press(Keys.ARROW_LEFT)
    assert chromium.find_element("id", "said").get_attribute("textContent") != said
    assert chromium.find_elements("css selector", "#response-1 .hovertext")
    before = chromium.execute_script("return document.getElementById('response-1').layout.yaxis.range")
    press("+")
    until(lambda: chromium.execute_script("return document.getElementById('response-1').layout.yaxis.range") != before)
    press("0")
    until(lambda: chromium.execute_script("return document.getElementById('response-1').layout.yaxis.range") == before)
    chromium.execute_script("document.querySelector('#table th:nth-child(5) button').focus()")
    first = rows(chromium)[0]
    press(Keys.ENTER)
    until(lambda: rows(chromium)[0] != first)
    assert chromium.find_element("css selector", "#table th:nth-child(5)").get_attribute("aria-sort") == "descending"
    chromium.find_element("id", "more").send_keys(Keys.ENTER)
    until(lambda: len(rows(chromium)) == 131)
    chromium.execute_script("document.getElementById('theme').focus()")
    press(Keys.ENTER, Keys.ENTER)
    assert chromium.find_element("id", "theme").text == "Theme: dark"
    assert chromium.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert console(chromium) == []


def test_hostile_text_does_nothing(hostile: str, chromium: Any) -> None:
    for size in (PHONE, DESKTOP):
        show(chromium, hostile, size)
        scroll_through(chromium)
        assert "owned" not in chromium.title
        assert console(chromium) == []  # neither an alert's script nor an image was tried
        assert overflow(chromium) == 0
    assert chromium.find_elements("css selector", "main img") == []
    assert HOSTILE in chromium.find_element("css selector", "#failed summary").text
    assert shlex.split(chromium.find_element("id", "command").text)[-1] == HOSTILE
    legends = chromium.execute_script(
        "return [...document.querySelectorAll('.legendtext')].map((one) => one.textContent)")
    assert any(text.startswith("<script>document") for text in legends)


def test_the_page_itself_forbids_scripts_and_requests(plain: str, chromium: Any) -> None:
    show(chromium, plain)
    chromium.execute_script("""
        const script = document.createElement("script"); script.textContent = "document.title = 'owned'";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\\"document.title='owned'\\">");
        fetch("http://127.0.0.1:9/").catch(() => { window.refused = true; });""")
    until(lambda: chromium.execute_script("return window.refused"))
    assert chromium.title != "owned"
    assert any("Content Security Policy" in message for message in console(chromium))


@pytest.mark.slow
def test_five_thousand_trials_open_at_once(chromium: Any, tmp_path: Path) -> None:
    url = page(tmp_path, 5000, 50)
    assert Path(url.removeprefix("file://")).stat().st_size < 10_000_000
    started = time.monotonic()
    show(chromium, url)
    until(lambda: chromium.find_elements("css selector", "#plot-differences .main-svg"))
    assert time.monotonic() - started < 3
    scroll_through(chromium)
    assert console(chromium) == []
