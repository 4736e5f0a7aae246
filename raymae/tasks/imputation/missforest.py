"""missForest as published (Stekhoven and Bühlmann 2012, doi:10.1093/bioinformatics/btr597), with the defaults of its R
package: a random forest per column, round after round, until the imputations change more than they did before.

Of the libraries that carry the name, none is that: they boost trees, or refuse a table without missing cells. So the
forests are scikit-learn's and the rounds are here. Two things differ from R. Differences are taken on the scale that is
handed in, on which columns have one range: in the file's units the column of the largest numbers would decide alone.
And forests take categories for their codes where R tries subsets of them.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

SplitFeatures = Literal["sqrt", "third", "all"]
LARGEST = 2**31 - 1


class Forests(NamedTuple):
    """How forests are grown.

    Attributes:
        num_trees: Trees of a forest.
        node_size: A node of numbers of so many cells or fewer is not split; nodes of categories are, to the end.
        split_features: How many of the other columns a split chooses among.
    """

    num_trees: int
    node_size: int
    split_features: SplitFeatures

    def predict(self, told_RC: np.ndarray, target_R: np.ndarray, asked_RC: np.ndarray, *, classes: bool, seed: int
                ) -> np.ndarray:
        """Fit one forest and ask it: (R,).

        Args:
            told_RC: Rows in which the column was observed, without that column.
            target_R: The column there.
            asked_RC: Rows in which it is wanted.
            classes: Whether the column is of categories.
            seed: Of the forest.
        """
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        columns = max(told_RC.shape[1], 1)
        features = {"sqrt": math.isqrt(columns + 1), "third": columns // 3, "all": columns}[self.split_features]
        kind = RandomForestClassifier if classes else RandomForestRegressor
        forest = kind(n_estimators=self.num_trees, min_samples_split=2 if classes else self.node_size + 1,
                      max_features=min(max(features, 1), columns), random_state=seed, n_jobs=torch.get_num_threads())
        forest.fit(told_RC, target_R)
        forest.n_jobs = 1  # threads would add the trees' answers in any order, and no two runs would agree bit for bit
        return np.asarray(forest.predict(asked_RC), dtype=np.float64)


def missforest(values_RC: np.ndarray, learn: np.ndarray, num_categories: Sequence[int], forests: Forests, *,
               max_rounds: int, seed: int) -> np.ndarray:
    """Fill a table's missing cells: float64 (R, C).

    Args:
        values_RC: Numbers, and codes of categories; NaN where missing.
        learn: The rows that may be learned from; each column is observed in one of them.
        num_categories: Of each column; 0 for numbers.
        forests: How they are grown.
        max_rounds: Rounds over all columns at most.
        seed: Of the forests.
    """
    is_category_C = np.array(num_categories) > 0
    missing_RC = np.isnan(values_RC)
    filled_RC = np.where(missing_RC, _start(values_RC[learn], num_categories), values_RC)
    order = np.argsort(missing_RC[learn].sum(axis=0), kind="stable")
    order = order[missing_RC[:, order].any(axis=0)]
    if values_RC.shape[1] < 2:
        return filled_RC  # nothing tells a column from itself
    seeds, change = np.random.default_rng(seed), np.full(2, np.inf)
    for _ in range(max_rounds):
        before_RC, earlier = filled_RC.copy(), change
        for column in order:
            others_RC = np.delete(filled_RC, column, axis=1)
            told, asked = learn[~missing_RC[learn, column]], missing_RC[:, column]
            filled_RC[asked, column] = forests.predict(
                others_RC[told], values_RC[told, column], others_RC[asked], classes=bool(is_category_C[column]),
                seed=int(seeds.integers(LARGEST)))
        change = _change(before_RC[learn], filled_RC[learn], missing_RC[learn], is_category_C)
        if not (change < earlier).any():
            return before_RC
    return filled_RC


def _start(learn_RC: np.ndarray, num_categories: Sequence[int]) -> np.ndarray:
    """Mean of each column, or its most frequent category: (C,)."""
    observed = [column_R[~np.isnan(column_R)] for column_R in learn_RC.T]
    return np.array([float(np.bincount(values.astype(int)).argmax()) if count else values.mean()
                     for values, count in zip(observed, num_categories, strict=True)])


def _change(before_RC: np.ndarray, now_RC: np.ndarray, missing_RC: np.ndarray, is_category_C: np.ndarray) -> np.ndarray:
    """Squared change of the numbers in their squares, and the share of imputed categories that changed: (2,).

    What a table has no missing cells of never decreases.
    """
    numbers, categories = ~is_category_C, is_category_C
    found = np.full(2, np.inf)
    if missing_RC[:, numbers].any():
        squares = (now_RC[:, numbers] ** 2).sum()
        found[0] = ((now_RC - before_RC)[:, numbers] ** 2).sum() / max(squares, np.finfo(float).tiny)
    if missing_RC[:, categories].any():
        found[1] = (now_RC != before_RC)[:, categories].sum() / missing_RC[:, categories].sum()
    return found
