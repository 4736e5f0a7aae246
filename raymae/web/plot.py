"""Curves as SVG: no script and no style of its own, every text escaped, colours by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from raymae.results.report.intervals import DARK, LIGHT, ticks
from raymae.results.verdict.numbers import number, significant

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 420, 260  # so narrow that a phone's screen leaves its text readable
LEFT, RIGHT, TOP, BOTTOM = 62, 128, 12, 44  # names of lines stand to their right
LINE_HEIGHT, LABEL = 16, 14  # pixels between two names; characters of one
HUGE = 1e100  # beyond it axes overflow
WIDE = 5.0  # a largest value so many times the smallest one is drawn on a logarithmic axis


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        place: The number of its colour, that of its arm in the task.
        level: Whether it is one value that holds everywhere, such as a reference's.
        steps: Whether a value holds until the next one.
    """

    name: str
    place: int
    x: Sequence[float]
    y: Sequence[float]
    level: bool = False
    steps: bool = False


def palette() -> str:
    """The style sheet of the colours of arms, light and dark, as in reports."""
    light, dark = ("".join(f".arm{place}{{color:{ink}}}" for place, ink in enumerate(inks)) for inks in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark){{{dark}}}\n"


def color(place: int) -> str:
    """The class of an arm's colour."""
    return f"arm{place % len(LIGHT)}"


def plot(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Markup | None:
    """Draw curves over one pair of axes; None where there is nothing to draw.

    Args:
        title: What a screen reader says of it.
        x_label: Under the horizontal axis.
        y_label: Over the vertical axis.
        lines: The curves. What is not finite is left out.
    """
    from markupsafe import Markup

    kept = [(line, points) for line in lines if (points := _finite(line))]
    if not kept:
        return None
    ys = [y for _, points in kept for _, y in points]
    log = min(ys) > 0 and max(ys) > WIDE * min(ys)
    across, up = _Axis([0.0, *(x for line, points in kept for x, _ in points if not line.level)]), _Axis(ys, log)
    body = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for value, text in up.ticks(5):
        y = _down(up(value))
        body += [f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
                 f'<text class="tick" x="{LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{escape(text)}</text>']
    for value, text in across.ticks(4):
        body.append(f'<text class="tick" x="{_right(across(value)):.1f}" y="{HEIGHT - BOTTOM + 20}" '
                    f'text-anchor="middle">{escape(text)}</text>')
    body += [f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
             f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
             f'{escape(x_label)}</text>']
    ends = _labels([_down(up(points[-1][1])) for _, points in kept])
    for (line, points), end in zip(kept, ends, strict=True):
        placed = [(_right(across(x)), _down(up(y))) for x, y in points]
        body += _drawn(line, points, placed, end)
    return Markup("".join([*body, "</svg>"]))  # every text in it went through escape


def _finite(line: Line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.x, line.y, strict=True)
            if x is not None and y is not None and abs(x) < HUGE and abs(y) < HUGE]


def _drawn(
    line: Line, points: Sequence[tuple[float, float]], placed: Sequence[tuple[float, float]], end: float
) -> list[str]:
    """A curve, its points, and its name at its end."""
    x, y = placed[-1]
    if line.level:
        path = f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}"
    elif line.steps:
        path = f"M{placed[0][0]:.1f} {placed[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in placed[1:])
    else:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    last = WIDTH - RIGHT if line.level else x
    name = line.name if len(line.name) <= LABEL else line.name[: LABEL - 1] + "…"
    tip = f"{line.name}: {significant(points[-1][1])}"
    dots = [] if line.level else [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed]
    return [f'<g class="{color(line.place)}"><title>{escape(tip)}</title>',
            f'<path class="curve{" level" if line.level else ""}" d="{path}"/>', *dots,
            f'<path class="lead" d="M{last:.1f} {y:.1f}L{WIDTH - RIGHT + 6} {end:.1f}"/>',
            f'<text class="name" x="{WIDTH - RIGHT + 9}" y="{end + 4.5:.1f}">{escape(name)}</text></g>']


def _labels(wanted: Sequence[float]) -> list[float]:
    """Heights of names that stand beside each other's curves without covering each other."""
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    gap = min(LINE_HEIGHT, (HEIGHT - TOP - BOTTOM) / max(1, len(wanted) - 1))
    placed, top = dict.fromkeys(order, 0.0), float(TOP)
    for k in order:
        placed[k] = max(wanted[k], top)
        top = placed[k] + gap
    bottom = float(HEIGHT - BOTTOM)
    for k in reversed(order):
        placed[k] = min(placed[k], bottom)
        bottom = placed[k] - gap
    return [placed[k] for k in range(len(wanted))]


def _right(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


class _Axis:
    """Values to shares of an axis that fits them all; where they are whole numbers, so are its ticks."""

    def __init__(self, values: Sequence[float], log: bool = False) -> None:
        self._log, self._whole = log, all(float(value).is_integer() for value in values)
        low, high = (self._place(end) for end in (min(values), max(values)))
        pad = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        self._low, self._high = low - pad, high + pad

    def _place(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        """Where it lies, 0 to 1."""
        return (self._place(value) - self._low) / (self._high - self._low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round values on the axis, each with its text."""
        if not self._log:
            found = ticks(self._low, self._high, most)
            return [(value, number(value, 0)) for value, _ in found if value.is_integer()] if self._whole else found
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in powers for digit in digits]
            fitting = [value for value in values if value > 0 and self._low <= math.log10(value) <= self._high]
            if len(fitting) <= most:
                break
        return [(value, f"{value:g}") for value in fitting[:: math.ceil(len(fitting) / most) or 1]]
