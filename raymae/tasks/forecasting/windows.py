"""Windows of a prepared series on a device, for forecasting.

Shape suffixes: B batch, C series channels (the target first), L lookback steps, H horizon steps, T steps of the whole
series, F time features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from raymae.data.scaling import Scaler, ScalerKind
from raymae.data.series import FOUND_OUT, Series, read_all_series
from raymae.data.several_series import splittable, step_of
from raymae.data.shelf import WORKER
from raymae.data.splits import Split, SplitName, protocol_rows, protocol_splits
from raymae.data.synthetic.series import synthetic_series
from raymae.errors import DataError
from raymae.spec.sweep import Reading
from raymae.tasks.base import Batch

NUM_TIME_FEATURES = 6
DAY_S = 86_400
WEEK_S = 7 * DAY_S
MIN_WEEKS = 20  # a split of fewer is cut into days


class SeriesInRow:
    """One or several series on a device, whose steps follow each other: what windows are cut from.

    Attributes:
        firsts: The first step of every series, ascending.
        values_CT: Float32, on the protocol's scale, the target first; in the place of a missing cell the last value
            before it, or the mean of the training part where there is none.
        observed_CT: Which cells are not missing; None where none ever is.
        before_CT: The value before every step, as `values_CT` holds it.
        times: Of every step, datetime64[s].
        time_FT: Two harmonics of the hour of the day and one of the day of the week, in [-1, 1]; of months, two of
            the month of the year; 0 of what there is no calendar for.
    """

    firsts: Sequence[int]
    values_CT: Tensor
    observed_CT: Tensor | None
    before_CT: Tensor
    times: np.ndarray
    time_FT: Tensor

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def part_of(self, steps_B: np.ndarray) -> np.ndarray:
        """The number of the series that each step is of."""
        return np.searchsorted(self.firsts, steps_B, side="right") - 1

    def first_steps(self, steps_B: Tensor) -> Tensor:
        """The first step of the series that each step is of."""
        firsts = torch.tensor(self.firsts, device=steps_B.device)
        return firsts[torch.searchsorted(firsts, steps_B, right=True) - 1]

    def place(self, found: Sequence[Series], scaled_TC: np.ndarray, means: Sequence[Tensor] | None = None) -> None:
        """Put series on the device.

        Args:
            found: They; the target may be any of their channels.
            scaled_TC: Their values on the protocol's scale, the target first, NaN where a cell is missing.
            means: What stands before the first seen cell of every channel, for each series; `fill` may follow instead.
        """
        self.firsts = np.cumsum([0, *(len(one.times) for one in found)]).tolist()[:-1]
        self.times = np.concatenate([one.times for one in found])
        self.values_CT = torch.as_tensor(scaled_TC.T.copy(), dtype=torch.float32, device=self.device)
        observed_TC = ~np.isnan(scaled_TC)
        self.observed_CT = None if observed_TC.all() else torch.as_tensor(observed_TC.T.copy(), device=self.device)
        time_FT = np.concatenate([_time_features(one.times, one.calendar) for one in found], axis=1)
        self.time_FT = torch.as_tensor(time_FT, dtype=torch.float32, device=self.device)
        if means is not None:
            self.fill(means)

    def fill(self, means: Sequence[Tensor]) -> None:
        """Let something stand in the place of missing cells; see `place`."""
        before = []
        for first, stop, mean_C in zip(self.firsts, [*self.firsts[1:], len(self.times)], means, strict=True):
            own_CT = self.values_CT[:, first:stop]
            if self.observed_CT is not None:
                own_CT[:] = carried(own_CT, self.observed_CT[:, first:stop], mean_C)
            before += [mean_C[:, None], own_CT[:, :-1]]
        self.before_CT = torch.cat(before, dim=1)


class Windows:
    """Windows of series: for each first target step, the lookback before it and the horizon after it.

    A window is of one series; where it reaches back beyond the first step, that step is repeated.

    Args:
        data: The prepared series.
        starts: Index of every window's first target step.
        lookback: L.
        horizon: H.
        every_channel: While training, draw for every window which channel is its own; else it is the target.
    """

    def __init__(self, data: SeriesInRow, starts: Tensor, lookback: int, horizon: int, *, every_channel: bool) -> None:
        self.data, self.starts, self.lookback, self.horizon = data, starts.to(data.device), lookback, horizon
        self.every_channel = every_channel
        floor_B = data.first_steps(self.starts)
        self.floor_B = floor_B if bool((self.starts - lookback < floor_B).any()) else None

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`window` [B, C, L] with the own channel first, `channel` [B], `time` [B, 6, L], `target` [B, H].

        Where the series has missing cells, also `observed` [B, C, L] and `counted` [B, H], which cells of window and
        target are none of them, and `before` [B, C], the last values before the window. In the place of a missing cell
        stands the last value before it.
        """
        index_B = index_B.to(self.starts.device)
        start_B = self.starts[index_B]
        channels = len(self.data.values_CT)
        if self.every_channel and generator is not None:
            channel_B = torch.randint(channels, (len(start_B),), generator=generator, device=generator.device)
        else:
            channel_B = torch.zeros_like(start_B)
        order_BC = (channel_B[:, None] + torch.arange(channels, device=channel_B.device)) % channels
        first_B = start_B - self.lookback

        def cut(of_CT: Tensor, length: int) -> Tensor:
            if self.floor_B is None:
                return of_CT.unfold(1, length, 1)[:, first_B].transpose(0, 1)
            steps_BL = first_B[:, None] + torch.arange(length, device=first_B.device)
            return of_CT[:, steps_BL.maximum(self.floor_B[index_B][:, None])].transpose(0, 1)

        def ordered(cut_BCL: Tensor) -> Tensor:
            if not self.every_channel:
                return cut_BCL
            return cut_BCL.gather(1, order_BC[..., None].expand(-1, -1, cut_BCL.shape[2]))

        target_BH = self.data.values_CT[0].unfold(0, self.horizon, 1)[start_B]
        batch = {"window": ordered(cut(self.data.values_CT, self.lookback)), "channel": channel_B,
                 "time": cut(self.data.time_FT, self.lookback), "target": target_BH}
        if self.data.observed_CT is not None:
            batch["observed"] = ordered(cut(self.data.observed_CT, self.lookback))
            batch["before"] = ordered(cut(self.data.before_CT, 1))[..., 0]
            batch["counted"] = self.data.observed_CT[0].unfold(0, self.horizon, 1)[start_B]
        return batch


