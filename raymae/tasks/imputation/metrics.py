"""What an imputation is scored by: column by column without a scale, on the reference scale, and, for comparison, on
the imputer's own.

Shape suffixes: B batch, C columns, Q categorical columns, G grid points of a distribution.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from raymae.tasks.base import Batch, Metrics, UnitScores
from raymae.tasks.columns.cells import IncompleteTable, ScalerKind
from raymae.tasks.imputation.schema import SCHEMA

LOW, HIGH, STEP = -1.0, 2.0, 1 / 2048  # the reference scale is [0, 1]; some imputers leave it
SUMS = 5  # per column: scored cells, squared errors, squared errors on the own scale, values, squared values
TINY = 1e-30  # the weight of a cell that is exactly at the mean
GRID = round((HIGH - LOW) / STEP) + 1


class ImputationMetrics(Metrics):
    """Per column sums over scored cells and two distributions over all cells, right categories, and cells in all.

    Args:
        data: The table, for its columns and scales.
        scaler: The own scale of the imputer.
    """

    def __init__(self, data: IncompleteTable, scaler: ScalerKind) -> None:
        self.data, self.scaler = data, scaler
        self.columns = len(data.num_categories)
        self.categorical = np.flatnonzero(data.table.is_categorical)
        self.parts = tuple(data.table.columns)
        super().__init__(self.columns * (SUMS + 2 * GRID) + len(self.categorical) + 1)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add rows `[B, C + Q]`: every cell on the reference scale, then the chosen categories' codes."""
        both = prediction.detach().cpu().double().numpy()
        imputed_BC, chosen_BQ = both[:, :self.columns], both[:, self.columns:]
        truth_BC, scored_BC, absent_BC = (batch[name].cpu().numpy() for name in ("truth", "scored", "absent"))
        whole_BC = np.where(scored_BC, imputed_BC, truth_BC)
        error_BC, own_BC = whole_BC - truth_BC, self._own(whole_BC) - self._own(truth_BC)
        truth_of = np.where(scored_BC, truth_BC, 0.0)
        sums = np.stack([scored_BC, error_BC**2, own_BC**2, truth_of, truth_of**2]).sum(axis=1)
        grids = [np.concatenate([_spread(values_BC[~absent_BC[:, column], column])
                                 for column in range(self.columns)]) for values_BC in (truth_BC, whole_BC)]
        picked_BQ = scored_BC[:, self.categorical]
        codes_BQ = np.round(self.data.to_units(truth_BC)[:, self.categorical])
        right_Q = ((chosen_BQ == codes_BQ) & picked_BQ).sum(axis=0)
        self.totals += torch.as_tensor(np.concatenate([sums.ravel(), *grids, right_Q, [(~absent_BC).sum()]]))

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """The share of each test row and column in the column score.

        Of a number it is 1 - e^2 / d^2 with weight d^2, where e is the error, and d the distance of the truth from the
        mean of the column's scored test cells: the weighted mean over rows is r2. Of a category: whether it is right.
        """
        both = prediction.detach().cpu().double().numpy()
        truth_BC, scored_BC = (batch[name].cpu().double().numpy() for name in ("truth", "scored"))
        mean_C, varies_C = self._test_cells()
        weight_BC = np.maximum((truth_BC - mean_C) ** 2, TINY) * scored_BC * varies_C
        score_BC = 1 - (both[:, :self.columns] - truth_BC) ** 2 / np.maximum(weight_BC, TINY)
        codes_BQ = np.round(self.data.to_units(truth_BC)[:, self.categorical])
        score_BC[:, self.categorical] = both[:, self.columns:] == codes_BQ
        weight_BC[:, self.categorical] = scored_BC[:, self.categorical]
        return UnitScores(torch.as_tensor(np.where(weight_BC > 0, score_BC, 0.0)), torch.as_tensor(weight_BC))

    def _test_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every column the mean of its scored test cells, and whether they vary enough for r2."""
        rows = self.data.rows["test"]
        truth_RC, hidden_RC = self.data.truth_RC[rows], self.data.hidden_RC[rows]
        columns = [truth_RC[hidden_RC[:, column], column] for column in range(self.columns)]
        sums = [_sums(cells) for cells in columns]
        means = [float(cells.mean()) if len(cells) else 0.0 for cells in columns]
        return np.array(means), np.array([_r2(each) is not None for each in sums])

    def _own(self, reference_BC: np.ndarray) -> np.ndarray:
        return self.data.scaler(self.scaler).transform(self.data.to_units(reference_BC))

    def compute(self) -> dict[str, float]:
        """Missing cells: column_score, rmse, mse, mse_own_scale, accuracy. All cells: mse_all, wasserstein summed over
        columns.

        The column score is the mean over columns of r2, or accuracy where a column is of categories. A column of
        numbers that has fewer than two scored cells, or the same number in all, has none; 0 where no column has any.
        """
        sums_SC, distance_C, right_Q, cells = self._parts()
        scored = sums_SC[0].sum()
        if not scored:
            return dict.fromkeys(SCHEMA.metrics, math.nan)
        squared, own, picked_Q = sums_SC[1].sum(), sums_SC[2].sum(), sums_SC[0][self.categorical]
        told_Q = picked_Q > 0
        numbers = [_r2(sums_SC[:, column]) for column, count in enumerate(self.data.num_categories) if not count]
        scores = [score for score in numbers if score is not None] + list(right_Q[told_Q] / picked_Q[told_Q])
        values = (np.mean(scores) if scores else 0.0, math.sqrt(squared / scored), squared / scored, squared / cells,
                  own / scored, distance_C.sum(), right_Q.sum() / picked_Q.sum() if told_Q.any() else math.nan)
        return dict(zip(SCHEMA.metrics, map(float, values), strict=True))

    def per_column(self) -> dict[str, dict[str, float]]:
        """For every column rmse and r2 of its missing cells, and the Wasserstein distance of all its cells."""
        sums_SC, distance_C, *_ = self._parts()
        found = {}
        for column, name in enumerate(self.data.table.columns):
            count, squared, r2 = *sums_SC[:2, column], _r2(sums_SC[:, column])
            found[name] = {"rmse": math.sqrt(squared / count) if count else math.nan,
                           "r2": math.nan if r2 is None else r2,
                           "wasserstein": float(distance_C[column])}
        return found

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        sizes = [self.columns * SUMS, self.columns * GRID, self.columns * GRID, len(self.categorical)]
        sums, truth, whole, right_Q, cells = np.split(self.totals.numpy(), np.cumsum(sizes))
        truth_CG, whole_CG = (part.reshape(self.columns, GRID) for part in (truth, whole))
        count_C1 = np.maximum(truth_CG.sum(axis=1, keepdims=True), 1)
        distance_C = np.abs(np.cumsum((truth_CG - whole_CG) / count_C1, axis=1)).sum(axis=1) * STEP
        return sums.reshape(SUMS, self.columns), distance_C, right_Q, float(cells[0])


def _r2(sums_S: np.ndarray) -> float | None:
    """Share of the variance of a column's scored cells that was told; None where they do not vary."""
    count, squared, _, value, value_squared = sums_S
    spread = value_squared - value**2 / count if count else 0.0
    return float(1 - squared / spread) if spread > 1e-12 * count else None  # rounding leaves a constant some spread


def _sums(cells: np.ndarray) -> np.ndarray:
    """The sums of scored cells that `_r2` reads, without errors."""
    return np.array([len(cells), 0.0, 0.0, cells.sum(), (cells**2).sum()])


def _spread(values: np.ndarray) -> np.ndarray:
    """A distribution as weights on the grid, each value shared by its two neighbours: its mean is kept. (G,)"""
    place = (np.nan_to_num(values).clip(LOW, HIGH - STEP) - LOW) / STEP
    below = np.floor(place).astype(np.int64)
    share = place - below
    return np.bincount(below, 1 - share, minlength=GRID) + np.bincount(below + 1, share, minlength=GRID)
