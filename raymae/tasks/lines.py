"""Pictures of series: lines in panels. Shape suffixes: T steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT, MARGIN = 560, 170, 22
BEYOND = 0.15  # room above and below the truth, as a share of its range
TRUE, MODEL, INK, HIDDEN = (90, 98, 110), (196, 52, 38), (40, 40, 40), (226, 230, 236)


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: What it shows.
        truth_T: The series, drawn in grey.
        model_T: What the model made of it, drawn in red where it is finite.
        hidden: Stretches `(first, last + 1)` of steps with a grey ground.
    """

    title: str
    truth_T: np.ndarray
    model_T: np.ndarray
    hidden: Sequence[tuple[int, int]] = ()


def draw_lines(panels: Sequence[Panel]) -> np.ndarray:
    """Panels below each other: RGB `[H, W, 3]`, uint8.

    A panel's scale is that of its truth alone, so that the pictures of all arms have the same one; what leaves it by
    far runs along the panel's edge.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    pen = ImageDraw.Draw(image)
    for row, panel in enumerate(panels):
        left, right, top, bottom = 8, WIDTH - 8, row * HEIGHT + MARGIN, (row + 1) * HEIGHT - 8
        xs = np.linspace(left, right, len(panel.truth_T))
        low, high = np.nanmin(panel.truth_T), np.nanmax(panel.truth_T)
        room = BEYOND * (high - low if high > low else 1.0)
        low, high = low - room, high + room
        scale = (bottom - top) / (high - low)
        half = (xs[1] - xs[0]) / 2 if len(xs) > 1 else 0
        for first, last in panel.hidden:
            pen.rectangle((xs[first] - half, top, xs[last - 1] + half, bottom), fill=HIDDEN)
        pen.text((left, row * HEIGHT + 5), panel.title, fill=INK)
        for values_T, colour, width in ((panel.truth_T, TRUE, 2), (panel.model_T, MODEL, 1)):
            known = np.isfinite(values_T)
            values_T = np.clip(values_T, low, high)
            for run in np.flatnonzero(known[:-1] & known[1:]):
                pen.line([(xs[k], bottom - (values_T[k] - low) * scale) for k in (run, run + 1)], fill=colour,
                         width=width)
    return np.asarray(image)
