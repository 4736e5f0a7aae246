"""The curve of a sweep with factors: scores, and differences around 0, against a numeric factor, one line an arm."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from raymae.results.report import svg
from raymae.results.report.intervals import LIGHT, ticks
from raymae.results.report.svg import PAD, WIDTH
from raymae.results.verdict.matrix import Curve, CurveLine
from raymae.results.verdict.numbers import significant
from raymae.results.verdict.verdict import Verdict
from raymae.spec.factors import said

LEFT, RIGHT = 76, 150  # pixels for the numbers of the axis, and for the names of the lines
SCORES, DIFFERENCES = 240, 150  # heights
APART = 15  # pixels between two names
NEAR = 3.0  # a line further from the trained arms than so many of their spans has arrows at the edge
_SPREAD = 5.0  # pixels between the intervals of two arms at one value


def draw_curve(curve: Curve, verdict: Verdict, place: Mapping[str, int], top: float) -> tuple[list[str], float]:
    """A curve's lines of SVG, and where it ends.

    Args:
        curve: What is drawn.
        verdict: The sweep's.
        place: From arm to the number of its colour.
        top: Where it begins.
    """
    objective = verdict.objective
    metric, better = objective.metric.replace("_", " "), "less" if objective.mode == "min" else "more"
    at = f", {curve.at}" if curve.at else ""
    shaded = "; it changes where it is shaded" if curve.bracket is not None else ""
    head = f"Test {metric} against {curve.factor}{at}: mean and 95 % interval; {better} is better"
    trained = [one for one in curve.scores if _kind(verdict, one.arm) != "reference"] or list(curve.scores)
    lines, top = _panel(curve, head, curve.scores, trained, place, top, SCORES)
    if curve.differences:
        sign = "below" if objective.mode == "min" else "above"
        head = f"Difference: {curve.a} minus each; {curve.a} is better where it is {sign} 0{shaded}"
        more, top = _panel(curve, head, curve.differences, curve.differences[:1], place, top + 14, DIFFERENCES,
                           zero=True)
        lines += more
    return lines, top


def _kind(verdict: Verdict, arm: str) -> str:
    return next((one.kind for one in verdict.arms if one.arm == arm), "")


def _panel(
    curve: Curve, head: str, drawn: Sequence[CurveLine], anchors: Sequence[CurveLine], place: Mapping[str, int],
    top: float, height: float, *, zero: bool = False,
) -> tuple[list[str], float]:
    lines = [svg.text(PAD, top + 12, head, "quiet")]
    if not drawn:
        return [*lines, svg.text(PAD, top + 36, "No arm has a test score yet.", "ink")], top + 44
    top += 26
    bottom, (low, high) = top + height, _reach(drawn, anchors, zero)
    xs = sorted({point.x for one in (*curve.scores, *curve.differences) for point in one.points})
    x = _horizontal(xs, log=curve.log)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * height

    if curve.bracket is not None:
        left, right = map(x, curve.bracket)
        lines.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{height:.1f}" '
                     f'{svg.fill("band")} class="band"/>')
    for value, text in ticks(low, high, 5):
        lines += [svg.line(PAD + LEFT, y(value), WIDTH - PAD - RIGHT, y(value), "line"),
                  svg.text(PAD + LEFT - 8, y(value) + 4, text, "quiet", anchor="end", size=12)]
    if zero:
        lines.append(svg.line(PAD + LEFT, y(0), WIDTH - PAD - RIGHT, y(0), "ink", width=1.5))
    lines += [svg.text(x(value), bottom + 17, said(value), "quiet", anchor="middle", size=12) for value in xs]

    def beyond(value: float) -> int:
        return (value > high) - (value < low)

    for index, one in enumerate(drawn):
        shift = _SPREAD * (index - (len(drawn) - 1) / 2)
        lines += _line(one, place.get(one.arm, 0), lambda at, shift=shift: x(at) + shift, y, beyond,  # type: ignore[misc]
                       thick=one in anchors)
    ends = _apart([y(one.points[-1].value) for one in drawn], top, bottom)
    for one, at in zip(drawn, ends, strict=True):
        label, last = f"− {one.arm}" if zero else one.arm, significant(one.points[-1].value)
        shown = label if len(label) <= 17 else f"{label[:16]}…"
        lines += [svg.text(WIDTH - PAD - RIGHT + 14, at + 4, f"{shown}: {last}" if beyond(one.points[-1].value)
                           else shown, "ink", tip=f"{label}: {last}", size=12),
                  _dot(WIDTH - PAD - RIGHT + 6, at, place.get(one.arm, 0), 3.5)]
    return lines, bottom + 24


def _reach(drawn: Sequence[CurveLine], anchors: Sequence[CurveLine], zero: bool) -> tuple[float, float]:
    """The ends of the vertical axis: they hold the anchors and lines mostly near them; others would make those flat."""
    def edges(lines: Sequence[CurveLine]) -> list[float]:
        return [edge for one in lines for point in one.points for edge in (point.value, *(point.interval or ()))]

    inner = edges(anchors) + [0.0] * zero
    low, high = min(inner), max(inner)
    span = high - low or abs(high) / 10 or 1.0
    near = edges([one for one in drawn
                  if low - NEAR * span <= statistics.median(point.value for point in one.points) <= high + NEAR * span])
    low, high = min([low, *near]), max([high, *near])
    pad = 0.06 * (high - low or span)
    return low - pad, high + pad


def _horizontal(xs: Sequence[float], *, log: bool) -> Callable[[float], float]:
    """Where a value of the factor stands."""
    scale: Callable[[float], float] = math.log if log else float
    low, high = scale(xs[0]), scale(xs[-1])
    left, right = PAD + LEFT + 24, WIDTH - PAD - RIGHT - 24

    def x(value: float) -> float:
        return left + (right - left) * ((scale(value) - low) / (high - low) if high > low else 0.5)

    return x


def _line(
    one: CurveLine, place: int, x: Callable[[float], float], y: Callable[[float], float],
    beyond: Callable[[float], int], *, thick: bool,
) -> Iterator[str]:
    """A line with its dots and intervals; where it lies beyond the axis an arrow at the edge, and no line between."""
    ink, width = LIGHT[place % len(LIGHT)], 2.4 if thick else 1.4
    path, before = "", 0
    for point in one.points:
        side = beyond(point.value)
        path += f"{'M' if not path or (side and side == before) else 'L'}{x(point.x):.1f} {y(point.value):.1f}"
        before = side
    bars = "".join(f"M{x(point.x):.1f} {y(point.interval[0]):.1f}V{y(point.interval[1]):.1f}"
                   for point in one.points if point.interval is not None and not beyond(point.value))
    yield (f'<path d="{path}{bars}" fill="none" stroke="{ink}" stroke-width="{width}" stroke-linejoin="round" '
           f'class="arm{place}-line"/>')
    for point in one.points:
        side = beyond(point.value)
        if side:
            yield (f'<path d="M{x(point.x):.1f} {y(point.value):.1f}l-5 {9 * side}h10z" fill="{ink}" '
                   f'class="arm{place}"/>')
        else:
            yield _dot(x(point.x), y(point.value), place, 4.5 if thick else 3.5)


def _dot(x: float, y: float, place: int, size: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{LIGHT[place % len(LIGHT)]}" class="arm{place}"/>'


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights near those that are wanted, no two of them closer than two names can stand."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    found = [0.0] * len(wanted)
    at = top - APART
    for index in order:
        at = found[index] = max(wanted[index], at + APART)
    for index in reversed(order):  # what would stand below the panel moves up, and pushes those above it
        found[index] = min(found[index], bottom)
        bottom = found[index] - APART
    return found
