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

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.data.find.corpora import located_corpora
from raymae.data.find.locate import path_of
from raymae.data.groups import counted
from raymae.data.subsets import labelled
from raymae.models.columns import Cells
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Batch, Loss, Source, Task, Units, joined, split_of
from raymae.tasks.columns.cells import IncompleteTable, TableRows, incomplete_table, mask_cells
from raymae.tasks.columns.pretraining import cell_loss, weighted_mean
from raymae.tasks.columns.schema import TOKEN_ARMS
from raymae.tasks.imputation.corpus import MoreRows, RowsToPretrainOn, read_corpora, tensors_of
from raymae.tasks.imputation.imputing import Imputing
from raymae.tasks.imputation.metrics import ImputationMetrics
from raymae.tasks.imputation.prediction import ImputationPredictor, kept_state
from raymae.tasks.imputation.pretraining import ImputerPretraining
from raymae.tasks.imputation.schema import SCHEMA, ImputationParams
from raymae.tasks.pictures import histogram_panels


class Imputation(Task):
    """California Housing, or any table of numbers and categories.

    Args:
        config: The trial.
        device: Where models and batches live.
        data: A table at hand; read from where the configuration says by default.
    """

    schema = SCHEMA
    predictor = ImputationPredictor

    def __init__(self, config: TrialConfig, device: torch.device, data: IncompleteTable | None = None) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = data or _table(config.data, p, device)
        self.imputing = Imputing(self.data, config.method, p, config.seed)
        self.eval_batch = self.imputing.rows_at_once

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read, take away and split as a trial would."""
        p: Any = cls.schema.params.model_validate(dict(params))
        table = _table(data, p, torch.device("cpu"))
        rows, columns = table.hidden_RC.shape
        told = ("val", "test") if p.protocol == "transductive" else ("train", "val", "test")
        return (f"{rows:,} rows x {columns} columns, {len(np.flatnonzero(table.table.is_categorical))} categorical; "
                f"{np.isnan(table.truth_RC).sum():,} cells truly missing, {table.hidden_RC.sum():,} taken away "
                f"({p.missing_kind} {p.missing_rate:.0%}); learned from {len(table.rows['fit']):,} rows, "
                f"scored on {len(table.rows['val']):,} val / {len(table.rows['test']):,} test; "
                + "; ".join([counted({name: table.groups(rows) for name, rows in table.rows.items() if name in told}),
                             *table.table.notes]))

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many rows of other tables pretraining sees, and what of them is left out."""
        if not data.pretraining.data:
            return ""
        p: Any = cls.schema.params.model_validate(dict(params))
        table = _table(data, p, torch.device("cpu"))
        own = [f"{len(table.rows['fit']):,} rows of the table"] if data.pretraining.own else []
        return " and ".join([*own, read_corpora(located_corpora(data), data, p.group, table).note])

    def _more(self) -> MoreRows | None:
        """What pretraining sees beside the table."""
        where = self.config.data
        return read_corpora(located_corpora(where), where, self.params.group, self.data) if where.pretraining.data \
            else None

    def load(self, split: str) -> Source:
        """Rows to learn from, or rows whose missing cells are scored."""
        rows = self._rows(split)
        more = self._more() if split == "pretrain" else None
        if more is not None:
            wanted = [self.data.seen_RC[rows]] if self.config.data.pretraining.own else []
            return RowsToPretrainOn([tensors_of(self.imputing, units_RC) for units_RC in (*wanted, more.units_RC)])
        if split in ("val", "test", "pretext"):
            return TableRows(self.data, rows, self.imputing.tensors, scored=True)
        hide = self._hide if split == "train" else None
        return TableRows(self.data, rows, self.imputing.tensors, scored=False, hide=hide)

    def _rows(self, split: str) -> np.ndarray:
        rows = self.data.rows["fit" if split in ("pretrain", "train") else split_of(split)]
        fraction = getattr(self.params, "label_fraction", 1.0)
        if split == "train" and fraction < 1:
            return rows[labelled(len(rows), fraction, self.config.seed, groups=self.data.groups(rows))]
        return rows

    def units(self, split: str) -> Units:
        """Rows by their number in the file, the first below the header being 1, and their groups where known."""
        rows = self._rows(split)
        own, more = Units(tuple(str(row + 1) for row in rows), self.data.groups(rows)), None
        if split == "pretrain":
            more = self._more()
        if more is None:
            return own
        known = own.groups is not None
        return joined([*([own] if self.config.data.pretraining.own else []),
                       Units(more.names, more.groups if known else None)])

    def _hide(self, missing_BC: Tensor, generator: Generator) -> Tensor:
        p = self.params
        if self.config.method == "autoencoder":  # learns to repeat what is observed, as the report's does
            return F.pad(missing_BC, (1, 0))
        return mask_cells(missing_BC, p.mask_kind, p.mask_ratio, generator, self.data.missing_RC_on_device)

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The arm's network."""
        return self.imputing.build(self.params)

    def kept_state(self, model: nn.Module) -> Tree:
        """Columns, categories and scales, and how the network's imputations are adjusted."""
        return kept_state(self.imputing, self.imputing.adjustment(model))

    def pretraining(self) -> ImputerPretraining | None:
        """Re-masked cells are predicted by the network that is fine-tuned: what fills cells in is its decoder."""
        if self.arm.kind != "pretrained":
            return None
        p = self.params
        make = partial(self.imputing.transformer, p, p.pretrain_drop_path, p.pretrain_dropout)
        return ImputerPretraining(make, self._hide, self._loss, p.visible_weight, self.data)

    def is_head(self, name: str) -> bool:
        """Whether a parameter is of no pretrained part."""
        return not name.startswith("autoencoder.")

    # -- losses --------------------------------------------------------------------------------------------------------

    def _loss(self, output: Cells, batch: Batch, weight_BC: Tensor) -> Loss:
        """Cross entropy over bins and squared error of the mean in units of the column's range, both weighted."""
        return cell_loss(output, batch, weight_BC, self.data.span_C, self.params.mean_weight)

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Over re-masked cells only: what imputation is scored on."""
        hidden_BC = batch["mask"][:, 1:]
        observed_BC = ~batch["missing"]
        if self.config.method in TOKEN_ARMS:
            return self._loss(model(batch["tokens"], batch["mask"]), batch, (hidden_BC & observed_BC).float())
        counted_BC = observed_BC if self.config.method == "autoencoder" else hidden_BC & observed_BC
        output_BC = self.imputing.dense(model, batch, hidden_BC)
        return weighted_mean((output_BC.float() - batch["scaled"]).square(), counted_BC)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Every cell on the reference scale, then the chosen categories' codes: float64 `[B, C + Q]` on the CPU."""
        return self.imputing.predict(model, batch)

    def metrics(self) -> ImputationMetrics:
        """Errors and distances on the reference scale."""
        return ImputationMetrics(self.data, self.imputing.scaler)

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """True and imputed distributions of the cells taken away from test rows, column by column."""
        if phase == "pretrain":
            return {}
        rows, metrics, imputed = self.data.rows["test"], self.metrics(), []
        source = TableRows(self.data, rows, self.imputing.tensors, scored=True)  # `load` is for scoring, once
        for index in torch.arange(len(source)).split(self.eval_batch):
            batch = source.batch(index, None)
            imputed.append(self.predict(model, batch))
            metrics.update(imputed[-1], batch)
        columns = len(self.data.num_categories)
        return {"distributions": histogram_panels(
            self.data.truth_RC[rows], torch.cat(imputed).numpy()[:, :columns], self.data.hidden_RC[rows],
            metrics.per_column(),
        )}


def _table(data: TrialData, p: ImputationParams, device: torch.device) -> IncompleteTable:
    return incomplete_table(data.name, path_of(data), p.categorical, p.numeric, p.drop, p.group, p.protocol,
                            p.missing_kind, p.missing_rate, p.pattern_seed, device, data.where.reading())
