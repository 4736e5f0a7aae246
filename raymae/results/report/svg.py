"""The parts of a picture that stands in a README, light or dark, without scripts or fonts.

Every colour is an attribute that holds by itself, and a class that a dark colour scheme overrides; the picture brings
its own background, so that it is readable where a viewer's scheme and the page around it do not agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from raymae.errors import ResultsError

WIDTH, PAD = 760, 20
INKS = {"page": ("#ffffff", "#0d1117"), "ink": ("#1b1f24", "#e6edf3"), "quiet": ("#505964", "#9ea7b3"),
        "line": ("#d3d8de", "#30363d"), "band": ("#eef2f6", "#161d27")}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def page(title: str, description: str, body: Iterable[str], height: int, inks: Mapping[str, str]) -> str:
    """The picture.

    Args:
        title: Stands on top of it.
        description: What a screen reader says of it.
        body: What is drawn.
        height: In pixels.
        inks: Dark shades of further colours, by their class.
    """
    dark = " ".join(f".{name}{{fill:{shade}}}.{name}-line{{stroke:{shade}}}"
                    for name, shade in {**{name: shade for name, (_, shade) in INKS.items()}, **inks}.items())
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{FONT}" font-size="13" role="img" aria-labelledby="title answer">',
        f'<title id="title">{plain(title)}</title>', f'<desc id="answer">{plain(description)}</desc>',
        f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6" {fill("page")} '
        f'stroke="{INKS["line"][0]}" class="page line-line"/>',
        text(PAD, 30, title, "ink", size=16, weight=600), *body, "</svg>", "",
    ])


def text(
    x: float, y: float, text: str, ink: str, *, anchor: str = "start", size: int = 13, weight: int = 400, tip: str = ""
) -> str:
    """Words that stand on a line at `y`."""
    title = f"<title>{plain(tip)}</title>" if tip and tip != text else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'{fill(ink)} class="{ink}">{plain(text)}{title}</text>')


def line(x1: float, y1: float, x2: float, y2: float, ink: str, width: float = 1) -> str:
    """A straight line."""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INKS[ink][0]}" '
            f'stroke-width="{width}" class="{ink}-line"/>')


def fill(ink: str) -> str:
    """The attribute of a colour."""
    return f'fill="{INKS[ink][0]}"'


def plain(text: str) -> str:
    """Text that stays text in XML."""
    return escape(_NOT_XML.sub("\ufffd", text))


def write(picture: str, to: Path) -> None:
    """Write a picture to a file.

    Raises:
        ResultsError: It cannot be written.
    """
    try:
        to.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{to}: cannot write the figure: {error.strerror}; name another file") from None
