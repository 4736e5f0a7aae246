from __future__ import annotations

import datetime as dt
import pickle
import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from raymae import MAEImputer
from raymae.data.missing import hide_cells
from raymae.data.synthetic.tables import synthetic_table
from raymae.errors import DataError, ModelError, ResultsError
from raymae.imputer import FEW_ROWS, OF_FEW, NoBetterThanMeanWarning
from raymae.results import Store
from raymae.spec import DataSpec, SweepSpec, TrialConfig, TrialData
from raymae.tasks import schema_of

# a network trained for one epoch is no better than means, and says so
pytestmark = pytest.mark.filterwarnings("ignore::raymae.imputer.NoBetterThanMeanWarning")
TINY: dict[str, Any] = {
    "pretrain_epochs": 1, "epochs": 1, "encoder_dim": 8, "encoder_depth": 1, "decoder_dim": 8, "bins": 4,
    "frequencies": 2, "batch_size": 512,
}


def frame_of(num_rows: int = 300) -> pd.DataFrame:
    table = synthetic_table(num_rows=num_rows)
    frame = pd.DataFrame(table.values_RC, columns=list(table.columns))
    names = np.array(table.categories[9], dtype=object)
    frame["ocean_proximity"] = names[frame["ocean_proximity"].astype(int)]
    gone = np.random.default_rng(0).random(frame.shape) < 0.2
    return frame.mask(gone)


@parametrize_with_checks([MAEImputer(TINY)])
def test_scikit_learn_agrees(estimator: Any, check: Any) -> None:
    check(estimator)


def test_pandas_in_pandas_out() -> None:
    frame = frame_of()
    imputer = MAEImputer(TINY).fit(frame)
    filled = imputer.transform(frame)
    assert isinstance(filled, pd.DataFrame)
    assert list(imputer.get_feature_names_out()) == list(filled.columns) == list(frame.columns)
    assert filled.index.equals(frame.index)
    assert not filled.isna().any().any()
    for name in frame:
        assert filled[name][frame[name].notna()].tolist() == frame[name].dropna().tolist()
    assert set(filled["ocean_proximity"]) <= set(frame["ocean_proximity"].dropna())
    assert 0 < imputer.scores_["rmse"] < 1
    again = pickle.loads(pickle.dumps(imputer)).transform(frame)
    pd.testing.assert_frame_equal(again, filled)
    pd.testing.assert_frame_equal(clone(imputer).fit_transform(frame), filled)
    plain = imputer.set_output(transform="pandas").transform(frame.iloc[:3])
    pd.testing.assert_frame_equal(plain, filled.iloc[:3])


@pytest.mark.parametrize("dtype", ["str", "object", "category", "boolean", "Int64", "Float64", "float32"])
def test_columns_of_any_type_are_filled(dtype: str) -> None:
    values = {"boolean": [True, False], "Int64": [1, 7]}.get(
        dtype, [1.5, 2.5] if dtype.lower().startswith("float") else ["a", "b"])
    frame = pd.DataFrame({"x": pd.Series([*values, None] * 20, dtype=dtype), "y": np.arange(60.0)})
    filled = MAEImputer(TINY).fit_transform(frame)
    assert not filled.isna().any().any()
    assert filled["x"].iloc[[0, 1]].tolist() == values
    assert filled["x"].dtype == ("Float64" if dtype == "Int64" else frame["x"].dtype)


def test_an_unseen_category_is_kept_and_tells_nothing() -> None:
    frame = frame_of()
    imputer = MAEImputer(TINY).fit(frame)
    row = frame.iloc[[0]].assign(ocean_proximity="ON THE MOON", median_income=None)
    filled = imputer.transform(row)
    assert filled["ocean_proximity"].tolist() == ["ON THE MOON"]
    untold = imputer.transform(row.assign(ocean_proximity=None))
    assert filled["median_income"].tolist() == untold["median_income"].tolist()


def test_columns_that_say_nothing() -> None:
    frame = frame_of().assign(constant=7.0)
    filled = MAEImputer(TINY).fit_transform(frame.mask(np.random.default_rng(1).random(frame.shape) < 0.1))
    np.testing.assert_allclose(filled["constant"], 7.0, atol=0.2)
    with pytest.raises(DataError, match="column 'empty' has no observed cell"):
        MAEImputer(TINY).fit(frame.assign(empty=np.nan))
    imputer = MAEImputer(TINY).fit(frame)
    assert not imputer.transform(frame.iloc[:4].assign(median_income=np.nan)).isna().any().any()
    with pytest.raises(DataError, match="column 'median_income' must be numeric, but row 1 holds 'rich'"):
        imputer.transform(frame.iloc[:1].astype({"median_income": object}).assign(median_income="rich"))


