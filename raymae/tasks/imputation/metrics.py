"""What an imputation is scored by: on the reference scale, and, for comparison, on the imputer's own.

Shape suffixes: B batch, C columns, Q categorical columns, G grid points of a distribution.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from raymae.tasks.base import Batch, Metrics
from raymae.tasks.imputation.cells import IncompleteTable, ScalerKind
from raymae.tasks.imputation.schema import SCHEMA

LOW, HIGH, STEP = -1.0, 2.0, 1 / 2048  # the reference scale is [0, 1]; some imputers leave it
SUMS = 5  # per column: scored cells, squared errors, squared errors on the own scale, values, squared values
GRID = round((HIGH - LOW) / STEP) + 1


class ImputationMetrics(Metrics):
    """Per column sums over scored cells and two distributions over all cells; over the table two numbers more.

    Args:
        data: The table, for its columns and scales.
        scaler: The own scale of the imputer.
    """

    def __init__(self, data: IncompleteTable, scaler: ScalerKind) -> None:
        self.data, self.scaler = data, scaler
        self.columns = len(data.num_categories)
        self.categorical = np.flatnonzero(data.table.is_categorical)
        super().__init__(self.columns * (SUMS + 2 * GRID) + 3)

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
        last = [(~absent_BC).sum(), picked_BQ.sum(), ((chosen_BQ == codes_BQ) & picked_BQ).sum()]
        self.totals += torch.as_tensor(np.concatenate([sums.ravel(), *grids, last]))

    def _own(self, reference_BC: np.ndarray) -> np.ndarray:
        return self.data.scaler(self.scaler).transform(self.data.to_units(reference_BC))

    def compute(self) -> dict[str, float]:
        """Missing cells: rmse, mse, mse_own_scale. All cells: mse_all, wasserstein summed over columns."""
        sums_SC, distance_C, cells, picked, right = self._parts()
        scored = sums_SC[0].sum()
        if not scored:
            return dict.fromkeys(SCHEMA.metrics, math.nan)
        squared, own = sums_SC[1].sum(), sums_SC[2].sum()
        values = (math.sqrt(squared / scored), squared / scored, squared / cells, own / scored, distance_C.sum(),
                  right / picked if picked else math.nan)
        return dict(zip(SCHEMA.metrics, map(float, values), strict=True))

    def per_column(self) -> dict[str, dict[str, float]]:
        """For every column rmse and r2 of its missing cells, and the Wasserstein distance of all its cells."""
        sums_SC, distance_C, *_ = self._parts()
        found = {}
        for column, name in enumerate(self.data.table.columns):
            count, squared, _, value, value_squared = sums_SC[:, column]
            spread = value_squared - value**2 / count if count else 0.0
            found[name] = {"rmse": math.sqrt(squared / count) if count else math.nan,
                           "r2": 1 - squared / spread if spread > 0 else math.nan,
                           "wasserstein": float(distance_C[column])}
        return found

    def _parts(self) -> tuple[np.ndarray, np.ndarray, float, float, float]:
        totals = self.totals.numpy()
        sums, truth, whole = np.split(totals[:-3], np.cumsum([self.columns * SUMS, self.columns * GRID]))
        truth_CG, whole_CG = (part.reshape(self.columns, GRID) for part in (truth, whole))
        count_C1 = np.maximum(truth_CG.sum(axis=1, keepdims=True), 1)
        distance_C = np.abs(np.cumsum((truth_CG - whole_CG) / count_C1, axis=1)).sum(axis=1) * STEP
        return sums.reshape(SUMS, self.columns), distance_C, *map(float, totals[-3:])


def _spread(values: np.ndarray) -> np.ndarray:
    """A distribution as weights on the grid, each value shared by its two neighbours: its mean is kept. (G,)"""
    place = (np.nan_to_num(values).clip(LOW, HIGH - STEP) - LOW) / STEP
    below = np.floor(place).astype(np.int64)
    share = place - below
    return np.bincount(below, 1 - share, minlength=GRID) + np.bincount(below + 1, share, minlength=GRID)
