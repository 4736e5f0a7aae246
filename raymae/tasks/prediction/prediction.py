"""Predicting a column of tables that no sweep has seen.

Shape suffixes: R rows, B rows of a batch, C columns, K categories of the target, or 1, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.filled import GivenTable
from raymae.models.columns import PooledColumns
from raymae.tasks.answers import TableWriter
from raymae.tasks.columns.cells import OwnScales
from raymae.tasks.columns.kept import scales_of
from raymae.tasks.columns.network import column_encoder, rows_at_once
from raymae.tasks.columns.predictor import TablePredictor
from raymae.tasks.prediction.schema import SCHEMA


def row_network(p: Any, scales: OwnScales, outputs: int) -> PooledColumns:
    """The network that is fine-tuned, freshly initialised: cells in, a number or a score per category out."""
    encoder = column_encoder(p, scales, drop_path=p.drop_path, dropout=p.dropout)
    return PooledColumns(encoder, outputs, dropout=p.dropout)


class PredictionPredictor(TablePredictor):
    """A table in, the same table with a predicted column at its end out."""

    schema = SCHEMA

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scales = scales_of(self.state, self.params.scaler, self.device)
        self.target, self.classes = str(self.state["target"]), tuple(self.state["classes"])

    def build(self) -> nn.Module:
        """The network."""
        return row_network(self.params, self.scales, len(self.classes) or 1)

    def _batches(self, prepared: GivenTable) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens `[B, N, 1]`, and which of them are missing `[B, N]`."""
        tokens_RN = F.pad(self.scales.scaled_rows(self.params.scaler, prepared.units_RC), (1, 0))
        missing_RN = F.pad(torch.as_tensor(np.isnan(prepared.units_RC), device=self.device), (1, 0))
        size = rows_at_once(len(self.scales.columns))
        return zip(tokens_RN[..., None].split(size), missing_RN.split(size), strict=True)

    @torch.no_grad()
    def scores(self, model: nn.Module, prepared: GivenTable) -> np.ndarray:
        """Numbers in the file's units, or probabilities: float64 `[R, K]`."""
        output_RK = torch.cat([model(*batch).double().cpu() for batch in self._batches(prepared)])
        if self.classes:
            return output_RK.softmax(dim=1).numpy()
        return output_RK.numpy() * self.state["spread"] + self.state["middle"]

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: GivenTable) -> np.ndarray:
        """Features of rows `[R, D]`: the mean of the tokens of their observed cells."""
        assert isinstance(model, PooledColumns)
        return torch.cat([model.features(*batch).float().cpu() for batch in self._batches(prepared)]).numpy()

    def answer(self, scores: np.ndarray, prepared: GivenTable) -> Any:
        """The table as a pandas frame with `predicted_<target>` at its end, and `p_<category>` of every category."""
        names = [f"p_{name}" for name in self.classes]
        said: dict[str, Any] = {f"predicted_{self.target}": scores[:, 0]}
        if self.classes:
            best_R = scores.argmax(axis=1)
            said = {f"predicted_{self.target}": [self.classes[index] for index in best_R],
                    **dict(zip(names, scores.T, strict=True))}
        return prepared.frame.assign(**said)

    def writer(self, to: Path, source: Path) -> TableWriter:
        """One table; of a folder of tables with the file of each row in front."""
        return TableWriter(to, named=source.is_dir())
