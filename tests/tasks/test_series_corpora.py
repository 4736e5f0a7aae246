"""Pretraining on other series than the one that is forecast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator

from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.base import Task
from raymae.tasks.forecasting.task import Forecasting
from raymae.train import run_trial

CPU = torch.device("cpu")
ROWS, LOOKBACK = 600, 24
SMALL: dict[str, Any] = {"target": "a", "date_column": "date", "protocol": "report", "horizon": 2, "lookback": LOOKBACK,
                         "patch_size": 4, "covariates": "time"}
MakeConfig = Callable[..., TrialConfig]


def save(path: Path, start: str, rows: int, columns: str = "ab", step: str = "1h", seed: int = 0, **more: Any) -> Path:
    """A random walk a column."""
    values = np.random.default_rng(seed).normal(size=(rows, len(columns))).cumsum(axis=0)
    frame = pd.DataFrame(values, columns=list(columns))
    for name, column in more.items():
        frame[name] = column
    frame.insert(0, "date", pd.date_range(start, periods=rows, freq=step).strftime("%Y-%m-%d %H:%M:%S"))
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    return {"name": "own", "source": "real", "path": str(save(tmp_path / "own.csv", "2020-01-01", ROWS))}


def make(make_config: MakeConfig, data: dict[str, Any], *corpora: Path | dict[str, Any], own: bool = True,
         **changes: Any) -> Forecasting:
    named = [one if isinstance(one, dict) else {"path": str(one)} for one in corpora]
    data = {**data, "pretraining": {"data": named, "own": own}}
    return Forecasting(make_config("forecasting", "mae", data=data, **{**SMALL, **changes}), CPU)


def told(task: Task) -> str:
    return task.pretrains_on(task.config.data, task.config.params)


def windows(task: Task, generator: Generator | None = None) -> torch.Tensor:
    source = task.load("pretrain")
    return source.batch(torch.arange(len(source)), generator)["window"]


def test_windows_of_both_are_seen(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    other = save(tmp_path / "other.csv", "2010-01-01", 100, "xyz", seed=1)
    alone, task = make(make_config, own), make(make_config, own, other)
    before = len(alone.load("pretrain"))
    assert len(task.load("pretrain")) == before + 100 - LOOKBACK
    assert told(task) == f"{before} training windows and 76 windows of 3 channels of other.csv"
    assert told(alone) == ""
    assert torch.equal(windows(task)[:before], windows(alone)[:, :1])
    values = pd.read_csv(other)["x"].to_numpy()
    low, high = values.min(), values.max()  # scaled by itself, as the protocol scales
    expected = 2 * (values - low) / (high - low) - 1
    np.testing.assert_allclose(windows(task)[before, 0].numpy(), expected[:LOOKBACK], atol=1e-5)
    np.testing.assert_allclose(windows(task)[-1, 0].numpy(), expected[-LOOKBACK - 1 : -1], atol=1e-5)
    for split in ("train", "val", "test", "pretext"):
        one, two = (source.batch(torch.arange(len(source)), None) for source in (alone.load(split), task.load(split)))
        assert all(torch.equal(one[key], two[key]) for key in one)
    units = task.units("pretrain")
    assert len({*units.names}) == len(units.names) == before + 76
    assert units.names[before] == "other.csv/2010-01-02T00:00:00"
    only = make(make_config, own, other, own=False)
    assert torch.equal(windows(only), windows(task)[before:])


def test_indices_may_come_in_any_order_and_channels_are_drawn(
    make_config: MakeConfig, own: dict[str, Any], tmp_path: Path
) -> None:
    others = [save(tmp_path / f"{name}.csv", "2010-01-01", 60 + seed, "xyz", seed=seed)
              for seed, name in enumerate(("one", "two"), start=1)]
    source = make(make_config, own, *others).load("pretrain")
    order = torch.randperm(len(source), generator=Generator().manual_seed(0))
    whole, mixed = source.batch(torch.arange(len(source)), None), source.batch(order, None)
    assert all(torch.equal(mixed[key], whole[key][order]) for key in whole)
    drawn = source.batch(order, Generator().manual_seed(1))
    again = source.batch(order, Generator().manual_seed(1))
    assert all(torch.equal(drawn[key], again[key]) for key in drawn)
    assert {*drawn["channel"].tolist()} >= {2, 3, 4, 5, 6, 7}  # 0 and 1 are the target's file's
    assert torch.equal(drawn["time"], whole["time"][order])


def test_no_row_of_the_time_of_validation_and_test(
    make_config: MakeConfig, own: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever it measures, and in whatever steps: the target's train ends with row 420 of 600."""
    hourly = save(tmp_path / "hourly.csv", "2019-12-01", 31 * 24 + 900, "x", seed=2)
    task = make(make_config, own, hourly, own=False)
    scored = pd.date_range("2020-01-01", periods=ROWS, freq="1h")[420:]
    starts = pd.to_datetime([name.split()[-1].rpartition("/")[2] for name in task.units("pretrain").names])
    for start in starts:
        assert not scored.isin(pd.date_range(start - pd.Timedelta(hours=LOOKBACK), start, freq="1h")).any()
    before, after = 31 * 24 + 420 - LOOKBACK, 300 - LOOKBACK
    assert len(starts) == before + after
    assert told(task) == (f"{before + after:,} windows of 1 channel of hourly.csv (180 of 1,644 rows left out, as they "
                          "are of the time or have the values of val or test)")
    quarter = save(tmp_path / "quarter.csv", "2020-01-01", 4 * ROWS, "x", step="15min", seed=2)
    fine = make(make_config, own, quarter, own=False)
    assert len(fine.load("pretrain")) == 420 - LOOKBACK  # of means over four quarters
    values = pd.read_csv(quarter)["x"].to_numpy().reshape(-1, 4).mean(axis=1)[:420]
    expected = 2 * (values - values.min()) / (values.max() - values.min()) - 1
    np.testing.assert_allclose(windows(fine)[0, 0].numpy(), expected[:LOOKBACK], atol=1e-5)


