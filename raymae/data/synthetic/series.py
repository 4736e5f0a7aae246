"""A generated stand-in for ETTh1, for machines without the data. Made from formulas, not from the real file.

A transformer: weather and the hour drive six loads, loads and weather heat the oil, and the oil answers slowly.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from raymae.data.series import Series
from raymae.errors import DataError, unknown

CHANNELS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
START = np.datetime64("2016-07-01T00:00:00", "s")
STEP_S = 3600


def synthetic_series(*, num_steps: int = 17420, seed: int = 0, target: str = "OT") -> Series:
    """Hourly series in the form of ETTh1, the same on every machine for the same arguments.

    It holds days, weeks, years, autoregressive noise and channels that say something about the future of OT, so that
    a model can learn and the last value can be beaten.

    Args:
        num_steps: Hours, at least 2.
        seed: Draws the noise.
        target: The channel to forecast.

    Raises:
        DataError: Fewer than two steps, or no such channel.
    """
    if num_steps < 2:
        raise DataError(f"a synthetic series needs at least 2 steps, got {num_steps}")
    if target not in CHANNELS:
        raise DataError(f"synthetic series: {unknown('target', target, CHANNELS)}")
    rng = np.random.default_rng(seed)
    hours_T = np.arange(num_steps)
    day_T, year_T = 2 * np.pi * hours_T / 24, 2 * np.pi * hours_T / (24 * 365.25)
    weekend_T = (hours_T // 24 + 4) % 7 >= 5  # 2016-07-01 is a Friday

    def wander(memory: float, size: float) -> np.ndarray:
        """AR(1) noise: the share kept from hour to hour, and its standard deviation."""
        steps = rng.normal(0.0, size * np.sqrt(1 - memory**2), num_steps)
        return np.array(list(accumulate(steps.tolist(), lambda last, step: memory * last + step)))

    weather_T = 18 + 9 * np.cos(year_T - 0.4) + 3.5 * np.cos(day_T - 2 * np.pi * 15 / 24) + wander(0.995, 3.0)
    rhythm_T = 0.6 * np.cos(day_T - 2 * np.pi * 20 / 24) + 0.35 * np.cos(2 * day_T - 2 * np.pi * 10 / 12)
    use_T = (1 + rhythm_T) * np.where(weekend_T, 0.75, 1.0) + 0.03 * np.abs(weather_T - 18) + wander(0.8, 0.25)

    drift_T = np.cumsum(rng.normal(0.0, 0.004, num_steps))  # a random walk, shared by the loads
    loads_TL = np.column_stack([
        base + gain * use_T + base * 0.2 * drift_T + wander(0.6, noise)
        for base, gain, noise in ((4.0, 5.0, 0.8), (1.2, 1.0, 0.3), (2.5, 4.2, 0.7),
                                  (0.6, 0.7, 0.25), (2.2, 0.8, 0.2), (0.7, 0.2, 0.08))
    ])
    heat_T = 0.55 * weather_T + 0.9 * loads_TL[:, 0] + 0.5 * loads_TL[:, 2]
    oil_T = np.array(list(accumulate(heat_T.tolist(), lambda last, heat: 0.85 * last + 0.15 * heat)))
    oil_T = oil_T + rng.normal(0.0, 0.12, num_steps)

    # Three decimals, like the original; it also hides the last bits in which processors differ. + 0.0 turns -0 into 0.
    values_TC = np.round(np.column_stack([loads_TL, oil_T]), 3) + 0.0
    times = START + hours_T * np.timedelta64(STEP_S, "s")
    return Series(values_TC, CHANNELS, CHANNELS.index(target), times, STEP_S, "synthetic")


def series_content() -> bytes:
    """The default series, as bytes to be fingerprinted."""
    series = synthetic_series()
    return series.times.astype("<i8").tobytes() + series.values_TC.astype("<f8").tobytes()