def test_a_part_of_a_table_may_lack_categories_that_fit_has_met() -> None:
    frame = pd.DataFrame({"x": np.arange(60.0), "k": ["hi"] * 54 + ["lo"] * 6})
    part = frame[-6:].assign(k=pd.Categorical(["lo", None] * 3))  # converted by itself
    filled = MAEImputer(TINY).fit(frame.astype({"k": "category"})).transform(part)
    assert set(filled["k"]) == {"lo", "hi"}
    assert filled["k"][::2].tolist() == ["lo"] * 3


@pytest.mark.parametrize("num_rows", [100, 400])
def test_numbers_are_numbers_in_a_column_of_objects(num_rows: int) -> None:
    values = np.random.default_rng(0).normal(size=num_rows).astype(object)
    values[::7] = None
    imputer = MAEImputer(TINY).fit(pd.DataFrame({"o": values, "y": np.arange(num_rows)}))
    assert imputer._task.data.table.categories == ((), ())
    assert not imputer.transform(pd.DataFrame({"o": values, "y": np.arange(num_rows)})).isna().any().any()
    with pytest.raises(DataError, match=r"column 'o' has numbers in .* but row 2 holds 'much'; convert it to numb"):
        imputer.fit(pd.DataFrame({"o": ["1.5", "much", *map(str, range(50))], "y": range(52)}))


@pytest.mark.parametrize("column", [
    pd.Series(pd.date_range("2020-01-01", periods=60, freq="h")), pd.Series(pd.to_timedelta(range(60), unit="h")),
    pd.Series(pd.date_range("2020-01-01", periods=60, tz="Europe/Oslo")),
    pd.Series(pd.date_range("2020-01-01", periods=60).date),
], ids=["moments", "durations", "zone", "dates"])
def test_dates_and_durations_are_filled_with_their_like(column: pd.Series) -> None:
    frame = pd.DataFrame({"when": column, "y": np.arange(60.0)})
    frame.loc[10:12, "when"] = None
    filled = MAEImputer(TINY).fit_transform(frame)["when"]
    assert filled.dtype == frame["when"].dtype
    assert filled[:10].tolist() == column[:10].tolist()
    assert column.min() <= filled[11] <= column.max()


def test_arguments_that_cannot_be_meant() -> None:
    with pytest.raises(DataError, match="categorical: unknown column 'ocean'; allowed: households"):
        MAEImputer(TINY, categorical=["ocean"]).fit(frame_of(50))
    with pytest.raises(DataError, match="column 'code' holds number and text cells; make them one type"):
        MAEImputer(TINY).fit(pd.DataFrame({"code": [1, "1"] * 20, "y": range(40)}))
    with pytest.raises(ValueError, match="held_out must be at least 0 and below 1, got 1"):
        MAEImputer(TINY, held_out=1).fit(frame_of(50))
    assert MAEImputer(TINY, held_out=0).fit(frame_of(50)).scores_["rmse"] > 0


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 30), columns=st.integers(1, 4), share=st.sampled_from([0.0, 0.3, 0.8]),
       draw=st.sampled_from(["mean", "median", "sample"]), seed=st.integers(0, 99))
def test_any_table_keeps_what_was_observed(rows: int, columns: int, share: float, draw: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 6, columns)
    gone = rng.random(values.shape) < share
    gone[0] = False  # every column is observed somewhere
    holes = np.where(gone, np.nan, values)
    filled = MAEImputer({**TINY, "draw": draw}).fit_transform(holes)
    assert np.array_equal(filled[~gone], values[~gone])
    assert np.isfinite(filled).all()


def test_it_warns_where_the_columns_mean_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=(300, 4))
    monkeypatch.setattr("raymae.imputer.evaluate", lambda *_: {"column_score": 0.99, "rmse": 0.01})
    with pytest.warns(NoBetterThanMeanWarning, match=r"held-out cells .* column_score -?\d.* against -?\d"):
        MAEImputer({**TINY, "epochs": 3}, held_out=0.3).fit(noise)
    monkeypatch.undo()
    told = np.column_stack([noise[:, 0]] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoBetterThanMeanWarning)
        MAEImputer({**TINY, "bins": 16, "batch_size": 32, "pretrain_epochs": 5, "epochs": 20}).fit(told)


@pytest.mark.parametrize(("epochs", "every"), [(3, 1), (40, 2), (160, 8)])
def test_a_fit_is_looked_at_twenty_times(epochs: int, every: int) -> None:
    assert MAEImputer({"epochs": epochs})._params(100, 4)["eval_every"] == every
    assert MAEImputer({"epochs": epochs, "eval_every": 5})._params(100, 4)["eval_every"] == 5


@pytest.mark.parametrize(("rows", "columns", "passes", "batch"), [
    (442, 11, (60, 40), 232), (4000, 4, (60, 40), 256), (10_000, 10, (24, 16), 256), (20_640, 10, (12, 8), 256),
    (2000, 200, (6, 4), 32), (200_000, 40, (3, 2), 64),
])
def test_the_more_cells_the_fewer_passes_and_the_more_columns_the_fewer_rows_a_step(
    rows: int, columns: int, passes: tuple[int, int], batch: int
) -> None:
    params = MAEImputer()._params(rows, columns)
    assert (params["pretrain_epochs"], params["epochs"], params["batch_size"]) == (*passes, batch)