def test_no_row_with_the_values_of_validation_and_test(
    make_config: MakeConfig, own: dict[str, Any], tmp_path: Path
) -> None:
    """The target's own file with its dates moved: rows from 420 on are known by their values."""
    frame = pd.read_csv(own["path"])
    frame["date"] = pd.date_range("1990-05-05", periods=ROWS, freq="1h").strftime("%Y-%m-%d %H:%M:%S")
    frame[["date", "b"]].rename(columns={"b": "renamed"}).to_csv(tmp_path / "moved.csv", index=False)
    task = make(make_config, own, tmp_path / "moved.csv", own=False)
    assert len(task.load("pretrain")) == 420 - LOOKBACK
    assert "180 of 600 rows left out" in told(task)


def test_what_cannot_be_resampled_is_said(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    daily = save(tmp_path / "daily.csv", "2010-01-01", 100, "x", step="1D")
    with pytest.raises(DataError, match=r"daily.csv: its step is 86400 s, and that of the series to forecast 3600 s"):
        make(make_config, own, daily).load("pretrain")
    hourly = save(tmp_path / "hourly.csv", "2010-01-01", 100, "x")
    with pytest.raises(DataError, match=r"covariates=all the network sees the 2 channels .* set settings.covariates"):
        make(make_config, own, hourly, covariates="all").load("pretrain")
    with pytest.raises(DataError, match="nothing is left to pretrain on"):
        make(make_config, own, save(tmp_path / "short.csv", "2010-01-01", LOOKBACK, "x"), own=False).load("pretrain")


@pytest.mark.parametrize("holes", [False, True])
def test_missing_cells_of_either(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path, holes: bool) -> None:
    """Networks of a series without missing cells get lines in their place, others see that they are missing."""
    if holes:
        frame = pd.read_csv(own["path"])
        frame.loc[50:52, "a"] = np.nan
        frame.to_csv(own["path"], index=False)
    gaps = np.random.default_rng(3).normal(size=100)
    gaps[30:33] = np.nan
    other = save(tmp_path / "other.csv", "2010-01-01", 100, "", seed=1, x=gaps)
    whole = save(tmp_path / "whole.csv", "2010-01-01", 100, "x", seed=1)
    task = make(make_config, own, other, whole)
    batch = task.load("pretrain").batch(torch.arange(len(task.load("pretrain"))), None)
    assert ("observed" in batch) == holes
    assert torch.isfinite(batch["window"]).all()
    first = len(make(make_config, own).load("pretrain"))
    if holes:
        assert not batch["observed"][first + 30 - 5, 0, 5:8].any()
        assert batch["observed"][first + 100 - LOOKBACK :].all()
    reports = [*run_trial(task.config)]
    assert np.isfinite([report.metrics["loss"] for report in reports]).all()


def test_several_series_of_one_file_are_a_corpus(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    parts = [pd.read_csv(save(tmp_path / "part.csv", "2010-01-01", 50, "x", seed=seed)).assign(shop=f"s{seed}")
             for seed in range(3)]
    pd.concat(parts).to_csv(tmp_path / "shops.csv", index=False)
    task = make(make_config, own, {"path": str(tmp_path / "shops.csv"), "group": "shop"}, own=False)
    assert len(task.load("pretrain")) == 3 * (50 - LOOKBACK)
    assert {*(task.units("pretrain").groups or ())} == {"shops.csv/s0", "shops.csv/s1", "shops.csv/s2"}


def test_of_the_real_series_itself_no_scored_row_is_seen(real_data: Path, make_config: MakeConfig) -> None:
    """What is of ETTh1's time, as ETTh1 is itself, gives its first part only; and all of that: no chance finds."""
    path = real_data / "ett" / "ETTh1.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    data = {"name": "ETTh1", "source": "real", "path": str(path)}
    task = make(make_config, data, path, target="OT", own=False)
    assert len(task.load("pretrain")) == int(0.7 * 17_420) - LOOKBACK
    assert len(make(make_config, data, path, target="OT").load("pretrain")) == 2 * len(task.load("pretrain"))
