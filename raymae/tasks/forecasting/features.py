"""What a network sees of a window: levels and changes relative to the window itself, so that a forecast is local.

Shape suffixes: B batch, C series channels (the one predicted first), X one for all channels, or C where cells are
missing, F input features per step, L lookback steps, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from raymae.tasks.base import Batch
from raymae.tasks.forecasting.windows import NUM_TIME_FEATURES, ScaledSeries, carried


class Scales(NamedTuple):
    """What features are measured by: typical changes of every channel in training, float32 on the device.

    Attributes:
        change_C: See `ScaledSeries`.
        unit_C: See `ScaledSeries`.
        deviation_C: See `ScaledSeries.deviation`.
        incomplete: Whether the series that was learned from has missing cells.
    """

    change_C: Tensor
    unit_C: Tensor
    deviation_C: Tensor
    incomplete: bool

    @classmethod
    def of(cls, data: ScaledSeries, lookback: int) -> Scales:
        """Those of a prepared series."""
        return cls(data.change_C, data.unit_C, data.deviation(lookback), data.observed_CT is not None)

    def with_more(self, more: Sequence[ScaledSeries], lookback: int) -> Scales:
        """These and those of other series, whose channels are counted on; where no network sees several at once."""
        scales = [self, *(Scales.of(data, lookback) for data in more)]
        changes, units, deviations, _ = zip(*scales, strict=True)
        return Scales(torch.cat(changes), torch.cat(units), torch.cat(deviations), self.incomplete)


class Features:
    """Normalises windows and computes their features.

    Args:
        scales: Of the series.
        params: `lookback`, `patch_size`, `covariates` and `normalise`.
    """

    def __init__(self, scales: Scales, params: Any) -> None:
        self.scales, self.p = scales, params

    @property
    def per_step(self) -> int:
        """F: level and change of every input channel, whether it is missing where the series has missing cells, and the
        time features."""
        channels = len(self.scales.change_C) if self.p.covariates == "all" else 1
        per_channel = 3 if self.scales.incomplete else 2
        return per_channel * channels + (0 if self.p.covariates == "none" else NUM_TIME_FEATURES)

    def __call__(self, batch: Batch, hidden_BN: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute normalised inputs from visible steps only, and of those from cells that are not missing.

        A missing cell has the level of the last visible one before it, and no change.

        Args:
            batch: As `Windows.batch` makes it.
            hidden_BN: Tokens that must not influence the statistics or the features of visible steps.

        Returns:
            Features `[B, F, L]`; the own channel's level and change at every step, hidden ones included, `[B, 2, L]`;
            and base and unit `[B, 1]`, such that a forecast is `base + unit * output`.
        """
        p = self.p
        x_BCL, which_B, observed_BCL = batch["window"], batch["channel"], batch.get("observed")
        channels, order_BC = 1, which_B[:, None]
        if p.covariates == "all":
            channels = x_BCL.shape[1]
            order_BC = (order_BC + torch.arange(channels, device=x_BCL.device)) % channels
        x_BCL = x_BCL[:, :channels]
        seen_BL = torch.ones_like(x_BCL[:, 0], dtype=torch.bool)
        if hidden_BN is not None:
            seen_BL = ~hidden_BN.repeat_interleave(p.patch_size, dim=1)
        seen_BXL = seen_BL[:, None]
        if observed_BCL is not None:
            observed_BCL, before_BC = observed_BCL[:, :channels], batch["before"][:, :channels]
            seen_BXL = seen_BXL & observed_BCL
            x_BCL = x_BCL.where(observed_BCL, carried(x_BCL, seen_BXL, before_BC))
        change_BCL = F.pad(x_BCL.diff(dim=2), (1, 0)) / self.scales.change_C[order_BC][..., None]
        # a change is visible where both its ends are
        known_BXL = seen_BXL & F.pad(seen_BXL[..., :-1], (1, 0), value=False)
        deviation_BC1 = self.scales.deviation_C[order_BC][..., None]
        unit_B1 = self.scales.unit_C[which_B][:, None]
        if p.normalise in ("last", "local"):
            # index of the last visible step
            last_B = (seen_BL * torch.arange(1, p.lookback + 1, device=x_BCL.device)).argmax(dim=1)
            centre_BC1 = x_BCL.gather(2, last_B[:, None, None].expand(-1, x_BCL.shape[1], 1))
        elif p.normalise == "revin":
            count_BX1 = seen_BXL.sum(dim=2, keepdim=True)
            centre_BC1 = (x_BCL * seen_BXL).sum(dim=2, keepdim=True) / count_BX1.clamp(min=1)
            if observed_BCL is not None:
                centre_BC1 = centre_BC1.where(count_BX1 > 0, before_BC[..., None])
            variance = ((x_BCL - centre_BC1).square() * seen_BXL).sum(dim=2, keepdim=True) / count_BX1.clamp(min=1)
            own_BC1 = (variance + 1e-4 * deviation_BC1.square()).sqrt()
            # a single cell has no deviation of its own
            deviation_BC1 = own_BC1 if observed_BCL is None else own_BC1.where(count_BX1 > 1, deviation_BC1)
            unit_B1 = deviation_BC1[:, 0]
        else:
            centre_BC1, deviation_BC1 = torch.zeros_like(x_BCL[..., :1]), torch.ones_like(deviation_BC1)
            unit_B1 = torch.ones_like(unit_B1)
        level_BCL = (x_BCL - centre_BC1) / deviation_BC1
        if p.normalise == "local":
            count_BX1 = known_BXL.sum(dim=2, keepdim=True)
            mean_square = (change_BCL.square() * known_BXL).sum(dim=2, keepdim=True)
            local_BC1 = (mean_square / count_BX1.clamp(min=1) + 0.01).sqrt()
            if observed_BCL is not None:
                local_BC1 = local_BC1.where(count_BX1 > 0, 1.0)
            level_BCL, change_BCL = level_BCL / local_BC1, change_BCL / local_BC1
            unit_B1 = unit_B1 * local_BC1[:, 0]
        own_B2L = torch.stack([level_BCL[:, 0], change_BCL[:, 0]], dim=1)
        parts = [level_BCL, change_BCL * known_BXL]
        if observed_BCL is not None:
            parts.append((~observed_BCL).to(level_BCL.dtype))
        if p.covariates != "none":
            parts.append(batch["time"])
        return torch.cat(parts, dim=1), own_B2L, centre_BC1[:, 0], unit_B1
