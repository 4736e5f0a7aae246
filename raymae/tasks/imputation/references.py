"""Imputers with nothing to search: mean and mode, neighbours, and rounds of regressions.

Shape suffixes: R rows, C columns, Q categorical columns.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from raymae.tasks.imputation.cells import IncompleteTable

NEIGHBOURS = 10


def impute_by(arm: str, data: IncompleteTable, seed: int, *, num_trees: int, min_leaf: int, max_rounds: int,
              donors: int) -> np.ndarray:
    """The whole table, imputed: float64 (R, C) in own units, codes as numbers.

    Fitted on the observed cells of the rows that may be learned from. Every seed is fitted anew, so that a replicate
    costs what it costs; within a process one seed is fitted once.

    Args:
        arm: Which reference.
        data: The table with its missing cells.
        seed: Of what is random in it.
        num_trees: Trees of missForest.
        min_leaf: Fewest cells in a leaf of its trees.
        max_rounds: Rounds of the iterative imputers over all columns.
        donors: Rows that neighbours are looked for among; 0 for all.
    """
    key = (arm, seed, num_trees, min_leaf, max_rounds, donors)
    if key not in data.imputed:
        scaler, fit = data.scaler("minmax"), data.rows["fit"]
        scaled_RC = scaler.transform(data.seen_RC)
        if arm == "knn" and 0 < donors < len(fit):
            fit = np.sort(np.random.default_rng(seed).choice(fit, donors, replace=False))
        imputer = _imputer(arm, seed, num_trees, min_leaf, max_rounds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number of rounds is chosen, convergence is not asked for
            whole = len(fit) == len(scaled_RC)
            imputed_RC = imputer.fit_transform(scaled_RC) if whole else imputer.fit(scaled_RC[fit]).transform(scaled_RC)
        units_RC = scaler.inverse_transform(imputed_RC)
        data.imputed[key] = (units_RC - data.own_low_C) / data.own_range_C
    return data.imputed[key]


def most_frequent(data: IncompleteTable) -> np.ndarray:
    """Code of the most frequent observed category of every column, (C,); 0 for numeric ones."""
    fit_RC = data.seen_RC[data.rows["fit"]]
    counts = [np.bincount(column_R[~np.isnan(column_R)].astype(int), minlength=1) if number else np.array([1])
              for column_R, number in zip(fit_RC.T, data.num_categories, strict=True)]
    return np.array([float(count.argmax()) for count in counts])


def _imputer(arm: str, seed: int, num_trees: int, min_leaf: int, max_rounds: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
    from sklearn.linear_model import BayesianRidge

    if arm == "mean":
        return SimpleImputer()
    if arm == "knn":
        return KNNImputer(n_neighbors=NEIGHBOURS)
    regressor = {
        "iterative": lambda: BayesianRidge(),
        "missforest": lambda: ExtraTreesRegressor(
            n_estimators=num_trees, min_samples_leaf=min_leaf, random_state=seed),
        "hist_gradient": lambda: HistGradientBoostingRegressor(early_stopping=False, random_state=seed),
    }[arm]()
    return IterativeImputer(regressor, max_iter=max_rounds, random_state=seed)
