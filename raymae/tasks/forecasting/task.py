"""Forecasting one channel of a time series, one or many steps ahead.

Shape suffixes: B batch, C series channels (the one predicted first), F input features per step, L lookback steps,
H horizon steps, T steps of the whole series, N tokens, P values in a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.corpora import located_corpora
from raymae.data.find.locate import path_of
from raymae.data.subsets import labelled
from raymae.models.mae import MaskedAutoencoder
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Batch, Loss, Metrics, Source, Task, Units, UnitScores, split_of
from raymae.tasks.forecasting.corpus import CorpusWindows, SeriesCorpus, read_corpora, units_of
from raymae.tasks.forecasting.features import Features, Scales
from raymae.tasks.forecasting.networks import Forecasters
from raymae.tasks.forecasting.prediction import ForecastingPredictor, kept_state
from raymae.tasks.forecasting.pretraining import WindowPretraining
from raymae.tasks.forecasting.schema import SCHEMA, ForecastingParams
from raymae.tasks.forecasting.windows import WEEK_S, ScaledSeries, Windows, scaled_series
from raymae.tasks.pictures import Panel, line_panels
from raymae.tasks.transformer import autoencoder

NUM_PICTURED, SHOWN_STEPS = 3, 168
PRETRAIN_HORIZON = 1  # steps that must follow a window to be pretrained on, whatever is forecast later
SPLITS = ("train", "val", "test")


class Forecasting(Task):
    """ETTh1's oil temperature, or any channel of any regularly sampled CSV."""

    schema = SCHEMA
    predictor = ForecastingPredictor

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = _series(config.data, p, device)
        self.splits = self.data.splits(p.lookback)
        self.networks = Forecasters(config.method, p, Scales.of(self.data, p.lookback))
        self.features = self.networks.features

    @cached_property
    def seen(self) -> ScaledSeries:
        """The series as pretraining sees it; read only for an arm that pretrains."""
        return _seen(self.config.data, self.params, self.device)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read and split as a trial would."""
        p: Any = cls.schema.params.model_validate(dict(params))
        series = _series(data, p, torch.device("cpu"))
        splits = series.splits(p.lookback)
        scored = {name: series.with_target(name, splits[name]) for name in SPLITS}
        counts = " / ".join(f"{len(starts):,} {name}" for name, starts in scored.items())
        rows, channels = series.values_CT.shape[1], series.values_CT.shape[0]
        groups = " / ".join(f"{len({*series.groups(splits[name], starts)}):,} {name}"
                            for name, starts in scored.items())
        grouped = "blocks of time" if len(series.parts) == 1 else "series"
        notes = [*series.notes]
        if series.observed_CT is not None:
            left_out = " / ".join(f"{len(splits[name]) - len(starts):,} {name}" for name, starts in scored.items())
            notes.append(f"missing cells are never forecast and in no loss, and networks see that they are; {left_out} "
                         "windows left out, whose target is missing")
        return (f"{rows:,} rows x {channels} channels; {counts} windows of {p.lookback} + {p.horizon} steps; "
                + "; ".join([f"{groups} groups: {grouped}", *notes]))

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many windows of other series pretraining sees, and what of them is left out."""
        if not data.pretraining.data:
            return ""
        p: Any = cls.schema.params.model_validate(dict(params))
        series = _seen(data, p, torch.device("cpu"))
        own = [f"{len(series.splits(p.lookback)['train']):,} training windows"] if data.pretraining.own else []
        return " and ".join([*own, *(corpus.note for corpus in _corpora(data, p, series))])

    def load(self, split: str) -> Source:
        """Windows of a split; but for pretraining, those with something to forecast."""
        corpora = _corpora(self.config.data, self.params, self.seen) if split == "pretrain" else ()
        if corpora:
            own = self._windows(split) if self.config.data.pretraining.own else None
            return CorpusWindows(own, self.seen, corpora, self.params.lookback)
        return self._windows(split)

    def _windows(self, split: str) -> Windows:
        starts, data = self._starts(split), self._data(split)
        every_channel = split == "pretrain" and self.params.pretrain_channels == "all"
        return Windows(data, torch.as_tensor(starts), self.params.lookback, data.horizon, every_channel=every_channel)

    def _data(self, split: str) -> ScaledSeries:
        return self.seen if split in ("pretrain", "pretext") else self.data

    def _starts(self, split: str) -> np.ndarray:
        if split == "pretrain":
            return self.seen.splits(self.params.lookback)["train"]
        if split == "pretext":
            return self.seen.apart(self.seen.splits(self.params.lookback)["val"], self.params.lookback)
        starts = self.data.with_target(split, self.splits[split])
        fraction = getattr(self.params, "label_fraction", 1.0)
        if split == "train" and fraction < 1:
            block = max(1, int(WEEK_S / self.data.step_s))
            return starts[labelled(len(starts), fraction, self.config.seed, block=block)]
        return starts

    def units(self, split: str) -> Units:
        """Windows by the time of their first target step, and the series or block of time that they are of.

        A series is split in time by itself, so its name is a group in every split; no window is.
        """
        starts, data = self._starts(split), self._data(split)
        own = Units(data.names(starts), data.groups(data.splits(self.params.lookback)[split_of(split)], starts),
                    in_time=len(data.parts) > 1)
        corpora = _corpora(self.config.data, self.params, self.seen) if split == "pretrain" else ()
        return units_of(own if self.config.data.pretraining.own else None, corpora) if corpora else own

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The arm's network: features in, a horizon of normalised values out."""
        return self.networks.build(self.params)

    def pretraining(self) -> WindowPretraining | None:
        """Level and change of the window's own channel are reconstructed in hidden patches."""
        if self.arm.kind != "pretrained":
            return None
        p, scales, alone = self.params, Scales.of(self.seen, self.params.lookback), {}
        corpora = _corpora(self.config.data, p, self.seen)
        if corpora:  # of one channel each
            scales = scales.with_more([corpus.data for corpus in corpora], p.lookback)
            alone = {"covariates": "time"} if p.covariates == "all" else {}
        features = Features(scales, p.model_copy(update=alone))
        return WindowPretraining(self._autoencoder, features, self.networks.grid, p)

    def _autoencoder(self) -> MaskedAutoencoder:
        p = self.params
        encoder = self.networks.encoder(p, p.pretrain_drop_path, p.pretrain_dropout)
        return autoencoder(p, encoder, self.networks.grid, target_dim=2 * p.patch_size)

    def kept_state(self, model: nn.Module) -> Tree:
        """Scales, channels and steps."""
        return kept_state(self.data, self.params, self.features)

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Squared or Huber error in normalised units, of values that are not missing."""
        output_BH, base_B1, unit_B1 = self.networks.output(model, batch)
        wanted_BH = (batch["target"] - base_B1) / unit_B1
        loss = F.mse_loss if self.params.loss == "mse" else F.huber_loss
        if "counted" not in batch:
            return Loss(loss(output_BH.float(), wanted_BH), len(wanted_BH))
        error_BH, count = loss(output_BH.float(), wanted_BH, reduction="none"), batch["counted"].sum()
        return Loss(error_BH.where(batch["counted"], 0).sum() / count.clamp(min=1), count)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Forecasts `[B, H]` on the protocol's scale."""
        if self.arm.kind == "reference":
            return batch["window"][:, 0, -1:].expand(-1, self.params.horizon)
        return self.networks.forecast(model, batch)

    def metrics(self) -> ForecastMetrics:
        """mse and abs_error over all forecast values, skill against persistence."""
        return ForecastMetrics()

    # -- pictures ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """`reconstruction`: validation windows, hidden patches filled in; `forecast`: test steps beside forecasts."""
        if phase == "test":
            return {"forecast": self._forecasts(model)}
        assert isinstance(model, MaskedAutoencoder)
        return {"reconstruction": self._reconstructions(model)}

    def _reconstructions(self, model: MaskedAutoencoder) -> np.ndarray:
        source, pretraining, size = self.load("val"), self.pretraining(), self.params.patch_size
        assert pretraining is not None
        index_B = torch.linspace(0, len(source) - 1, min(NUM_PICTURED, len(source))).long()
        truth_BL, level_BL, mask = pretraining.reconstruct(model, source.batch(index_B, None))
        panels = []
        for row, truth_L in enumerate(truth_BL):
            hidden = [(k * size, (k + 1) * size) for k in np.flatnonzero(mask[row]).tolist()]
            model_L = np.full_like(truth_L, np.nan)
            for first, last in hidden:
                model_L[first:last] = level_BL[row, first:last]
            title = f"validation window {int(index_B[row])}: grey the level, red what was made of hidden patches"
            panels.append(Panel(title, truth_L, model_L, hidden))
        return line_panels(panels)

    def _forecasts(self, model: nn.Module) -> np.ndarray:
        horizon = self.params.horizon
        # `load` is for scoring, and the test split is scored once
        source = Windows(self.data, torch.as_tensor(self._starts("test")), self.params.lookback, horizon,
                         every_channel=False)
        length = min(SHOWN_STEPS, len(source)) if horizon == 1 else 1
        part_B = self.data.part_of(source.starts.cpu().numpy())
        panels, count = [], min(NUM_PICTURED, len(source) - length + 1)
        for first in torch.linspace(0, len(source) - length, count).long().tolist():
            after = first + int((part_B[first:first + length] == part_B[first]).sum())  # of one series
            batch = source.batch(torch.arange(first, after), None)
            forecast_BH = self.predict(model, batch).float()
            if horizon == 1:
                truth_T, model_T = batch["target"][:, 0], forecast_BH[:, 0]
                title = f"test steps {first} to {after - 1}: grey the truth, red forecasts one step ahead"
                panels.append(Panel(title, truth_T.cpu().numpy(), model_T.cpu().numpy()))
                continue
            past_T, target_T = batch["window"][0, 0, -2 * horizon:], batch["target"][0]
            if "observed" in batch:
                past_T = past_T.where(batch["observed"][0, 0, -2 * horizon:], torch.nan)
                target_T = target_T.where(batch["counted"][0], torch.nan)
            truth_T = torch.cat([past_T, target_T])
            model_T = torch.cat([torch.full_like(past_T, math.nan), forecast_BH[0]])
            panels.append(Panel(f"test window {first}: grey the truth, red the forecast over {horizon} steps",
                                truth_T.cpu().numpy(), model_T.cpu().numpy(), [(len(past_T), len(truth_T))]))
        return line_panels(panels)


