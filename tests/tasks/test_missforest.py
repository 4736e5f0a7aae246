"""missForest: which column is filled when, from what, and when it stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raymae.tasks.imputation.missforest import Forests, missforest

NAN = np.nan
SMALL = Forests(num_trees=10, node_size=5, split_features="sqrt")


class Scripted:
    """In place of forests: answers the next numbers of a script, and notes what it is asked."""

    def __init__(self, *answers: float) -> None:
        self.answers, self.asked = list(answers), []

    def predict(self, told_RC: np.ndarray, target_R: np.ndarray, asked_RC: np.ndarray, *, classes: bool, seed: int
                ) -> np.ndarray:
        self.asked.append((told_RC.tolist(), target_R.tolist(), asked_RC.tolist(), classes))
        return np.full(len(asked_RC), self.answers.pop(0))


def fill(values: Any, forests: Any = SMALL, *, learn: Any = None, categories: Any = None, rounds: int = 10,
         seed: int = 0) -> np.ndarray:
    values_RC = np.array(values, dtype=float)
    every = np.arange(len(values_RC)) if learn is None else np.array(learn)
    return missforest(values_RC, every, categories or [0] * values_RC.shape[1], forests, max_rounds=rounds, seed=seed)


def made(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A table whose last column is a category that its numbers tell, and the same with a fifth of its cells gone."""
    rng = np.random.default_rng(0)
    x = rng.random(rows)
    whole = np.column_stack([x, np.sin(6 * x) + rng.normal(0, 0.02, rows), x**2, (2.99 * x).astype(int)])
    gone = rng.random(whole.shape) < 0.2
    gone[:5] = False
    return whole, np.where(gone, NAN, whole)


def test_columns_that_miss_least_are_filled_first_from_means_and_modes() -> None:
    forests = Scripted(*[0.25, 2.0] * 3)
    filled = fill([[1.0, NAN, NAN], [3.0, 0.0, NAN], [5.0, 1.0, 2], [7.0, NAN, 2], [9.0, 2.0, 1], [0.0, 1.0, NAN]],
                  forests, categories=[0, 0, 3])
    told, target, asked, classes = forests.asked[0]
    assert (told, target, classes) == ([[3.0, 2.0], [5.0, 2.0], [9.0, 1.0], [0.0, 2.0]], [0.0, 1.0, 2.0, 1.0], False)
    assert asked == [[1.0, 2.0], [7.0, 2.0]], "the category starts at its most frequent, and is filled later"
    assert forests.asked[1][2] == [[1.0, 0.25], [3.0, 0.0], [0.0, 1.0]], "from what has just been filled"
    assert forests.asked[1][3]
    assert filled[:, 1].tolist() == [0.25, 0.0, 1.0, 0.25, 2.0, 1.0]
    assert len(forests.asked) == 6, "the third round changes no less than the second: nothing"


def test_it_stops_at_the_first_greater_change_and_returns_what_was_before() -> None:
    table = [[1.0, 1.0], [2.0, 3.0], [3.0, NAN]]
    assert fill(table, Scripted(3.0, 3.5, 3.6, 9.0, 0.0))[2, 1] == 3.6
    assert fill(table, Scripted(3.0, 3.5, 3.6, 9.0), rounds=2)[2, 1] == 3.5


def test_with_both_kinds_it_stops_when_neither_changes_less() -> None:
    table = [[1.0, 1.0, 0], [2.0, 3.0, 1], [3.0, NAN, NAN]]
    # the numbers change more in the second round, the category less; in the third, neither
    forests = Scripted(2.1, 1.0, 4.0, 1.0, 9.0, 1.0, 0.0, 0.0)
    assert fill(table, forests, categories=[0, 0, 2])[2].tolist() == [3.0, 4.0, 1.0]
    assert len(forests.asked) == 6


def test_other_rows_are_filled_but_not_learned_from() -> None:
    forests = Scripted(2.0, 2.0)
    filled = fill([[1.0, 1.0], [2.0, 3.0], [3.0, NAN], [4.0, NAN], [50.0, 60.0]], forests, learn=[0, 1, 2])
    assert all(told == [[1.0], [2.0]] for told, *_ in forests.asked)
    assert filled[:, 1].tolist() == [1.0, 3.0, 2.0, 2.0, 60.0]


def test_it_tells_numbers_and_categories_and_keeps_what_is_observed() -> None:
    whole, holes = made()
    gone = np.isnan(holes)
    filled = fill(holes, categories=[0, 0, 0, 3])
    assert np.array_equal(filled[~gone], whole[~gone])
    assert set(filled[:, 3]) == {0.0, 1.0, 2.0}
    assert (filled[:, 3] == whole[:, 3])[gone[:, 3]].mean() > 0.85
    for column in range(3):
        error = ((filled - whole)[gone[:, column], column] ** 2).mean()
        assert error < 0.1 * whole[:, column].var()


def test_a_seed_and_no_number_of_threads_decides() -> None:
    _, holes = made(100)
    before = torch.get_num_threads()
    try:
        tables = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            tables.append(fill(holes, categories=[0, 0, 0, 3]))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*tables)
    assert not np.array_equal(tables[0], fill(holes, categories=[0, 0, 0, 3], seed=1))


@pytest.mark.parametrize(("split_features", "expected"), [("sqrt", 3), ("third", 2), ("all", 8)])
def test_a_split_chooses_among_what_the_r_package_says(
    monkeypatch: pytest.MonkeyPatch, split_features: Any, expected: int
) -> None:
    import sklearn.ensemble

    grown = []
    original = sklearn.ensemble.RandomForestRegressor.fit

    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        grown.append((self.max_features, self.min_samples_split, self.bootstrap))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(sklearn.ensemble.RandomForestRegressor, "fit", fit)
    table = np.random.default_rng(0).random((20, 9))
    table[0, 0] = NAN
    fill(table, Forests(2, 5, split_features), rounds=1)
    assert grown == [(expected, 6, True)]


def test_a_table_of_one_column_gets_its_mean() -> None:
    assert fill([[1.0], [NAN], [3.0]])[:, 0].tolist() == [1.0, 2.0, 3.0]
