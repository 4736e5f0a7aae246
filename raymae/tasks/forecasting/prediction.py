"""Forecasts of files that no sweep has seen: the next steps, or every window beside its truth.

Shape suffixes: W windows, C series channels (the target first), H horizon steps, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raymae.data.inputs import files_of, is_table, listing, written_out
from raymae.data.scaling import Scaler
from raymae.data.series import Series, read_all_series
from raymae.data.several_series import step_of
from raymae.data.steps import following
from raymae.errors import DataError
from raymae.spec.read import Tree
from raymae.tasks.answers import TableWriter
from raymae.tasks.forecasting.curves import curves
from raymae.tasks.forecasting.features import Features, Scales
from raymae.tasks.forecasting.networks import Forecasters
from raymae.tasks.forecasting.schema import SCHEMA
from raymae.tasks.forecasting.windows import ScaledSeries, SeriesInRow, Windows
from raymae.tasks.predictor import Curves, Item, Predictor

WINDOWS_AT_ONCE = 1024
OURS = ("made_at", "step", "time", "forecast", "truth")  # columns of every table of forecasts
SCALES = ("change", "unit", "deviation")


def kept_state(data: ScaledSeries, params: Any, features: Features) -> Tree:
    """Channels and scales of a prepared series, as far as forecasting it takes them.

    Args:
        data: The series.
        params: The trial's.
        features: What its network sees; of other channels than the target nothing is kept where it sees none.
    """
    count = len(data.channels) if features.p.covariates == "all" else 1
    scales = {name: getattr(features.scales, f"{name}_C")[:count].tolist() for name in SCALES}
    return {
        "channels": list(data.channels[:count]), "step": data.step, "incomplete": features.scales.incomplete, **scales,
        "series": {part.name: {"offset": scaler.offset_C[:count].tolist(), "scale": scaler.scale_C[:count].tolist(),
                               "mean": mean_C[:count].tolist()}
                   for part, scaler, mean_C in zip(data.parts, data.scalers, data.means, strict=True)},
    }


class FollowedSeries(SeriesInRow):
    """Series scaled as in training, each followed by a horizon of unknown steps.

    Args:
        found: They, the target first.
        scalers: Of each.
        means: Of each channel of each, what stands before its first cell.
        incomplete: Whether the network is told which cells are missing.
        horizon: Steps.
        device: Where they go.

    Attributes:
        units_T: The target in the data's units.
    """

    def __init__(self, found: Sequence[Series], scalers: Sequence[Scaler], means: Sequence[Tensor], incomplete: bool,
                 horizon: int, device: torch.device) -> None:
        super().__init__(device)
        self.names, self.calendar = [one.name for one in found], found[0].calendar
        self.lengths = [len(one.times) for one in found]
        longer = [replace(one, values_TC=np.pad(one.values_TC, ((0, horizon), (0, 0)), constant_values=np.nan),
                          times=np.concatenate([one.times, following(one.times, one.step_s, one.calendar, horizon)]))
                  for one in found]
        self.units_T = np.concatenate([one.values_TC[:, 0] for one in longer])
        self.place(longer, np.concatenate([scaler.transform(one.values_TC)
                                           for scaler, one in zip(scalers, longer, strict=True)]), means)
        self.observed_CT = self.observed_CT if incomplete else None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Windows to forecast.

    Attributes:
        data: What they are cut from.
        windows: They.
        scalers: Of every series.
        backtest: Whether their truth is known.
    """

    data: FollowedSeries
    windows: Windows
    scalers: Sequence[Scaler]
    backtest: bool


