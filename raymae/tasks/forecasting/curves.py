"""Which steps of a series a picture of its forecasts shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raymae.data.series import Series
from raymae.tasks.predictor import Curves

if TYPE_CHECKING:
    import pandas as pd

LEAST = 120  # steps that are drawn, or four horizons where they are more


def curves(found: Sequence[Series], answer: pd.DataFrame, arm: str) -> Curves:
    """The last steps of the first series of a file, and its forecasts.

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
    # as times stand in a table of forecasts
    time_T = one.times.astype("datetime64[D]").astype(np.int64) if one.calendar == "steps" else one.times
    shown = min(len(time_T), max(LEAST, 4 * horizon))
    made = np.unique(answer["made_at"].to_numpy())[::-1][::horizon]  # the last one, and others whole horizons before
    kept = answer[answer["made_at"].isin(made) & (answer["time"] >= time_T[-shown])].sort_values("time")
    return Curves(f"{one.channels[one.target_index]}: {horizon} step{'s' if horizon > 1 else ''} ahead by {arm}",
                  time_T[-shown:], one.values_TC[-shown:, one.target_index], kept["time"].to_numpy(),
                  kept["forecast"].to_numpy(dtype=float))
