"""Windows of a prepared series on a device, for forecasting.

Shape suffixes: B batch, C series channels (the target first), L lookback steps, H horizon steps, T steps of the whole
series, F time features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from raymae.data.scaling import Scaler
from raymae.data.series import FOUND_OUT, Series, read_series
from raymae.data.shelf import WORKER
from raymae.data.splits import protocol_splits
from raymae.data.synthetic.series import synthetic_series
from raymae.errors import DataError
from raymae.spec.sweep import Reading
from raymae.tasks.base import Batch

NUM_TIME_FEATURES = 6
DAY_S = 86_400
WEEK_S = 7 * DAY_S
MIN_WEEKS = 20  # a split of fewer is cut into days


class Windows:
    """Windows of a series: for each first target step, the lookback before it and the horizon after it.

    Args:
        data: The prepared series.
        starts: Index of every window's first target step.
        lookback: L.
        horizon: H.
        every_channel: While training, draw for every window which channel is its own; else it is the target.
    """

    def __init__(self, data: ScaledSeries, starts: Tensor, lookback: int, horizon: int, *, every_channel: bool) -> None:
        self.data, self.starts, self.lookback, self.horizon = data, starts.to(data.device), lookback, horizon
        self.every_channel = every_channel

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`window` [B, C, L] with the own channel first, `channel` [B], `time` [B, 6, L], `target` [B, H].

        Where the series has missing cells, also `observed` [B, C, L] and `counted` [B, H], which cells of window and
        target are none of them, and `before` [B, C], the last values before the window. In the place of a missing cell
        stands the last value before it.
        """
        start_B = self.starts[index_B.to(self.starts.device)]
        channels = len(self.data.values_CT)
        if self.every_channel and generator is not None:
            channel_B = torch.randint(channels, (len(start_B),), generator=generator, device=generator.device)
        else:
            channel_B = torch.zeros_like(start_B)
        order_BC = (channel_B[:, None] + torch.arange(channels, device=channel_B.device)) % channels
        first_B = start_B - self.lookback

        def cut(of_CT: Tensor, length: int) -> Tensor:
            cut_BCL = of_CT.unfold(1, length, 1)[:, first_B].transpose(0, 1)
            if not self.every_channel:
                return cut_BCL
            return cut_BCL.gather(1, order_BC[..., None].expand(-1, -1, length))

        time_BFL = self.data.time_FT.unfold(1, self.lookback, 1)[:, first_B].transpose(0, 1)
        target_BH = self.data.values_CT[0].unfold(0, self.horizon, 1)[start_B]
        batch = {"window": cut(self.data.values_CT, self.lookback), "channel": channel_B, "time": time_BFL,
                 "target": target_BH}
        if self.data.observed_CT is not None:
            batch["observed"] = cut(self.data.observed_CT, self.lookback)
            batch["before"] = cut(self.data.before_CT, 1)[..., 0]
            batch["counted"] = self.data.observed_CT[0].unfold(0, self.horizon, 1)[start_B]
        return batch


