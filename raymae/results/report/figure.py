"""`raymae report --figure`: the verdict as one SVG that stands in a README, light or dark, without scripts or fonts.

Every colour is an attribute that holds by itself, and a class that a dark colour scheme overrides; the picture brings
its own background, so that it is readable where a viewer's scheme and the page around it do not agree.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from raymae.errors import ResultsError
from raymae.results.report.intervals import DARK, LIGHT, Panel, Row, arms_panel, differences_panel, places, ticks
from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import Verdict

WIDTH, PAD, ROW, GAP = 760, 20, 26, 16
LABEL_CHARACTERS, CHARACTER = 24, 7.2  # pixels of a character of 13 pixels, rather too many than too few
INKS = {"page": ("#ffffff", "#0d1117"), "ink": ("#1b1f24", "#e6edf3"), "quiet": ("#505964", "#9ea7b3"),
        "line": ("#d3d8de", "#30363d"), "band": ("#eef2f6", "#161d27")}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_figure(store: Store, to: Path) -> None:
    """Write the verdict of a sweep, finished or not, as an SVG.

    Raises:
        ResultsError: The file cannot be written, or the sweep not read.
    """
    verdict = verdict_now(store)
    try:
        to.write_text(figure(verdict, list(store.manifest.task.arms)), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{to}: cannot write the figure: {error.strerror}; name another file") from None


def figure(verdict: Verdict, task_arms: Sequence[str]) -> str:
    """The verdict as an SVG: the answer, the arms' test scores, and the differences around 0.

    The same verdict gives the same bytes.

    Args:
        verdict: What was found.
        task_arms: Every arm that the task has, in the task's order: they decide the colours.
    """
    place = places(task_arms)
    colors = {arm: (LIGHT[index % len(LIGHT)], DARK[index % len(DARK)]) for arm, index in place.items()}
    title = f"{verdict.sweep}: {verdict.task} on {verdict.data.name} ({verdict.data.source} data)"
    answer = headline(verdict)
    body, top = [], 36.0  # y of the last line so far
    for line in textwrap.wrap(answer, 98):
        top += 20
        body.append(_text(PAD, top, line, "ink", size=14))
    top += GAP / 2
    for panel in (arms_panel(verdict), differences_panel(verdict)):
        lines, top = _draw(panel, place, top + GAP)
        body += lines
    height = round(top + PAD)
    dark = " ".join([
        *(f".{name}{{fill:{shade}}}.{name}-line{{stroke:{shade}}}" for name, (_, shade) in INKS.items()),
        *(f".arm{index}{{fill:{colors[arm][1]}}}.arm{index}-line{{stroke:{colors[arm][1]}}}"
          for arm, index in place.items()),
    ])
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{FONT}" font-size="13" role="img" aria-labelledby="title answer">',
        f'<title id="title">{_plain(title)}</title>', f'<desc id="answer">{_plain(answer)}</desc>',
        f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6" {_fill("page")} '
        f'stroke="{INKS["line"][0]}" class="page line-line"/>',
        _text(PAD, 30, title, "ink", size=16, weight=600),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _draw(panel: Panel, place: Mapping[str, int], top: float) -> tuple[list[str], float]:
    """A panel's lines, and where it ends."""
    lines = [_text(PAD, top + 12, panel.title, "quiet")]
    top += 24
    if not panel.rows:
        return [*lines, _text(PAD, top + 12, panel.missing, "ink")], top + 20
    left = PAD + CHARACTER * max(len(_cut(row.label)) for row in panel.rows) + 12
    right = WIDTH - PAD - CHARACTER * max(len(row.text) for row in panel.rows) - 16
    low, high = panel.axis

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    if panel.left:
        lines += [_text(x(0) - 10, top + 10, f"← {panel.left}", "ink", anchor="end", weight=600),
                  _text(x(0) + 10, top + 10, f"{panel.right} →", "ink", weight=600)]
        top += 20
    bottom = top + ROW * len(panel.rows)
    lines += [_band(top + ROW * index) for index, row in enumerate(panel.rows) if row.primary]
    for value, text in ticks(low, high):
        lines += [_line(x(value), top, x(value), bottom, "line"),
                  _text(x(value), bottom + 16, text, "quiet", anchor="middle", size=12)]
    if panel.left:
        lines.append(_line(x(0), top, x(0), bottom, "ink", width=1.5))
    for index, row in enumerate(panel.rows):
        lines += _interval(row, place.get(row.arm, 0), top + ROW * (index + 0.5), x, (left, right))
    return lines, bottom + 22


def _interval(row: Row, place: int, y: float, x: Callable[[float], float], ends: tuple[float, float]) -> Iterator[str]:
    """One row: name, interval, mean, numbers."""
    weight, thick, size = (600, 3.5, 6.5) if row.primary else (400, 2.0, 5.0)
    yield _text(PAD, y + 4.5, _cut(row.label), "ink", weight=weight, tip=row.label)
    yield _text(WIDTH - PAD, y + 4.5, row.text, "ink", anchor="end", weight=weight, tip=row.note)
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
    return (f'<rect x="{PAD - 8}" y="{top + 1:.1f}" width="{WIDTH - 2 * PAD + 16}" height="{ROW - 2}" rx="4" '
            f'{_fill("band")} class="band"/>')


def _text(
    x: float, y: float, text: str, ink: str, *, anchor: str = "start", size: int = 13, weight: int = 400, tip: str = ""
) -> str:
    title = f"<title>{_plain(tip)}</title>" if tip and tip != text else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'{_fill(ink)} class="{ink}">{_plain(text)}{title}</text>')


def _line(x1: float, y1: float, x2: float, y2: float, ink: str, width: float = 1) -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INKS[ink][0]}" '
            f'stroke-width="{width}" class="{ink}-line"/>')


def _fill(ink: str) -> str:
    return f'fill="{INKS[ink][0]}"'


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_CHARACTERS else label[:LABEL_CHARACTERS - 1] + "…"


def _plain(text: str) -> str:
    """Text that stays text in XML."""
    return escape(_NOT_XML.sub("�", text))
