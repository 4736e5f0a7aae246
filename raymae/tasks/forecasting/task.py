"""Forecasting one channel of a time series, one or many steps ahead.

Shape suffixes: B batch, C series channels (the one predicted first), F input features per step, L lookback steps,
H horizon steps, T steps of the whole series, N tokens, P values in a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.locate import path_of
from raymae.data.splits import labelled_windows
from raymae.models.heads import FlattenHead, LinearHead
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.recurrent import Recurrent
from raymae.models.tokens import TokenGrid
from raymae.spec.task import Arm, Objective, TrainingParams, param
from raymae.spec.trial import TrialConfig
from raymae.tasks.base import Batch, Metrics, Task, uneven_heads
from raymae.tasks.forecasting.features import Features
from raymae.tasks.forecasting.pretraining import WindowPretraining
from raymae.tasks.forecasting.windows import WEEK_S, Prepared, Windows, prepare
from raymae.tasks.lines import Panel, draw_lines

TOKEN_ARMS = ("mae", "scratch")
NUM_PICTURED, SHOWN_STEPS = 3, 168
RECURRENT_ARMS = ("rnn", "lstm", "gru")
LEARNING: tuple[Literal["pretrained", "trained"], ...] = ("pretrained", "trained")


class ForecastingParams(TrainingParams):
    """Parameters of forecasting; those of every training loop are inherited."""

    target: str = param("OT", "the channel to forecast")
    date_column: str = param("date", "the CSV's column of timestamps")
    protocol: Literal["report", "field"] = param(
        "report",
        "report: 70/20/10 % in time, scaled to [-1, 1] by the training range; field: 12/4/4 months of hours, "
        "standardised by the training part",
    )
    horizon: int = param(1, "steps forecast", unit="steps", ge=1)
    lookback: int = param(96, "steps of context", unit="steps", kinds=LEARNING, ge=2)
    covariates: Literal["none", "time", "all"] = param(
        "all", "inputs beside the channel itself: hour and weekday, or those and all other channels", kinds=LEARNING
    )
    normalise: Literal["last", "local", "revin", "none"] = param(
        "local",
        "last: subtract the window's last value; local: also divide by its typical one-step change; revin: subtract "
        "the window's mean and divide by its deviation (Kim et al. 2022); none: raw levels", kinds=LEARNING,
    )
    loss: Literal["mse", "huber"] = param("huber", "fine-tuning loss, in normalised units", kinds=LEARNING)
    dropout: float = param(0.1, "dropout inside the network", kinds=LEARNING, ge=0, lt=1)
    patch_size: int = param(12, "steps per token", unit="steps", arms=TOKEN_ARMS, ge=1)
    encoder_dim: int = param(48, "width of the encoder", arms=TOKEN_ARMS, ge=8)
    encoder_depth: int = param(2, "blocks of the encoder", arms=TOKEN_ARMS, ge=1)
    encoder_heads: int = param(4, "attention heads of the encoder", arms=TOKEN_ARMS, ge=1)
    mlp_ratio: float = param(2.0, "width of each block's MLP, in encoder widths", arms=TOKEN_ARMS, gt=0)
    drop_path: float = param(0.0, "stochastic depth of the last block", arms=TOKEN_ARMS, ge=0, lt=1)
    mask_ratio: float = param(0.5, "share of tokens hidden while pretraining", kinds=("pretrained",), gt=0, lt=1)
    mask_kind: Literal["random", "suffix", "mixed"] = param(
        "mixed", "which tokens are hidden: any (but the last), the last ones, or either", kinds=("pretrained",)
    )
    pretrain_channels: Literal["all", "target"] = param(
        "all", "pretrain on every channel in turn with the same weights, or on the target only", kinds=("pretrained",)
    )
    norm_target: bool = param(False, "predict tokens normalised by their own mean and variance", kinds=("pretrained",))
    decoder_dim: int = param(48, "width of the decoder", kinds=("pretrained",), ge=8)
    decoder_depth: int = param(1, "blocks of the decoder", kinds=("pretrained",), ge=1)
    decoder_heads: int = param(4, "attention heads of the decoder", kinds=("pretrained",), ge=1)
    rnn_dim: int = param(48, "hidden width of the recurrent arms", arms=RECURRENT_ARMS, ge=1)
    rnn_depth: int = param(1, "layers of the recurrent arms", arms=RECURRENT_ARMS, ge=1)


class Forecasting(Task):
    """ETTh1's oil temperature, or any channel of any regularly sampled CSV."""

    name = "forecasting"
    Params = ForecastingParams
    objective = Objective("mse", "min", "squared units of the protocol's scale")
    metric_names = ("mse", "abs_error", "skill")
    arms = {  # noqa: RUF012
        "mae": Arm("pretrained", "patch transformer, masked pretraining on all training windows, then fine-tuning"),
        "scratch": Arm("trained", "the same transformer and fine-tuning, from random weights"),
        "rnn": Arm("trained", "recurrent network with tanh cells"),
        "lstm": Arm("trained", "long short-term memory"),
        "gru": Arm("trained", "gated recurrent unit"),
        "linear": Arm("trained", "one linear layer on the window relative to its last value (NLinear)"),
        "persistence": Arm("reference", "the last value, repeated"),
    }
    sizes = {  # noqa: RUF012
        "debug": {"epochs": 2, "pretrain_epochs": 1, "batch_size": 512, "lookback": 24, "patch_size": 6,
                  "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2, "decoder_dim": 16, "decoder_heads": 2,
                  "rnn_dim": 8, "covariates": "none"},
        "small": {},
        "large": {"encoder_dim": 128, "encoder_depth": 3, "encoder_heads": 8, "decoder_dim": 64, "rnn_dim": 128},
    }

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = _prepare(config.data, p, device)
        self.splits = self.data.splits(p.lookback)
        self.features = Features(self.data, p)
        if config.arm in TOKEN_ARMS:
            self.grid = TokenGrid((p.lookback,), (p.patch_size,), self.features.per_step)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, arm: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
        """A token arm needs whole patches, at least two of them to mask, and heads that divide widths."""
        if arm not in TOKEN_ARMS:
            return []
        found = []
        lookback, patch = int(params["lookback"]), int(params["patch_size"])
        if lookback % patch:
            near = [n for n in (lookback // patch * patch, (lookback // patch + 1) * patch) if n]
            found.append(("lookback", f"lookback={lookback} must be a multiple of patch_size={patch}; "
                                      f"try {' or '.join(map(str, near))}"))
        elif lookback // patch < 2:
            found.append(("patch_size", f"patch_size={patch} leaves {lookback // patch} token of lookback={lookback}; "
                                        f"masking needs at least 2: at most {lookback // 2}"))
        found += uneven_heads(params, *(("encoder", "decoder") if arm == "mae" else ("encoder",)))
        return found

    @classmethod
    def validate(cls, data: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Read and split as a trial would."""
        p = cls.Params.model_validate(dict(params))
        prepared = _prepare(data, p, torch.device("cpu"))
        splits = prepared.splits(p.lookback)
        counts = " / ".join(f"{len(splits[name]):,} {name}" for name in ("train", "val", "test"))
        rows, channels = prepared.values_CT.shape[1], prepared.values_CT.shape[0]
        return f"{rows:,} rows x {channels} channels; {counts} windows of {p.lookback} + {p.horizon} steps"

    def load(self, split: str) -> Windows:
        """Windows of a split."""
        every = self.splits["train" if split == "pretrain" else split]
        starts = np.asarray(every)
        if split == "train" and self.params.label_fraction < 1:
            block = max(1, int(WEEK_S / self.data.step_s))
            starts = labelled_windows(every, self.params.label_fraction, self.config.seed, block=block)
        every_channel = split == "pretrain" and self.params.pretrain_channels == "all"
        return Windows(self.data, torch.as_tensor(starts), self.params.lookback, self.params.horizon,
                       every_channel=every_channel)

    # -- networks ------------------------------------------------------------------------------------------------------

    def _encoder(self) -> Encoder:
        p = self.params
        embedding = PatchEmbedding(self.grid.token_dim, self.grid.shape, p.encoder_dim)
        return Encoder(
            embedding, depth=p.encoder_depth, heads=p.encoder_heads, drop_path=p.drop_path, dropout=p.dropout,
            mlp_ratio=p.mlp_ratio,
        )

    def build(self) -> nn.Module:
        """The arm's network: features in, a horizon of normalised values out."""
        p, arm = self.params, self.config.arm
        if arm in TOKEN_ARMS:
            return FlattenHead(self._encoder(), p.horizon, dropout=p.dropout)
        if arm in RECURRENT_ARMS:
            return Recurrent(arm, self.features.per_step, p.horizon, dim=p.rnn_dim, depth=p.rnn_depth)
        if arm == "linear":
            return LinearHead(2 * p.lookback, p.horizon)
        return nn.Identity()

    def pretraining(self) -> WindowPretraining | None:
        """Level and change of the window's own channel are reconstructed in hidden patches."""
        if self.arm.kind != "pretrained":
            return None
        return WindowPretraining(self._autoencoder, self.features, self.grid, self.params)

    def _autoencoder(self) -> MaskedAutoencoder:
        p = self.params
        return MaskedAutoencoder(
            self._encoder(), self.grid.shape, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
            decoder_heads=p.decoder_heads, norm_target=p.norm_target, target_dim=2 * p.patch_size,
        )

    # -- losses --------------------------------------------------------------------------------------------------------

    def _output(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        features_BFL, own_B2L, base_B1, unit_B1 = self.features(batch)
        if self.config.arm in TOKEN_ARMS:
            return model(self.grid.patchify(features_BFL)), base_B1, unit_B1
        return model(own_B2L if self.config.arm == "linear" else features_BFL), base_B1, unit_B1

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Squared or Huber error in normalised units."""
        output_BH, base_B1, unit_B1 = self._output(model, batch)
        wanted_BH = (batch["target"] - base_B1) / unit_B1
        loss = F.mse_loss if self.params.loss == "mse" else F.huber_loss
        return loss(output_BH.float(), wanted_BH)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Forecasts `[B, H]` on the protocol's scale."""
        if self.arm.kind == "reference":
            return batch["window"][:, 0, -1:].expand(-1, self.params.horizon)
        output_BH, base_B1, unit_B1 = self._output(model, batch)
        return base_B1 + unit_B1 * output_BH.float()

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
        return draw_lines(panels)

    def _forecasts(self, model: nn.Module) -> np.ndarray:
        horizon = self.params.horizon
        source = Windows(self.data, torch.as_tensor(np.asarray(self.splits["test"])), self.params.lookback, horizon,
                         every_channel=False)
        length = min(SHOWN_STEPS, len(source)) if horizon == 1 else 1
        panels, count = [], min(NUM_PICTURED, len(source) - length + 1)
        for first in torch.linspace(0, len(source) - length, count).long().tolist():
            batch = source.batch(torch.arange(first, first + length), None)
            forecast_BH = self.predict(model, batch).float()
            if horizon == 1:
                truth_T, model_T = batch["target"][:, 0], forecast_BH[:, 0]
                title = f"test steps {first} to {first + length - 1}: grey the truth, red forecasts one step ahead"
                panels.append(Panel(title, truth_T.cpu().numpy(), model_T.cpu().numpy()))
                continue
            past_T = batch["window"][0, 0, -2 * horizon:]
            truth_T = torch.cat([past_T, batch["target"][0]])
            model_T = torch.cat([torch.full_like(past_T, math.nan), forecast_BH[0]])
            panels.append(Panel(f"test window {first}: grey the truth, red the forecast over {horizon} steps",
                                truth_T.cpu().numpy(), model_T.cpu().numpy(), [(len(past_T), len(truth_T))]))
        return draw_lines(panels)


class ForecastMetrics(Metrics):
    """Sums of squared and absolute errors, the number of values, and persistence's squared error."""

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add forecasts `[B, H]`."""
        error, trivial = prediction - batch["target"], batch["window"][:, 0, -1:] - batch["target"]
        self.totals += torch.stack([
            error.double().square().sum(), error.double().abs().sum(),
            torch.tensor(float(error.numel()), dtype=torch.float64, device=error.device),
            trivial.double().square().sum(),
        ]).cpu()

    def compute(self) -> dict[str, float]:
        """`skill` is 1 - mse / mse of persistence: 0 is no better than repeating the last value."""
        squared, absolute, count, trivial = self.totals.tolist()
        skill = 1 - squared / trivial if trivial else math.nan
        return {"mse": squared / count, "abs_error": absolute / count, "skill": skill}


def _prepare(data: Mapping[str, Any], p: ForecastingParams, device: torch.device) -> Prepared:
    return prepare(data["name"], path_of(data), p.target, p.date_column, p.protocol, p.horizon, device)