class ScaledSeries:
    """A series scaled by its training part, on a device, with the target channel first.

    Attributes:
        values_CT: Float32, on the protocol's scale; in the place of a missing cell the last value before it, or the
            mean of the training part where there is none.
        observed_CT: Which cells are not missing; None where none is.
        before_CT: The value before every step, as `values_CT` holds it.
        times: Of every step, datetime64[s].
        time_FT: Two harmonics of the hour of the day and one of the day of the week, in [-1, 1]; of months, two of
            the month of the year; 0 of what there is no calendar for.
        notes: What a person should know of how the series was read.
        change_C: Root mean square of one-step changes in the training part.
        unit_C: Root mean square of changes over 1..horizon steps in the training part.
    """

    def __init__(self, series: Series, protocol: Literal["report", "field"], horizon: int, device: torch.device,
                 name: str) -> None:
        self.name, self.protocol, self.horizon, self.device = name, protocol, horizon, device
        self.num_rows, self.step_s = len(series.values_TC), series.step_s
        if protocol == "field" and self.step_s != 3600:
            raise DataError(f"{name}: settings.protocol=field splits by months of hours, but rows are {self.step_s} s "
                            "apart; use protocol=report")
        self.times, self.notes = series.times, series.notes
        train = self.splits(2)["train"]
        self.num_train = int(train[-1]) + horizon
        values_TC = np.roll(series.values_TC, -series.target_index, axis=1)
        observed_TC = ~np.isnan(values_TC)
        self._refuse_unobserved(series, observed_TC)
        scaler = Scaler.fit(values_TC[: self.num_train], "minmax" if protocol == "report" else "standard")
        scaled_TC = scaler.transform(values_TC)
        self.values_CT = torch.as_tensor(scaled_TC.T.copy(), dtype=torch.float32, device=device)
        self.observed_CT = None if observed_TC.all() else torch.as_tensor(observed_TC.T.copy(), device=device)
        time_FT = _time_features(series.times, series.calendar)
        self.time_FT = torch.as_tensor(time_FT, dtype=torch.float32, device=device)
        self.change_C = self._typical_change((1,))
        self.unit_C = self._typical_change(tuple(range(1, horizon + 1)))
        # scales are those of observed cells; now something stands in the place of the others
        mean_C = self.values_CT[:, : self.num_train].nanmean(dim=1)
        if self.observed_CT is not None:
            self.values_CT = carried(self.values_CT, self.observed_CT, mean_C)
        self.before_CT = torch.cat([mean_C[:, None], self.values_CT[:, :-1]], dim=1)

    def _refuse_unobserved(self, series: Series, observed_TC: np.ndarray) -> None:
        never_C = ~observed_TC[: self.num_train].any(axis=0)
        if never_C.any():
            channel = series.channels[(int(np.argmax(never_C)) + series.target_index) % len(series.channels)]
            raise DataError(f"{self.name}: column {channel!r} has no cell in the training part, the first "
                            f"{self.num_train:,} of {self.num_rows:,} rows; leave it out by data.drop, or set "
                            "data.fill")

    def splits(self, lookback: int) -> Mapping[str, range]:
        """First target steps of every split; val and test do not depend on the lookback."""
        splits = protocol_splits(self.protocol, self.num_rows, lookback=lookback, horizon=self.horizon, name=self.name)
        return {str(name): starts for name, starts in splits.items()}

    def with_target(self, split: str, starts: range) -> np.ndarray:
        """The first target steps of those windows that have an observed cell to forecast.

        Args:
            split: Its name, for the message.
            starts: First target steps of the split.

        Raises:
            DataError: There is none.
        """
        starts_B = np.asarray(starts)
        if self.observed_CT is None:
            return starts_B
        observed_T = self.observed_CT[0].cpu().numpy()
        kept_B = starts_B[np.lib.stride_tricks.sliding_window_view(observed_T, self.horizon)[starts_B].any(axis=1)]
        if not len(kept_B):
            raise DataError(f"{self.name}: every cell of the target in the {split} split is missing, from "
                            f"{self.times[starts[0]]} to {self.times[starts[-1] + self.horizon - 1]}; set data.fill or "
                            "another settings.target, or leave these rows out")
        return kept_B

    def blocks(self, starts: range) -> int:
        """Steps in a block of a split, so that scores of different blocks are nearly independent.

        A day, or a week where the split has twenty of them, but no less than a horizon, in whole days or weeks; of
        steps a day apart or longer the horizon, or the root of the number of windows where that is more.

        Args:
            starts: First target steps of the split.
        """
        if self.step_s >= DAY_S:
            return max(self.horizon, math.ceil(math.sqrt(len(starts))))
        period = DAY_S if len(starts) * self.step_s < MIN_WEEKS * WEEK_S else WEEK_S
        steps = max(1, round(period / self.step_s))
        return steps * math.ceil(self.horizon / steps)

    def block_starts(self, starts: range, first_B: np.ndarray) -> np.ndarray:
        """The first target step of the block that each window is in; blocks are counted from the split's first.

        Args:
            starts: First target steps of the split.
            first_B: Those of some of its windows.
        """
        return first_B - (first_B - starts[0]) % self.blocks(starts)

    def deviation(self, lookback: int) -> Tensor:
        """C: root mean square of changes over the lags a window holds, the scale of levels relative to its end."""
        return self._typical_change(tuple(sorted({max(1, lookback * k // 16) for k in range(1, 17)})))

    def _typical_change(self, lags: tuple[int, ...]) -> Tensor:
        train_CT = self.values_CT[:, : self.num_train].double()
        if self.observed_CT is None:
            squares = torch.stack([(train_CT[:, lag:] - train_CT[:, :-lag]).square().mean(dim=1) for lag in lags])
            return squares.mean(dim=0).sqrt().clamp(min=1e-6).float()
        train_CT = train_CT.where(self.observed_CT[:, : self.num_train], torch.nan)
        squares = torch.stack([(train_CT[:, lag:] - train_CT[:, :-lag]).square().nanmean(dim=1) for lag in lags])
        # where no two cells are as far apart, they are taken for unrelated
        unrelated_C = 2 * (train_CT - train_CT.nanmean(dim=1, keepdim=True)).square().nanmean(dim=1)
        mean_C = squares.nanmean(dim=0)
        return mean_C.where(mean_C.isfinite(), unrelated_C).sqrt().clamp(min=1e-6).float()


def carried(values_L: Tensor, seen_L: Tensor, before: Tensor) -> Tensor:
    """The last seen value at or before every step, `[..., L]`; values that are not seen are never read.

    Args:
        values_L: `[..., L]`.
        seen_L: Which of them are seen, bool `[..., L]`.
        before: What stands before the first seen one, `[...]`.
    """
    place_L = torch.arange(1, values_L.shape[-1] + 1, device=values_L.device)
    last_L = (seen_L * place_L).cummax(dim=-1).values
    return torch.cat([before[..., None], values_L], dim=-1).gather(-1, last_L)


def _time_features(times: Any, calendar: str) -> np.ndarray:
    if calendar == "steps":
        return np.zeros((NUM_TIME_FEATURES, len(times)))
    if calendar == "months":
        year = 2 * np.pi * (times.astype("datetime64[M]").astype(np.int64) % 12) / 12
        rest = [np.zeros(len(times))] * (NUM_TIME_FEATURES - 4)
        return np.stack([np.sin(year), np.cos(year), np.sin(2 * year), np.cos(2 * year), *rest])
    seconds = times.astype("datetime64[s]").astype(np.int64)
    day, week = 2 * np.pi * (seconds % DAY_S) / DAY_S, 2 * np.pi * (seconds % WEEK_S) / WEEK_S
    return np.stack([np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day), np.sin(week), np.cos(week)])


@WORKER.keeps(8)
def scaled_series(name: str, path: str | None, target: str, date_column: str, protocol: Literal["report", "field"],
                  horizon: int, device: torch.device, reading: Reading = FOUND_OUT) -> ScaledSeries:
    """Read once per process: a worker keeps its data from trial to trial."""
    if path is None:
        series = synthetic_series(target=target)
    else:
        series = read_series(Path(path), target=target, date_column=date_column, reading=reading)
    return ScaledSeries(series, protocol, horizon, device, f"{name} (synthetic)" if path is None else str(path))
