"""Predicting one column of a table from the others, a number or a category.

Rows are split once, by `split_seed`; pretraining sees the inputs of all training rows and of rows without a label,
fine-tuning the labels of a share of the training rows. Inputs of rows that are scored are never learned from.

Shape suffixes: B batch, R rows, C columns, N tokens (a class token, then the columns), K categories of the target, or
1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.data.find.locate import path_of
from raymae.data.groups import counted
from raymae.data.subsets import labelled
from raymae.models.columns import Cells, ColumnAutoencoder
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Batch, Loss, Metrics, Task, Units, split_of
from raymae.tasks.columns.cells import TableRows, mask_cells
from raymae.tasks.columns.kept import plain_names, scales_state
from raymae.tasks.columns.network import rows_at_once, with_decoder
from raymae.tasks.columns.pretraining import cell_loss
from raymae.tasks.pictures import scatter
from raymae.tasks.prediction.metrics import CategoryMetrics, NumberMetrics
from raymae.tasks.prediction.prediction import PredictionPredictor, row_network
from raymae.tasks.prediction.pretraining import RowPretraining
from raymae.tasks.prediction.references import fitted
from raymae.tasks.prediction.schema import SCHEMA, PredictionParams
from raymae.tasks.prediction.table import LabelledTable, labelled_table


class Prediction(Task):
    """The house values of California Housing, or a column of any table.

    Args:
        config: The trial.
        device: Where models and batches live.
        data: A table at hand; read from where the configuration says by default.
    """

    schema = SCHEMA
    predictor = PredictionPredictor

    def __init__(self, config: TrialConfig, device: torch.device, data: LabelledTable | None = None) -> None:
        super().__init__(config, device)
        self.data = data or _table(config.data, self.params, device)
        self.inputs = self.data.inputs
        self.eval_batch = rows_at_once(len(self.inputs.columns))
        told = self.data.label_R[self._rows("train")]
        self.middle, self.deviation = float(told.mean()), float(told.std()) or 1.0

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read and split as a trial would."""
        p: Any = cls.schema.params.model_validate(dict(params))
        table = _table(data, p, torch.device("cpu"))
        inputs, what = table.inputs, f"{len(table.classes)} categories" if table.classes else "a number"
        rows, columns = inputs.missing_RC.shape
        categorical = len(np.flatnonzero(inputs.table.is_categorical))
        counts = " / ".join(f"{len(inputs.rows[name]):,} {name}" for name in ("train", "val", "test"))
        groups = counted({name: inputs.groups(inputs.rows[name]) for name in ("train", "val", "test")})
        return "; ".join([f"{rows:,} rows; {table.target}, {what}, from {columns} columns, {categorical} categorical, "
                          f"{inputs.missing_RC.sum():,} cells missing; {counts} rows", groups, *inputs.table.notes])

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many rows without a label pretraining sees."""
        p: Any = cls.schema.params.model_validate(dict(params))
        table = _table(data, p, torch.device("cpu"))
        rows, untold = table.inputs.rows, int(np.isnan(table.label_R).sum())
        if not untold:
            return ""
        more = len(rows["fit"]) - len(rows["train"])
        left = f", {untold - more:,} left out, whose groups are scored" if untold > more else ""
        return f"{len(rows['train']):,} training rows and {more:,} without {table.target}{left}"

    def load(self, split: str) -> TableRows:
        """Rows of a split: their inputs, and their labels but for pretraining."""
        tensors, hide = {"tokens": self._tokens_RN1}, None
        if split in ("pretrain", "pretext"):
            tensors |= {"value": self.inputs.own_RC, "bin": self._bins[0]}
        else:
            tensors["label"] = self._label_R
            if split == "train" and self.params.column_dropout:
                hide = partial(self._hide, "fixed", self.params.column_dropout)
        return TableRows(self.inputs, self._rows(split), tensors, scored=False, hide=hide)

    @cached_property
    def _tokens_RN1(self) -> Tensor:  # noqa: N802
        if self.arm.kind == "reference":
            return self.inputs.own_RC[..., None]
        return F.pad(self.inputs.scaled(self.params.scaler), (1, 0))[..., None]

    @cached_property
    def _label_R(self) -> Tensor:  # noqa: N802
        return torch.as_tensor(np.nan_to_num(self.data.label_R), device=self.device)

    @cached_property
    def _bins(self) -> tuple[Tensor, Tensor]:
        """The bin of every cell, and what bins hold on average, see `IncompleteTable.bins`."""
        bins_RC, centres_CK, _ = self.inputs.bins(self.params.bins)
        return bins_RC, centres_CK

    def _rows(self, split: str) -> np.ndarray:
        rows = self.inputs.rows["fit" if split == "pretrain" else split_of(split)]
        if split == "train" and self.params.label_fraction < 1:
            return rows[labelled(len(rows), self.params.label_fraction, self.config.seed,
                                 groups=self.inputs.groups(rows))]
        return rows

    def units(self, split: str) -> Units:
        """Rows by their number in the file, the first below the header being 1, and their groups where known."""
        rows = self._rows(split)
        return Units(tuple(str(row + 1) for row in rows), self.inputs.groups(rows))

    def _hide(self, kind: Literal["fixed", "uniform", "pattern"], ratio: float, missing_BC: Tensor,
              generator: Generator) -> Tensor:
        return mask_cells(missing_BC, kind, ratio, generator, self.inputs.missing_RC_on_device)

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """Cells in, a number or a score per category out."""
        if self.arm.kind == "reference":
            return nn.Identity()
        return row_network(self.params, self.inputs, self.data.num_outputs)

    def pretraining(self) -> RowPretraining | None:
        """Hidden cells are predicted."""
        if self.arm.kind != "pretrained":
            return None
        p = self.params
        make = partial(with_decoder, ColumnAutoencoder, p, self.inputs, self._bins[1], drop_path=p.pretrain_drop_path,
                       dropout=p.pretrain_dropout)
        return RowPretraining(make, partial(self._hide, p.mask_kind, p.mask_ratio), self._cell_loss, p.visible_weight,
                              self.inputs)

    def kept_state(self, model: nn.Module) -> Tree:
        """Columns, categories and scales of the inputs, and the target's."""
        return {**scales_state(self.inputs, self.params.scaler), "target": self.data.target,
                "classes": plain_names(self.data.classes), "middle": self.middle, "spread": self.deviation}

    # -- losses --------------------------------------------------------------------------------------------------------

    def _cell_loss(self, output: Cells, batch: Batch, weight_BC: Tensor) -> Loss:
        return cell_loss(output, batch, weight_BC, self.inputs.span_C, self.params.mean_weight)

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Squared error in deviations of the labels learned from, or cross entropy."""
        output_BK = model(batch["tokens"], _hidden(batch)).float()
        if self.data.classes:
            return Loss(F.cross_entropy(output_BK, batch["label"].long()), len(output_BK))
        wanted_B = ((batch["label"] - self.middle) / self.deviation).float()
        return Loss(F.mse_loss(output_BK[:, 0], wanted_B), len(output_BK))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Numbers in the file's units `[B, 1]`, or log probabilities `[B, K]`: float64."""
        if self.arm.kind == "reference":
            return torch.as_tensor(self._said_RK[batch["row"].cpu().numpy()])
        output_BK = model(batch["tokens"], _hidden(batch)).double()
        return output_BK.log_softmax(dim=1) if self.data.classes else output_BK * self.deviation + self.middle

    @cached_property
    def _said_RK(self) -> np.ndarray:  # noqa: N802
        p: PredictionParams = self.params
        return fitted(self.config.method, self.inputs, self._rows("train"), self.data.label_R, len(self.data.classes),
                      self.config.seed, p)

    def metrics(self) -> Metrics:
        """Errors of numbers, or how often categories are right."""
        return CategoryMetrics() if self.data.classes else NumberMetrics(self.data)

    def reported(self) -> tuple[str, ...]:
        """What there is of a number, or of a category."""
        return ("column_score", "nll") if self.data.classes else ("column_score", "rmse", "abs_error")

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """Predicted over true numbers of test rows."""
        if phase == "pretrain" or self.data.classes:
            return {}
        source = TableRows(self.inputs, self.inputs.rows["test"], {"tokens": self._tokens_RN1}, scored=False)
        said_R = torch.cat([self.predict(model, source.batch(index, None))[:, 0].cpu()
                            for index in torch.arange(len(source)).split(self.eval_batch)])
        return {"prediction": scatter(self.data.label_R[self.inputs.rows["test"]], said_R.numpy(), self.data.target)}


def _hidden(batch: Batch) -> Tensor:
    """What the network does not see: missing cells, and those hidden while fine-tuning."""
    return batch["mask"] if "mask" in batch else F.pad(batch["missing"], (1, 0))


def _table(data: TrialData, p: PredictionParams, device: torch.device) -> LabelledTable:
    return labelled_table(path_of(data), p.target, p.categorical, p.numeric, p.drop, p.group, p.split_seed, device,
                          data.where.reading())
