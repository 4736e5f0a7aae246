from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from sklearn.metrics import r2_score
from torch import Generator

from raymae.data.shelf import WORKER
from raymae.data.tables import Table
from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.columns.cells import IncompleteTable, TableRows, mask_cells
from raymae.tasks.imputation.metrics import ImputationMetrics
from raymae.tasks.imputation.references import impute_by
from raymae.tasks.imputation.task import Imputation
from raymae.tasks.imputation.transport import LEVELS, quantiles_of_weighted, transport
from raymae.train import evaluate

MakeTask = Callable[..., Imputation]


@pytest.fixture
def make_task(make_config: Callable[..., TrialConfig]) -> MakeTask:
    def make(arm: str = "mae", *, data: Any = None, seed: int = 0, **changes: Any) -> Imputation:
        return Imputation(make_config("imputation", arm, data=data, seed=seed, **changes), torch.device("cpu"))

    return make


def housing(real_data: Path) -> dict[str, str]:
    return {"name": "california-housing", "source": "real", "root": str(real_data)}


# -- the cells ---------------------------------------------------------------------------------------------------------


def test_mean_on_the_real_housing(real_data: Path, make_task: MakeTask) -> None:
    task = make_task("mean", data=housing(real_data))
    scores = evaluate(task, task.build(), task.load("test"))
    assert scores["rmse"] == pytest.approx(0.1916, abs=0.002)
    assert scores["wasserstein"] == pytest.approx(0.394, abs=0.01)
    line = Imputation.validate(task.config.data, task.config.params)
    assert line.startswith("20,640 rows x 10 columns, 1 categorical; 207 cells truly missing, 61,")
    assert line.endswith("(mcar 30%); learned from 20,640 rows, scored on 4,128 val / 16,512 test; "
                         "no groups known: settings.group keeps examples that belong together in one split")


def test_bayesian_ridge_on_the_real_housing(real_data: Path, make_task: MakeTask) -> None:
    task = make_task("iterative", data=housing(real_data), max_rounds=6)
    scores = evaluate(task, task.build(), task.load("test"))
    assert scores["rmse"] == pytest.approx(0.1684, abs=0.01)  # differs from pattern to pattern
    assert scores["wasserstein"] == pytest.approx(0.150, abs=0.01)


def test_boosting_reads_its_leaves_and_its_shrinkage(make_task: MakeTask) -> None:
    def imputed(**changes: Any) -> np.ndarray:
        task = make_task("hist_gradient", max_rounds=1, **changes)
        return impute_by("hist_gradient", task.data, 0, task.params)

    default = imputed()
    assert np.array_equal(default, imputed(max_leaves=31, shrinkage=0.1)), "scikit-learn's own"
    assert not np.allclose(default, imputed(max_leaves=4))
    data = make_task("hist_gradient").data
    own_RC, still_RC = (data.seen_RC - data.own_low_C) / data.own_range_C, imputed(shrinkage=1e-9)
    means_RC = np.broadcast_to(np.nanmean(own_RC, axis=0), own_RC.shape)
    np.testing.assert_allclose(still_RC[data.missing_RC], means_RC[data.missing_RC], atol=1e-6)  # trees add nothing


def test_every_arm_and_seed_faces_the_same_cells(make_task: MakeTask) -> None:
    arms = [make_task(arm, seed=seed) for seed, arm in enumerate(Imputation.schema.arms)]
    first = arms[0].load("test").batch(torch.arange(50), None)
    for task in arms[1:]:
        batch = task.load("test").batch(torch.arange(50), None)
        assert all(torch.equal(first[name], batch[name]) for name in ("truth", "scored", "missing", "row"))
    other = make_task("mean", pattern_seed=1).load("test").batch(torch.arange(50), None)
    assert not torch.equal(first["scored"], other["scored"])


