"""Several series in one long file: each on its own calendar, split and scaled by itself, and no window is of two."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Generator

from raymae.cli import main
from raymae.contract.splits import units_apart
from raymae.contract.subject import ViolationError
from raymae.data.series import read_all_series
from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.spec.sweep import Reading
from raymae.tasks.forecasting.task import Forecasting
from raymae.train import run_trial

LENGTHS = {"north": 400, "far south": 250, "7": 130}
STARTS = {"north": "2020-01-01T00", "far south": "2021-06-01T05", "7": "2020-01-03T00"}
GROUPED = Reading(group="shop")
Make = Callable[..., Forecasting]


def cells(name: str) -> np.ndarray:
    rng = np.random.default_rng(len(name))
    return 100 * len(name) + rng.normal(size=(LENGTHS[name], 2)).cumsum(axis=0).round(3)


def lines(name: str, values_TC: np.ndarray) -> list[str]:
    times = np.datetime64(STARTS[name]) + np.arange(len(values_TC))
    return [f"{time}:00,{name},{','.join('' if np.isnan(cell) else str(cell) for cell in row)}"
            for time, row in zip(times, values_TC, strict=True)]


def write(folder: Path, of: Mapping[str, np.ndarray], *more: str, by_date: bool = True) -> dict[str, Any]:
    path = folder / f"{'-'.join(of)}.csv"
    rows = [line for name, values_TC in of.items() for line in lines(name, values_TC)] + list(more)
    path.write_text("\n".join(["date,shop,OT,b", *(sorted(rows) if by_date else rows), ""]))
    return {"name": "own", "source": "real", "path": str(path), "group": "shop"}


@pytest.fixture
def make(make_config: Callable[..., TrialConfig]) -> Make:
    def make_task(data: dict[str, Any], arm: str = "mae", **changes: Any) -> Forecasting:
        return Forecasting(make_config("forecasting", arm, data=data, covariates="all", **changes), torch.device("cpu"))

    return make_task


@pytest.mark.parametrize("by_date", [True, False])
def test_every_series_is_read_by_itself(tmp_path: Path, by_date: bool) -> None:
    data = write(tmp_path, {name: cells(name) for name in LENGTHS}, by_date=by_date)
    found = read_all_series(data["path"], target="OT", reading=GROUPED)
    assert [one.name for one in found] == (["north", "7", "far south"] if by_date else [*LENGTHS])
    for one in found:
        np.testing.assert_array_equal(one.values_TC, cells(one.name))
        assert (one.channels, one.step_s, str(one.times[0])) == (("OT", "b"), 3600, f"{STARTS[one.name]}:00:00")


@pytest.mark.parametrize("horizon", [1, 3])
def test_windows_are_those_of_each_series_alone(tmp_path: Path, make: Make, horizon: int) -> None:
    together = make(write(tmp_path, {name: cells(name) for name in LENGTHS}), horizon=horizon)
    alone = {name: make(write(tmp_path, {name: cells(name)}), horizon=horizon) for name in LENGTHS}
    for split in ("pretrain", "train", "val", "test"):
        units, source = together.units(split), together.load(split)
        batch = source.batch(torch.arange(len(source)), None)
        assert units.groups is not None
        assert len(units.names) == len(source) == len({*units.names})
        for name, task in alone.items():
            rows = torch.tensor([group == name for group in units.groups])
            only = task.load(split)
            assert int(rows.sum()) == len(only)
            own = only.batch(torch.arange(len(only)), None)
            for key in ("window", "time", "target"):
                torch.testing.assert_close(batch[key][rows], own[key], rtol=0, atol=0)
            wanted = [f"{name} {time}" for time in task.units(split).names]
            assert [unit for unit, group in zip(units.names, units.groups, strict=True) if group == name] == wanted
    seen = [{*together.units(split).names} for split in ("pretrain", "val", "test")]
    assert not (seen[0] & seen[1] | seen[1] & seen[2] | seen[0] & seen[2])


def test_pretraining_sees_the_same_whatever_is_forecast(tmp_path: Path, make: Make) -> None:
    """A series that is too short for a horizon is pretrained on at that horizon too: one encoder serves all."""
    data = write(tmp_path, {name: cells(name) for name in LENGTHS})
    near, far = make(data, horizon=1), make(data, horizon=20)
    assert {*near.units("test").groups} == {*LENGTHS}
    assert {*far.units("test").groups} == {"north", "far south"}
    for split in ("pretrain", "pretext"):
        assert far.units(split) == near.units(split)
        assert {*far.units(split).groups} == {*LENGTHS}
        one, other = (task.load(split).batch(torch.arange(40), Generator().manual_seed(0)) for task in (near, far))
        assert all(torch.equal(one[key], other[key]) for key in ("window", "channel", "time"))
    scales = [task.pretraining().features.scales for task in (near, far)]
    assert all(torch.equal(one, other) for one, other in zip(scales[0][:3], scales[1][:3], strict=True))


def test_scales_are_those_of_all_training_parts(tmp_path: Path, make: Make) -> None:
    data = make(write(tmp_path, {name: cells(name) for name in LENGTHS})).data
    changes = [data.values_CT[:, part.training].double().diff(dim=1) for part in data.parts]
    torch.testing.assert_close(data.change_C, torch.cat(changes, dim=1).square().mean(dim=1).sqrt().float())
    for part in data.parts:
        assert part.training.stop - part.first == LENGTHS[part.name] * 7 // 10
        torch.testing.assert_close(data.values_CT[:, part.training].amax(dim=1), torch.ones(2))


def test_what_is_scored_does_not_depend_on_the_lookback(tmp_path: Path, make: Make) -> None:
    """A series shorter than the lookback is not learned from, and its first row stands before it."""
    data = write(tmp_path, {name: cells(name) for name in LENGTHS})
    short, long = make(data, "linear", lookback=24), make(data, "linear", lookback=264)
    for split in ("val", "test"):
        assert short.units(split) == long.units(split)
    assert {*long.units("train").groups} == {"north"}
    source = long.load("val")
    batch = source.batch(torch.arange(len(source)), None)
    for row, (name, start) in enumerate(zip(long.units("val").groups, source.starts.tolist(), strict=True)):
        part = next(part for part in long.data.parts if part.name == name)
        reached = min(264, start - part.first)
        own_CL = long.data.values_CT[:, start - reached:start]
        assert torch.equal(batch["window"][row, :, 264 - reached:], own_CL)
        before_CL = batch["window"][row, :, :264 - reached]
        assert torch.equal(before_CL, long.data.values_CT[:, part.first, None].expand_as(before_CL))
    with pytest.raises(DataError, match="lookback=300 and horizon=1 fit the training part of none of 3 series, the "
                                        "longest of which has 280 rows; lookback may be at most 279 here"):
        make(data, "linear", lookback=300)


def test_nothing_is_carried_from_one_series_into_the_next(tmp_path: Path, make: Make) -> None:
    of = {name: cells(name) for name in LENGTHS}
    of["far south"][:5] = of["7"][40:70, 0] = np.nan
    together = make(write(tmp_path, of, by_date=False), horizon=2)
    batch = together.load("pretrain").batch(torch.arange(len(together.load("pretrain"))), Generator().manual_seed(0))
    assert all(bool(value.isfinite().all()) for value in batch.values())
    first = together.data.parts[1].first
    mean_C = np.nanmean(together.data.values_CT[:, together.data.parts[1].training][:, 5:], axis=1)
    np.testing.assert_allclose(together.data.values_CT[:, first], mean_C, atol=1e-6)
    torch.testing.assert_close(together.data.before_CT[:, first], together.data.values_CT[:, first])
    filled = read_all_series(write(tmp_path, of, by_date=False)["path"], target="OT",
                             reading=Reading(group="shop", fill="last"))
    np.testing.assert_array_equal(filled[1].values_TC[:5], of["far south"][[5] * 5])
    of["7"][:, 1] = np.nan
    path = write(tmp_path, of)["path"]
    with pytest.raises(DataError, match="column 'b' of series '7' has no cell to fill from"):
        read_all_series(path, target="OT", reading=Reading(group="shop", fill="last"))


def test_series_that_cannot_be_learned_from_are_left_out_and_said(tmp_path: Path, make: Make) -> None:
    of = {name: cells(name) for name in LENGTHS}
    of["7"][:100, 1] = np.nan
    tiny = [f"2022-01-01T0{hour}:00,tiny,{hour},1" for hour in range(8)]
    data = write(tmp_path, of, *tiny, "2022-01-01T00:00,one,1,2")
    line = Forecasting.validate(make(data).config.data, make(data).config.params)
    assert line.startswith("650 rows x 2 channels; 407 train / 130 val / 65 test windows of 24 + 1 steps; 2 train / "
                           "2 val / 2 test groups: series; 2 series of 250 to 400 rows, each split in time by itself; "
                           "2 too short for horizon=1 left out: 'one', 'tiny'; 1 with a column that has no cell in the "
                           "training part left out: '7'; ")
    with pytest.raises(DataError, match=r"series 'north', the longest of 4: lookback=2 and horizon=90 do not fit the "
                                        r"`report` splits of 400 rows .*: at least 900 rows are needed"):
        make(write(tmp_path, {"north": cells("north"), "7": cells("7")}, *tiny, "2022-01-01T00:00,one,1,2"), horizon=90)


@pytest.mark.parametrize(("rows", "group", "expected"), [
    ([], "shops", r":1: unknown column 'shops'; did you mean `shop`"),
    ([], "date", r":1: data\.group and settings\.date_column both name 'date'; "),
    ([], "OT", r":1: data\.group and settings\.target both name 'OT'"),
    (["2020-02-01T00:00,,1,2"], "shop", r":402: column 'shop' is empty; data\.group says by it which series"),
    (["2020-01-17T18:00,north,1,2"], "shop", r":402: series 'north': steps must be equal, mostly 3600 s here, 1 "
                                             r"differ.* \(line 401\) is followed by '2020-01-17T18:00'"),
    (["2020-01-17T15:00,north,1,2"], "shop", r":402: series 'north': a timestamp occurs twice in a row"),
    ([f"2020-01-{day:02d}T00:00,daily,{day},2" for day in range(1, 32)], "shop",
     r"all series must have the same step, but it is 3600 s in 'north' and 86400 s in 'daily'; resample them"),
])
def test_long_files_that_are_refused(tmp_path: Path, make: Make, rows: list[str], group: str, expected: str) -> None:
    data = write(tmp_path, {"north": cells("north")}, *rows, by_date=False)
    with pytest.raises(DataError, match=expected):
        make({**data, "group": group})


@pytest.mark.parametrize("as_index", [False, True])
def test_a_long_parquet_file_is_what_its_text_is(tmp_path: Path, as_index: bool) -> None:
    of = {name: cells(name) for name in LENGTHS}
    of["north"][7, 0] = np.nan
    path = write(tmp_path, of)["path"]
    frame = pd.read_csv(path, parse_dates=["date"], dtype={"shop": "category"})
    frame["shop"] = frame["shop"].astype(str).astype("category")
    stored = tmp_path / "long.parquet"
    (frame.set_index("date") if as_index else frame.iloc[[*range(len(frame))]].set_axis(
        range(5, len(frame) + 5), axis=0)).to_parquet(stored)
    text, same = (read_all_series(file, target="OT", reading=GROUPED) for file in (path, stored))
    for one, other in zip(text, same, strict=True):
        np.testing.assert_array_equal(one.values_TC, other.values_TC)
        np.testing.assert_array_equal(one.times, other.times)
        assert (one.name, one.channels, one.step_s) == (other.name, other.channels, other.step_s)
    with pytest.raises(DataError, match=r"cannot read the series .*gone\.parquet: no such file"):
        read_all_series(tmp_path / "gone.parquet", target="OT")
    (tmp_path / "text.parquet").write_text("date,OT")
    with pytest.raises(DataError, match=r"text\.parquet cannot be read as Parquet"):
        read_all_series(tmp_path / "text.parquet", target="OT")


def test_a_long_file_is_recognised(tmp_path: Path) -> None:
    data = write(tmp_path, {name: cells(name) for name in LENGTHS})
    with pytest.raises(DataError, match=r"column 'shop' must be numeric, .*; if it tells several series of the file "
                                        r"apart, set data.group: shop"):
        read_all_series(data["path"], target="OT")
    for by_date, rule in ((True, "a timestamp occurs twice in a row"), (False, "timestamps must ascend")):
        data = write(tmp_path, {"north": cells("north"), "7": cells("7")}, by_date=by_date)
        with pytest.raises(DataError, match=f"{rule}.*; if the file holds several series, set data.group to the column "
                                            "that tells them apart"):
            read_all_series(data["path"], target="OT", reading=Reading(drop=("shop",)))


def test_one_series_in_a_long_file_is_that_series(tmp_path: Path, make: Make) -> None:
    data = write(tmp_path, {"north": cells("north")})
    plain = {**{key: data[key] for key in ("name", "source", "path")}, "drop": ["shop"]}
    assert make(data).units("test") == make(plain).units("test")


@pytest.mark.parametrize("arm", ["mae", "gru", "persistence"])
def test_several_series_are_trained_on_and_drawn(tmp_path: Path, make: Make, arm: str) -> None:
    task = make(write(tmp_path, {name: cells(name) for name in LENGTHS}), arm, lookback=24)
    *_, report = run_trial(TrialConfig("forecasting", arm, task.config.params, task.config.data, 0, "replicate"))
    assert np.isfinite([*report.metrics.values()]).all()
    assert task.pictures(task.build().eval(), "test")["forecast"].shape[2] == 3


def test_the_contract_knows_that_series_are_split_in_time(tmp_path: Path, make: Make) -> None:
    task = make(write(tmp_path, {name: cells(name) for name in LENGTHS}))
    assert all(units.in_time for units in units_apart(task).values())
    one = make(write(tmp_path, {"north": cells("north")}))
    assert not any(units.in_time for units in units_apart(one).values())
    units = task.units
    task.units = lambda split: units(split)._replace(in_time=False)  # type: ignore[method-assign]
    with pytest.raises(ViolationError, match=r"groups, such as \['7'\], in pretrain or train and in val too"):
        units_apart(task)


def test_a_sweep_file_names_the_column(tmp_path: Path) -> None:
    data = write(tmp_path, {name: cells(name) for name in LENGTHS})
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(json.dumps({  # YAML holds JSON
        "name": "shops", "task": "forecasting", "size": "debug", "arms": ["mae", "persistence"], "replicates": 0,
        "search": {"num_trials": 1}, "data": {"name": "own", "path": data["path"], "group": "shop"},
    }))
    result = CliRunner().invoke(main, ["sweep", str(sweep), "--dry-run"])
    assert "3 series of 130 to 400 rows, each split in time by itself" in " ".join(result.stdout.split()), result.output
    result = CliRunner().invoke(main, ["train", str(sweep), "--arm", "mae", "--json"])
    assert result.exit_code == 0, result.output
