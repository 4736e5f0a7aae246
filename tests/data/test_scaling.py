from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raymae.data.scaling import Scaler, ScalerKind
from raymae.data.splits import protocol_rows

KINDS: list[ScalerKind] = ["minmax", "standard"]
finite = st.floats(-1e6, 1e6, allow_subnormal=False)
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=finite)


@given(tables, st.sampled_from(KINDS))
def test_scaled_values_are_an_affine_map_of_the_units(values_TC: np.ndarray, kind: ScalerKind) -> None:
    scaler = Scaler.fit(values_TC, kind)
    scaled_TC = scaler.transform(values_TC)
    assert np.isfinite(scaled_TC).all()
    np.testing.assert_allclose(scaled_TC * scaler.scale_C + scaler.offset_C, values_TC, rtol=1e-9, atol=1e-6)


@given(tables)
def test_minmax_maps_training_range_onto_minus_one_to_one(values_TC: np.ndarray) -> None:
    scaled_TC = Scaler.fit(values_TC, "minmax").transform(values_TC)
    assert np.abs(scaled_TC).max() <= 1 + 1e-9


def test_minmax_ends_are_exact() -> None:
    scaler = Scaler.fit(np.array([[1.0, -5.0], [3.0, 5.0], [2.0, 0.0]]), "minmax")
    assert scaler.transform(np.array([[1.0, -5.0], [3.0, 5.0], [4.0, 0.0]])).tolist() == [[-1, -1], [1, 1], [2, 0]]


def test_standard_is_the_population_deviation() -> None:
    scaled_TC = Scaler.fit(np.array([[1.0], [3.0]]), "standard").transform(np.array([[1.0], [3.0]]))
    assert scaled_TC.tolist() == [[-1], [1]]


@pytest.mark.parametrize("kind", ["minmax", "standard"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3e5])
def test_constant_channel_keeps_its_unit(kind: ScalerKind, constant: float) -> None:
    scaler = Scaler.fit(np.full((101, 1), constant), kind)
    assert scaler.scale_C.tolist() == [1.0]
    np.testing.assert_allclose(scaler.transform(np.array([[constant + 2]])), [[2.0]], atol=1e-9)


@given(st.integers(40, 90), st.sampled_from(KINDS), st.floats(-1e6, 1e6))
def test_later_rows_cannot_reach_a_scaler_fitted_on_train(num_rows: int, kind: ScalerKind, other: float) -> None:
    values_TC = np.random.default_rng(0).normal(size=(num_rows, 3))
    changed_TC = values_TC.copy()
    split = protocol_rows("report", num_rows)
    changed_TC[split["val"].start:] = other
    train = slice(*split["train"])
    one, two = Scaler.fit(values_TC[train], kind), Scaler.fit(changed_TC[train], kind)
    assert one.offset_C.tolist() == two.offset_C.tolist()
    assert one.scale_C.tolist() == two.scale_C.tolist()


def test_leading_axes_are_free_and_channels_checked() -> None:
    scaler = Scaler.fit(np.arange(6.0).reshape(2, 3), "minmax")
    assert scaler.transform(np.zeros((2, 5, 3))).shape == (2, 5, 3)
    with pytest.raises(ValueError, match=r"must be the 3 channels, got shape \(3, 1\)"):
        scaler.transform(np.zeros((3, 1)))


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.zeros(3), np.array([[np.nan]]), np.array([[np.inf]])])
def test_unfittable_values(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite values of shape"):
        Scaler.fit(values, "minmax")


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown scaler 'min-max'; did you mean `minmax`"):
        Scaler.fit(np.zeros((2, 1)), "min-max")  # type: ignore[arg-type]
