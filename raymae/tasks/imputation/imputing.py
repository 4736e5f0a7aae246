"""Imputing a table: learning how a network's imputations of it are adjusted, and references, which have no network.

Shape suffixes: B batch, R rows, S rows whose columns are hidden in turn, C columns, N tokens (a class token,
then the columns), K bins or categories, Q categorical columns.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.tasks.base import Batch
from raymae.tasks.columns.cells import IncompleteTable, TableRows
from raymae.tasks.columns.schema import TOKEN_ARMS
from raymae.tasks.imputation import adjust as adjusting
from raymae.tasks.imputation.adjust import Adjustment, Predicted
from raymae.tasks.imputation.filling import Filled, Filling, Learned
from raymae.tasks.imputation.references import impute_by, most_frequent
from raymae.tasks.imputation.schema import DENSE_ARMS


class Imputing(Filling):
    """Fills a table's cells under one trial's arm and parameters.

    Args:
        data: The table.
        arm: Its name.
        params: Its parameters.
        seed: The trial's, of what references and samples draw.

    Attributes:
        tensors: What its network gets of every row, `[R, ...]` each.
    """

    def __init__(self, data: IncompleteTable, arm: str, params: Any, seed: int) -> None:
        super().__init__(data, Learned(), arm, params, seed)
        self.data = data
        self.tensors: dict[str, Tensor] = {}
        self._kept: tuple[str, Adjustment] | None = None
        if arm in TOKEN_ARMS:
            bins_RC, centres_CK, edges_CK2 = data.bins(params.bins)
            self.learned = Learned(centres_CK, edges_CK2)
            tokens_RN1 = F.pad(data.scaled(self.scaler), (1, 0))[..., None]
            self.tensors |= {"tokens": tokens_RN1, "value": data.own_RC, "bin": bins_RC}
            if params.draw == "sample":
                noise = Generator(self.device).manual_seed(seed)
                self.tensors["noise"] = torch.rand(data.own_RC.shape, generator=noise, device=self.device)
        elif arm in DENSE_ARMS:
            scaled_RC = data.scaler(self.scaler).transform(data.seen_RC)
            self.tensors["scaled"] = torch.as_tensor(np.nan_to_num(scaled_RC), dtype=torch.float32, device=self.device)
            mean_C = np.nanmean(data.scaler(self.scaler).transform(data.seen_RC[data.rows["fit"]]), axis=0)
            self.learned = Learned(fill_C=torch.as_tensor(mean_C, dtype=torch.float32, device=self.device))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Every cell on the reference scale, then the chosen categories' codes: float64 `[B, C + Q]` on the CPU."""
        adjustment = self.adjustment(model)
        own_BC, chosen_BQ, _ = self.fill(model, batch, adjustment)
        return torch.as_tensor(np.concatenate([self.data.to_reference(adjustment.move(own_BC)), chosen_BQ], axis=1))

    def impute(self, model: nn.Module, units_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill any rows by a network, on every observed value of every row.

        Args:
            model: A trained network.
            units_RC: The file's units and codes, NaN where something is to be imputed.

        Returns:
            Imputed values of all cells, in the file's units (R, C), and chosen categories (R, Q).
        """
        model.eval()
        parts, adjustment = [], self.adjustment(model)
        for batch in self.batches(units_RC):
            own_BC, chosen_BQ, _ = self.fill(model, batch, adjustment)
            parts.append((self.to_units(adjustment.move(own_BC)), chosen_BQ))
        own, chosen = (np.concatenate(part) for part in zip(*parts, strict=True))
        return own, chosen

    def settle(self, model: nn.Module) -> None:
        """Keep what imputing other rows by this network takes, and forget the rows that it learned from."""
        self.adjustment(model)
        self.tensors.clear()
        self.data.forget()

    def fill(self, model: nn.Module, batch: Batch, adjustment: Adjustment) -> Filled:
        """Of references, which impute the whole table at once, the rows of the batch."""
        if self.arm in (*TOKEN_ARMS, *DENSE_ARMS):
            return super().fill(model, batch, adjustment)
        own_RC = impute_by(self.arm, self.data, self.seed, self.params)
        found = self._rounded(own_RC[batch["row"].cpu().numpy()])
        if self.arm == "mean":
            chosen_BQ = np.broadcast_to(most_frequent(self.data)[self.categorical], found.chosen.shape)
            return found._replace(chosen=chosen_BQ)
        return found

    def adjustment(self, model: nn.Module) -> Adjustment:
        """How imputed values of each column are adjusted, learned once for a network's weights."""
        key = _weights_key(model)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._learn_adjustment(model)
        return self._kept[1]

    def _learn_adjustment(self, model: nn.Module) -> Adjustment:
        p, fit = self.params, self.data.rows["fit"]
        told = self.arm in TOKEN_ARMS
        plain = Adjustment([None] * self.columns, [None] * self.columns, np.zeros(self.columns))
        tilted, priced = told and p.mechanism == "own_value", told and p.match_cost > 0
        if not tilted and not priced and p.match == 0:
            return plain
        missing_RC = self.data.missing_RC[fit]
        own_RC = (self.data.seen_RC[fit] - self.data.own_low_C) / self.data.own_range_C
        bins_RC = self.tensors["bin"][torch.as_tensor(fit)].cpu().numpy() if told else np.zeros_like(own_RC, np.int64)
        most = min(adjusting.num_rehidden(self.columns, tilted=tilted), len(fit))
        some_S = np.unique(np.linspace(0, len(fit) - 1, most).astype(np.int64))
        rehidden = Predicted(own_RC[some_S], None)
        if tilted or priced:
            rehidden = self._rehidden(model, fit[some_S], chances=tilted)
        if tilted:
            plain = plain._replace(odds=adjusting.odds_by_column(rehidden, missing_RC[some_S], own_RC, bins_RC))
        if not priced and p.match == 0:
            return plain
        source, parts, sums_CK = TableRows(self.data, fit, self.tensors, scored=False), [], None
        for index in torch.arange(len(source)).split(self.rows_at_once):
            own_BC, _, chances = self.fill(model, source.batch(index, None), plain)
            parts.append(own_BC)
            if chances is not None and p.match_to == "predicted":
                part_CK = np.einsum("bck,bc->ck", chances, missing_RC[index.numpy()].astype(np.float64))
                sums_CK = part_CK if sums_CK is None else sums_CK + part_CK
        imputed_RC = np.concatenate(parts)
        wanted = adjusting.wanted_quantiles(sums_CK, plain.odds, own_RC, bins_RC)
        transports = adjusting.ways(imputed_RC, missing_RC, wanted)
        shares_C = np.full(self.columns, p.match)
        if priced:
            weight_SC = np.column_stack([np.ones(len(some_S)) if odds is None else odds.odds_R[some_S]
                                         for odds in plain.odds])
            said_SC = plain.tilt(rehidden, self.centres_CK.cpu().numpy()).mean
            shares_C = adjusting.shares_by_cost(p.match_cost, imputed_RC, missing_RC, transports, said_SC,
                                                own_RC[some_S], weight_SC, self.data.span_C.cpu().numpy())
        return plain._replace(transports=transports, shares=shares_C)

    def _rehidden(self, model: nn.Module, rows_S: np.ndarray, *, chances: bool) -> Predicted:
        """Predict every cell of some rows while its column is hidden in them, with others of a wide table.

        Args:
            model: The network.
            rows_S: The rows.
            chances: Whether those of bins are wanted, which take much memory.
        """
        source, parts = TableRows(self.data, rows_S, self.tensors, scored=False), []
        groups = adjusting.hidden_together(self.columns)
        for index in torch.arange(len(source)).split(self.rows_at_once):
            batch = source.batch(index, None)
            mean_BC, chances_BCK = np.empty((len(index), self.columns)), []
            for group in groups:
                hidden_BC = batch["missing"].clone()
                hidden_BC[:, group] = True
                found = self._predicted(model, batch["tokens"], hidden_BC)
                mean_BC[:, group] = found.mean[:, group]
                if chances and found.chances is not None:
                    chances_BCK.append(found.chances[:, group])
            parts.append((mean_BC, chances_BCK))
        mean_SC = np.concatenate([mean_BC for mean_BC, _ in parts])
        if not chances:
            return Predicted(mean_SC, None)
        back = np.argsort(np.concatenate(groups))  # from group after group to the columns' order
        return Predicted(mean_SC, np.concatenate([np.concatenate(part, axis=1) for _, part in parts])[:, back])


def _weights_key(model: nn.Module) -> str:
    """Changes whenever a weight does."""
    content = hashlib.sha256()
    for value in model.state_dict().values():
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
