"""`raymae predict --figure`: the last steps of a series, and what was forecast of them or after them, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raymae.data.series import Series
from raymae.results.report import svg
from raymae.results.report.intervals import DARK, LIGHT, ticks

if TYPE_CHECKING:
    import pandas as pd

HEIGHT, LEFT, TOP, BOTTOM, END = 320, 64, 78, 284, svg.WIDTH - svg.PAD
LEAST = 120  # steps that are drawn, or four horizons where they are more
NUM_DATES = 5


def figure(found: Sequence[Series], answer: pd.DataFrame, arm: str) -> str:
    """Draw the first series of a file, and its forecasts.

    With a backtest the forecasts of the last steps are those made one horizon after the other, so that every step has
    one, made at the latest a horizon before.

    Args:
        found: What was read.
        answer: What `ForecastingPredictor.answer` made of it.
        arm: Whose forecasts they are.
    """
    one = found[0]
    if len(found) > 1:  # forecasts of the first one alone
        column = next(name for name in answer.columns if name not in ("made_at", "step", "time", "forecast", "truth"))
        answer = answer[answer[column] == one.name]
    horizon = int(answer["step"].max())
    shown = min(len(one.times), max(LEAST, 4 * horizon))
    made = np.unique(answer["made_at"].to_numpy())[::-1][::horizon]  # the last one, and others whole horizons before
    kept = answer[answer["made_at"].isin(made) & (answer["time"] >= _plain_times(one)[-shown])].sort_values("time")
    known_T, values_T = _plain_times(one)[-shown:], one.values_TC[-shown:, one.target_index]
    time_F, forecast_F = kept["time"].to_numpy(), kept["forecast"].to_numpy(dtype=float)
    first, last = known_T[0], max(known_T[-1], time_F[-1])
    low, high = np.nanmin([np.nanmin(values_T), forecast_F.min()]), np.nanmax([np.nanmax(values_T), forecast_F.max()])
    margin = 0.06 * (high - low or 1.0)
    low, high = float(low - margin), float(high + margin)

    def x(times: np.ndarray) -> np.ndarray:
        return LEFT + (times - first) / (last - first) * (END - LEFT)

    def y(levels: np.ndarray) -> np.ndarray:
        return BOTTOM - (levels - low) / (high - low) * (BOTTOM - TOP)

    title = f"{one.channels[one.target_index]}: {horizon} step{'s' if horizon > 1 else ''} ahead by {arm}"
    body = [svg.text(svg.PAD, 54, "what came", "ink", weight=600), svg.text(118, 54, "what was forecast", "ink")]
    body[1] = body[1].replace(svg.fill("ink") + ' class="ink"', f'fill="{LIGHT[0]}" class="arm0"')
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


def _plain_times(one: Series) -> np.ndarray:
    """Its times as they stand in a table of forecasts."""
    return one.times.astype("datetime64[D]").astype(np.int64) if one.calendar == "steps" else one.times


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
