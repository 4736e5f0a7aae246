"""What is done to a network's imputations of a column, learned from a table's cells without any missing one's truth.

Two things: where a cell's own value is taken to decide whether it is missing, its predicted distribution is tilted
(`missingness.py`); and imputed values are moved towards the column's distribution (`transport.py`).

Shape suffixes: R rows, S rows whose cells were hidden column by column, C columns, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raymae.tasks.imputation.missingness import Odds, fit_odds
from raymae.tasks.imputation.transport import (
    Transport,
    quantiles_of_cells,
    quantiles_of_weighted,
    shares_within,
    transport,
)

REHIDDEN = 4096  # rows of which every column is hidden once: enough, and as dear as HIDINGS passes over them at most
HIDINGS = 16  # columns of a wider table are hidden together, or a pass for each would make it quadratic in columns
FEWEST = 256  # rows of a wide table that are rehidden at least; its columns together have as many cells as narrow ones


class Predicted(NamedTuple):
    """What a network says of cells: means (·, C) in own units and chances of bins (·, C, K)."""

    mean: np.ndarray
    chances: np.ndarray | None


class Adjustment(NamedTuple):
    """Per column the odds of being missing, the way to its distribution and how far along it; None leaves it be."""

    odds: list[Odds | None]
    transports: list[Transport | None]
    shares: np.ndarray

    def tilt(self, found: Predicted, centres_CK: np.ndarray) -> Predicted:
        """Predictions of missing cells, from those of observed cells in rows alike."""
        if found.chances is None or not any(self.odds):
            return found
        mean, chances = found.mean.copy(), found.chances.copy()
        for column, odds in enumerate(self.odds):
            if odds is not None:
                before = chances[:, column] @ np.nan_to_num(centres_CK[column])
                raised = chances[:, column] * odds.odds_K
                chances[:, column] = raised / raised.sum(axis=1, keepdims=True)
                mean[:, column] += chances[:, column] @ np.nan_to_num(odds.centres_K) - before
        return Predicted(mean, chances)

    def move(self, own_BC: np.ndarray) -> np.ndarray:
        """Imputed values, moved."""
        columns = [own_B if way is None or not share else way.move(own_B, share)
                   for own_B, way, share in zip(own_BC.T, self.transports, self.shares, strict=True)]
        return np.column_stack(columns)


def hidden_together(columns: int) -> list[np.ndarray]:
    """Which columns of a table are hidden at once, each of them in one group: one alone where there are few.

    Neighbours, which are more often alike than others, tell of each other: they are in different groups.
    """
    return [np.arange(first, columns, HIDINGS) for first in range(min(columns, HIDINGS))]


def num_rehidden(columns: int, *, tilted: bool) -> int:
    """Of how many rows every column is hidden once, at most.

    What moving costs is a sum over all columns, so wide tables need fewer rows; odds are fitted column by column.
    """
    return REHIDDEN if tilted else min(REHIDDEN, max(REHIDDEN * HIDINGS // columns, FEWEST))


def odds_by_column(rehidden: Predicted, missing_SC: np.ndarray, own_RC: np.ndarray, bins_RC: np.ndarray
                   ) -> list[Odds | None]:
    """The odds of every column that misses cells.

    Args:
        rehidden: What is said of every cell of some rows with its column hidden, chances as well.
        missing_SC: Which of these cells are missing.
        own_RC: All rows in own units, NaN in missing cells.
        bins_RC: The bin of every cell.
    """
    assert rehidden.chances is not None
    return [fit_odds(rehidden.chances[:, column], missing_SC[:, column], own_RC[:, column], bins_RC[:, column])
            for column in range(own_RC.shape[1])]


def wanted_quantiles(
    sums_CK: np.ndarray | None, odds: Sequence[Odds | None], own_RC: np.ndarray, bins_RC: np.ndarray,
) -> list[np.ndarray]:
    """Quantiles of each column's missing cells: as predicted, or, without predictions, those of observed cells.

    Args:
        sums_CK: The chances of bins, summed over a column's missing cells.
        odds: By which the observed cells of a bin count.
        own_RC: All rows in own units, NaN in missing cells.
        bins_RC: The bin of every cell.
    """
    wanted = quantiles_of_cells(list(own_RC.T))
    if sums_CK is None:
        return wanted
    for column, sums_K in enumerate(sums_CK):
        seen_R = ~np.isnan(own_RC[:, column])
        bin_R, tilt = bins_RC[seen_R, column], odds[column]
        weight_R = np.ones(len(bin_R)) if tilt is None else tilt.odds_R[seen_R]
        inside_K = np.bincount(bin_R, weight_R, minlength=len(sums_K))
        weight_R = weight_R / inside_K[bin_R] * sums_K[bin_R]
        if weight_R.sum() > 0:
            wanted[column] = quantiles_of_weighted(own_RC[seen_R, column], weight_R)
    return wanted


def ways(own_RC: np.ndarray, missing_RC: np.ndarray, wanted: Sequence[np.ndarray]) -> list[Transport | None]:
    """From a column's imputed values to what is wanted of them; None where nothing is missing."""
    return [transport(own_R[missing_R], wanted_) if missing_R.any() else None
            for own_R, missing_R, wanted_ in zip(own_RC.T, missing_RC.T, wanted, strict=True)]


def shares_by_cost(
    cost: float, imputed_RC: np.ndarray, missing_RC: np.ndarray, transports: Sequence[Transport | None],
    rehidden_SC: np.ndarray, truth_SC: np.ndarray, weight_SC: np.ndarray, span_C: np.ndarray,
) -> np.ndarray:
    """How far along its way each column goes, the whole costing at most `cost` of the squared error: (C,).

    Args:
        cost: Relative growth of the squared error.
        imputed_RC: Imputed values of all cells, own units.
        missing_RC: Which of them are missing.
        transports: The ways.
        rehidden_SC: What was said of observed cells with their column hidden.
        truth_SC: Their values; NaN where missing.
        weight_SC: For how many missing cells such a cell stands: its odds, 1 where missing is random.
        span_C: Own units of a column in units of its range.
    """
    columns = len(span_C)
    gains_C, crossed_C, squares_C, errors_C = np.zeros((4, columns))
    for column, way in enumerate(transports):
        known_S = ~np.isnan(truth_SC[:, column])
        if way is None or not known_S.any():
            continue
        own = imputed_RC[missing_RC[:, column], column]
        step = (way.move(own, 1.0) - own) * span_C[column]
        gains_C[column], squares_C[column] = np.abs(step).sum(), (step**2).sum()
        said, truth, weight = (x[known_S, column] for x in (rehidden_SC, truth_SC, weight_SC))
        off = (said - truth) * span_C[column]
        moved = (way.move(said, 1.0) - said) * span_C[column]
        each = len(own) / weight.sum()
        crossed_C[column] = max(each * (weight @ (off * moved)), 0.0)  # that moving mends errors is not counted on
        errors_C[column] = each * (weight @ off**2)
    return shares_within(cost, gains_C, crossed_C, squares_C, float(errors_C.sum()))
