"""Filling cells by a trained network, on scales that were learned before: without the table they are of.

Shape suffixes: B batch, R rows, C columns, N tokens (a class token, then the columns), K bins or categories,
Q categorical columns, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.models.columns import ColumnTransformer, DenseAutoencoder
from raymae.tasks.base import Batch
from raymae.tasks.columns.cells import OwnScales, ScalerKind
from raymae.tasks.columns.network import rows_at_once, with_decoder
from raymae.tasks.columns.schema import TOKEN_ARMS
from raymae.tasks.imputation.adjust import Adjustment, Predicted
from raymae.tasks.imputation.schema import DENSE_ARMS


class Learned(NamedTuple):
    """What a network's cells are made of, learned from observed cells.

    Attributes:
        centres_CK: Mean of the observed values in every bin, own units, NaN where there is none; of token arms only.
        edges_CK2: Lower and upper edge of every bin, likewise.
        fill_C: What stands in a hidden cell, on the arm's scale; of dense arms only.
    """

    centres_CK: Tensor | None = None
    edges_CK2: Tensor | None = None
    fill_C: Tensor | None = None


class Filled(NamedTuple):
    """What a network says of cells: own units (B, C), chosen categories (B, Q), chances of bins (B, C, K) if any."""

    own: np.ndarray
    chosen: np.ndarray
    chances: np.ndarray | None


def scaler_of(arm: str, params: Any) -> ScalerKind:
    """The scale that an arm works on."""
    kind: ScalerKind = params.scaler if arm in (*TOKEN_ARMS, *DENSE_ARMS) else "minmax"
    return kind


class Filling:
    """Fills cells by networks of one arm.

    Args:
        scales: Of the columns.
        learned: What else the arm's network takes.
        arm: Its name.
        params: Its parameters.
        seed: Of what is sampled.

    Attributes:
        rows_at_once: Rows of a batch that is filled.
        scaler: The scale that the arm works on.
    """

    def __init__(self, scales: OwnScales, learned: Learned, arm: str, params: Any, seed: int) -> None:
        self.scales, self.learned, self.arm, self.params, self.seed = scales, learned, arm, params, seed
        self.device = scales.device
        self.columns = len(scales.num_categories)
        self.rows_at_once = rows_at_once(self.columns)
        self.categorical = np.flatnonzero(scales.num_categories)
        self.scaler = scaler_of(arm, params)

    @property
    def centres_CK(self) -> Tensor:  # noqa: N802
        """See `Learned`."""
        assert self.learned.centres_CK is not None
        return self.learned.centres_CK

    def build(self, p: Any) -> nn.Module:
        """The arm's network, freshly initialised."""
        if self.arm in TOKEN_ARMS:
            return self.transformer(p, p.drop_path, p.dropout)
        if self.arm in DENSE_ARMS:
            return DenseAutoencoder(self.columns, p.hidden_dim, dropout=p.dropout, with_mask=self.arm == "report_mae")
        return nn.Identity()

    def transformer(self, p: Any, drop_path: float, dropout: float) -> ColumnTransformer:
        """The network of a token arm, freshly initialised."""
        return with_decoder(ColumnTransformer, p, self.scales, self.centres_CK, drop_path=drop_path, dropout=dropout)

    def dense(self, model: nn.Module, batch: Batch, hidden_BC: Tensor) -> Tensor:
        """Run a dense network on rows whose hidden cells are filled: `[B, C]`, on its scale."""
        return model(*self._row(batch, hidden_BC))

    def _row(self, batch: Batch, hidden_BC: Tensor) -> tuple[Tensor, Tensor]:
        """What a dense network gets: rows with something in their hidden cells, and where they are visible."""
        stands = self.learned.fill_C if self.arm == "autoencoder" and self.learned.fill_C is not None else 0.0
        return torch.where(hidden_BC, stands, batch["scaled"]), ~hidden_BC

    def batches(self, units_RC: np.ndarray) -> list[Batch]:
        """Any rows as the network takes them.

        Args:
            units_RC: The file's units and codes, NaN where something is to be imputed.
        """
        missing_RC = torch.as_tensor(np.isnan(units_RC), device=self.device)
        rows: Batch = {"missing": missing_RC}
        if self.arm in TOKEN_ARMS:
            rows["tokens"] = F.pad(self.scales.scaled_rows(self.scaler, units_RC), (1, 0))[..., None]
            if self.params.draw == "sample":
                generator = Generator(self.device).manual_seed(self.seed)
                rows["noise"] = torch.rand(missing_RC.shape, generator=generator, device=self.device)
        else:
            scaled_RC = np.nan_to_num(self.scales.scaler(self.scaler).transform(units_RC))
            rows["scaled"] = torch.as_tensor(scaled_RC, dtype=torch.float32, device=self.device)
        return [{name: value[index_B] for name, value in rows.items()}
                for index_B in torch.arange(len(units_RC), device=self.device).split(self.rows_at_once)]

    def to_units(self, own_BC: np.ndarray) -> np.ndarray:
        """Own units to the file's."""
        return own_BC * self.scales.own_range_C + self.scales.own_low_C

    @torch.no_grad()
    def fill(self, model: nn.Module, batch: Batch, adjustment: Adjustment) -> Filled:
        """Fill a batch's missing cells, before values are moved; all other cells are predicted too."""
        if self.arm in DENSE_ARMS:
            scaled_BC = self.dense(model, batch, batch["missing"]).double().cpu().numpy()
            units_BC = self.scales.scaler(self.scaler).inverse_transform(scaled_BC)
            return self._rounded((units_BC - self.scales.own_low_C) / self.scales.own_range_C)
        predicted = self._predicted(model, batch["tokens"], batch["missing"])
        predicted = adjustment.tilt(predicted, self.centres_CK.cpu().numpy())
        assert predicted.chances is not None
        own_BC = self._value_of(predicted, batch)
        codes_BC = predicted.chances.argmax(axis=-1) if self.params.draw != "sample" else own_BC
        return Filled(own_BC, codes_BC[:, self.categorical].astype(np.float64), predicted.chances)

    def _rounded(self, own_BC: np.ndarray) -> Filled:
        highest_Q = np.array(self.scales.num_categories)[self.categorical] - 1
        return Filled(own_BC, np.clip(np.round(own_BC[:, self.categorical]), 0, highest_Q), None)

    @torch.no_grad()
    def encode(self, model: Any, batch: Batch) -> Tensor:
        """The mean of the tokens of a row's observed cells, class token included, or a dense network's code: [B, D]."""
        if self.arm in DENSE_ARMS:
            filled_BC, visible_BC = self._row(batch, batch["missing"])
            row = [filled_BC, visible_BC.to(filled_BC.dtype)] if model.with_mask else [filled_BC]
            return model.encoder(torch.cat(row, dim=1))
        seen = model.autoencoder.encoder.visible(batch["tokens"], F.pad(batch["missing"], (1, 0)))
        if seen.padded_BV is None:
            return seen.features_BVD.mean(dim=1)
        there_BV1 = (~seen.padded_BV)[..., None]
        return (seen.features_BVD * there_BV1).sum(dim=1) / there_BV1.sum(dim=1)

    @torch.no_grad()
    def _predicted(self, model: nn.Module, tokens_BN1: Tensor, hidden_BC: Tensor) -> Predicted:
        output = model(tokens_BN1, F.pad(hidden_BC, (1, 0)))
        return Predicted(output.mean_BC.double().cpu().numpy(), output.log_chances_BCK.exp().double().cpu().numpy())

    def _value_of(self, found: Predicted, batch: Batch) -> np.ndarray:
        """The mean, or the quantile of the predicted distribution at one half or at a level fixed per cell."""
        if self.params.draw == "mean":
            return found.mean
        assert self.learned.edges_CK2 is not None
        chances_BCK = torch.as_tensor(found.chances, device=self.device)
        level_BC = batch["noise"] if self.params.draw == "sample" else torch.full_like(chances_BCK[..., 0], 0.5)
        reached_BCK = chances_BCK.cumsum(dim=-1)
        last_C = (~self.centres_CK.isnan()).sum(dim=-1) - 1
        bin_BC = torch.minimum((reached_BCK < level_BC[..., None]).sum(dim=-1), last_C)[..., None]
        before_BC = (reached_BCK - chances_BCK).gather(-1, bin_BC)[..., 0]
        inside_BC = ((level_BC - before_BC) / chances_BCK.gather(-1, bin_BC)[..., 0].clamp(min=1e-9)).clamp(0, 1)
        low_BC, high_BC = (self.learned.edges_CK2[..., side].expand_as(chances_BCK).gather(-1, bin_BC)[..., 0]
                           for side in (0, 1))
        return (low_BC + inside_BC * (high_BC - low_BC)).double().cpu().numpy()
