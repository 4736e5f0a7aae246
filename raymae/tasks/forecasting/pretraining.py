"""Masked pretraining on windows of a series: the features of visible steps, never of hidden ones.

Shape suffixes: B batch, F input features per step, L lookback steps, N tokens, P values in a token, T values predicted
per token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.models.interpolation import fill_series
from raymae.models.mae import MaskedAutoencoder
from raymae.models.masking import draw_mask
from raymae.models.tokens import TokenGrid
from raymae.tasks.base import Batch, Hidden, Loss, Pretraining
from raymae.tasks.forecasting.features import Features
from raymae.tasks.pretraining import hidden_errors


class Reconstruction(NamedTuple):
    """Levels of a window, as they are and with hidden patches filled in, `[B, L]`; which tokens are hidden `[B, N]`.

    Levels are NaN where a cell is missing.
    """

    truth_BL: np.ndarray
    filled_BL: np.ndarray
    hidden_BN: np.ndarray


class WindowPretraining(Pretraining[MaskedAutoencoder]):
    """Patches of a window are hidden, and level and change of the window's own channel predicted.

    Args:
        make: Makes the masked autoencoder.
        features: Normalises windows.
        grid: Cuts features into tokens.
        params: `mask_kind` and `mask_ratio`.
    """

    def __init__(
        self, make: Callable[[], MaskedAutoencoder], features: Features, grid: TokenGrid, params: Any
    ) -> None:
        self.make, self.features, self.grid, self.p = make, features, grid, params
        self.target_grid = TokenGrid(grid.size, grid.patch_size, 2)

    def build(self) -> MaskedAutoencoder:
        """Reconstructs level and change of the window's own channel."""
        return self.make()

    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Random masks keep the last token: a forecaster's anchor."""
        return draw_mask(self.p.mask_kind, len(batch["window"]), self.grid.num_tokens, self.p.mask_ratio, generator,
                         keep_last=True)

    def loss(self, model: MaskedAutoencoder, batch: Batch, mask: Tensor) -> Loss:
        """Squared error on level and change of hidden patches of the window's own channel, where they are observed."""
        features_BFL, own_B2L, _, _ = self.features(batch, mask)
        target_BNT, missing_BNT = self.target_grid.patchify(own_B2L), self._missing(batch)
        loss = model.loss(self.grid.patchify(features_BFL), mask, target_BNT=target_BNT, missing_BNT=missing_BNT)
        return Loss(loss, mask.sum() if missing_BNT is None else (mask[..., None] & ~missing_BNT).sum())

    def _missing(self, batch: Batch) -> Tensor | None:
        """Which levels and changes of the window's own channel were not observed."""
        return self._unknown(batch["observed"][:, 0]) if "observed" in batch else None

    def _unknown(self, known_BL: Tensor) -> Tensor:
        """Which levels and changes are not known: a change is known where both its ends are. bool `[B, N, T]`."""
        change_BL = known_BL & F.pad(known_BL[:, :-1], (1, 0), value=False)
        return ~self.target_grid.patchify(torch.stack([known_BL, change_BL], dim=1))

    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """Put other values into hidden tokens."""
        hidden_B1L = mask.repeat_interleave(self.grid.patch_size[0], dim=1)[:, None]
        noise = torch.randn(batch["window"].shape, generator=generator, device=mask.device)
        return {**batch, "window": torch.where(hidden_B1L, noise, batch["window"])}

    def encode_visible(self, model: MaskedAutoencoder, batch: Batch, mask: Tensor) -> Tensor:
        """Encode the visible patches: `[B, V, D]`."""
        return model.encoder.visible(self.grid.patchify(self.features(batch, mask)[0]), mask).features_BVD

    def errors(self, model: MaskedAutoencoder, batch: Batch, generator: Generator) -> Hidden:
        """Squared errors of hidden levels, beside those of straight lines between the visible ones around them.

        Levels are in units of the window's own typical change (`normalise`), so that no window counts for many.
        """
        mask_BN, length = self.draw_mask(batch, generator), self.grid.patch_size[0]
        features_BFL, own_B2L, _, _ = self.features(batch, mask_BN)
        target_BNT = self.target_grid.patchify(own_B2L)
        observed_BL = batch["observed"][:, 0] if "observed" in batch else torch.ones_like(own_B2L[:, 0]).bool()
        seen_BL = observed_BL & ~mask_BN.repeat_interleave(length, dim=1)
        predicted_BNT = model(self.grid.patchify(features_BFL), mask_BN)
        if model.norm_target:
            guessed = model.statistics(target_BNT, self._unknown(seen_BL))
            mean_BN, deviation_BN = (fill_series(part_BN1[..., 0], ~mask_BN) for part_BN1 in guessed)
            predicted_BNT = predicted_BNT * deviation_BN[..., None] + mean_BN[..., None]
        level_BL = own_B2L[:, 0]
        counted_BL = observed_BL & ~seen_BL & seen_BL.any(dim=1, keepdim=True)
        predicted_BL = predicted_BNT[..., :length].flatten(1)  # the changes come after the levels
        return hidden_errors(predicted_BL, fill_series(level_BL, seen_BL), level_BL, counted_BL)

    @torch.no_grad()
    def reconstruct(self, model: MaskedAutoencoder, batch: Batch) -> Reconstruction:
        """Fill in a batch's hidden patches, always the same ones, for a picture."""
        mask_BN = self.draw_mask(batch, Generator(batch["window"].device).manual_seed(0))
        features_BFL, own_B2L, _, _ = self.features(batch, mask_BN)
        filled_BNT = model.reconstruct(self.grid.patchify(features_BFL), mask_BN, self.target_grid.patchify(own_B2L),
                                       self._missing(batch))
        level_BL, truth_BL = self.target_grid.unpatchify(filled_BNT)[:, 0].float(), own_B2L[:, 0]
        if "observed" in batch:
            truth_BL = truth_BL.where(batch["observed"][:, 0], torch.nan)
        return Reconstruction(truth_BL.cpu().numpy(), level_BL.cpu().numpy(), mask_BN.cpu().numpy())
