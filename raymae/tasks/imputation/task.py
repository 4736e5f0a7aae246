"""Imputing the missing cells of a table.

Some of a table's observed cells are taken away by a pattern that belongs to the data (`missing_kind`, `missing_rate`,
`pattern_seed`): the same for every arm, trial and replicate. What an imputer puts there is scored on the min-max scale
of the complete table, whatever scale the imputer itself works on.

Protocols. `transductive`, the field's: every arm learns from the observed cells of all rows, as missForest does, and no
arm ever gets the truth of a cell taken away; those of one row in five select, those of the other rows are the test.
`inductive`: arms learn from 70 % of the rows and impute rows they have not met, 10 % to select and 20 % as the test.

Shape suffixes: B batch, R rows, C columns, N tokens (a class token, then the columns), K bins or categories,
Q categorical columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.data.find.locate import path_of
from raymae.data.splits import labelled_windows
from raymae.models.columns import Cells as Output
from raymae.models.columns import ColumnEmbedding, ColumnMeans, ColumnTransformer, DenseAutoencoder
from raymae.spec.trial import TrialConfig
from raymae.tasks.base import Batch, Task
from raymae.tasks.imputation import adjust as adjusting
from raymae.tasks.imputation.adjust import Adjustment, Predicted
from raymae.tasks.imputation.cells import Cells, Prepared, ScalerKind, draw_cells, prepare
from raymae.tasks.imputation.metrics import ImputationMetrics
from raymae.tasks.imputation.pretraining import CellPretraining
from raymae.tasks.imputation.references import impute_by, most_frequent
from raymae.tasks.imputation.schema import DENSE_ARMS, SCHEMA, TOKEN_ARMS, ImputationParams
from raymae.tasks.transformer import encoder_of


class Imputation(Task):
    """California Housing, or any table of numbers and categories.

    Args:
        config: The trial.
        device: Where models and batches live.
        data: A table at hand; read from where the configuration says by default.
    """

    schema = SCHEMA
    eval_batch = 2048

    def __init__(self, config: TrialConfig, device: torch.device, data: Prepared | None = None) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = data or _prepare(config.data, p, device)
        self.columns = len(self.data.num_categories)
        self.scaler: ScalerKind = p.scaler if self.arm.kind != "reference" else "minmax"
        self.categorical = np.flatnonzero(self.data.table.is_categorical)
        self._kept: tuple[str, Adjustment] | None = None
        self.tensors: dict[str, Tensor] = {}
        if config.arm in TOKEN_ARMS:
            self._prepare_tokens()
        elif config.arm in DENSE_ARMS:
            scaled_RC = np.nan_to_num(self.data.scaler(self.scaler).transform(self.data.seen_RC))
            self.tensors["scaled"] = torch.as_tensor(scaled_RC, dtype=torch.float32, device=device)
            self.fill_C = torch.as_tensor(np.nanmean(
                self.data.scaler(self.scaler).transform(self.data.seen_RC[self.data.rows["fit"]]), axis=0,
            ), dtype=torch.float32, device=device)

    def _prepare_tokens(self) -> None:
        p = self.params
        bins_RC, self.centres_CK, self.edges_CK2 = self.data.bins(p.bins)
        self.span_C = torch.tensor([1 / max(count - 1, 1) for count in self.data.num_categories], device=self.device)
        tokens_RN1 = F.pad(self.data.scaled(p.scaler), (1, 0))[..., None]
        self.tensors |= {"tokens": tokens_RN1, "value": self.data.own_RC, "bin": bins_RC}
        if p.draw == "sample":
            noise = Generator(self.device).manual_seed(self.config.seed)
            self.tensors["noise"] = torch.rand(self.data.own_RC.shape, generator=noise, device=self.device)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Read, take away and split as a trial would."""
        p: Any = cls.schema.params.model_validate(dict(params))
        found = _prepare(data, p, torch.device("cpu"))
        rows, columns = found.hidden_RC.shape
        return (f"{rows:,} rows x {columns} columns, {len(np.flatnonzero(found.table.is_categorical))} categorical; "
                f"{np.isnan(found.truth_RC).sum():,} cells truly missing, {found.hidden_RC.sum():,} taken away "
                f"({p.missing_kind} {p.missing_rate:.0%}); learned from {len(found.rows['fit']):,} rows, "
                f"scored on {len(found.rows['val']):,} val / {len(found.rows['test']):,} test")

    def load(self, split: str) -> Cells:
        """Rows to learn from, or rows whose missing cells are scored."""
        if split in ("val", "test"):
            return Cells(self.data, self.data.rows[split], self.tensors, scored=True)
        rows = self.data.rows["fit"]
        if split == "train" and self.params.label_fraction < 1:
            rows = labelled_windows(range(len(rows)), self.params.label_fraction, self.config.seed, block=1)
            rows = self.data.rows["fit"][rows]
        return Cells(self.data, rows, self.tensors, scored=False, draw=self._draw if split == "train" else None)

    def _draw(self, missing_BC: Tensor, generator: Generator) -> Tensor:
        p = self.params
        if self.config.arm == "autoencoder":  # learns to repeat what is observed, as the report's does
            return F.pad(missing_BC, (1, 0))
        return draw_cells(missing_BC, p.mask_kind, p.mask_ratio, generator, self.data.missing_RC_on_device)

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The arm's network."""
        p, arm = self.params, self.config.arm
        if arm in TOKEN_ARMS:
            return self._transformer()
        if arm in DENSE_ARMS:
            return DenseAutoencoder(self.columns, p.hidden_dim, dropout=p.dropout, with_mask=arm == "report_mae")
        return nn.Identity()

    def _transformer(self) -> ColumnTransformer:
        p = self.params
        embedding = ColumnEmbedding(self.data.num_categories, p.encoder_dim, frequencies=p.frequencies,
                                    frequency_scale=p.frequency_scale)
        encoder = encoder_of(p, embedding, dropout=p.dropout)
        head = ColumnMeans(p.decoder_dim, self.centres_CK, self.data.deviation_C)
        return ColumnTransformer(encoder, head, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
                                 decoder_heads=p.decoder_heads)

    def pretraining(self) -> CellPretraining | None:
        """Re-masked cells are predicted by the network that is fine-tuned: what fills cells in is its decoder."""
        if self.arm.kind != "pretrained":
            return None
        return CellPretraining(self._transformer, self._draw, self._loss, self.params.visible_weight,
                               self.data.num_categories)

    # -- losses --------------------------------------------------------------------------------------------------------

    def _loss(self, output: Output, batch: Batch, weight_BC: Tensor) -> Tensor:
        """Cross entropy over bins and squared error of the mean in units of the column's range, both weighted."""
        chosen_BC = -output.log_chances_BCK.gather(-1, batch["bin"][..., None])[..., 0]
        error_BC = ((output.mean_BC - batch["value"]) * self.span_C).square()
        loss_BC = chosen_BC + self.params.mean_weight * error_BC
        return (loss_BC * weight_BC).sum() / weight_BC.sum().clamp(min=1)

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over re-masked cells only: what imputation is scored on."""
        hidden_BC = batch["mask"][:, 1:]
        observed_BC = ~batch["missing"]
        if self.config.arm in TOKEN_ARMS:
            return self._loss(model(batch["tokens"], batch["mask"]), batch, (hidden_BC & observed_BC).float())
        counted_BC = observed_BC if self.config.arm == "autoencoder" else hidden_BC & observed_BC
        output_BC = self._dense(model, batch, hidden_BC)
        return ((output_BC.float() - batch["scaled"]).square() * counted_BC).sum() / counted_BC.sum().clamp(min=1)

    def _dense(self, model: nn.Module, batch: Batch, hidden_BC: Tensor) -> Tensor:
        filled_BC = torch.where(hidden_BC, self.fill_C if self.config.arm == "autoencoder" else 0.0, batch["scaled"])
        return model(filled_BC, ~hidden_BC)

    # -- imputing ------------------------------------------------------------------------------------------------------

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Every cell on the reference scale, then the chosen categories' codes: float64 `[B, C + Q]` on the CPU."""
        adjustment = self._adjusted(model)
        own_BC, chosen_BQ, _ = self._impute(model, batch, adjustment)
        return torch.as_tensor(np.concatenate([self.data.to_reference(adjustment.move(own_BC)), chosen_BQ], axis=1))

    def impute(self, model: nn.Module, units_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill any rows by a token arm's network, on every observed value of every row.

        Args:
            model: A trained network.
            units_RC: The file's units and codes, NaN where something is to be imputed.

        Returns:
            Imputed values of all cells, in the file's units (R, C), and chosen categories (R, Q).
        """
        model.eval()
        missing_RC = torch.as_tensor(np.isnan(units_RC), device=self.device)
        scaled_RC = self.data.scaled_rows(self.scaler, units_RC)
        batch = {"missing": missing_RC, "tokens": F.pad(scaled_RC, (1, 0))[..., None]}
        if self.params.draw == "sample":
            generator = Generator(self.device).manual_seed(self.config.seed)
            batch["noise"] = torch.rand(missing_RC.shape, generator=generator, device=self.device)
        parts, adjustment = [], self._adjusted(model)
        for index_B in torch.arange(len(units_RC), device=self.device).split(self.eval_batch):
            rows = {name: value[index_B] for name, value in batch.items()}
            own_BC, chosen_BQ, _ = self._impute(model, rows, adjustment)
            parts.append((adjustment.move(own_BC) * self.data.own_range_C + self.data.own_low_C, chosen_BQ))
        own, chosen = (np.concatenate(part) for part in zip(*parts, strict=True))
        return own, chosen

    def settle(self, model: nn.Module) -> None:
        """Keep what imputing other rows by this network takes, and forget the rows that it learned from."""
        self._adjusted(model)
        self.tensors.clear()
        self.data.forget()

    @torch.no_grad()
    def _impute(
        self, model: nn.Module, batch: Batch, adjustment: Adjustment
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Cells in own units, chosen categories, and chances of bins where the network tells any."""
        arm = self.config.arm
        if self.arm.kind == "reference":
            p = self.params
            own_RC = impute_by(arm, self.data, self.config.seed, num_trees=p.num_trees, min_leaf=p.min_leaf,
                               max_rounds=p.max_rounds, donors=p.num_donors)
            own_BC = own_RC[batch["row"].cpu().numpy()]
        elif arm in DENSE_ARMS:
            scaled_BC = self._dense(model, batch, batch["missing"]).double().cpu().numpy()
            units_BC = self.data.scaler(self.scaler).inverse_transform(scaled_BC)
            own_BC = (units_BC - self.data.own_low_C) / self.data.own_range_C
        else:
            found = adjustment.tilt(self._said(model, batch["tokens"], batch["missing"]), self.centres_CK.cpu().numpy())
            assert found.chances is not None
            own_BC = self._drawn(found, batch)
            codes_BC = found.chances.argmax(axis=-1) if self.params.draw != "sample" else own_BC
            return own_BC, codes_BC[:, self.categorical].astype(np.float64), found.chances
        highest_Q = np.array(self.data.num_categories)[self.categorical] - 1
        chosen_BQ = np.clip(np.round(own_BC[:, self.categorical]), 0, highest_Q)
        if arm == "mean":
            chosen_BQ = np.broadcast_to(most_frequent(self.data)[self.categorical], chosen_BQ.shape)
        return own_BC, chosen_BQ, None

    @torch.no_grad()
    def _said(self, model: nn.Module, tokens_BN1: Tensor, hidden_BC: Tensor) -> Predicted:
        output = model(tokens_BN1, F.pad(hidden_BC, (1, 0)))
        return Predicted(output.mean_BC.double().cpu().numpy(), output.log_chances_BCK.exp().double().cpu().numpy())

    def _drawn(self, found: Predicted, batch: Batch) -> np.ndarray:
        """The mean, or the quantile of the predicted distribution at one half or at a level fixed per cell."""
        if self.params.draw == "mean":
            return found.mean
        chances_BCK = torch.as_tensor(found.chances, device=self.device)
        level_BC = batch["noise"] if self.params.draw == "sample" else torch.full_like(chances_BCK[..., 0], 0.5)
        reached_BCK = chances_BCK.cumsum(dim=-1)
        last_C = (~self.centres_CK.isnan()).sum(dim=-1) - 1
        bin_BC = torch.minimum((reached_BCK < level_BC[..., None]).sum(dim=-1), last_C)[..., None]
        before_BC = (reached_BCK - chances_BCK).gather(-1, bin_BC)[..., 0]
        inside_BC = ((level_BC - before_BC) / chances_BCK.gather(-1, bin_BC)[..., 0].clamp(min=1e-9)).clamp(0, 1)
        low_BC, high_BC = (self.edges_CK2[..., side].expand_as(chances_BCK).gather(-1, bin_BC)[..., 0]
                           for side in (0, 1))
        return (low_BC + inside_BC * (high_BC - low_BC)).double().cpu().numpy()

    def _adjusted(self, model: nn.Module) -> Adjustment:
        """What is done to the imputed values of each column; learned on all rows that may be learned from."""
        key = _weights_key(model)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._adjust(model)
        return self._kept[1]

    def _adjust(self, model: nn.Module) -> Adjustment:
        p, fit = self.params, self.data.rows["fit"]
        told = self.config.arm in TOKEN_ARMS
        plain = Adjustment([None] * self.columns, [None] * self.columns, np.zeros(self.columns))
        tilted, priced = told and p.mechanism == "own_value", told and p.match_cost > 0
        if not tilted and not priced and p.match == 0:
            return plain
        missing_RC = self.data.missing_RC[fit]
        own_RC = (self.data.seen_RC[fit] - self.data.own_low_C) / self.data.own_range_C
        bins_RC = self.tensors["bin"][torch.as_tensor(fit)].cpu().numpy() if told else np.zeros_like(own_RC, np.int64)
        some_S = np.unique(np.linspace(0, len(fit) - 1, min(adjusting.REHIDDEN, len(fit))).astype(np.int64))
        rehidden = self._rehidden(model, fit[some_S]) if tilted or priced else Predicted(own_RC[some_S], None)
        if tilted:
            plain = plain._replace(odds=adjusting.odds_by_column(rehidden, missing_RC[some_S], own_RC, bins_RC))
        if not priced and p.match == 0:
            return plain
        source, parts, sums_CK = Cells(self.data, fit, self.tensors, scored=False), [], None
        for index in torch.arange(len(source)).split(self.eval_batch):
            own_BC, _, chances = self._impute(model, source.batch(index, None), plain)
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
                                                own_RC[some_S], weight_SC, self.span_C.cpu().numpy())
        return plain._replace(transports=transports, shares=shares_C)

    def _rehidden(self, model: nn.Module, rows_S: np.ndarray) -> Predicted:
        """What is said of every cell of some rows while its column is hidden in them, one column at a time."""
        source, parts = Cells(self.data, rows_S, self.tensors, scored=False), []
        for index in torch.arange(len(source)).split(self.eval_batch):
            batch, said = source.batch(index, None), []
            for column in range(self.columns):
                hidden_BC = batch["missing"].clone()
                hidden_BC[:, column] = True
                found = self._said(model, batch["tokens"], hidden_BC)
                assert found.chances is not None
                said.append((found.mean[:, column], found.chances[:, column]))
            parts.append([np.stack(part, axis=1) for part in zip(*said, strict=True)])
        mean_SC, chances_SCK = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Predicted(mean_SC, chances_SCK)

    def metrics(self) -> ImputationMetrics:
        """Errors and distances on the reference scale."""
        return ImputationMetrics(self.data, self.scaler)

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """True and imputed distributions of the cells taken away from test rows, column by column."""
        if phase == "pretrain":
            return {}
        from raymae.tasks.histograms import draw_histograms

        source, metrics = Cells(self.data, self.data.rows["test"], self.tensors, scored=True), self.metrics()
        imputed = []
        for index in torch.arange(len(source)).split(self.eval_batch):
            batch = source.batch(index, None)
            imputed.append(self.predict(model, batch))
            metrics.update(imputed[-1], batch)
        rows = self.data.rows["test"]
        return {"distributions": draw_histograms(
            self.data.truth_RC[rows], torch.cat(imputed).numpy()[:, :self.columns], self.data.hidden_RC[rows],
            metrics.per_column(),
        )}


def _weights_key(model: nn.Module) -> str:
    """Changes whenever a weight does."""
    content = hashlib.sha256()
    for value in model.state_dict().values():
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _prepare(data: Mapping[str, Any], p: ImputationParams, device: torch.device) -> Prepared:
    return prepare(data["name"], path_of(data), p.categorical, p.numeric, p.drop, p.protocol, p.missing_kind,
                   p.missing_rate, p.pattern_seed, device)
