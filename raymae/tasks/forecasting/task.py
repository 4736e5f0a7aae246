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
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.data.find.locate import path_of
from raymae.data.splits import labelled_windows
from raymae.models.heads import FlattenHead, LinearHead
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.masking import MaskKind, draw_mask
from raymae.models.recurrent import Recurrent
from raymae.models.tokens import TokenGrid
from raymae.spec.task import Arm, Objective, TrainingParams, param
from raymae.spec.trial import TrialConfig
from raymae.tasks.base import Batch, Metrics, Task, uneven_heads
from raymae.tasks.forecasting.windows import NUM_TIME_FEATURES, WEEK_S, Prepared, Windows, prepare
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
        self.deviation_C = self.data.deviation(p.lookback)
        if config.arm in TOKEN_ARMS:
            self.grid = TokenGrid((p.lookback,), (p.patch_size,), self._num_features)

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

    @property
    def _num_features(self) -> int:
        """F: level and change of every input channel, then the time features."""
        channels = len(self.data.values_CT) if self.params.covariates == "all" else 1
        return 2 * channels + (0 if self.params.covariates == "none" else NUM_TIME_FEATURES)

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
            return Recurrent(arm, self._num_features, p.horizon, dim=p.rnn_dim, depth=p.rnn_depth)
        if arm == "linear":
            return LinearHead(2 * p.lookback, p.horizon)
        return nn.Identity()

    def build_pretraining(self) -> MaskedAutoencoder:
        """Reconstructs level and change of the window's own channel."""
        p = self.params
        return MaskedAutoencoder(
            self._encoder(), self.grid.shape, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
            decoder_heads=p.decoder_heads, norm_target=p.norm_target, target_dim=2 * p.patch_size,
        )

    # -- features ------------------------------------------------------------------------------------------------------

    def features(self, batch: Batch, hidden_BN: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised inputs, computed from visible steps only.

        Args:
            batch: As `Windows.batch` makes it.
            hidden_BN: Tokens that must not influence the statistics or the features of visible steps.

        Returns:
            Features `[B, F, L]`; the own channel's level and change at every step, hidden ones included, `[B, 2, L]`;
            and base and unit `[B, 1]`, such that a forecast is `base + unit * output`.
        """
        p = self.params
        x_BCL, which_B = batch["window"], batch["channel"]
        order_BC = (which_B[:, None] + torch.arange(x_BCL.shape[1], device=x_BCL.device)) % x_BCL.shape[1]
        if p.covariates != "all":
            x_BCL, order_BC = x_BCL[:, :1], order_BC[:, :1]
        seen_BL = torch.ones_like(x_BCL[:, 0], dtype=torch.bool)
        if hidden_BN is not None:
            seen_BL = ~hidden_BN.repeat_interleave(p.patch_size, dim=1)
        seen_B1L = seen_BL[:, None]
        change_BCL = F.pad(x_BCL.diff(dim=2), (1, 0)) / self.data.change_C[order_BC][..., None]
        # a change is visible where both its ends are
        known_B1L = seen_B1L & F.pad(seen_B1L[..., :-1], (1, 0), value=False)
        deviation_BC1 = self.deviation_C[order_BC][..., None]
        unit_B1 = self.data.unit_C[which_B][:, None]
        if p.normalise in ("last", "local"):
            # index of the last visible step
            last_B = (seen_BL * torch.arange(1, p.lookback + 1, device=x_BCL.device)).argmax(dim=1)
            centre_BC1 = x_BCL.gather(2, last_B[:, None, None].expand(-1, x_BCL.shape[1], 1))
        elif p.normalise == "revin":
            count_B11 = seen_B1L.sum(dim=2, keepdim=True)
            centre_BC1 = (x_BCL * seen_B1L).sum(dim=2, keepdim=True) / count_B11
            variance = ((x_BCL - centre_BC1).square() * seen_B1L).sum(dim=2, keepdim=True) / count_B11
            deviation_BC1 = (variance + 1e-4 * deviation_BC1.square()).sqrt()
            unit_B1 = deviation_BC1[:, 0]
        else:
            centre_BC1, deviation_BC1 = torch.zeros_like(x_BCL[..., :1]), torch.ones_like(deviation_BC1)
            unit_B1 = torch.ones_like(unit_B1)
        level_BCL = (x_BCL - centre_BC1) / deviation_BC1
        if p.normalise == "local":
            mean_square = (change_BCL.square() * known_B1L).sum(dim=2, keepdim=True)
            local_BC1 = (mean_square / known_B1L.sum(dim=2, keepdim=True).clamp(min=1) + 0.01).sqrt()
            level_BCL, change_BCL = level_BCL / local_BC1, change_BCL / local_BC1
            unit_B1 = unit_B1 * local_BC1[:, 0]
        own_B2L = torch.stack([level_BCL[:, 0], change_BCL[:, 0]], dim=1)
        parts = [level_BCL, change_BCL * known_B1L]
        if p.covariates != "none":
            parts.append(batch["time"])
        return torch.cat(parts, dim=1), own_B2L, centre_BC1[:, 0], unit_B1

    # -- losses --------------------------------------------------------------------------------------------------------

    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Random masks keep the last token: a forecaster's anchor."""
        kind: MaskKind = self.params.mask_kind
        return draw_mask(kind, len(batch["window"]), self.grid.num_tokens, self.params.mask_ratio, generator,
                         keep_last=True)

    def pretrain_loss(self, model: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
        """Squared error on level and change of hidden patches of the window's own channel."""
        features_BFL, own_B2L, _, _ = self.features(batch, mask)
        target = TokenGrid((self.params.lookback,), (self.params.patch_size,), 2).patchify(own_B2L)
        return model.loss(self.grid.patchify(features_BFL), mask, target_BNT=target)  # type: ignore[operator]

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

    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """The batch with other values in hidden tokens."""
        hidden_B1L = mask.repeat_interleave(self.params.patch_size, dim=1)[:, None]
        noise = torch.randn(batch["window"].shape, generator=generator, device=mask.device)
        return {**batch, "window": torch.where(hidden_B1L, noise, batch["window"])}

    def encode_visible(self, model: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
        """What the encoder makes of a masked batch."""
        features_BFL, _, _, _ = self.features(batch, mask)
        return model.encoder.visible(self.grid.patchify(features_BFL), mask)[0]  # type: ignore[operator,union-attr]

    # -- pictures ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """`reconstruction`: validation windows, hidden patches filled in; `forecast`: test steps beside forecasts."""
        if phase == "pretrain":
            return {"reconstruction": self._reconstructions(model)}
        return {"forecast": self._forecasts(model)}

    def _reconstructions(self, model: nn.Module) -> np.ndarray:
        source = self.load("val")
        index_B = torch.linspace(0, len(source) - 1, min(NUM_PICTURED, len(source))).long()
        batch = source.batch(index_B, None)
        mask = self.draw_mask(batch, Generator(self.device).manual_seed(0))
        features_BFL, own_B2L, _, _ = self.features(batch, mask)
        grid = TokenGrid((self.params.lookback,), (self.params.patch_size,), 2)
        filled_BNT = model.reconstruct(self.grid.patchify(features_BFL), mask, grid.patchify(own_B2L))  # type: ignore[operator]
        level_BL, size = grid.unpatchify(filled_BNT)[:, 0].float().cpu().numpy(), self.params.patch_size
        panels = []
        for row, truth_L in enumerate(own_B2L[:, 0].cpu().numpy()):
            hidden = [(k * size, (k + 1) * size) for k in torch.where(mask[row])[0].tolist()]
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
