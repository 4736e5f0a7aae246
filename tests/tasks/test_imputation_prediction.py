"""Filling real files by a network that knows no more than its card, scored by scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score

from raymae.errors import DataError
from tests.tasks.kept import Kept, MakeConfig, kept


@pytest.fixture(scope="session")
def train(make_config: MakeConfig, housing: Path) -> Callable[..., Kept]:
    made: dict[str, Kept] = {}

    def of(arm: str, **changes: Any) -> Kept:
        key = f"{arm} {changes}"
        if key not in made:
            where = {"name": "own", "source": "real", "path": str(housing)}
            made[key] = kept(make_config("imputation", arm, data=where, stage="replicate", epochs=1, **changes))
        return made[key]

    return of


def taken_away(network: Kept, housing: Path, folder: Path) -> tuple[Path, pd.DataFrame, np.ndarray]:
    """The file without the cells that the sweep took away; the whole one; and which cells of test rows they are."""
    task: Any = network.task
    text = pd.read_csv(housing, dtype=str, keep_default_na=False)
    hidden_RC = task.data.hidden_RC
    path = folder / "gaps.csv"
    text.mask(hidden_RC, "").to_csv(path, index=False)
    scored_RC = np.zeros_like(hidden_RC)
    scored_RC[task.data.rows["test"]] = hidden_RC[task.data.rows["test"]]
    return path, pd.read_csv(housing), scored_RC


@pytest.mark.parametrize(("arm", "changes"), [
    ("mae", {}), ("scratch", {"scaler": "quantile", "missing_kind": "mnar", "mechanism": "own_value"}),
    ("report_mae", {}), ("autoencoder", {"match": .5}),
])
def test_a_real_table_has_the_recorded_score(
    train: Callable[..., Kept], housing: Path, tmp_path: Path, arm: str, changes: dict[str, Any]
) -> None:
    network = train(arm, **changes)
    path, whole, scored_RC = taken_away(network, housing, tmp_path)
    to = tmp_path / "out" / "filled.csv"
    writer = network.predictor.writer(to, path)
    (item,) = network.predictor.items(path)
    given = item.read()
    assert writer.add(item, given, network.answer(given)) == [to]
    assert writer.close() == []
    filled = pd.read_csv(to)
    assert not filled.isna().any().any()
    scores, squares = [], []
    for column, name in enumerate(whole.columns):
        there = scored_RC[:, column] & whole[name].notna().to_numpy()
        truth, said = whole[name][there], filled[name][there]
        if name == "ocean_proximity":
            scores.append(accuracy_score(truth, said))
            assert scores[-1] == pytest.approx(network.scores["accuracy"], abs=1e-12)
            continue
        scores.append(r2_score(truth, said))
        extent = whole[name].max() - whole[name].min()
        squares.append((mean_squared_error(truth / extent, said / extent), len(truth)))
    assert np.mean(scores) == pytest.approx(network.scores["column_score"], rel=1e-5)
    assert len(squares) == 9


def test_given_cells_stay_as_they_are_written(train: Callable[..., Kept], tmp_path: Path) -> None:
    network = train("mae")
    file, to = tmp_path / "own.csv", tmp_path / "filled.csv"
    file.write_text("id;ocean_proximity;longitude;latitude;housing_median_age;total_rooms;total_bedrooms;population;"
                    "households;median_income;median_house_value;id\n"
                    "007;INLAND;-122,230;37,88;41;880;;322;126;8,3252;452600;x\n"
                    "NA;;-122,22;37,8600;21;?;1106;2401;1138;8,3014;358500;\n"
                    "9;ATLANTIS;NA;37,85;52;1467;190;496;177;;352100;1,5\n")
    (item,) = network.predictor.items(file)
    given = item.read()
    network.predictor.writer(to, file).add(item, given, network.answer(given))
    before, after = ([line.split(";") for line in path.read_text().splitlines()] for path in (file, to))
    changed = {(row, column): cells[column] for row, cells in enumerate(after) for column in range(len(cells))
               if cells[column] != before[row][column]}
    assert set(changed) == {(1, 6), (2, 1), (2, 5), (3, 2), (3, 9)}
    assert changed[2, 1] in ("INLAND", "NEAR BAY", "NEAR OCEAN", "<1H OCEAN", "ISLAND")
    assert re.fullmatch(r"\d+", changed[1, 6])
    assert re.fullmatch(r"\d+", changed[2, 5])
    assert re.fullmatch(r"-\d+,\d+", changed[3, 2])


def test_types_and_index_of_a_frame_stay(train: Callable[..., Kept], housing: Path, tmp_path: Path) -> None:
    network = train("mae")
    frame = pd.read_csv(housing).iloc[:40]
    frame.index = pd.Index([f"row {number}" for number in range(40)], name="key")
    frame = frame.assign(total_rooms=frame["total_rooms"].astype("Int64"), when=pd.Timestamp("2024-01-01"),
                         ocean_proximity=frame["ocean_proximity"].astype("category"))[[
                             "when", *frame.columns[::-1]]]
    frame.loc["row 3", ["total_rooms", "ocean_proximity"]] = pd.NA
    frame.loc["row 4", "median_income"] = np.nan
    filled = network.answer(frame)
    assert not filled.isna().any().any()
    assert frame.isna().to_numpy().sum() >= 3
    assert list(filled.columns) == list(frame.columns)
    assert dict(filled.dtypes) == dict(frame.dtypes)
    assert filled.index.equals(frame.index)
    there = frame.notna()
    assert (filled.astype(object).where(there, None) == frame.astype(object).where(there, None))[there].stack().all()
    stored = tmp_path / "in.parquet"
    frame.to_parquet(stored)
    pd.testing.assert_frame_equal(network.answer(stored).drop(columns="key"), filled.reset_index(drop=True),
                                  check_dtype=False)
    encoded = network.predictor.encode(network.model, network.predictor.prepare(frame))
    assert encoded.shape == (40, network.predictor.params.encoder_dim)
    assert np.isfinite(encoded).all()


@pytest.mark.parametrize(("change", "complaint"), [
    (lambda frame: frame.drop(columns="latitude"), "unknown column 'latitude'"),
    (lambda frame: frame.assign(latitude="north"), "column 'latitude' must be numeric, but row 1 holds 'north'"),
    (lambda frame: frame.iloc[:0], "holds no rows"),
])
def test_what_cannot_be_filled_is_refused(
    train: Callable[..., Kept], housing: Path, tmp_path: Path, change: Any, complaint: str
) -> None:
    path = tmp_path / "bad.parquet"
    change(pd.read_csv(housing)).to_parquet(path)
    with pytest.raises(DataError, match=re.escape(complaint)) as caught:
        train("mae").answer(path)
    assert str(path) in str(caught.value)
