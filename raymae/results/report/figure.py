"""`raymae report --figure`: the verdict as one SVG that stands in a README."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from raymae.results.report import svg
from raymae.results.report.curve import draw_curve
from raymae.results.report.intervals import (
    DARK,
    LIGHT,
    Panel,
    Row,
    arms_panel,
    cells_panel,
    differences_panel,
    places,
    ticks,
)
from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.matrix import curves
from raymae.results.verdict.verdict import Verdict

ROW, GAP = 26, 16
MOST_CURVES = 4  # of a sweep with several factors
LABEL_CHARACTERS, CHARACTER = 24, 7.2  # pixels of a character of 13 pixels, rather too many than too few
LINE_CHARACTERS = 98


def write_figure(store: Store, to: Path) -> None:
    """Write the verdict of a sweep, finished or not, as an SVG.

    Raises:
        ResultsError: The file cannot be written, or the sweep not read.
    """
    verdict = verdict_now(store)
    svg.write(figure(verdict, list(store.manifest.task.arms)), to)


def figure(verdict: Verdict, task_arms: Sequence[str]) -> str:
    """The verdict as an SVG: the answer, the arms' test scores, and the differences around 0; of a sweep with factors
    both against a numeric factor, and the difference that the sweep is for in every cell.

    The same verdict gives the same bytes.

    Args:
        verdict: What was found.
        task_arms: Every arm that the task has, in the task's order: they decide the colours.
    """
    place = places(task_arms)
    title = f"{verdict.sweep}: {verdict.task} on {verdict.data.name} ({verdict.data.source} data)"
    answer = headline(verdict)
    body, top = [], 36.0  # y of the last line so far
    for line in _lines(answer):
        top += 20
        body.append(svg.text(svg.PAD, top, line, "ink", size=14))
    top += GAP / 2
    for curve in curves(verdict)[:MOST_CURVES]:
        lines, top = draw_curve(curve, verdict, place, top + GAP)
        body += lines
    panels = [cells_panel(verdict)] if verdict.cells else [arms_panel(verdict), differences_panel(verdict)]
    for panel in panels:
        lines, top = _draw(panel, place, top + GAP)
        body += lines
    inks = {f"arm{index}": DARK[index % len(DARK)] for index in place.values()}
    return svg.page(title, answer, body, round(top + svg.PAD), inks)


def curves_figure(verdict: Verdict, task_arms: Sequence[str]) -> str:
    """The curves of a sweep with a numeric factor alone, as an SVG; "" where it has none."""
    place, found = places(task_arms), curves(verdict)[:MOST_CURVES]
    body, top = [], 30.0
    for curve in found:
        lines, top = draw_curve(curve, verdict, place, top + GAP)
        body += lines
    inks = {f"arm{index}": DARK[index % len(DARK)] for index in place.values()}
    title = f"{verdict.sweep}: {verdict.task} on {verdict.data.name} ({verdict.data.source} data)"
    return svg.page(title, headline(verdict), body, round(top + svg.PAD), inks) if found else ""


def _draw(panel: Panel, place: Mapping[str, int], top: float) -> tuple[list[str], float]:
    """A panel's lines, and where it ends."""
    titles = _lines(panel.title)
    lines = [svg.text(svg.PAD, top + 12 + 18 * index, line, "quiet") for index, line in enumerate(titles)]
    top += 6 + 18 * len(titles)
    if not panel.rows:
        return [*lines, svg.text(svg.PAD, top + 12, panel.missing, "ink")], top + 20
    left = svg.PAD + CHARACTER * max(len(_cut(row.label)) for row in panel.rows) + 12
    right = svg.WIDTH - svg.PAD - CHARACTER * max(len(row.text) for row in panel.rows) - 16
    low, high = panel.axis

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    if panel.left:
        lines += [svg.text(x(0) - 10, top + 10, f"← {panel.left}", "ink", anchor="end", weight=600),
                  svg.text(x(0) + 10, top + 10, f"{panel.right} →", "ink", weight=600)]
        top += 20
    bottom = top + ROW * len(panel.rows)
    lines += [_band(top + ROW * index) for index, row in enumerate(panel.rows) if row.primary]
    for value, text in _apart(low, high, right - left):
        lines += [svg.line(x(value), top, x(value), bottom, "line"),
                  svg.text(x(value), bottom + 16, text, "quiet", anchor="middle", size=12)]
    if panel.left:
        lines.append(svg.line(x(0), top, x(0), bottom, "ink", width=1.5))
    for index, row in enumerate(panel.rows):
        lines += _interval(row, place.get(row.arm, 0), top + ROW * (index + 0.5), x, (left, right))
    return lines, bottom + 22


def _interval(row: Row, place: int, y: float, x: Callable[[float], float], ends: tuple[float, float]) -> Iterator[str]:
    """One row: name, interval, mean, numbers."""
    weight, thick, size = (600, 3.5, 6.5) if row.primary else (400, 2.0, 5.0)
    yield svg.text(svg.PAD, y + 4.5, _cut(row.label), "ink", weight=weight, tip=row.label)
    yield svg.text(svg.WIDTH - svg.PAD, y + 4.5, row.text, "ink", anchor="end", weight=weight, tip=row.note)
    ink = LIGHT[place % len(LIGHT)]
    if row.beyond:
        tip, back = (ends[0], 9) if row.beyond < 0 else (ends[1], -9)
        yield (f'<path d="M{tip:.1f} {y:.1f}l{back} -5v10z" fill="{ink}" class="arm{place}"/>')
        return
    if row.interval is not None:
        low, high = map(x, row.interval)
        yield (f'<path d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8" '
               f'fill="none" stroke="{ink}" stroke-width="{thick}" class="arm{place}-line"/>')
    yield f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="{size}" fill="{ink}" class="arm{place}"/>'


def _band(top: float) -> str:
    """What lies under the row that the sweep is for."""
    return (f'<rect x="{svg.PAD - 8}" y="{top + 1:.1f}" width="{svg.WIDTH - 2 * svg.PAD + 16}" height="{ROW - 2}" '
            f'rx="4" {svg.fill("band")} class="band"/>')


def _apart(low: float, high: float, width: float) -> list[tuple[float, str]]:
    """As many ticks between two ends as stand apart over so many pixels, at least those that three would be."""
    for most in (6, 5, 4):
        found = ticks(low, high, most)
        needed = CHARACTER * (2 + max((len(text) for _, text in found), default=0))
        if all((b - a) / (high - low) * width > needed for (a, _), (b, _) in itertools.pairwise(found)):
            return found
    return ticks(low, high, 3)


def _lines(text: str) -> list[str]:
    """Text as lines that fit: a number and its unit, a duration, stay together."""
    whole = re.sub(r"(?<=\d) (?=(?:h|min|s|%)(?!\w))|(?<=[hn]) (?=\d\d (?:min|s)\b)", "\N{NO-BREAK SPACE}", text)
    return textwrap.wrap(whole, LINE_CHARACTERS)


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_CHARACTERS else label[:LABEL_CHARACTERS - 1] + "…"
