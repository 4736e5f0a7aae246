"""Predictors without a network: means, linear models, forests and boosted trees, by scikit-learn.

Shape suffixes: R rows, C columns, K categories of the target, or 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raymae.tasks.columns.cells import IncompleteTable
from raymae.tasks.prediction.schema import PredictionParams

MOST_CODES = 255  # of a column that boosting takes for categories


def fitted(arm: str, inputs: IncompleteTable, rows: np.ndarray, label_R: np.ndarray, num_classes: int, seed: int,
           p: PredictionParams) -> np.ndarray:
    """What a reference says of every row: float64 (R, K), log probabilities of categories, or numbers (R, 1).

    Args:
        arm: Which reference.
        inputs: The columns.
        rows: The labelled rows that may be learned from.
        label_R: Of all rows; no others are read.
        num_classes: Categories of the target; 0 for a number.
        seed: Of what is random in it.
        p: The trial's parameters; each reference takes its own of them.
    """
    told = label_R[rows]
    if arm == "mean" or len(np.unique(told)) < 2:
        return np.tile(_average(told, num_classes), (len(label_R), 1))
    features_RX = _linear_features(inputs, p) if arm == "ridge" else inputs.seen_RC
    if not num_classes:
        middle, deviation = told.mean(), told.std()  # a penalty means the same whatever the unit is
        model = _model(arm, inputs, seed, p, classes=False).fit(features_RX[rows], (told - middle) / deviation)
        return (model.predict(features_RX) * deviation + middle)[:, None]
    model = _model(arm, inputs, seed, p, classes=True).fit(features_RX[rows], told.astype(int))
    chances_RK = np.zeros((len(label_R), num_classes))
    chances_RK[:, model.classes_] = model.predict_proba(features_RX)
    return _log_chances(chances_RK, len(rows))


def _average(told: np.ndarray, num_classes: int) -> np.ndarray:
    if not num_classes:
        return np.array([told.mean()])
    counts_K = np.bincount(told.astype(int), minlength=num_classes)
    return _log_chances(counts_K / len(told), len(told))


def _log_chances(chances: np.ndarray, count: int) -> np.ndarray:
    """Logarithms of chances, none of them of less than what one more row would have said."""
    least = 1 / (count + chances.shape[-1])
    smooth = np.maximum(chances, least)
    return np.log(smooth / smooth.sum(axis=-1, keepdims=True))


def _linear_features(inputs: IncompleteTable, p: PredictionParams) -> np.ndarray:
    """Scaled numbers, 0 where one is missing, and a column for each category: (R, X)."""
    scaled_RC = inputs.scaled(p.scaler).double().cpu().numpy()
    parts = []
    for column, count in enumerate(inputs.num_categories):
        if count:
            code_R1, known_R1 = inputs.seen_RC[:, column:column + 1], ~inputs.missing_RC[:, column:column + 1]
            parts.append((code_R1 == np.arange(count)) & known_R1)
        else:
            parts.append(scaled_RC[:, column:column + 1])
    return np.concatenate([part.astype(np.float64) for part in parts], axis=1)


def _model(arm: str, inputs: IncompleteTable, seed: int, p: PredictionParams, *, classes: bool) -> Any:
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge

    if arm == "ridge":
        return LogisticRegression(C=1 / p.alpha, max_iter=1000) if classes else Ridge(alpha=p.alpha)
    if arm == "forest":
        features = 1.0 if p.split_features == "all" else 1 / 3
        kind = RandomForestClassifier if classes else RandomForestRegressor
        return kind(n_estimators=p.num_trees, min_samples_leaf=p.min_leaf, max_features=features, random_state=seed)
    few = [0 < count <= MOST_CODES for count in inputs.num_categories]
    boosted = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return boosted(max_iter=p.num_trees, learning_rate=p.shrinkage, max_leaf_nodes=p.max_leaves,
                   min_samples_leaf=p.min_leaf, early_stopping=False, categorical_features=np.array(few),
                   random_state=seed)