def test_a_table_of_few_rows_is_learned_without_sines_and_its_settings_still_hold() -> None:
    few, many = MAEImputer()._params(FEW_ROWS, 10), MAEImputer()._params(FEW_ROWS + 1, 10)
    assert {name: few[name] for name in OF_FEW} == OF_FEW
    assert all(many[name] != OF_FEW[name] for name in OF_FEW)
    assert MAEImputer({"frequencies": 4, "mask_ratio": 0.2})._params(100, 10)["frequencies"] == 4


def test_real_tables_of_few_rows_are_filled_better_than_by_the_settings_of_many() -> None:
    table = load_diabetes(as_frame=True).data
    hidden_RC = hide_cells(table.to_numpy(), "mcar", 0.3, 5)
    of_many = {"frequencies": 16, "dropout": 0.0, "pretrain_dropout": 0.0, "mask_ratio": 0.3}
    scores = []
    for chosen in (None, of_many):
        done = MAEImputer(chosen).fit_transform(table.mask(hidden_RC)).to_numpy()
        scores.append(np.mean([r2_score(table.to_numpy()[cells, column], done[cells, column])
                               for column, cells in enumerate(hidden_RC.T)]))
    assert scores[0] > scores[1] + 0.05


def test_it_says_how_far_it_is_where_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    MAEImputer({**TINY, "pretrain_epochs": 2}, verbose=True).fit(frame_of(50))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[MAEImputer] Learning from a table with shape (50, 10)"
    for line, start in zip(lines[1:], ("1/2 of pretraining", "2/2 of pretraining", "1/1 of fine-tuning"), strict=True):
        assert re.match(rf"\[MAEImputer\] Ending epoch {start}, elapsed time \d+\.\d\d, loss -?\d+\.\d{{4}}", line)
    assert re.search(r", column_score -?\d\.\d{4}$", lines[-1])
    MAEImputer(TINY).fit(frame_of(50))
    assert capsys.readouterr().out == ""


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ValueError, match="'mask_rato' is no parameter"):
        MAEImputer({"mask_rato": 0.5}).fit(frame_of(50))
    with pytest.raises(ValueError, match="encoder_dim=9 must be a multiple of encoder_heads=2"):
        MAEImputer({"encoder_dim": 9}).fit(frame_of(50))


def test_transform_of_the_real_housing_is_quick(real_data: Path) -> None:
    path = real_data / "california_housing" / "housing.csv"
    if not path.exists():
        pytest.skip(f"needs {path}")
    frame = pd.read_csv(path)
    gone = np.random.default_rng(0).random(frame.shape) < 0.3
    imputer = MAEImputer({"pretrain_epochs": 1, "epochs": 1, "batch_size": 4096}).fit(frame.iloc[:4096])
    started = time.process_time()
    filled = imputer.transform(frame.mask(gone))
    assert time.process_time() - started < 10  # CPU seconds, whatever else the machine does
    assert not filled.isna().any().any()


def test_the_best_configuration_of_a_sweep(tmp_path: Path) -> None:
    schema, spec = schema_of("imputation"), SweepSpec.model_validate({
        "name": "some", "task": "imputation", "data": {"name": "california-housing"}, "arms": ["mae", "mean"]})
    now = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    with Store.create(tmp_path / "some", spec, schema, environment={},
                      data={"name": "x", "source": "real", "fingerprint": "y"}) as store:
        with pytest.raises(ResultsError, match="no completed trial of the arm 'mae'"):
            MAEImputer.from_sweep(tmp_path / "some")
        for trial_id, score, width in (("a", 0.2, 12), ("b", 0.4, 8), ("c", 0.3, 16)):
            params = {**TINY, "encoder_dim": width, "missing_rate": 0.5}
            config = TrialConfig("imputation", "mae", params, TrialData(DataSpec(name="x"), "real"), 0)
            store.write_config(trial_id, config.to_json())
            store.add_trial({"trial_id": trial_id, "config_id": trial_id, "arm": "mae", "stage": "search", "attempt": 0,
                             "status": "completed", "seed": 0, "val_column_score": score, "wall_s": 1.0,
                             "started_at": now, "ended_at": now, "host": "here", "device": "cpu", "pid": 1, **params})
    with pytest.raises(ModelError, match="refit=True"):
        MAEImputer.from_sweep(tmp_path / "some")
    imputer = MAEImputer.from_sweep(tmp_path / "some", refit=True, random_state=3)
    assert imputer.settings == {**TINY, "encoder_dim": 8}
    assert imputer.random_state == 3
    assert imputer.fit(frame_of(50)).config_.params["encoder_dim"] == 8
