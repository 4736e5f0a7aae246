"""Giving imputed cells the spread of the column they stand in.

An expected value is the best guess of a cell, and a column of best guesses is too narrow: it wins on squared error and
loses on Wasserstein distance. Of all imputations, those on the straight line between the expected values and their
rank-preserving transport to the column's distribution have the least squared error for the distance that is left
(Freirich et al. 2021, arXiv:2107.02555). `share` says how far along; a quarter of the way costs a sixteenth of what
the whole way does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVELS = np.linspace(0.0, 1.0, 401)


class Transport(NamedTuple):
    """A monotone map, piecewise linear between quantiles of what was imputed and quantiles of what is wanted."""

    imputed: np.ndarray
    wanted: np.ndarray

    def move(self, values: np.ndarray, share: float) -> np.ndarray:
        """The values, moved this share of the way."""
        return (1 - share) * values + share * np.interp(values, self.imputed, self.wanted)


def transport(imputed: np.ndarray, wanted: np.ndarray) -> Transport:
    """The map that takes imputed values, in their order, to wanted quantiles.

    Args:
        imputed: Some imputed values of a column, at least one.
        wanted: The column's quantiles at `LEVELS`.
    """
    levels = np.quantile(imputed, LEVELS)
    distinct, which = np.unique(levels, return_inverse=True)  # tied values have no order: they go to the middle
    count = np.bincount(which)
    return Transport(distinct, np.bincount(which, wanted) / count)


def quantiles_of_weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Quantiles at `LEVELS` of values that count by their weights: (R,) and (R,) → (401,)."""
    distinct, which = np.unique(values, return_inverse=True)
    share = np.bincount(which, weights) / weights.sum()
    return np.interp(LEVELS, np.cumsum(share) - share / 2, distinct)


def quantiles_of_cells(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Quantiles at `LEVELS` of every column's observed cells."""
    return [np.quantile(values[~np.isnan(values)], LEVELS) for values in columns]


def shares_within(
    cost: float, gains_C: np.ndarray, crossed_C: np.ndarray, squares_C: np.ndarray, error: float
) -> np.ndarray:
    """How far to move each column, for the most distance won at a bounded price: (C,), between 0 and 1.

    Moving a column's imputed values m by a share s of the way to T(m) wins s · gain of distance and adds
    2 s · crossed + s² · squares to the squared error; over all columns that stays within cost · error. The best shares
    under such a bound equate what the last step of each column wins for its price.

    Args:
        cost: Allowed growth of the squared error, relative to it.
        gains_C: Σ |T(m) - m| over a column's missing cells.
        crossed_C: Σ (m - x) (T(m) - m), x being the truth, estimated on cells whose truth may be known.
        squares_C: Σ (T(m) - m)².
        error: Σ (m - x)² over all columns.
    """
    def at(price: float) -> np.ndarray:
        best_C = (gains_C / price - 2 * crossed_C) / np.maximum(2 * squares_C, 1e-12)
        return np.where(squares_C > 0, best_C.clip(0, 1), 0.0)

    def extra(share_C: np.ndarray) -> float:
        return float((2 * share_C * crossed_C + share_C**2 * squares_C).sum())

    low, high = 1e-9, 1e9  # of what a unit of squared error is worth, in distance
    for _ in range(120):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if extra(at(middle)) > cost * error else (low, middle)
    return at(high)
