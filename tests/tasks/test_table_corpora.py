"""Pretraining on rows of other tables than the one that is imputed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.imputation.task import Imputation
from raymae.train import run_trial

CPU = torch.device("cpu")
MakeConfig = Callable[..., TrialConfig]
ROWS = 120


def frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = rng.normal(size=rows)
    return pd.DataFrame({"size": size, "kind": rng.choice(["low", "high"], rows), "price": size + rng.normal(size=rows),
                         "age": rng.integers(0, 50, rows) + 0.5, "who": [f"p{seed}-{row // 2}" for row in range(rows)]})


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    frame(ROWS, 0).to_csv(tmp_path / "own.csv", index=False)
    return {"name": "own", "source": "real", "path": str(tmp_path / "own.csv")}


def make(make_config: MakeConfig, data: dict[str, Any], *paths: Path, own: bool = True, **changes: Any) -> Imputation:
    data = {**data, "pretraining": {"data": [{"path": str(path)} for path in paths], "own": own}}
    settings = {"protocol": "inductive", "drop": "who", **changes}
    return Imputation(make_config("imputation", "mae", data=data, **settings), CPU)


def told(task: Imputation) -> str:
    return task.pretrains_on(task.config.data, task.config.params)


def batch_of(task: Imputation, split: str = "pretrain") -> dict[str, torch.Tensor]:
    source = task.load(split)
    return source.batch(torch.arange(len(source)), None)


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
def test_rows_of_both_are_seen(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path, protocol: str) -> None:
    more = frame(30, 1)[["kind", "age", "size", "price"]]  # in another order
    more.loc[3, "price"] = np.nan
    more.to_csv(tmp_path / "more.csv", index=False)
    alone, task = (make(make_config, own, *paths, protocol=protocol) for paths in ((), (tmp_path / "more.csv",)))
    count = len(alone.load("pretrain"))
    assert len(task.load("pretrain")) == count + 30
    before, batch = batch_of(alone), batch_of(task)
    for name in ("tokens", "value", "bin", "missing"):
        assert torch.equal(batch[name][:count], before[name]), name  # own rows are encoded as they were
    columns = list(task.data.table.columns)
    price = (more["price"].to_numpy() - task.data.own_low_C[columns.index("price")]) / task.data.own_range_C[
        columns.index("price")]
    np.testing.assert_allclose(batch["value"][count:, columns.index("price")], np.nan_to_num(price), rtol=1e-5)
    assert batch["missing"][count:].nonzero().tolist() == [[3, columns.index("price")]]
    kinds = task.data.table.categories[columns.index("kind")]
    assert [kinds[code] for code in batch["bin"][count:, columns.index("kind")].tolist()] == more["kind"].tolist()
    assert told(task) == f"{count} rows of the table and 30 rows of more.csv"
    for split in ("val", "test"):
        one, two = batch_of(alone, split), batch_of(task, split)
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert task.units("pretrain").names[count:] == tuple(f"more.csv/{row}" for row in range(1, 31))
    assert len(make(make_config, own, tmp_path / "more.csv", own=False, protocol=protocol).load("pretrain")) == 30
    assert all(np.isfinite(report.metrics["loss"]) for report in run_trial(task.config))


def test_no_row_that_is_scored_is_seen(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    """The whole table as a corpus gives its training rows, and where every row is scored none."""
    whole = pd.concat([frame(ROWS, 0), frame(10, 1)])
    whole.sample(frac=1, random_state=0).to_csv(tmp_path / "whole.csv", index=False)
    task = make(make_config, own, tmp_path / "whole.csv", own=False)
    scored = len(task.data.rows["val"]) + len(task.data.rows["test"])
    assert len(task.load("pretrain")) == ROWS - scored + 10
    assert told(task) == f"{ROWS - scored + 10} rows of whole.csv ({scored} left out, as val or test has the same)"
    every = make(make_config, own, tmp_path / "whole.csv", own=False, protocol="transductive")
    assert len(every.load("pretrain")) == 10


def test_nobody_who_is_scored_is_seen(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    other = frame(20, 1)
    probe = make(make_config, own, drop="", group="who")
    other["who"] = [*(probe.units("test").groups or ())[:5], *(f"new{row}" for row in range(15))]
    other.to_csv(tmp_path / "other.csv", index=False)
    task = make(make_config, own, tmp_path / "other.csv", drop="", group="who")
    assert len(task.load("pretrain")) == len(probe.load("pretrain")) + 15
    units = task.units("pretrain")
    assert not {*(units.groups or ())} & {*(task.units("val").groups or ()), *(task.units("test").groups or ())}
    assert "5 left out, as their group is in val or test" in told(task)


def test_other_categories_are_missing_and_other_columns_refused(
    make_config: MakeConfig, own: dict[str, Any], tmp_path: Path
) -> None:
    other = frame(20, 1)
    other.loc[:3, "kind"] = "new"
    other.to_csv(tmp_path / "other.csv", index=False)
    task = make(make_config, own, tmp_path / "other.csv", own=False)
    assert int(batch_of(task)["missing"].sum()) == 4
    assert "4 cells of kind missing, whose categories the table lacks" in told(task)
    other.drop(columns="age").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(DataError, match=r"less.csv: unknown column 'age'"):
        make(make_config, own, tmp_path / "less.csv").load("pretrain")
