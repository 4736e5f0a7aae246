"""What a network sees of a window: levels and changes relative to the window itself, so that a forecast is local.

Shape suffixes: B batch, C series channels (the one predicted first), F input features per step, L lookback steps,
N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raymae.tasks.base import Batch
from raymae.tasks.forecasting.windows import NUM_TIME_FEATURES, ScaledSeries


class Features:
    """Normalises windows and computes their features.

    Args:
        data: The series, for its scales.
        params: `lookback`, `patch_size`, `covariates` and `normalise`.
    """

    def __init__(self, data: ScaledSeries, params: Any) -> None:
        self.data, self.p = data, params
        self.deviation_C = data.deviation(params.lookback)

    @property
    def per_step(self) -> int:
        """F: level and change of every input channel, then the time features."""
        channels = len(self.data.values_CT) if self.p.covariates == "all" else 1
        return 2 * channels + (0 if self.p.covariates == "none" else NUM_TIME_FEATURES)

    def __call__(self, batch: Batch, hidden_BN: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute normalised inputs from visible steps only.

        Args:
            batch: As `Windows.batch` makes it.
            hidden_BN: Tokens that must not influence the statistics or the features of visible steps.

        Returns:
            Features `[B, F, L]`; the own channel's level and change at every step, hidden ones included, `[B, 2, L]`;
            and base and unit `[B, 1]`, such that a forecast is `base + unit * output`.
        """
        p = self.p
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
