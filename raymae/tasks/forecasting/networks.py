"""The networks of forecasting and what they say of windows, known by the shapes and scales of their inputs alone.

Shape suffixes: B batch, F input features per step, L lookback steps, H horizon steps, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from raymae.models.heads import FlattenHead, LinearHead
from raymae.models.mae import Encoder
from raymae.models.recurrent import Recurrent
from raymae.models.tokens import TokenGrid
from raymae.tasks.base import Batch
from raymae.tasks.forecasting.features import Features, Scales
from raymae.tasks.forecasting.schema import RECURRENT_ARMS, TOKEN_ARMS
from raymae.tasks.transformer import encoder

ALONE = {"normalise": "last", "covariates": "none"}  # what `linear` sees: one channel less its last value


class Forecasters:
    """Makes an arm's network, and lets it forecast.

    Args:
        arm: Its name; of a reference there is no network.
        params: Its parameters.
        scales: Of the series that it learns from.

    Attributes:
        features: What the network sees of a window.
        grid: How that is cut into tokens; of token arms only.
    """

    def __init__(self, arm: str, params: Any, scales: Scales) -> None:
        self.arm = arm
        self.features = Features(scales, params.model_copy(update=ALONE if arm == "linear" else {}))
        if arm in TOKEN_ARMS:
            self.grid = TokenGrid((params.lookback,), (params.patch_size,), self.features.per_step)

    def encoder(self, p: Any, drop_path: float, dropout: float) -> Encoder:
        """The encoder of a token arm, freshly initialised."""
        return encoder(p, self.grid, drop_path=drop_path, dropout=dropout)

    def build(self, p: Any) -> nn.Module:
        """The arm's network, freshly initialised: features in, a horizon of normalised values out."""
        if self.arm in TOKEN_ARMS:
            return FlattenHead(self.encoder(p, p.drop_path, p.dropout), p.horizon, dropout=p.dropout)
        if self.arm in RECURRENT_ARMS:
            return Recurrent(self.arm, self.features.per_step, p.horizon, dim=p.rnn_dim, depth=p.rnn_depth)
        if self.arm == "linear":
            return LinearHead(p.lookback, p.horizon)
        return nn.Identity()

    def output(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What a network says `[B, H]`, and base and unit `[B, 1]` of a forecast `base + unit * output`."""
        features_BFL, own_B2L, base_B1, unit_B1 = self.features(batch)
        if self.arm in TOKEN_ARMS:
            return model(self.grid.patchify(features_BFL)), base_B1, unit_B1
        return model(own_B2L[:, :1] if self.arm == "linear" else features_BFL), base_B1, unit_B1

    def forecast(self, model: nn.Module, batch: Batch) -> Tensor:
        """Forecasts `[B, H]` on the protocol's scale."""
        output_BH, base_B1, unit_B1 = self.output(model, batch)
        return base_B1 + unit_B1 * output_BH.float()

    def encode(self, model: Any, batch: Batch) -> Tensor | None:
        """The mean of the encoder's tokens, or the last state of a recurrent network: `[B, D]`; None without either."""
        features_BFL = self.features(batch)[0]
        if self.arm in TOKEN_ARMS:
            return model.encoder(self.grid.patchify(features_BFL)).mean(dim=1)
        return model.rnn(features_BFL.transpose(1, 2))[0][:, -1] if self.arm in RECURRENT_ARMS else None
