"""`raymae predict --figure`: what came of a series, and what was forecast, as an SVG for a page."""

from __future__ import annotations

import numpy as np

from raymae.results.report import svg
from raymae.results.report.intervals import DARK, LIGHT, ticks
from raymae.tasks.predictor import Curves

HEIGHT, LEFT, TOP, BOTTOM, END = 320, 64, 78, 284, svg.WIDTH - svg.PAD
NUM_DATES = 5


def figure(curves: Curves) -> str:
    """Draw what came and what was forecast over one time axis."""
    title, known_T, values_T, time_F, forecast_F = curves
    first, last = known_T[0], max(known_T[-1], time_F[-1])
    both = np.concatenate([values_T, forecast_F])
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    margin = 0.06 * (high - low or 1.0)
    low, high = low - margin, high + margin

    def x(times: np.ndarray) -> np.ndarray:
        return LEFT + (times - first) / (last - first) * (END - LEFT)

    def y(levels: np.ndarray) -> np.ndarray:
        return BOTTOM - (levels - low) / (high - low) * (BOTTOM - TOP)

    body = [svg.text(svg.PAD, 54, "what came", "ink", weight=600),
            f'<text x="118" y="54" font-weight="600" fill="{LIGHT[0]}" class="arm0">what was forecast</text>']
    for value, label in ticks(low, high):
        at = float(y(np.array(value)))
        body += [svg.line(LEFT, at, END, at, "line"), svg.text(LEFT - 8, at + 4, label, "quiet", anchor="end", size=12)]
    for time in known_T[np.linspace(0, len(known_T) - 1, NUM_DATES + 2).astype(int)[1:-1]]:
        body.append(svg.text(float(x(time)), BOTTOM + 20, _label(time), "quiet", anchor="middle", size=12))
    body += [_curve(x(known_T), y(values_T), svg.INKS["ink"][0], "ink-line", 1.5),
             _curve(x(time_F), y(forecast_F), LIGHT[0], "arm0-line", 2.0)]
    if len(time_F) == 1:
        body.append(f'<circle cx="{x(time_F)[0]:.1f}" cy="{y(forecast_F)[0]:.1f}" r="4" fill="{LIGHT[0]}" '
                    'class="arm0"/>')
    said = f"{len(known_T)} steps to {_label(known_T[-1])}, and {len(time_F)} forecasts to {_label(time_F[-1])}"
    return svg.page(title, said, body, HEIGHT, {"arm0": DARK[0]})


def _label(time: np.generic) -> str:
    """A date, with its hour where it has one; or the number of a step."""
    if not isinstance(time, np.datetime64):
        return str(time)
    text = np.datetime_as_string(time, unit="m").replace("T", " ")
    return text.removesuffix(" 00:00")


def _curve(x: np.ndarray, y: np.ndarray, shade: str, name: str, width: float) -> str:
    """A line through what is known; it is interrupted where something is missing."""
    words, drawn = [], False
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if not np.isfinite(down):
            drawn = False
            continue
        words.append(f"{'L' if drawn else 'M'}{across:.1f} {down:.1f}")
        drawn = True
    return (f'<path d="{"".join(words)}" fill="none" stroke="{shade}" stroke-width="{width}" stroke-linejoin="round" '
            f'class="{name}"/>')