class Part(NamedTuple):
    """One of several series, among the rows of all: its name, its first row, and the target rows of its splits."""

    name: str
    first: int
    splits: Mapping[SplitName, Split]

    @property
    def training(self) -> slice:
        """The rows that are learned from."""
        return slice(self.first, self.splits["train"].stop)


class ScaledSeries(SeriesInRow):
    """One or several series, each scaled by its training part, on a device, with the target channel first.

    Steps of several series follow each other. Each is split in time by itself, on its own calendar; where `whole`, all
    of it is learned from.

    Attributes:
        parts: Which steps are of which series.
        scalers: Of every series, the target first.
        means: Of every series the mean of each channel's training part, on the protocol's scale.
        channels: Names, the target first.
        step: How far apart steps are, in words, and on which calendar.
        notes: What a person should know of how the series were read.
        change_C: Root mean square of one-step changes in the training parts.
        unit_C: Root mean square of changes over 1..horizon steps in the training parts.
    """

    def __init__(self, found: Sequence[Series], protocol: Literal["report", "field"], horizon: int,
                 device: torch.device, name: str, *, whole: bool = False) -> None:
        super().__init__(device)
        self.name, self.protocol, self.horizon, self.whole = name, protocol, horizon, whole
        kept, self.notes = (found, ()) if whole else splittable(found, protocol, horizon, name)
        self.step_s, self.step = kept[0].step_s, step_of(kept[0])
        firsts = np.cumsum([0, *(len(one.times) for one in kept)]).tolist()
        self.parts = tuple(
            Part(one.name, first, {split: Split(first + rows.start, first + rows.stop)
                                   for split, rows in self._rows(len(one.times)).items()})
            for one, first in zip(kept, firsts, strict=False))
        self.channels = target_first(kept[0])
        values_TC = np.roll(np.concatenate([one.values_TC for one in kept]), -kept[0].target_index, axis=1)
        kind: ScalerKind = "minmax" if protocol == "report" else "standard"
        self.scalers = [Scaler.fit(values_TC[part.training], kind) for part in self.parts]
        self.place(kept, np.concatenate([scaler.transform(values_TC[first:stop]) for scaler, first, stop
                                         in zip(self.scalers, firsts, firsts[1:], strict=False)]))
        self.change_C = self._typical_change((1,))
        self.unit_C = self._typical_change(tuple(range(1, horizon + 1)))
        # scales are those of observed cells; now something stands in the place of the others
        self.means = [self.values_CT[:, part.training].nanmean(dim=1) for part in self.parts]
        self.fill(self.means)

    def _rows(self, count: int) -> Mapping[SplitName, Split]:
        if not self.whole:
            return protocol_rows(self.protocol, count)
        return {"train": Split(0, count), "val": Split(count, count), "test": Split(count, count)}

    def splits(self, lookback: int) -> Mapping[str, np.ndarray]:
        """First target steps of every split; val and test do not depend on the lookback.

        Raises:
            DataError: There is no window to learn from.
        """
        if len(self.parts) == 1 and not self.whole:
            found = protocol_splits(self.protocol, len(self.times), lookback=lookback, horizon=self.horizon,
                                    name=self.name)
            return {name: np.asarray(starts) for name, starts in found.items()}
        starts: dict[str, np.ndarray] = {}
        for split in get_args(SplitName):
            back = lookback if split == "train" else 0
            starts[split] = np.concatenate([np.arange(part.splits[split].start + back,
                                                      part.splits[split].stop - self.horizon + 1)
                                            for part in self.parts])
        if not len(starts["train"]):
            longest = max(part.training.stop - part.first for part in self.parts)
            raise DataError(f"{self.name}: lookback={lookback} and horizon={self.horizon} fit the training part of "
                            f"none of {len(self.parts)} series, the longest of which has {longest} rows; lookback may "
                            f"be at most {longest - self.horizon} here")
        return starts

    def apart(self, starts: np.ndarray, lookback: int) -> np.ndarray:
        """Those windows of a split that do not reach back into the split before it; all where there are none.

        Args:
            starts: First target steps of the split's windows, in order.
            lookback: Steps of a window before its target.
        """
        part_B = self.part_of(starts)
        _, first = np.unique(part_B, return_index=True)
        own_B = starts - lookback >= starts[first][np.searchsorted(part_B[first], part_B)]
        return starts[own_B] if own_B.any() else starts

    def names(self, steps_B: np.ndarray) -> tuple[str, ...]:
        """The times of steps, after the names of their series where there are several."""
        times = map(str, np.datetime_as_string(self.times[steps_B], unit="s"))
        if len(self.parts) == 1:
            return tuple(times)
        return tuple(f"{self.parts[part].name} {time}" for part, time in zip(self.part_of(steps_B), times, strict=True))

    def groups(self, starts: np.ndarray, first_B: np.ndarray) -> tuple[str, ...]:
        """What each window belongs to: the series, or of a single one the block of time, by that of its first step.

        Args:
            starts: First target steps of the split.
            first_B: Those of some of its windows.
        """
        if len(self.parts) == 1:
            return self.names(self.block_starts(starts, first_B))
        return tuple(self.parts[part].name for part in self.part_of(first_B))

    def with_target(self, split: str, starts_B: np.ndarray) -> np.ndarray:
        """The first target steps of those windows that have an observed cell to forecast.

        Args:
            split: Its name, for the message.
            starts_B: First target steps of the split.

        Raises:
            DataError: There is none.
        """
        if self.observed_CT is None:
            return starts_B
        observed_T = self.observed_CT[0].cpu().numpy()
        kept_B = starts_B[np.lib.stride_tricks.sliding_window_view(observed_T, self.horizon)[starts_B].any(axis=1)]
        if not len(kept_B):
            first, last = self.times[starts_B].min(), self.times[starts_B + self.horizon - 1].max()
            raise DataError(f"{self.name}: every cell of the target in the {split} split is missing, from {first} to "
                            f"{last}; set data.fill or another settings.target, or leave these rows out")
        return kept_B

    def blocks(self, starts: np.ndarray) -> int:
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

    def block_starts(self, starts: np.ndarray, first_B: np.ndarray) -> np.ndarray:
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
        trained = [self.values_CT[:, part.training].double() for part in self.parts]
        if self.observed_CT is not None:
            trained = [values_CT.where(self.observed_CT[:, part.training], torch.nan)
                       for values_CT, part in zip(trained, self.parts, strict=True)]
        squares = [torch.cat([(values_CT[:, lag:] - values_CT[:, :-lag]).square() for values_CT in trained], dim=1)
                   for lag in lags]
        if self.observed_CT is None:
            means = torch.stack([square_CT.mean(dim=1) for square_CT in squares if square_CT.shape[1]])
            return means.mean(dim=0).sqrt().clamp(min=1e-6).float()
        mean_C = torch.stack([square_CT.nanmean(dim=1) for square_CT in squares]).nanmean(dim=0)
        # where no two cells are as far apart, they are taken for unrelated
        values_CT = torch.cat(trained, dim=1)
        unrelated_C = 2 * (values_CT - values_CT.nanmean(dim=1, keepdim=True)).square().nanmean(dim=1)
        return mean_C.where(mean_C.isfinite(), unrelated_C).sqrt().clamp(min=1e-6).float()


def target_first(series: Series) -> tuple[str, ...]:
    """The names of a series' channels as windows have them."""
    return (*series.channels[series.target_index:], *series.channels[:series.target_index])


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
        found: Sequence[Series] = (synthetic_series(target=target),)
    else:
        found = read_all_series(Path(path), target=target, date_column=date_column, reading=reading)
    return ScaledSeries(found, protocol, horizon, device, f"{name} (synthetic)" if path is None else str(path))
