"""Imputers without a network: mean and mode, neighbours, rounds of regressions, forests.

Shape suffixes: R rows, C columns, Q categorical columns.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from raymae.tasks.columns.cells import IncompleteTable
from raymae.tasks.imputation.missforest import Forests, missforest
from raymae.tasks.imputation.schema import ImputationParams

NEIGHBOURS = 10


def impute_by(arm: str, data: IncompleteTable, seed: int, params: ImputationParams) -> np.ndarray:
    """The whole table, imputed: float64 (R, C) in own units, codes as numbers.

    Fitted on the observed cells of the rows that may be learned from. Every seed is fitted anew, so that a replicate
    costs what it costs; within a process one seed is fitted once.

    Args:
        arm: Which reference.
        data: The table with its missing cells.
        seed: Of what is random in it.
        params: The trial's; each reference takes its own of them.
    """
    key = (arm, seed, params)
    if key not in data.imputed:
        data.imputed[key] = _forested(data, seed, params) if arm == "missforest" else _fitted(arm, data, seed, params)
    return data.imputed[key]


def _forested(data: IncompleteTable, seed: int, p: ImputationParams) -> np.ndarray:
    own_RC = (data.seen_RC - data.own_low_C) / data.own_range_C
    forests = Forests(p.num_trees, p.node_size, p.split_features)
    return missforest(own_RC, data.rows["fit"], data.num_categories, forests, max_rounds=p.max_rounds, seed=seed)


def _fitted(arm: str, data: IncompleteTable, seed: int, p: ImputationParams) -> np.ndarray:
    scaler, fit = data.scaler("minmax"), data.rows["fit"]
    scaled_RC = scaler.transform(data.seen_RC)
    if arm == "knn" and 0 < p.num_donors < len(fit):
        fit = np.sort(np.random.default_rng(seed).choice(fit, p.num_donors, replace=False))
    imputer = _imputer(arm, seed, p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of rounds is chosen, convergence is not asked for
        whole = len(fit) == len(scaled_RC)
        imputed_RC = imputer.fit_transform(scaled_RC) if whole else imputer.fit(scaled_RC[fit]).transform(scaled_RC)
    units_RC = scaler.inverse_transform(imputed_RC)
    own_RC: np.ndarray = (units_RC - data.own_low_C) / data.own_range_C
    return own_RC


def most_frequent(data: IncompleteTable) -> np.ndarray:
    """Code of the most frequent observed category of every column, (C,); 0 for numeric ones."""
    fit_RC = data.seen_RC[data.rows["fit"]]
    counts = [np.bincount(column_R[~np.isnan(column_R)].astype(int), minlength=1) if number else np.array([1])
              for column_R, number in zip(fit_RC.T, data.num_categories, strict=True)]
    return np.array([float(count.argmax()) for count in counts])


def _imputer(arm: str, seed: int, p: ImputationParams) -> Any:
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
        "extra_trees": lambda: ExtraTreesRegressor(
            n_estimators=p.num_trees, min_samples_leaf=p.min_leaf, random_state=seed),
        "hist_gradient": lambda: HistGradientBoostingRegressor(
            max_leaf_nodes=p.max_leaves, learning_rate=p.shrinkage, early_stopping=False, random_state=seed),
    }[arm]()
    return IterativeImputer(regressor, max_iter=p.max_rounds, random_state=seed)
