"""Missing not at random: what missing cells hold, where a cell's own value decides whether it is missing.

A network learns from observed cells, so it predicts p(v | rest, observed). By Bayes' rule

    p(v | rest, missing)  ∝  p(v | rest, observed) · P(missing | v) / P(observed | v),

and those odds are modelled as exp(offset + slope · score(v)), with the rank of the value among all cells of its column,
missing ones included, as score (mean 0, variance 1). Nothing here sees a missing cell's truth: the slope is the one
under which the observed rest of the rows tells best in which of them the cell is missing,

    P(missing | rest) / P(observed | rest)  =  Σ_v p(v | rest, observed) · odds(v).

The form is the one by which `hide_cells` takes cells away under `mnar`, so results under that simulation are those of a
right model. A column that depends on the others and is missing at random looks as if its own value decided.

Shape suffixes: I distinct observed values, K bins, R rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEEPEST = 6.0  # the steepest slope looked for, logits per unit of a score
SLOPES = np.linspace(-STEEPEST, STEEPEST, 25)
SWEEPS = 40  # fixed-point steps of scores and odds, which depend on each other
FLOOR = 1e-12


class Odds(NamedTuple):
    """How missing cells of a column differ from observed ones.

    Attributes:
        slope: Logits per unit of the score; 0 where cells are missing at random.
        odds_K: Mean odds of the observed cells of each bin; 1 in a bin without any.
        centres_K: Mean value of the missing cells of each bin, expected under the odds; NaN in a bin without any.
        odds_R: Odds of every row's value, NaN where it is not observed.
    """

    slope: float
    odds_K: np.ndarray
    centres_K: np.ndarray
    odds_R: np.ndarray


def odds_of(counts_I: np.ndarray, slope: float, num_missing: int) -> np.ndarray:
    """Odds of being missing for each distinct observed value, in ascending order: (I,).

    Scores are ranks among all cells. How many missing ones share a value depends on its odds, so both are found
    together; the offset makes the missing cells as many as there are.

    Args:
        counts_I: Observed cells with each value.
        slope: Logits per unit of the score.
        num_missing: Missing cells of the column.
    """
    odds_I = np.full(len(counts_I), num_missing / counts_I.sum())
    for _ in range(SWEEPS):
        whole_I = counts_I * (1 + odds_I)
        share_I = whole_I / whole_I.sum()
        score_I = np.cumsum(share_I) - share_I / 2
        score_I = score_I - share_I @ score_I
        score_I /= max(float(np.sqrt(share_I @ score_I**2)), FLOOR)
        raised_I = np.exp(slope * score_I - (slope * score_I).max())
        odds_I = (odds_I + num_missing * raised_I / (counts_I @ raised_I)) / 2
    return odds_I


def fit_odds(
    chances_SK: np.ndarray, missing_S: np.ndarray, values_R: np.ndarray, bins_R: np.ndarray,
) -> Odds | None:
    """The slope of greatest likelihood, and what follows from it; None where cells may as well be missing at random.

    A slope has to raise the log likelihood by more than log(rows) / 2, the price of a parameter under BIC.

    Args:
        chances_SK: For some rows S, the column's predicted distribution with the cell hidden, missing or not.
        missing_S: Whether it is missing there.
        values_R: The column, NaN where it is not observed.
        bins_R: The bin of every value.
    """
    seen_R = ~np.isnan(values_R)
    num_missing = int((~seen_R).sum())
    if num_missing == 0 or not missing_S.any() or missing_S.all():
        return None
    _, which, counts_I = np.unique(values_R[seen_R], return_inverse=True, return_counts=True)
    bins, size = chances_SK.shape[1], np.bincount(bins_R[seen_R], minlength=chances_SK.shape[1])

    def per_bin(slope: float) -> np.ndarray:
        found = odds_of(counts_I, slope, num_missing)[which]
        return np.where(size > 0, np.bincount(bins_R[seen_R], found, minlength=bins) / np.maximum(size, 1), 1.0)

    def likelihood(slope: float) -> float:
        odds_S = np.maximum(chances_SK @ per_bin(slope), FLOOR)
        return float(np.log(odds_S[missing_S]).sum() - np.log1p(odds_S).sum())

    from scipy.optimize import minimize_scalar

    best = SLOPES[np.argmax([likelihood(slope) for slope in SLOPES])]
    step = SLOPES[1] - SLOPES[0]
    slope = float(minimize_scalar(lambda x: -likelihood(x), bounds=(best - step, best + step), method="bounded",
                                  options={"xatol": 0.02}).x)
    if likelihood(slope) - likelihood(0.0) <= np.log(len(missing_S)) / 2:
        return None
    odds_R = np.full(len(values_R), np.nan)
    odds_R[seen_R] = odds_of(counts_I, slope, num_missing)[which]
    weight_K = np.bincount(bins_R[seen_R], odds_R[seen_R], minlength=bins)
    value_K = np.bincount(bins_R[seen_R], odds_R[seen_R] * values_R[seen_R], minlength=bins)
    centres_K = np.where(size > 0, value_K / np.maximum(weight_K, FLOOR), np.nan)
    return Odds(slope, per_bin(slope), centres_K, odds_R)
