"""Predicting a column of a table: what is learned from, what is scored, and tables that no sweep has seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler
from torch import Generator

from raymae.data.synthetic.tables import synthetic_table
from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.prediction import Prediction
from raymae.tasks.prediction.table import LabelledTable, apart
from tests.tasks.kept import kept

CPU = torch.device("cpu")
MakeConfig = Callable[..., TrialConfig]
ARMS = [*Prediction.schema.arms]
NUMBER, CATEGORY = "median_house_value", "ocean_proximity"


def make(make_config: MakeConfig, arm: str, table: LabelledTable | None = None, **changes: Any) -> Prediction:
    return Prediction(make_config("prediction", arm, **changes), CPU, table)


def said(task: Prediction, split: str = "test") -> np.ndarray:
    """What an arm says of a split, after a few steps of learning where it learns."""
    torch.manual_seed(0)
    model = task.build()
    if task.arm.kind != "reference":
        source, optimiser = task.load("train"), torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            batch = source.batch(torch.arange(20) % len(source), Generator().manual_seed(step))
            optimiser.zero_grad()
            task.finetune_loss(model, batch).mean.backward()
            optimiser.step()
    source = task.load(split)
    with torch.no_grad():
        return task.predict(model.eval(), source.batch(torch.arange(len(source)), None)).numpy()


@pytest.mark.parametrize("target", [NUMBER, CATEGORY])
@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_depends_on_labels_that_it_may_not_see(make_config: MakeConfig, arm: str, target: str) -> None:
    clean = apart(synthetic_table(), target, 0, CPU)
    first = make(make_config, arm, clean, target=target, label_fraction=0.1)
    seen = first._rows("train")
    labels = clean.label_R.copy()
    others = np.setdiff1d(np.arange(len(labels)), seen)
    labels[others] = np.random.default_rng(0).permutation(labels[others]) if clean.classes else 1e9
    other = make(make_config, arm, replace(clean, label_R=labels), target=target, label_fraction=0.1)
    assert len(seen) == 140
    np.testing.assert_array_equal(said(first), said(other))
    changed = clean.label_R.copy()  # and it does depend on those it sees
    changed[seen] = np.roll(changed[seen], 1) if clean.classes else changed[seen] * 2
    assert (arm == "mean" and target == CATEGORY) or (
        said(make(make_config, arm, replace(clean, label_R=changed), target=target, label_fraction=0.1))
        != said(first)).any()


def test_inputs_of_rows_that_are_scored_teach_nothing(make_config: MakeConfig) -> None:
    table = synthetic_table()
    rows = apart(table, NUMBER, 0, CPU).inputs.rows
    values = table.values_RC.copy()
    values[np.concatenate([rows["val"], rows["test"]]), :-2] *= 100
    one, other = (make(make_config, "mae", apart(whole, NUMBER, 0, CPU))
                  for whole in (table, replace(table, values_RC=values)))
    first, second = (task.load("pretrain").batch(torch.arange(1400), None) for task in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in ("tokens", "value", "bin", "row"))
    assert torch.equal(one._bins[1].nan_to_num(), other._bins[1].nan_to_num())


def test_the_target_is_no_input_and_no_label_is_in_pretraining(make_config: MakeConfig) -> None:
    task = make(make_config, "mae")
    assert NUMBER not in task.inputs.columns
    assert len(task.inputs.columns) == 9
    for split in ("pretrain", "pretext"):
        assert "label" not in task.load(split).batch(torch.arange(3), None)
    batch = task.load("test").batch(torch.arange(5), None)
    whole = synthetic_table()
    np.testing.assert_array_equal(batch["label"], whole.values_RC[batch["row"], whole.columns.index(NUMBER)])


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """Two rows for each of sixty people; a third of the prices are not known."""
    rng = np.random.default_rng(0)
    size = rng.normal(size=120)
    frame = pd.DataFrame({"size": size, "kind": rng.choice(["low", "high"], 120), "price": 3 * size + 7,
                          "who": [f"p{row // 2}" for row in range(120)]})
    frame.loc[frame.index % 3 == 0, "price"] = np.nan
    frame.loc[5, "size"] = np.nan
    frame.to_csv(tmp_path / "own.csv", index=False)
    return {"name": "own", "source": "real", "path": str(tmp_path / "own.csv")}


def test_rows_without_a_label_are_pretrained_on_and_neither_learned_from_nor_scored(
    make_config: MakeConfig, own: dict[str, Any]
) -> None:
    task = make(make_config, "mae", data=own, target="price", drop="who")
    rows = {split: {*task.load(split).rows.tolist()} for split in ("pretrain", "train", "val", "test")}
    untold = {*range(0, 120, 3)}
    assert rows["train"] | rows["val"] | rows["test"] == {*range(120)} - untold
    assert rows["pretrain"] == rows["train"] | untold
    assert [len(rows[split]) for split in ("train", "val", "test")] == [56, 8, 16]
    line = Prediction.pretrains_on(task.config.data, task.config.params)
    assert line == "56 training rows and 40 without price"
    assert Prediction.validate(task.config.data, task.config.params).startswith(
        "120 rows; price, a number, from 2 columns, 1 categorical, 1 cells missing; 56 train / 8 val / 16 test rows; ")


def test_a_row_without_a_label_is_left_out_where_others_of_its_group_are_scored(
    make_config: MakeConfig, own: dict[str, Any]
) -> None:
    task = make(make_config, "mae", data=own, target="price", group="who")
    groups = {split: {*(task.units(split).groups or ())} for split in ("pretrain", "val", "test")}
    assert not groups["pretrain"] & (groups["val"] | groups["test"])
    assert not groups["val"] & groups["test"]
    left = 120 - sum(len(task.load(split)) for split in ("pretrain", "val", "test"))
    assert left > 0
    assert f"{left} left out, whose groups are scored" in Prediction.pretrains_on(task.config.data, task.config.params)


@pytest.mark.parametrize("split", ["val", "test"])
def test_numbers_are_scored_as_scikit_learn_does(make_config: MakeConfig, split: str) -> None:
    task = make(make_config, "ridge")
    source, predicted = task.load(split), torch.as_tensor(said(task, split))
    batch = source.batch(torch.arange(len(source)), None)
    truth, metrics = batch["label"].numpy(), task.metrics()
    for part in torch.arange(len(source)).split(37):
        metrics.update(predicted[part], {name: values[part] for name, values in batch.items()})
    wanted = {"column_score": r2_score(truth, predicted[:, 0]), "rmse": root_mean_squared_error(truth, predicted[:, 0]),
              "abs_error": mean_absolute_error(truth, predicted[:, 0])}
    assert metrics.compute() == pytest.approx(wanted, rel=1e-9)
    if split == "test":
        units = metrics.unit_scores(predicted, batch)
        assert np.average(units.score_BP[:, 0], weights=units.weight_BP[:, 0]) == pytest.approx(wanted["column_score"])


def test_categories_are_scored_as_scikit_learn_does(make_config: MakeConfig) -> None:
    task = make(make_config, "boosting", target=CATEGORY)
    source, predicted = task.load("test"), said(task)
    batch = source.batch(torch.arange(len(source)), None)
    truth, metrics = batch["label"].numpy().astype(int), task.metrics()
    metrics.update(torch.as_tensor(predicted), batch)
    assert np.exp(predicted).sum(axis=1) == pytest.approx(1)
    wanted = {"column_score": accuracy_score(truth, predicted.argmax(axis=1)),
              "nll": log_loss(truth, np.exp(predicted), labels=range(5))}
    assert metrics.compute() == pytest.approx(wanted, rel=1e-9)
    units = metrics.unit_scores(torch.as_tensor(predicted), batch)
    assert float(units.score_BP.mean()) == pytest.approx(wanted["column_score"])
    assert task.reported() == ("column_score", "nll")


def test_equal_labels_have_no_r2_and_a_broken_network_has_no_score(make_config: MakeConfig) -> None:
    task = make(make_config, "ridge")
    batch, metrics = {"label": torch.full((7,), 123456.7)}, task.metrics()
    metrics.update(torch.full((7, 1), 123450.0), batch)
    assert metrics.compute()["column_score"] == 0
    metrics.update(torch.full((7, 1), torch.nan), batch)
    assert np.isnan(metrics.compute()["rmse"])
    other = make(make_config, "ridge", target=CATEGORY).metrics()
    other.update(torch.full((7, 5), torch.nan), {"label": torch.zeros(7)})
    assert np.isnan(other.compute()["column_score"])


def test_references_are_scikit_learns(make_config: MakeConfig) -> None:
    whole = synthetic_table()
    label = whole.columns.index(NUMBER)
    task = make(make_config, "boosting", num_trees=20, min_leaf=7, max_leaves=9, shrinkage=0.2)
    train, test = task.inputs.rows["train"], task.inputs.rows["test"]
    x, y = np.delete(whole.values_RC, label, axis=1), whole.values_RC[:, label]
    model = HistGradientBoostingRegressor(
        max_iter=20, min_samples_leaf=7, max_leaf_nodes=9, learning_rate=0.2, early_stopping=False,
        categorical_features=[8])
    model.fit(x[train], (y[train] - y[train].mean()) / y[train].std())
    np.testing.assert_allclose(said(task)[:, 0], model.predict(x[test]) * y[train].std() + y[train].mean())
    linear = make(make_config, "ridge", scaler="standard", alpha=3.0)
    scaled = StandardScaler().fit(x[train]).transform(x)
    scaled = np.column_stack([scaled[:, :8].clip(-8, 8), x[:, 8:] == np.arange(5)])
    ridge = Ridge(alpha=3.0).fit(np.nan_to_num(scaled[train]), (y[train] - y[train].mean()) / y[train].std())
    np.testing.assert_allclose(said(linear)[:, 0], ridge.predict(np.nan_to_num(scaled[test])) * y[train].std()
                               + y[train].mean(), rtol=1e-5)


@pytest.mark.parametrize("arm", ["boosting", "forest", "ridge", "mean"])
def test_a_category_that_no_labelled_row_has_gets_a_small_chance(make_config: MakeConfig, arm: str) -> None:
    data = apart(synthetic_table(), CATEGORY, 0, CPU)
    for fraction in (0.002, 0.0007):  # three rows; one row, of one category
        task = make(make_config, arm, data, target=CATEGORY, label_fraction=fraction)
        chances = np.exp(said(task))
        assert chances.sum(axis=1) == pytest.approx(1)
        assert 0 < chances.min() < 0.2


def test_the_skill_of_pretraining_is_against_each_columns_mean(make_config: MakeConfig) -> None:
    task = make(make_config, "mae")
    pretraining, inputs = task.pretraining(), task.inputs
    batch = task.load("pretext").batch(torch.arange(64), None)
    model = pretraining.build().eval()
    with torch.no_grad():
        found = pretraining.errors(model, batch, Generator().manual_seed(4))
    mask = pretraining.draw_mask(batch, Generator().manual_seed(4))[:, 1:].numpy()
    rows = batch["row"].numpy()
    assert {*rows} <= {*inputs.rows["val"].tolist()}
    told = mask & ~inputs.missing_RC[rows]
    assert int(found.counted) == told.sum() > 64
    by_hand = 0.0
    for column, count in enumerate(inputs.num_categories):
        seen = inputs.table.values_RC[inputs.rows["fit"], column]
        cells = inputs.table.values_RC[rows[told[:, column]], column]
        by_hand += (cells != np.bincount(seen.astype(int)).argmax()).sum() if count else \
            (((cells - np.nanmean(seen)) / np.nanstd(seen)) ** 2).sum()
    assert float(found.trivial) == pytest.approx(by_hand, rel=1e-4)


def test_what_is_hidden_changes_nothing_of_what_is_said_of_it(make_config: MakeConfig) -> None:
    pretraining = make(make_config, "mae").pretraining()
    batch = make(make_config, "mae").load("pretext").batch(torch.arange(16), None)
    model, mask = pretraining.build().eval(), pretraining.draw_mask(batch, Generator().manual_seed(0))
    corrupt = pretraining.corrupt(batch, mask, Generator().manual_seed(9))
    with torch.no_grad():
        one, other = (pretraining.cells(model, given["tokens"], mask) for given in (batch, corrupt))
    assert not torch.equal(batch["tokens"], corrupt["tokens"])
    assert torch.equal(one.mean_BC, other.mean_BC)


@pytest.mark.parametrize(("changes", "problem"), [
    ({"target": "median_house_valu"}, "did you mean `median_house_value`?"),
    ({"target": "a", "drop": "b", "text": "a,b\n1,2\n2,3\n"}, "there is no column beside 'a' to predict it from"),
    ({"target": "a", "text": "a,b\n" + "4,1\n" * 40}, "column 'a' holds the same in every training row"),
    ({"target": "a", "text": "a,b\n1,2\n,3\n"}, "of the rows with a label, 1 rows are too few to split by"),
])
def test_a_table_that_cannot_be_learned_from_is_refused(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    text = changes.pop("text", None)
    if text:
        (tmp_path / "own.csv").write_text(text)
        changes["data"] = {"name": "own", "source": "real", "path": str(tmp_path / "own.csv")}
    with pytest.raises(DataError, match=r"(synthetic|own\.csv): ") as raised:
        make(make_config, "mae", **changes)
    assert problem in str(raised.value)


def test_a_target_without_a_name_is_refused() -> None:
    params = {name: field.default for name, field in Prediction.schema.params.model_fields.items()}
    assert [where for where, _ in Prediction.schema.check("mae", {**params, "target": " "})] == ["target"]
    assert [where for where, _ in Prediction.schema.check("scratch", {**params, "decoder_heads": 3})] == []
    assert [where for where, _ in Prediction.schema.check("mae", {**params, "decoder_heads": 3})] == ["decoder_dim"]


# -- tables that no sweep has seen ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arm", "target"), [("mae", NUMBER), ("scratch", CATEGORY)])
def test_a_real_table_has_the_recorded_score(
    make_config: MakeConfig, housing: Path, tmp_path: Path, arm: str, target: str
) -> None:
    where = {"name": "own", "source": "real", "path": str(housing)}
    network = kept(make_config("prediction", arm, data=where, stage="replicate", epochs=1, target=target))
    task: Any = network.task
    whole, to = pd.read_csv(housing), tmp_path / "out.csv"
    whole.drop(columns=target).to_csv(tmp_path / "given.csv", index=False)
    writer = network.predictor.writer(to, tmp_path / "given.csv")
    (item,) = network.predictor.items(tmp_path / "given.csv")
    given = item.read()
    assert writer.add(item, given, network.answer(given)) == []
    assert writer.close() == [to]
    found = pd.read_csv(to)
    assert [*found.columns][:9] == [name for name in whole.columns if name != target]
    test = task.inputs.rows["test"]
    truth, answer = whole[target][test], found[f"predicted_{target}"][test]
    if target == NUMBER:
        assert [*found.columns][9:] == [f"predicted_{target}"]
        assert root_mean_squared_error(truth, answer) == pytest.approx(network.scores["rmse"], rel=1e-6)
        assert r2_score(truth, answer) == pytest.approx(network.scores["column_score"], rel=1e-6)
    else:
        chances = found[[f"p_{name}" for name in task.data.classes]].to_numpy()
        assert chances.sum(axis=1) == pytest.approx(1)
        assert accuracy_score(truth, answer) == pytest.approx(network.scores["column_score"])
        nll = log_loss(truth, chances[test], labels=task.data.classes)
        assert nll == pytest.approx(network.scores["nll"], rel=1e-5)
    features = network.predictor.encode(network.model, network.predictor.prepare(whole))
    assert features.shape == (len(whole), 16)
    with pytest.raises(DataError, match="the network needs every column that it was trained on"):
        network.predictor.prepare(whole.rename(columns={"median_income": "median_incom"}))
    few = network.answer(whole.head(3).assign(total_bedrooms=np.nan))
    assert len(few) == 3
    assert few[f"predicted_{target}"].notna().all()
