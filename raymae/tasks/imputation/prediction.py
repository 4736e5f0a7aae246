"""Filling the missing cells of tables that no sweep has seen.

Shape suffixes: R rows, C columns, K categories of all columns side by side, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raymae.data.filled import GivenTable
from raymae.data.inputs import TEXTS
from raymae.spec.read import Tree
from raymae.tasks.answers import ENDINGS, require_ending, write_table, write_whole
from raymae.tasks.columns.kept import array, plain, scales_of, scales_state
from raymae.tasks.columns.predictor import TablePredictor
from raymae.tasks.imputation.adjust import Adjustment
from raymae.tasks.imputation.filling import Filling, Learned, scaler_of
from raymae.tasks.imputation.missingness import Odds
from raymae.tasks.imputation.schema import SCHEMA
from raymae.tasks.imputation.transport import Transport
from raymae.tasks.predictor import Item


def kept_state(filling: Filling, adjustment: Adjustment) -> Tree:
    """What filling tables by one network takes, as plain values.

    Args:
        filling: Of the network's arm.
        adjustment: Of the network.
    """
    learned = filling.learned
    return {
        **scales_state(filling.scales, filling.scaler),
        "centres": plain(learned.centres_CK), "edges": plain(learned.edges_CK2), "fill": plain(learned.fill_C),
        "odds": [odds and {"odds": plain(odds.odds_K), "centres": plain(odds.centres_K)} for odds in adjustment.odds],
        "transports": [way and {"imputed": plain(way.imputed), "wanted": plain(way.wanted)}
                       for way in adjustment.transports],
        "shares": plain(adjustment.shares),
    }


class ImputationPredictor(TablePredictor):
    """A table in, the same table without missing cells out."""

    schema = SCHEMA

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        state, config = self.state, self.config
        self.scales = scales_of(state, scaler_of(config.method, self.params), self.device)
        learned = Learned(*(None if state[name] is None else self._tensor(name)
                            for name in ("centres", "edges", "fill")))
        self.filling = Filling(self.scales, learned, config.method, self.params, config.seed)
        self.adjustment = Adjustment(
            [odds and Odds(0.0, array(odds["odds"]), array(odds["centres"]), np.empty(0)) for odds in state["odds"]],
            [way and Transport(array(way["imputed"]), array(way["wanted"])) for way in state["transports"]],
            array(state["shares"]))

    def _tensor(self, name: str) -> Tensor:
        return torch.tensor(array(self.state[name]), dtype=torch.float32, device=self.device)

    def build(self) -> nn.Module:
        """The arm's network."""
        return self.filling.build(self.params)

    def scores(self, model: nn.Module, prepared: GivenTable) -> np.ndarray:
        """Values of all cells in the file's units, then chances of all categories: float64 `[R, C + K]`."""
        counts, parts = self.scales.num_categories, []
        for batch in self.filling.batches(prepared.units_RC):
            own_BC, chosen_BQ, chances_BCK = self.filling.fill(model, batch, self.adjustment)
            told = [self.filling.to_units(self.adjustment.move(own_BC))]
            for place, column in enumerate(self.filling.categorical):
                sampled = chances_BCK is None or self.params.draw == "sample"
                told.append(np.eye(counts[column])[chosen_BQ[:, place].astype(int)] if sampled
                            else chances_BCK[:, column, :counts[column]])
            parts.append(np.concatenate(told, axis=1))
        return np.concatenate(parts)

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: GivenTable) -> np.ndarray:
        """Features of rows `[R, D]`: the mean of the tokens of observed cells, or a dense network's code."""
        parts = [self.filling.encode(model, batch).float().cpu() for batch in self.filling.batches(prepared.units_RC)]
        return torch.cat(parts).numpy()

    def answer(self, scores: np.ndarray, prepared: GivenTable) -> Any:
        """The table as a pandas frame, filled: given cells, columns that were not learned, order and types stay.

        Columns of integers get whole numbers. A category that was not met in training is kept, and tells nothing.
        """
        scales = self.scales
        columns = len(scales.columns)
        codes_RC, first = np.zeros((len(scores), columns)), columns
        for column in self.filling.categorical:
            codes_RC[:, column] = scores[:, first:first + scales.num_categories[column]].argmax(axis=1)
            first += scales.num_categories[column]
        return prepared.filled(scores[:, :columns], codes_RC, scales.categories)

    def writer(self, to: Path, source: Path) -> FilledTables:
        """A table for a table, a folder of tables for a folder."""
        return FilledTables(to, source)


class FilledTables:
    """Every table in a file of its own. Text is written as it was given, with its missing cells filled.

    Args:
        to: A file; for a folder of tables a folder, where each has the name that it has there.
        source: Where the tables are from.
    """

    def __init__(self, to: Path, source: Path) -> None:
        if not source.is_dir():
            require_ending(to, (*ENDINGS, *TEXTS))
        self.to, self.source = to, source

    def add(self, item: Item, inputs: GivenTable, answer: Any) -> list[Path]:
        """Write a table."""
        to = self.to / item.name if self.source.is_dir() else self.to
        if inputs.cells is None or to.suffix.lower() in (".parquet", ".pq"):
            return [write_table(answer, to)]
        text, cells = inputs.as_text(answer), inputs.cells
        return [write_whole(to, lambda path: text.to_csv(path, sep=cells.separator, header=list(cells.names),
                                                         index=False, compression="infer"))]

    def close(self) -> list[Path]:
        """Nothing is left to write."""
        return []