class ForecastMetrics(Metrics):
    """Sums of squared and absolute errors, the number of values that are not missing, persistence's squared error."""

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add forecasts `[B, H]`."""
        error, trivial = prediction - batch["target"], batch["window"][:, 0, -1:] - batch["target"]
        if "counted" in batch:
            error, trivial = error[batch["counted"]], trivial[batch["counted"]]
        self.totals += torch.stack([
            error.double().square().sum(), error.double().abs().sum(),
            torch.tensor(float(error.numel()), dtype=torch.float64, device=error.device),
            trivial.double().square().sum(),
        ]).cpu()

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """The mean squared error of each window, over its values that are not missing."""
        square_BH = (prediction - batch["target"]).double().square()
        if "counted" not in batch:
            return UnitScores.plain(square_BH.mean(dim=1))
        count_B1 = batch["counted"].sum(dim=1, keepdim=True).double()
        sum_B1 = square_BH.where(batch["counted"], 0).sum(dim=1, keepdim=True)
        return UnitScores(sum_B1 / count_B1.clamp(min=1), count_B1)

    def compute(self) -> dict[str, float]:
        """`skill` is 1 - mse / mse of persistence: 0 is no better than repeating the last value."""
        squared, absolute, count, trivial = self.totals.tolist()
        skill = 1 - squared / trivial if trivial else math.nan
        return {"mse": squared / count, "abs_error": absolute / count, "skill": skill}


def _corpora(data: TrialData, p: Any, series: ScaledSeries) -> tuple[SeriesCorpus, ...]:
    """What pretraining sees beside the series itself."""
    if not data.pretraining.data:
        return ()
    return read_corpora(located_corpora(data), data, path_of(data), p, series)


def _seen(data: TrialData, p: ForecastingParams, device: torch.device) -> ScaledSeries:
    """The series as pretraining sees it: nothing is forecast, so that one encoder serves every horizon."""
    return _series(data, p.model_copy(update={"horizon": PRETRAIN_HORIZON}), device)


def _series(data: TrialData, p: ForecastingParams, device: torch.device) -> ScaledSeries:
    return scaled_series(data.name, path_of(data), p.target, p.date_column, p.protocol, p.horizon, device,
                         data.where.reading())
