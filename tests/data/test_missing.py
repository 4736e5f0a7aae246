from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raymae.data.missing import hide_cells
from raymae.data.synthetic.tables import synthetic_table
from raymae.errors import DataError

VALUES = synthetic_table(num_rows=4000).values_RC


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("kind", ["mcar", "mar", "mnar"])
def test_the_rate_is_met_and_truly_missing_cells_are_left_alone(kind: Any, rate: float) -> None:
    hidden = hide_cells(VALUES, kind, rate, seed=1)
    observed = ~np.isnan(VALUES)
    assert not (hidden & ~observed).any()
    share = hidden.sum(axis=0) / observed.sum(axis=0)
    complete = share == 0
    assert complete.sum() == (3 if kind == "mar" else 0)
    np.testing.assert_allclose(share[~complete], rate, atol=0.03)


@pytest.mark.parametrize("kind", ["mcar", "mar", "mnar"])
def test_the_seed_draws_the_pattern(kind: Any) -> None:
    once = hide_cells(VALUES, kind, 0.3, seed=1)
    assert np.array_equal(once, hide_cells(VALUES, kind, 0.3, seed=1))
    assert not np.array_equal(once, hide_cells(VALUES, kind, 0.3, seed=2))


def shift(hidden: np.ndarray, column: int) -> float:
    """How far the mean of hidden cells is from the observed ones', in deviations."""
    values = VALUES[:, column]
    return float(abs(values[hidden[:, column]].mean() - values[~hidden[:, column]].mean()) / values.std())


def test_what_the_pattern_depends_on() -> None:
    mcar, mar, mnar = (hide_cells(VALUES, kind, 0.3, seed=1) for kind in ("mcar", "mar", "mnar"))
    assert max(shift(mcar, column) for column in (0, 1, 2, 7, 8)) < 0.12
    assert min(shift(mnar, column) for column in (0, 1, 2, 7, 8)) > 0.8
    drivers = ~mar.any(axis=0)
    # of two rows that agree in the drivers, what else they hold changes nothing: shuffle the rest, the chance stays
    shuffled = VALUES.copy()
    shuffled[:, ~drivers] = np.random.default_rng(0).permutation(VALUES[:, ~drivers])
    again = hide_cells(shuffled, "mar", 0.3, seed=1)
    known = ~np.isnan(VALUES).any(axis=1) & ~np.isnan(shuffled).any(axis=1)
    assert (again[known] == mar[known]).mean() > 0.999
    other = hide_cells(shuffled, "mnar", 0.3, seed=1)
    assert (other[known] == mnar[known]).mean() < 0.95


def test_impossible_arguments() -> None:
    with pytest.raises(DataError, match="between 0 and 1, got 1"):
        hide_cells(VALUES, "mcar", 1, 0)
    with pytest.raises(DataError, match=r"'mcra'.*mcar"):
        hide_cells(VALUES, "mcra", 0.3, 0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 2 columns"):
        hide_cells(VALUES[:, :1], "mar", 0.3, 0)
