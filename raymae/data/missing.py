"""Simulated missing cells: which observed cells of a table are taken away, so that an imputation can be scored.

The pattern is part of the data: drawn from its own seed, it is the same for every arm, trial and replicate. Cells that
are truly missing are never chosen. Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from raymae.errors import DataError, unknown

MissingKind = Literal["mcar", "mar", "mnar"]
DRIVERS = 0.3  # share of columns that stay complete under `mar` and decide about the others (Muzellec et al. 2020)
STEEPNESS = 3.0  # logits per unit of a score with variance 1


def hide_cells(values_RC: np.ndarray, kind: MissingKind, rate: float, seed: int) -> np.ndarray:
    """Choose cells to take away: bool (R, C), True where one is.

    `mcar`: every cell with the same chance. `mar`: three in ten columns (at least one) stay complete, and a logistic
    model of them decides in which rows a cell of the others is taken away. `mnar`: a logistic model of the cell's own
    value decides; whether high or low values go missing is drawn per column. Values enter as ranks, so a long tail does
    not decide alone. Of every column that can lose cells, `rate` of the observed ones are expected to go.

    Args:
        values_RC: The complete table; NaN where a cell is truly missing.
        kind: The mechanism.
        rate: Share of cells, 0 < rate < 1.
        seed: Draws everything.

    Raises:
        DataError: Unknown mechanism, rate out of range, or `mar` in a table of one column.
    """
    if kind not in get_args(MissingKind):
        raise DataError(unknown("kind of missingness", kind, get_args(MissingKind)))
    if not 0 < rate < 1:
        raise DataError(f"the rate of missing cells must lie strictly between 0 and 1, got {rate}")
    rng = np.random.default_rng(seed)
    rows, columns = values_RC.shape
    uniform_RC = rng.random((rows, columns))
    if kind == "mcar":
        return (uniform_RC < rate) & ~np.isnan(values_RC)
    scores_RC = np.column_stack([_rank_score(values_R) for values_R in values_RC.T])
    hidden_RC = np.zeros((rows, columns), dtype=bool)
    if kind == "mnar":
        drivers = np.array([], dtype=int)
        sign_C = rng.choice([-1.0, 1.0], columns)
        logits_RC = STEEPNESS * sign_C * scores_RC
    else:
        if columns < 2:
            raise DataError("missing at random needs at least 2 columns, one of which stays complete; got 1")
        drivers = rng.permutation(columns)[:max(1, round(DRIVERS * columns))]
        weights_DC = rng.normal(size=(len(drivers), columns))
        mixed_RC = scores_RC[:, drivers] @ weights_DC
        logits_RC = STEEPNESS * mixed_RC / np.maximum(mixed_RC.std(axis=0), 1e-12)
    for column in np.setdiff1d(np.arange(columns), drivers):
        observed_R = ~np.isnan(values_RC[:, column])
        if observed_R.any():
            chance_R = _sigmoid(logits_RC[:, column] + _offset(logits_RC[observed_R, column], rate))
            hidden_RC[:, column] = (uniform_RC[:, column] < chance_R) & observed_R
    return hidden_RC


def _rank_score(values_R: np.ndarray) -> np.ndarray:
    """Mid-ranks with mean 0 and variance 1; 0 where a value is missing or all are equal."""
    present_R = ~np.isnan(values_R)
    ordered = np.sort(values_R[present_R])
    low, high = (np.searchsorted(ordered, values_R[present_R], side=side) for side in ("left", "right"))
    score_R = np.zeros(len(values_R))
    score_R[present_R] = (low + high) / 2
    if present_R.any():
        score_R[present_R] -= score_R[present_R].mean()
        score_R /= max(float(score_R[present_R].std()), 1e-12)
    return score_R


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _offset(logits_R: np.ndarray, rate: float) -> float:
    """What has to be added to the logits for their mean chance to be the rate, by bisection."""
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(logits_R + middle).mean() < rate else (low, middle)
    return (low + high) / 2
