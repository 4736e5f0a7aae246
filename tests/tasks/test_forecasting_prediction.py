"""Forecasts of real files by a network that knows no more than its card, scored by scikit-learn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_squared_error

from raymae.data.steps import following
from raymae.errors import DataError
from raymae.inference.figure import figure
from tests.tasks.kept import Kept, MakeConfig, kept

HORIZON, LOOKBACK = 3, 24


@pytest.fixture(scope="session")
def etth1(real_data: Path) -> Path:
    path = real_data / "ett" / "ETTh1.csv"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


@pytest.fixture(scope="session")
def network(make_config: MakeConfig, etth1: Path) -> Kept:
    where = {"name": "ETTh1", "source": "real", "path": str(etth1)}
    return kept(make_config("forecasting", "mae", data=where, stage="replicate", horizon=HORIZON, epochs=1,
                            covariates="all"))


def test_a_backtest_of_the_real_file_has_the_recorded_score(network: Kept, etth1: Path) -> None:
    file = pd.read_csv(etth1, parse_dates=["date"])
    found = network.answer(file.tail(4500), backtest=True)
    task: Any = network.task
    tested = pd.DatetimeIndex(task.data.times[task.splits["test"]])
    rows = found[found["made_at"].isin(tested - pd.Timedelta(hours=1))]
    assert len(rows) == HORIZON * len(tested)
    truth = file.set_index("date")["OT"]
    assert np.array_equal(rows["truth"], truth[rows["time"]])
    train = truth.iloc[:int(.7 * len(file))]
    half = (train.max() - train.min()) / 2
    score = mean_squared_error(rows["truth"] / half, rows["forecast"] / half)
    assert score == pytest.approx(network.scores["mse"], rel=1e-5)


def test_the_next_steps_have_their_times_whatever_the_order_of_columns(
    network: Kept, etth1: Path, tmp_path: Path
) -> None:
    file = pd.read_csv(etth1).iloc[:500]
    plain = network.answer(file.assign(date=pd.to_datetime(file["date"])).set_index("date"))
    other = tmp_path / "other.parquet"
    file[file.columns[::-1]].assign(comment="text", number=1).tail(LOOKBACK).to_parquet(other)
    turned = network.answer(other)
    assert list(plain.columns) == ["made_at", "step", "time", "forecast"]
    assert list(plain["time"].astype(str)) == ["2016-07-21 20:00:00", "2016-07-21 21:00:00", "2016-07-21 22:00:00"]
    pd.testing.assert_frame_equal(plain, turned)
    backtest = network.answer(pd.read_csv(etth1).iloc[:600], backtest=True)
    same = backtest[backtest["made_at"] == plain["made_at"][0]]
    assert np.allclose(same["forecast"], plain["forecast"], rtol=1e-6)


@pytest.mark.parametrize(("change", "complaint"), [
    (lambda file: file.drop(columns="HULL"), "unknown column 'HULL'"),
    (lambda file: file.drop(columns="OT"), "unknown column 'OT'"),
    (lambda file: file.iloc[:23], "holds 23 rows, at least 24 are needed: lookback=24"),
    (lambda file: file.iloc[::2], "as in training, 3600 s, got 7200 s"),
    (lambda file: file.assign(MUFL=file["MUFL"].mask(file.index == 90)), "cells of 'MUFL' are missing"),
])
def test_what_cannot_be_forecast_is_refused(network: Kept, etth1: Path, change: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=re.escape(complaint)) as caught:
        network.answer(change(pd.read_csv(etth1).iloc[:100]))
    assert "tmp" not in str(caught.value)


def test_the_features_of_windows(network: Kept, etth1: Path) -> None:
    prepared = network.predictor.prepare(pd.read_csv(etth1).iloc[:40], backtest=True)
    encoded = network.predictor.encode(network.model, prepared)
    assert encoded.shape == (40 - LOOKBACK - HORIZON + 1, 16)
    assert np.isfinite(encoded).all()
    assert encoded.std(axis=0).min() > 0


@pytest.mark.parametrize("arm", ["linear", "gru"])
def test_several_series_with_missing_cells(make_config: MakeConfig, tmp_path: Path, arm: str) -> None:
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame({"date": pd.date_range("2024-01-01", periods=150, freq="D"), "shop": name,
                            "OT": level + rng.normal(size=150).cumsum()}) for name, level in (("a", 5), ("b", 500))]
    frames[0].loc[120:124, "OT"] = np.nan
    file = tmp_path / "shops.csv"
    pd.concat(frames).to_csv(file, index=False)
    where = {"name": "own", "source": "real", "path": str(file), "group": "shop"}
    network = kept(make_config("forecasting", arm, data=where, stage="replicate", horizon=2, lookback=12, epochs=1))
    rows = network.answer(file, backtest=True)
    task: Any = network.task
    errors = []
    for number, name in enumerate("ab"):
        own, train = rows[rows["shop"] == name], frames[number]["OT"].iloc[:105]
        half = (train.max() - train.min()) / 2
        first = task.data.times[task.splits["test"]].min()
        tested = own[(own["made_at"] >= pd.Timestamp(first) - pd.Timedelta(days=1)) & own["truth"].notna()]
        errors.append(((tested["truth"] - tested["forecast"]) / half) ** 2)
    assert pd.concat(errors).mean() == pytest.approx(network.scores["mse"], rel=1e-5)
    newcomer = frames[0].assign(shop="c").tail(20)
    newcomer["OT"] = newcomer["OT"] * 1000
    shops = network.answer(pd.concat([frames[1].tail(30), newcomer]))
    assert list(shops["shop"]) == ["b", "b", "c", "c"]
    assert abs(shops["forecast"].iloc[2] / newcomer["OT"].iloc[-1] - 1) < .5


@pytest.mark.parametrize(("times", "step_s", "calendar", "wanted"), [
    (["2024-01-31", "2024-02-29"], 30 * 86400, "months", ["2024-03-31", "2024-04-30"]),
    (["2024-01-15", "2024-04-15"], 91 * 86400, "months", ["2024-07-15", "2024-10-15"]),
    (["2024-05-02", "2024-05-03"], 86400, "business days", ["2024-05-06", "2024-05-07"]),
    (["2024-02-28", "2024-02-29"], 86400, "", ["2024-03-01", "2024-03-02"]),
])
def test_the_calendar_goes_on(times: list[str], step_s: int, calendar: str, wanted: list[str]) -> None:
    found = following(np.array(times, dtype="datetime64[s]"), step_s, calendar, 2)
    assert list(found.astype("datetime64[D]").astype(str)) == wanted


@pytest.mark.parametrize("backtest", [False, True])
def test_the_figure_has_the_last_steps_and_forecasts_in_whole_horizons(
    network: Kept, etth1: Path, tmp_path: Path, backtest: bool
) -> None:
    file = tmp_path / "last.csv"
    pd.read_csv(etth1).tail(400).to_csv(file, index=False)
    found = network.predictor.read(file)
    answer = network.answer(found, backtest=backtest)
    root = ElementTree.fromstring(figure(network.predictor.curves(found, answer)))
    known, forecast = (path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path"))
    points = [np.array([step.split() for step in re.split("[ML]", path)[1:]], dtype=float)
              for path in (known, forecast)]
    assert [len(one) for one in points] == [120, 120 if backtest else HORIZON]
    assert (points[0][-1, 0] < points[1][0, 0]) == (not backtest), "what is not known yet stands behind what is"
    assert ((np.concatenate(points) >= 0) & (np.concatenate(points) <= (760, 320))).all()
    if backtest:  # heights are of one scale: the drawn errors are those of the table
        rows = answer[answer["made_at"].isin(answer["made_at"].unique()[::-1][::HORIZON])].sort_values("time").tail(120)
        drawn = points[0][:, 1] - points[1][:, 1]
        assert np.corrcoef(drawn, rows["forecast"] - rows["truth"])[0, 1] > 0.9999


def test_where_cells_are_missing_the_figures_line_is_interrupted(network: Kept, etth1: Path, tmp_path: Path) -> None:
    file = tmp_path / "gaps.csv"
    frame = pd.read_csv(etth1).tail(300)
    frame.iloc[-100:-90, frame.columns.get_loc("OT")] = np.nan
    frame.to_csv(file, index=False)
    found = network.predictor.read(file)
    picture = figure(network.predictor.curves(found, network.answer(found)))
    known = next(ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}path")).attrib["d"]
    assert (known.count("M"), known.count("L")) == (2, 120 - 10 - 2)
