from __future__ import annotations

import numpy as np
import pytest

from raymae.data.scaling import Scaler
from raymae.data.series import Series
from raymae.data.splits import protocol_rows, protocol_splits
from raymae.data.synthetic.series import synthetic_series
from raymae.errors import DataError


def test_has_the_form_of_etth1() -> None:
    series = synthetic_series()
    assert series.values_TC.shape == (17420, 7)
    assert series.channels == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert series.target_index == 6
    assert series.times[0] == np.datetime64("2016-07-01T00:00:00")
    assert series.times.dtype == "datetime64[s]"
    assert set(np.diff(series.times).astype(int)) == {series.step_s} == {3600}
    assert np.isfinite(series.values_TC).all()
    assert series.origin == "synthetic"


def test_same_arguments_same_bytes_other_seed_other_values() -> None:
    one = synthetic_series(num_steps=500)
    assert one.values_TC.tobytes() == synthetic_series(num_steps=500).values_TC.tobytes()
    assert one.values_TC.tobytes() != synthetic_series(num_steps=500, seed=1).values_TC.tobytes()
    assert (one.values_TC == np.round(one.values_TC, 3)).all()  # last bits differ between processors


def test_days_weeks_and_years() -> None:
    series = synthetic_series()
    load_T, oil_T = series.values_TC[:, 0], series.values_TC[:, 6]
    hour_of_day = load_T[: 17400].reshape(-1, 24).mean(axis=0)
    assert np.ptp(hour_of_day) > load_T.std()
    weekday_T = series.times.astype("datetime64[D]").astype(int) % 7  # 0 is a Thursday, so 2 and 3 are the weekend
    assert load_T[np.isin(weekday_T, (2, 3))].mean() < 0.9 * load_T[~np.isin(weekday_T, (2, 3))].mean()
    assert oil_T[:720].mean() > oil_T[4380:5100].mean() + 5  # July against January


def test_a_model_can_learn_from_it_and_beat_the_last_value() -> None:
    errors = scores(synthetic_series())
    assert errors["linear_all"] < 0.8 * errors["linear_own"] < 0.8 * errors["persistence"]
    assert errors["linear_own"] < 0.5 * errors["persistence"]
    assert errors["persistence"] < errors["window_mean"] < errors["train_mean"]


def test_impossible_arguments() -> None:
    with pytest.raises(DataError, match="at least 2 steps, got 1"):
        synthetic_series(num_steps=1)
    with pytest.raises(DataError, match="unknown target 'oil'; allowed: HUFL"):
        synthetic_series(target="oil")
    assert synthetic_series(num_steps=2, target="HULL").target_index == 1


def scores(series: Series) -> dict[str, float]:
    """Test MSE of simple forecasts under the report's protocol, lookback 100, one step, scaled to -1 .. 1."""
    num_rows, target = len(series.times), series.target_index
    rows = protocol_rows("report", num_rows)
    splits = protocol_splits("report", num_rows, lookback=100, horizon=1, name=series.origin)
    values_TC = Scaler.fit(series.values_TC[slice(*rows["train"])], "minmax").transform(series.values_TC)
    truth_T = values_TC[:, target]
    train, test = np.array(splits["train"]), np.array(splits["test"])

    def linear(columns: slice) -> np.ndarray:
        def inputs(starts: np.ndarray) -> np.ndarray:
            return np.column_stack([values_TC[starts - lag, columns] for lag in range(1, 25)] + [np.ones(len(starts))])

        change_T = truth_T[train] - truth_T[train - 1]
        return truth_T[test - 1] + inputs(test) @ np.linalg.lstsq(inputs(train), change_T, rcond=None)[0]

    forecasts = {
        "persistence": truth_T[test - 1],
        "train_mean": truth_T[slice(*rows["train"])].mean(),
        "window_mean": np.array([truth_T[start - 100:start].mean() for start in test]),
        "linear_own": linear(slice(target, target + 1)),
        "linear_all": linear(slice(None)),
    }
    result = {name: float(np.mean((truth_T[test] - forecast) ** 2)) for name, forecast in forecasts.items()}
    return result | {"persistence_abs_error": float(np.mean(np.abs(truth_T[test] - truth_T[test - 1])))}
