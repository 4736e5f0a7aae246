"""Missing cells of a series are never forecast, never in a loss, never read, and seen to be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator

from raymae.cli import main
from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.base import Batch
from raymae.tasks.forecasting.task import Forecasting, ForecastMetrics
from raymae.tasks.forecasting.windows import carried
from raymae.train import run_trial

ARMS = tuple(Forecasting.schema.arms)
NORMALISE = ("last", "local", "revin", "none")
ROWS, LOOKBACK = 700, 24
GAP = slice(300, 340)  # longer than a lookback
Make = Callable[..., Forecasting]


def values(seed: int = 0) -> np.ndarray:
    """Two channels with a tenth of their cells missing, the target also through a gap and at both ends of splits."""
    rng = np.random.default_rng(seed)
    values_TC = np.sin(np.arange(ROWS)[:, None] / [4.0, 6.0]) + rng.normal(size=(ROWS, 2)) / 10
    values_TC[rng.random((ROWS, 2)) < 0.1] = np.nan
    values_TC[GAP, 0] = values_TC[:3] = values_TC[490:493, 0] = values_TC[-2:, 0] = np.nan
    return values_TC


def write(folder: Path, values_TC: np.ndarray) -> dict[str, str]:
    path = folder / "own.csv"
    times = np.datetime64("2020-01-01T00") + np.arange(len(values_TC))
    cells = [",".join("" if np.isnan(cell) else repr(float(cell)) for cell in row) for row in values_TC]
    path.write_text("date,OT,b\n" + "".join(f"{time}:00,{row}\n" for time, row in zip(times, cells, strict=True)))
    return {"name": "own", "source": "real", "path": str(path)}


@pytest.fixture
def make(make_config: Callable[..., TrialConfig], tmp_path: Path) -> Make:
    data = write(tmp_path, values())

    def make_task(arm: str = "mae", **changes: Any) -> Forecasting:
        changes = {"covariates": "all", "data": data, **changes}
        return Forecasting(make_config("forecasting", arm, **changes), torch.device("cpu"))

    return make_task


def whole(task: Forecasting, split: str, generator: Generator | None = None) -> Batch:
    source = task.load(split)
    return source.batch(torch.arange(len(source)), generator)


def with_junk(batch: Batch) -> Batch:
    """The batch with other values at missing cells."""
    return {**batch, "window": batch["window"].where(batch["observed"], 1e6),
            "target": batch["target"].where(batch["counted"], -1e6)}


def test_the_last_seen_value_is_carried_and_what_is_not_seen_is_not_read() -> None:
    values_L = torch.tensor([torch.nan, 1.0, torch.nan, torch.nan, 4.0, 5.0])
    seen_L = torch.tensor([False, True, False, False, True, False])
    assert carried(values_L, seen_L, torch.tensor(7.0)).tolist() == [7, 1, 1, 1, 4, 4]


def test_scales_are_those_of_observed_training_cells(make: Make) -> None:
    task, values_TC = make(), values()
    train_TC, observed_CT = values_TC[:490], ~np.isnan(values_TC.T)
    low_C, high_C = np.nanmin(train_TC, axis=0), np.nanmax(train_TC, axis=0)
    scaled_CT = ((values_TC - (low_C + high_C) / 2) / ((high_C - low_C) / 2)).T
    np.testing.assert_array_equal(task.data.observed_CT, observed_CT)
    np.testing.assert_allclose(task.data.values_CT.numpy()[observed_CT], scaled_CT[observed_CT], atol=1e-6)
    for channel, values_T in enumerate(scaled_CT):
        own_T = task.data.values_CT[channel].numpy()
        np.testing.assert_allclose(own_T[:3], np.nanmean(values_T[:490]), atol=1e-6)
        for step in np.flatnonzero(~observed_CT[channel, 3:]) + 3:
            assert own_T[step] == own_T[step - 1]
        change = np.sqrt(np.nanmean(np.diff(values_T[:490]) ** 2))
        assert task.data.change_C[channel] == pytest.approx(change, rel=1e-5)


def test_windows_without_a_target_are_left_out_and_said(make: Make) -> None:
    values_TC = values()
    for horizon in (1, 4):
        task = make("linear", horizon=horizon)
        kept = {}
        for split, (first, stop) in {"train": (2, 490), "val": (490, 630), "test": (630, 700)}.items():
            first = LOOKBACK if split == "train" else first
            starts = [start for start in range(first, stop - horizon + 1)
                      if not np.isnan(values_TC[start:start + horizon, 0]).all()]
            assert task.load(split).starts.tolist() == starts
            assert len(task.units(split).names) == len(starts)
            kept[split] = (len(starts), stop - horizon + 1 - first - len(starts))
        line = Forecasting.validate(task.config.data, task.config.params)
        assert f"; {' / '.join(f'{n} {name}' for name, (n, _) in kept.items())} windows of 24 + {horizon} steps" in line
        left_out = " / ".join(f"{n} {name}" for name, (_, n) in kept.items())
        share = np.isnan(values_TC).mean()
        assert line.endswith(f"; {share:.2%} of the cells missing; missing cells are never forecast and in no loss, "
                             f"and networks see that they are; {left_out} windows left out, whose target is missing")
    assert len(make().load("pretrain")) == 490 - LOOKBACK  # a window may be reconstructed without one


def test_persistence_repeats_the_last_observed_value(make: Make) -> None:
    task, values_TC = make("persistence"), values()
    scaled_T = task.data.values_CT[0].numpy()
    squares = []
    for start in range(630, 700):
        if not np.isnan(values_TC[start, 0]):
            last = max(step for step in range(start) if not np.isnan(values_TC[step, 0]))
            squares.append((scaled_T[start] - scaled_T[last]) ** 2)
    *_, report = run_trial(TrialConfig(task.config.task, "persistence", task.config.params, task.config.data, 0,
                                       "replicate"))
    assert report.metrics["test_mse"] == pytest.approx(float(np.mean(squares)), rel=1e-6)
    assert report.metrics["test_skill"] == 0


# -- nothing is read of missing cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "persistence"])
def test_values_at_missing_cells_reach_nothing(arm: str, normalise: str, make: Make) -> None:
    task = make(arm, normalise=normalise, horizon=3)
    torch.manual_seed(0)
    model = task.build().eval()
    torch.nn.init.normal_(model.get_parameter("head.weight"))
    batch = whole(task, "train")
    junk = with_junk(batch)
    assert torch.equal(task.predict(model, junk), task.predict(model, batch))
    loss = task.finetune_loss(model, batch)
    assert torch.equal(task.finetune_loss(model, junk).mean, loss.mean)
    assert int(loss.counted) == int(batch["counted"].sum()) < batch["counted"].numel()
    metrics = [task.metrics(), task.metrics()]
    for of, read in zip(metrics, (batch, junk), strict=True):
        of.update(task.predict(model, batch), read)
    assert metrics[0].totals[:3].tolist() == metrics[1].totals[:3].tolist()  # the last is persistence's
    for one, other in zip(*(of.unit_scores(task.predict(model, batch), read)
                            for of, read in zip(metrics, (batch, junk), strict=True)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm_target", [False, True])
@pytest.mark.parametrize("normalise", NORMALISE)
def test_pretraining_reads_neither_hidden_nor_missing_cells(normalise: str, norm_target: bool, make: Make) -> None:
    task = make(normalise=normalise, norm_target=norm_target)
    pretraining = task.pretraining()
    assert pretraining is not None
    torch.manual_seed(0)
    model, batch = pretraining.build().eval(), whole(task, "pretrain", Generator().manual_seed(1))
    mask = pretraining.draw_mask(batch, Generator().manual_seed(2))
    seen_BL = ~mask.repeat_interleave(6, dim=1)
    assert (seen_BL[:, 6::6] & ~batch["observed"][:, 0, 6::6] & ~seen_BL[:, 5:-1:6]).any()  # missing after hidden
    with_other = pretraining.corrupt(batch, mask, Generator().manual_seed(3))
    features_BFL = task.features(batch, mask)[0]
    for other in (with_other, {**batch, "window": batch["window"].where(batch["observed"], 1e6)}):
        moved_BFL = task.features(other, mask)[0]
        assert torch.equal(features_BFL.where(seen_BL[:, None], 0), moved_BFL.where(seen_BL[:, None], 0))
    loss = pretraining.loss(model, batch, mask)
    assert torch.equal(pretraining.loss(model, other, mask).mean, loss.mean)
    assert not torch.equal(pretraining.loss(model, with_other, mask).mean, loss.mean)
    observed_BL = batch["observed"][:, 0]
    known_BL = observed_BL & torch.cat([torch.zeros_like(observed_BL[:, :1]), observed_BL[:, :-1]], dim=1)
    assert int(loss.counted) == int((observed_BL & ~seen_BL).sum() + (known_BL & ~seen_BL).sum())
    gone = {**batch, "observed": torch.zeros_like(batch["observed"])}
    nothing = pretraining.loss(model, gone, mask)
    assert (float(nothing.mean.detach()), int(nothing.counted)) == (0, 0)


def test_networks_see_which_cells_are_missing(make: Make) -> None:
    for covariates, channels in (("all", 2), ("time", 1), ("none", 1)):
        task = make(covariates=covariates)
        batch = whole(task, "val")
        features_BFL = task.features(batch)[0]
        assert features_BFL.shape[1] == task.features.per_step
        assert torch.equal(features_BFL[:, 2 * channels:3 * channels] == 1, ~batch["observed"][:, :channels])
        assert not (features_BFL[:, channels:2 * channels] * ~batch["observed"][:, :channels]).any()


@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_complete_series_is_what_it_was(normalise: str, make: Make, tmp_path: Path) -> None:
    """No key, feature or digit more; and with nothing missing the two ways to compute agree."""
    data = write(tmp_path, np.nan_to_num(values()))
    task = make(data=data, normalise=normalise)
    batch = whole(task, "val")
    assert [*batch] == ["window", "channel", "time", "target"]
    assert (task.data.observed_CT, task.features.per_step) == (None, 2 * 2 + 6)
    mask = torch.zeros(len(batch["window"]), 4, dtype=torch.bool)
    mask[::2, 1] = mask[::3, 3] = True
    marked = {**batch, "observed": torch.ones_like(batch["window"], dtype=torch.bool),
              "before": torch.full_like(batch["window"][..., 0], torch.nan)}
    plain, other = task.features(batch, mask), task.features(marked, mask)
    assert torch.equal(other[0][:, 4:6], torch.zeros_like(other[0][:, 4:6]))
    torch.testing.assert_close(torch.cat([other[0][:, :4], other[0][:, 6:]], dim=1), plain[0])
    for one, two in zip(plain[1:], other[1:], strict=True):
        torch.testing.assert_close(one, two)


# -- no NaN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("arm", ARMS)
def test_no_loss_gradient_or_score_is_nan(arm: str, normalise: str, make: Make) -> None:
    task = make(arm, normalise=normalise, horizon=2)
    for split in ("train", "val", "test"):
        batch = whole(task, split)
        if split == "train" and arm != "persistence":
            assert (~batch["observed"][:, 0]).all(dim=1).any()  # the gap is longer than a window
        assert all(bool(value.isfinite().all()) for value in batch.values())
    if arm == "persistence":
        assert bool(task.predict(task.build(), batch).isfinite().all())
        return
    losses = [(model := task.build(), lambda: task.finetune_loss(model, whole(task, "train")))]
    pretraining = task.pretraining()
    if pretraining is not None:
        learned, batch = pretraining.build(), whole(task, "pretrain", Generator().manual_seed(0))
        mask = pretraining.draw_mask(batch, Generator().manual_seed(0))
        losses.append((learned, lambda: pretraining.loss(learned, batch, mask)))
    for network, loss in losses:
        loss().mean.backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_metrics_count_what_is_observed() -> None:
    metrics = ForecastMetrics()
    batch = {"window": torch.tensor([[[0.0, 1.0]], [[5.0, 2.0]]]), "target": torch.tensor([[2.0, 9.0], [2.0, 2.0]]),
             "counted": torch.tensor([[True, False], [True, True]])}
    prediction = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    metrics.update(prediction, batch)
    assert metrics.compute() == pytest.approx({"mse": 2 / 3, "abs_error": 2 / 3, "skill": 1 - 2 / 1})
    scores = metrics.unit_scores(prediction, batch)
    mean = (scores.score_BP * scores.weight_BP).sum() / scores.weight_BP.sum()
    assert (scores.score_BP.tolist(), float(mean)) == ([[1.0], [0.5]], pytest.approx(2 / 3))


# -- what cannot be learned from ---------------------------------------------------------------------------------------


def test_a_column_or_split_without_cells_is_an_error(make: Make, tmp_path: Path) -> None:
    values_TC = values()
    values_TC[:490, 1] = np.nan
    with pytest.raises(DataError, match=r"column 'b' has no cell in the training part, the first 490 of 700 rows; "
                                        r"leave it out by data\.drop, or set data\.fill"):
        make(data=write(tmp_path, values_TC))
    values_TC = values()
    values_TC[630:, 0] = np.nan
    later = make("linear", data=write(tmp_path, values_TC), lookback=25)
    with pytest.raises(DataError, match=r"every cell of the target in the test split is missing, from 2020-01-27T06"):
        later.load("test")
    with pytest.raises(DataError, match="in the test split is missing"):
        Forecasting.validate(later.config.data, later.config.params)


def test_cells_that_never_follow_each_other_have_scales(make: Make, tmp_path: Path) -> None:
    values_TC = values()
    values_TC[np.arange(ROWS) % 5 > 0, 1] = np.nan
    task = make(data=write(tmp_path, values_TC))
    assert task.data.change_C.isfinite().all()
    assert float(task.data.change_C[1]) > 0.1
    for batch in (whole(task, "train"), whole(task, "pretrain", Generator().manual_seed(0))):
        assert task.features(batch)[0].isfinite().all()


# -- as a user does it -------------------------------------------------------------------------------------------------


def test_a_series_with_missing_cells_is_trained_on(tmp_path: Path) -> None:
    data = write(tmp_path, values())
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(json.dumps({  # YAML holds JSON
        "name": "gaps", "task": "forecasting", "data": {"name": "own", "path": data["path"]}, "size": "debug",
        "arms": ["mae", "persistence"], "search": {"num_trials": 1}, "replicates": 0,
    }))
    for arm in ("mae", "persistence"):
        result = CliRunner().invoke(main, ["train", str(sweep), "--arm", arm, "--test", "--json"])
        assert result.exit_code == 0, result.output
        assert math.isfinite(json.loads(result.stdout.splitlines()[-1])["metrics"]["test_mse"])
    result = CliRunner().invoke(main, ["sweep", str(sweep), "--dry-run"])
    assert "of the cells missing; missing cells are never forecast" in " ".join(result.stdout.split())