class ForecastingPredictor(Predictor):
    """A file with dates in, a table of forecasts out.

    The option `backtest` forecasts every window that lies within the file, beside what came of it.
    """

    schema = SCHEMA
    options = frozenset({"backtest"})

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        scales = {f"{name}_C": torch.tensor(self.state[name], dtype=torch.float32, device=self.device)
                  for name in SCALES}
        self.networks = Forecasters(self.config.method, self.params,
                                    Scales(**scales, incomplete=bool(self.state["incomplete"])))
        self.channels = tuple(map(str, self.state["channels"]))
        self.reading = self.config.data.where.reading()

    def build(self) -> nn.Module:
        """The arm's network."""
        return self.networks.build(self.params)

    def items(self, source: Path) -> Iterator[Item]:
        """A CSV or Parquet file, or those of a folder."""
        for name, path in files_of(source, is_table, "CSV or Parquet with a column of dates"):
            yield Item(name, partial(self.read, path))

    def read(self, source: Any) -> Sequence[Series]:
        """The series of a file or a frame, with the channels that the network sees; others are left out."""
        if isinstance(source, (str, Path)):
            reading = self.reading.model_copy(update={"columns": self.channels, "drop": ()})
            found = read_all_series(source, target=self.channels[0], date_column=self.params.date_column,
                                    reading=reading)
            return [_ordered(one, self.channels) for one in found]
        with written_out(source, "the frame") as path:
            return [replace(one, origin="the frame") for one in self.read(path)]

    def prepare(self, inputs: Any, **options: bool) -> Prepared:
        """The last window of every series, or with `backtest` all of them.

        Args:
            inputs: A path, a pandas frame, or what `read` made of them.
            **options: `backtest`: whether to forecast what is known.
        """
        backtest = options.get("backtest", False)
        found = inputs if isinstance(inputs, (list, tuple)) else self.read(inputs)
        lookback, horizon = self.params.lookback, self.params.horizon
        need = lookback + (horizon if backtest else 0)
        for one in found:
            of = f"{one.origin}{f': series {one.name!r}' if one.name else ''}"
            if step_of(one) != self.state["step"]:
                raise DataError(f"{of}: steps must be as in training, {self.state['step']}, got {step_of(one)}; "
                                "resample it")
            if len(one.times) < need:
                raise DataError(f"{of}: holds {len(one.times)} rows, at least {need} are needed: lookback={lookback}"
                                + (f" and horizon={horizon}" if backtest else ""))
            self._check_missing(one.values_TC if backtest else one.values_TC[-lookback:], of)
        known = [self._known(one) for one in found]
        scalers, means = [scaler for scaler, _ in known], [mean_C for _, mean_C in known]
        data = FollowedSeries(found, scalers, means, bool(self.state["incomplete"]), horizon, self.device)
        ends = [first + length for first, length in zip(data.firsts, data.lengths, strict=True)]
        starts = torch.tensor(ends)
        if backtest:
            starts = torch.cat([torch.arange(first + lookback, end - horizon + 1)
                                for first, end in zip(data.firsts, ends, strict=True)])
        return Prepared(data, Windows(data, starts, lookback, horizon, every_channel=False), scalers, backtest)

    def _check_missing(self, values_TC: np.ndarray, of: str) -> None:
        empty_C = np.isnan(values_TC).any(axis=0)
        if not self.state["incomplete"] and empty_C.any():
            raise DataError(f"{of}: cells of {self.channels[int(np.argmax(empty_C))]!r} are missing within the rows "
                            "that are read, but the network has learned from a series without missing cells; fill them")

    def _known(self, one: Series) -> tuple[Scaler, Tensor]:
        """The scale of a series in training, and its means; of one that is new, its own in this file."""
        kind: Any = "minmax" if self.params.protocol == "report" else "standard"
        kept: Mapping[str, Any] | None = self.state["series"].get(one.name)
        if kept is not None:
            scaler = Scaler(kind, np.array(kept["offset"], dtype=np.float64), np.array(kept["scale"], dtype=np.float64))
            return scaler, torch.tensor(kept["mean"], dtype=torch.float32, device=self.device)
        empty_C = np.isnan(one.values_TC).all(axis=0)
        if empty_C.any():
            raise DataError(f"{one.origin}: series {one.name!r}: {listing(np.array(one.channels)[empty_C].tolist())} "
                            "has no cell, and the series is new, so its scale is not known; leave it out")
        scaler = Scaler.fit(one.values_TC, kind)
        mean_C = np.nanmean(scaler.transform(one.values_TC), axis=0)
        return scaler, torch.tensor(mean_C, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def scores(self, model: nn.Module, prepared: Prepared) -> np.ndarray:
        """Forecasts on the protocol's scale, float32 `[W, H]`."""
        return self._batched(prepared, lambda batch: self.networks.forecast(model, batch))

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: Prepared) -> np.ndarray:
        """Features of every window `[W, D]`: the mean of the encoder's tokens, or a recurrent network's last state.

        Raises:
            DataError: The arm has neither.
        """
        def encoded(batch: Any) -> Tensor:
            found = self.networks.encode(model, batch)
            if found is None:
                raise DataError(f"a network of the arm {self.config.arm!r} has no encoder; name another arm")
            return found

        return self._batched(prepared, encoded)

    def _batched(self, prepared: Prepared, of: Any) -> np.ndarray:
        index = torch.arange(len(prepared.windows)).split(WINDOWS_AT_ONCE)
        return torch.cat([of(prepared.windows.batch(part, None)).float().cpu() for part in index]).numpy()

    def answer(self, scores: np.ndarray, prepared: Prepared) -> Any:
        """A pandas frame with a row for every forecast step, in the data's units.

        Columns: the series, where there may be several, under the name of their column (`series`, if that is one of the
        others); `made_at`, the time of the last step that was seen; `step`, from 1 to the horizon; `time`, in UTC where
        the file has time zones; `forecast`, and with `backtest` `truth`, empty where the cell is missing.
        """
        import pandas as pd

        data, horizon = prepared.data, self.params.horizon
        start_W = prepared.windows.starts.cpu().numpy()
        step_WH = start_W[:, None] + np.arange(horizon)
        part_W = data.part_of(start_W)
        offset_W, scale_W = (np.array([getattr(scaler, name)[0] for scaler in prepared.scalers])[part_W]
                             for name in ("offset_C", "scale_C"))
        columns: dict[str, Any] = {}
        if self.reading.group is not None:
            name = self.reading.group if self.reading.group not in OURS else "series"
            columns[name] = np.repeat(np.array(data.names, dtype=object)[part_W], horizon)
        columns |= {"made_at": np.repeat(self._times(data, start_W - 1), horizon),
                    "step": np.tile(np.arange(1, horizon + 1), len(start_W)),
                    "time": self._times(data, step_WH.ravel())}
        columns["forecast"] = (scores.astype(np.float64) * scale_W[:, None] + offset_W[:, None]).ravel()
        if prepared.backtest:
            columns["truth"] = data.units_T[step_WH].ravel()
        return pd.DataFrame(columns)

    def curves(self, inputs: Any, answer: Any) -> Curves:
        """The last steps of the first series, and what was forecast of them or after them."""
        found = inputs if isinstance(inputs, (list, tuple)) else self.read(inputs)
        return curves(found, answer, self.config.arm)

    def _times(self, data: FollowedSeries, steps: np.ndarray) -> np.ndarray:
        times = data.times[steps]
        return times.astype("datetime64[D]").astype(np.int64) if data.calendar == "steps" else times

    def writer(self, to: Path, source: Path) -> TableWriter:
        """One table of all files' forecasts; of a folder's, with the file in front."""
        return TableWriter(to, named=source.is_dir())


def _ordered(one: Series, channels: Sequence[str]) -> Series:
    """A series with its channels as the network takes them."""
    order = [one.channels.index(name) for name in channels]
    return replace(one, values_TC=one.values_TC[:, order], channels=tuple(channels), target_index=0)
