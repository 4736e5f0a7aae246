"""Curves as SVG: well-formed whatever is drawn, nothing of anybody's text as markup, names that can be read."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from raymae.web.plot import BOTTOM, HEIGHT, LEFT, LINE_HEIGHT, RIGHT, TOP, WIDTH, Line, plot

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: Line) -> ElementTree.Element:
    found = plot("a title", "x", "y", lines)
    assert found is not None
    return ElementTree.fromstring(found)


@pytest.mark.parametrize("lines", [[], [Line("a", 0, [], [])], [Line("a", 0, [1, 2], [math.nan, math.inf])],
                                   [Line("a", 0, [None], [1.0])]])  # type: ignore[list-item]
def test_nothing_finite_is_no_picture(lines: list[Line]) -> None:
    assert plot("t", "x", "y", lines) is None


@pytest.mark.parametrize("ys", [
    [0.0], [1e-300, 1.0, 1e300], [5e-324, 1.0], [-1e308, 1.0, 1e308], [-1.0, 1.0], [5, 5, 5], [1e-9, 1e-3, 1.0],
    [1e15, 1e15 + 1],
])
@pytest.mark.parametrize("steps", [False, True])
def test_any_values_give_a_picture_within_its_frame(ys: list[float], steps: bool) -> None:
    svg = drawn(Line("a", 3, range(len(ys)), ys, steps=steps), Line("ref", 5, [1], [1.0], level=True))
    for circle in svg.iter("circle"):
        assert LEFT - 1 <= float(circle.get("cx", "")) <= WIDTH - RIGHT + 1
        assert TOP - 1 <= float(circle.get("cy", "")) <= HEIGHT - BOTTOM + 1
    assert not re.search("nan|inf", ElementTree.tostring(svg, "unicode"))


def test_texts_are_texts() -> None:
    hostile = "</svg><script>alert(1)</script>"
    found = plot(hostile, hostile, hostile, [Line(hostile, 0, [1, 2], [1, 2])])
    assert found is not None
    assert "<script" not in found
    assert "style=" not in found, "the page's policy forbids it"
    assert ElementTree.fromstring(found).find("title").text == hostile  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [2, 7, 12])
def test_names_do_not_cover_each_other(count: int) -> None:
    draw = random.Random(count)
    svg = drawn(*(Line(f"arm{k}", k, [1, 2], [1.0, 1.0 + draw.random() / 50]) for k in range(count)))
    heights = sorted(float(text.get("y", "")) for text in svg.iter("text") if text.get("class") == "name")
    assert len(heights) == count
    assert all(b - a >= LINE_HEIGHT - 0.2 for a, b in pairwise(heights))
    assert heights[0] >= TOP
    assert heights[-1] <= HEIGHT - BOTTOM + 6


def test_a_loss_that_falls_by_far_is_drawn_logarithmic() -> None:
    svg = drawn(Line("a", 0, [1, 2, 3], [10.0, 0.1, 0.001]))
    ticks = [text.text for text in svg.iter("text") if text.get("text-anchor") == "end"]
    assert {"0.001", "0.1", "10"} <= set(ticks) or {"0.01", "1"} <= set(ticks)
    heights = [float(circle.get("cy", "")) for circle in svg.iter("circle")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_trials_are_counted_in_whole_numbers() -> None:
    svg = drawn(Line("a", 0, [1, 2], [0.5, 0.25], steps=True))
    below = [text.text for text in svg.iter("text") if text.get("text-anchor") == "middle"]
    assert below == ["0", "1", "2", "x"]
