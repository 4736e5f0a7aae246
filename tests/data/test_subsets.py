from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymae.data.subsets import hold_out, labelled, labelled_by_class, rank_within_class
from raymae.errors import DataError


def test_draws_are_those_of_published_results() -> None:
    """Recorded before the rule had one place, for every task that uses it."""
    windows = np.arange(100, 200)[labelled(100, 0.1, 3, block=7)]
    assert windows.tolist() == [163, 164, 165, 177, 178, 179, 180, 181, 182, 183]
    assert labelled(30, 0.25, 1).tolist() == [1, 3, 7, 11, 15, 16, 21, 28]  # scenes, volumes and table rows
    labels_N = np.array([0, 1, 2, 0, 1] * 6)
    assert labelled_by_class(labels_N, 0.25, 1).tolist() == [1, 2, 3, 7, 15, 16, 21, 28]
    assert np.flatnonzero(hold_out(labels_N, 0.1, 0)).tolist() == [2, 10, 11]
    assert np.flatnonzero(hold_out(labels_N, 0.2, 1)).tolist() == [3, 7, 16, 21, 28]


@given(st.integers(1, 300), st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 5), st.integers(1, 40))
def test_labels_are_nested(num: int, one: float, two: float, seed: int, block: int) -> None:
    few = labelled(num, min(one, two), seed, block=block)
    more = labelled(num, max(one, two), seed, block=block)
    assert set(few) <= set(more) <= set(range(num))
    assert len(few) == max(1, math.ceil(round(min(one, two) * num, 6)))
    assert (np.diff(more) > 0).all()


def test_labels_come_in_blocks_drawn_by_the_seed() -> None:
    tenth = labelled(1000, 0.1, 0, block=50)
    assert len(tenth) == 100
    assert len(np.flatnonzero(np.diff(tenth) > 1)) <= 1  # two blocks of 50
    assert all(start % 50 == 0 for start in tenth[::50])
    assert tenth.tolist() == labelled(1000, 0.1, 0, block=50).tolist()
    assert len({tuple(labelled(1000, 0.1, seed, block=50)) for seed in range(5)}) > 1
    assert labelled(1000, 1.0, 3, block=7).tolist() == list(range(1000))


def test_share_of_labels_is_not_rounded_up_by_float_noise() -> None:
    assert 0.07 * 100 > 7
    assert len(labelled(100, 0.07, 0)) == 7
    assert len(labelled(30, 1e-9, 0)) == 1


@pytest.mark.parametrize(("num", "fraction", "block", "expected"), [
    (0, 0.5, 1, "no training windows"),
    (5, 0.0, 1, "label_fraction must be above 0 and at most 1, got 0"),
    (5, 1.5, 1, "label_fraction must be above 0 and at most 1, got 1.5"),
    (5, 0.5, 0, "block must be at least 1"),
])
def test_impossible_label_shares(num: int, fraction: float, block: int, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        labelled(num, fraction, 0, block=block)


def test_hold_out_takes_a_share_of_every_class() -> None:
    labels_N = np.repeat([0, 1, 2], [100, 30, 2])[np.random.default_rng(1).permutation(132)]
    held = hold_out(labels_N, 0.1, 0)
    assert np.bincount(labels_N[held]).tolist() == [10, 3, 1]
    assert np.array_equal(held, hold_out(labels_N, 0.1, 0))
    assert not np.array_equal(held, hold_out(labels_N, 0.1, 1))


def test_labels_by_class_are_even_over_classes_and_nested() -> None:
    labels_N = np.tile([0, 1, 2, 3], 50)
    tenth, quarter, whole = (labelled_by_class(labels_N, share, 0) for share in (0.1, 0.25, 1.0))
    assert set(tenth) < set(quarter) < set(whole)
    assert np.bincount(labels_N[tenth]).tolist() == [5, 5, 5, 5]
    assert len(quarter) == 50
    assert np.array_equal(whole, np.arange(200))
    assert set(tenth) != set(labelled_by_class(labels_N, 0.1, 1))
    rank_N, counts_N = rank_within_class(labels_N, 0)
    assert (counts_N == 50).all()
    assert all(sorted(rank_N[labels_N == label]) == list(range(50)) for label in range(4))


# -- groups ------------------------------------------------------------------------------------------------------------


def test_shares_are_of_whole_groups_and_nested() -> None:
    groups = [f"patient {index % 20}" for index in range(100)]
    tenth, quarter = (labelled(100, share, 0, groups=groups) for share in (0.1, 0.25))
    assert {len(labelled(100, 1e-9, seed, groups=groups)) for seed in range(3)} == {5}  # at least one group, whole
    for kept, count in ((tenth, 2), (quarter, 5)):
        of = {groups[index] for index in kept}
        assert len(of) == count
        assert kept.tolist() == [index for index in range(100) if groups[index] in of]
    assert set(tenth) < set(quarter)
    assert set(tenth) != set(labelled(100, 0.1, 1, groups=groups))


def test_a_group_stands_for_its_examples_in_shares_by_class() -> None:
    labels_N = np.repeat([0, 1, 2], 40)
    groups = [f"{label}-{index % 8}" for index, label in enumerate(labels_N)]  # 8 groups of 5 in every class
    kept = labelled_by_class(labels_N, 0.25, 0, groups)
    assert np.bincount(labels_N[kept]).tolist() == [10, 10, 10]
    assert len({groups[index] for index in kept}) == 6
    assert set(labelled_by_class(labels_N, 0.125, 0, groups)) < set(kept)
    held_N = hold_out(labels_N, 0.1, 0, groups)
    assert np.bincount(labels_N[held_N]).tolist() == [5, 5, 5]
    assert not {groups[index] for index in np.flatnonzero(held_N)} & {groups[i] for i in np.flatnonzero(~held_N)}
    rank_N, counts_N = rank_within_class(labels_N, 0, groups)
    assert set(counts_N) == {40}
    few = np.flatnonzero(rank_N < 10)
    assert np.bincount(labels_N[few]).tolist() == [10, 10, 10]
    assert len({groups[index] for index in few}) == 6


def test_a_share_of_a_single_group_is_one_of_its_examples() -> None:
    one, labels_N = ["the only drive"] * 30, np.arange(30) % 3
    assert labelled(30, 0.25, 1, groups=one).tolist() == labelled(30, 0.25, 1).tolist()
    assert labelled_by_class(labels_N, 0.25, 1, one).tolist() == labelled_by_class(labels_N, 0.25, 1).tolist()


def test_groups_of_one_change_no_draw() -> None:
    labels_N, each = np.arange(30) % 3, [f"{index:02d}" for index in range(30)]
    assert labelled(30, 0.25, 1, groups=each).tolist() == labelled(30, 0.25, 1).tolist()
    assert labelled_by_class(labels_N, 0.25, 1, each).tolist() == labelled_by_class(labels_N, 0.25, 1).tolist()
    assert hold_out(labels_N, 0.2, 1, each).tolist() == hold_out(labels_N, 0.2, 1).tolist()
    assert rank_within_class(labels_N, 1, each)[0].tolist() == rank_within_class(labels_N, 1)[0].tolist()