@pytest.mark.parametrize("arm", Imputation.schema.arms)
@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_no_arm_depends_on_the_truth_of_cells_taken_away(
    arm: str, protocol: str, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imputed() -> torch.Tensor:
        task = make_task(arm, protocol=protocol, match=0.5)
        torch.manual_seed(0)
        model = task.build().eval()
        batch = task.load("test").batch(torch.arange(60), None)
        found = task.predict(model, batch).numpy()[:, :10]
        return torch.as_tensor(task.data.to_units(found))

    import raymae.tasks.columns.cells as cells

    WORKER.clear()
    clean = imputed()
    whole = cells.synthetic_table()
    hidden = cells.hide_cells(whole.values_RC, "mcar", 0.3, 0)
    values = np.where(hidden, np.where(np.arange(10) == 9, 1.0, 1234.5), whole.values_RC)
    monkeypatch.setattr(cells, "synthetic_table", lambda: Table(values, whole.columns, whole.categories, "other"))
    WORKER.clear()
    other = imputed()
    WORKER.clear()
    torch.testing.assert_close(clean, other, rtol=1e-6, atol=1e-6)


def test_protocols_keep_rows_apart(make_task: MakeTask) -> None:
    for protocol, learned in (("transductive", 2000), ("inductive", 1400)):
        task = make_task("mae", protocol=protocol)
        rows = {split: {*task.load(split).rows.tolist()} for split in ("pretrain", "train", "val", "test")}
        assert not rows["val"] & rows["test"]
        assert len(rows["pretrain"]) == learned
        assert protocol == "transductive" or not rows["pretrain"] & (rows["val"] | rows["test"])
        assert "truth" not in task.load("train").batch(torch.arange(3), None)


def test_the_skill_of_pretraining_is_on_cells_that_no_network_learns_from(make_task: MakeTask) -> None:
    task = make_task("mae")
    pretraining, data, batch = task.pretraining(), task.data, task.load("pretext").batch(torch.arange(64), None)
    model = pretraining.build().eval()
    with torch.no_grad():
        before = pretraining.errors(model, batch, Generator())
    told = (batch["scored"] & ~batch["absent"]).numpy()
    rows = batch["row"].numpy()
    assert (data.hidden_RC[rows] == batch["scored"].numpy()).all()
    assert set(rows) <= set(data.rows["val"])
    assert before.counted == told.sum()
    own = (data.to_units(batch["truth"].numpy()) - data.own_low_C) / data.own_range_C
    by_hand = 0.0
    for column, count in enumerate(data.num_categories):
        seen = (data.seen_RC[:, column] - data.own_low_C[column]) / data.own_range_C[column]
        seen = seen[~np.isnan(seen)]
        cells = own[told[:, column], column]
        if count:
            by_hand += (cells.round() != np.bincount(seen.astype(int)).argmax()).sum()
        else:
            by_hand += (((cells - seen.mean()) / seen.std()) ** 2).sum()
    assert float(before.trivial) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("kind", ["fixed", "uniform", "pattern"])
def test_masks_hide_missing_cells_and_at_least_one_observed(kind: Any) -> None:
    missing = torch.rand(500, 6, generator=Generator().manual_seed(0)) < 0.3
    mask = mask_cells(missing, kind, 0.3, Generator().manual_seed(1), missing)
    assert mask.shape == (500, 7)
    assert not mask[:, 0].any()
    assert mask[:, 1:][missing].all()
    some = ~missing.all(dim=1)
    assert (mask[:, 1:] & ~missing).any(dim=1)[some].all()
    share = float((mask[:, 1:] & ~missing).sum() / (~missing).sum())
    assert 0.2 < share < 0.45


def test_bins_hold_equally_many_cells_and_categories_are_their_own(make_task: MakeTask) -> None:
    data = make_task().data
    bins, centres, edges = data.bins(8)
    assert centres.shape == (10, 8)
    assert centres[9, :5].tolist() == [0, 1, 2, 3, 4]
    assert centres[9, 5:].isnan().all()
    own = np.where(data.missing_RC, np.nan, data.own_RC.numpy())
    for column in range(9):
        inside = [own[(bins[:, column].numpy() == bin_) & ~np.isnan(own[:, column]), column] for bin_ in range(8)]
        assert [part.mean() for part in inside] == pytest.approx(centres[column].tolist(), abs=1e-5)
        assert [part.max() for part in inside] == pytest.approx(edges[column, :, 1].tolist(), abs=1e-6)


def test_a_column_without_observed_cells_is_an_error() -> None:
    table = Table(np.array([[1.0, np.nan], [2.0, np.nan]]), ("a", "b"), ((), ()), "some.csv")
    with pytest.raises(DataError, match=r"some.csv: column 'b' has no observed cell to learn from"):
        IncompleteTable(table, np.zeros((2, 2), dtype=bool), {"fit": np.arange(2)}, torch.device("cpu"))


# -- scores ------------------------------------------------------------------------------------------------------------


def test_metrics_by_hand(make_task: MakeTask) -> None:
    task = make_task("report_mae", scaler="standard")
    rng = np.random.default_rng(0)
    source = task.load("test")
    metrics, parts = ImputationMetrics(task.data, "standard"), []
    for index in torch.arange(len(source)).split(333):
        batch = source.batch(index, None)
        imputed = batch["truth"].numpy() + rng.normal(0, 0.05, batch["truth"].shape)
        codes = np.full((len(index), 1), 1.0)
        metrics.update(torch.as_tensor(np.concatenate([imputed, codes], axis=1)), batch)
        parts.append((batch["truth"].numpy(), imputed, batch["scored"].numpy(), batch["absent"].numpy()))
    truth, imputed, scored, absent = (np.concatenate(part) for part in zip(*parts, strict=True))
    found, error = metrics.compute(), (imputed - truth)[scored]
    whole = np.where(scored, imputed, truth)
    distances = [wasserstein_distance(truth[~absent[:, c], c], whole[~absent[:, c], c]) for c in range(10)]
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["mse_all"] == pytest.approx((error**2).sum() / (~absent).sum())
    assert found["wasserstein"] == pytest.approx(sum(distances), rel=1e-3)
    assert found["accuracy"] == pytest.approx((np.round(truth[:, 9] * 4) == 1)[scored[:, 9]].mean())
    own = ((imputed - truth) * task.data.range_C / task.data.scaler("standard").scale_)[scored]
    assert found["mse_own_scale"] == pytest.approx((own**2).mean())
    assert found["mse_own_scale"] > 10 * found["mse"]  # two scales: what misled the report
    columns = metrics.per_column()
    r2 = [r2_score(truth[scored[:, c], c], imputed[scored[:, c], c]) for c in range(9)]
    assert [row["r2"] for row in columns.values()][:9] == pytest.approx(r2)
    assert found["column_score"] == pytest.approx(np.mean([*r2, found["accuracy"]]))
    assert [row["wasserstein"] for row in columns.values()] == pytest.approx(distances, rel=0.02)


def test_the_column_score_knows_no_scale_and_leaves_out_columns_that_do_not_vary() -> None:
    def scores(values: np.ndarray, categories: tuple[tuple[str, ...], ...], gone: np.ndarray,
               imputed: np.ndarray, codes: np.ndarray) -> dict[str, float]:
        names = tuple(f"c{column}" for column in range(len(categories)))
        data = IncompleteTable(Table(values, names, categories, ""), gone, {"fit": np.arange(6)}, torch.device("cpu"))
        metrics = ImputationMetrics(data, "minmax")
        batch = TableRows(data, np.arange(6), {}, scored=True).batch(torch.arange(6), None)
        given = (imputed - data.low_C) / data.range_C
        metrics.update(torch.as_tensor(np.concatenate([given, codes], axis=1)), batch)
        return metrics.compute()

    values = np.array([[1.0, 5, 3, 0], [2, 5, 9, 1], [4, 5, 3, 1], [1, 5, 2, 0], [3, 5, 2, 0], [9, 5, 1, 1]])
    imputed = values + np.array([0.5, 1.0, 0.25, 0])
    codes = np.zeros((6, 1))
    gone = np.zeros((6, 4), dtype=bool)
    gone[:3], gone[1:, 2] = True, False  # of the third column one cell, of the second the same number three times
    kinds = ((), (), (), ("a", "b"))
    r2 = 1 - 3 * 0.5**2 / (14 / 3)
    found = scores(values, kinds, gone, imputed, codes)
    assert found["column_score"] == pytest.approx((r2 + 1 / 3) / 2)
    wide = np.array([1000.0, 1, 1, 1])
    assert scores(values * wide, kinds, gone, imputed * wide, codes)["column_score"] == pytest.approx(
        found["column_score"])
    still = scores(values[:, 1:3], kinds[1:3], gone[:, 1:3], imputed[:, 1:3], codes[:, :0])
    assert still["column_score"] == 0.0


def test_transport_matches_distributions_in_order() -> None:
    rng = np.random.default_rng(0)
    imputed, wanted = rng.normal(0, 0.5, 4000), rng.exponential(1, 4000)
    moved = transport(imputed, np.quantile(wanted, LEVELS))
    assert wasserstein_distance(moved.move(imputed, 1.0), wanted) < 0.02
    half = wasserstein_distance(moved.move(imputed, 0.5), wanted)
    assert half == pytest.approx(wasserstein_distance(imputed, wanted) / 2, rel=0.05)
    assert (np.diff(moved.move(np.sort(imputed), 0.7)) >= 0).all()
    assert np.array_equal(moved.move(imputed, 0.0), imputed)
    assert transport(np.full(5, 2.0), np.quantile(wanted, LEVELS)).move(np.array([2.0]), 1.0)[0] \
        == pytest.approx(np.quantile(wanted, LEVELS).mean())


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.exponential(1, 3000), rng.integers(0, 5, 3000)
    found = quantiles_of_weighted(values, weights.astype(float))
    assert found[4:-20] == pytest.approx(np.quantile(np.repeat(values, weights), LEVELS)[4:-20], abs=0.02)
    assert quantiles_of_weighted(np.array([1.0, 5.0]), np.array([0.0, 2.0]))[200] == pytest.approx(5.0)


def test_drawing_a_sample_spreads_and_repeats(make_task: MakeTask) -> None:
    spread = {}
    for draw in ("mean", "median", "sample"):
        task = make_task("mae", draw=draw)
        torch.manual_seed(0)
        model = task.build().eval()
        batch = task.load("test").batch(torch.arange(400), None)
        once = task.predict(model, batch)
        assert torch.equal(once, task.predict(model, batch))
        spread[draw] = float(once[:, :9].std(dim=0).mean())
    assert spread["sample"] > 3 * max(spread["mean"], spread["median"])


def test_the_picture_shows_every_column(make_task: MakeTask) -> None:
    task = make_task("mean")
    picture = task.pictures(task.build(), "test")["distributions"]
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    assert task.pictures(task.build(), "pretrain") == {}
