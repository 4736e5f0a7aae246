from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from raymae.spec import TrialConfig
from raymae.tasks.base import Batch
from raymae.tasks.forecasting.task import Forecasting, ForecastMetrics
from raymae.tasks.forecasting.windows import NUM_TIME_FEATURES
from raymae.train import evaluate, run_trial

NORMALISE = ("last", "local", "revin", "none")
COVARIATES = ("none", "time", "all")
MakeTask = Callable[..., Forecasting]


@pytest.fixture
def make_task(make_config: Callable[..., TrialConfig]) -> MakeTask:
    def make(arm: str = "mae", *, data: Any = None, seed: int = 0, **changes: Any) -> Forecasting:
        return Forecasting(make_config("forecasting", arm, data=data, seed=seed, **changes), torch.device("cpu"))

    return make


@pytest.fixture
def etth1(real_data: Path) -> dict[str, str]:
    if not (real_data / "ett" / "ETTh1.csv").exists():
        pytest.skip(f"needs {real_data}/ett/ETTh1.csv")
    return {"name": "ETTh1", "source": "real", "root": str(real_data)}


def some(task: Forecasting, split: str = "pretrain", count: int = 5) -> Batch:
    source = task.load(split)
    return source.batch(torch.arange(count) * 97 + 13, Generator().manual_seed(1))


class Constant(nn.Module):
    """Says the same for every example."""

    def __init__(self, output_BH: Tensor) -> None:
        super().__init__()
        self.output_BH = output_BH

    def forward(self, x: Tensor) -> Tensor:
        return self.output_BH


# -- the real series ---------------------------------------------------------------------------------------------------


def test_persistence_on_the_real_etth1(
    etth1: dict[str, str], make_config: Callable[..., TrialConfig]
) -> None:
    config = make_config("forecasting", "persistence", stage="replicate", data=etth1)
    *_, report = run_trial(config)
    assert report.metrics["test_mse"] == pytest.approx(0.000695, abs=1e-6)
    assert report.metrics["test_abs_error"] == pytest.approx(0.01765, abs=1e-5)
    assert report.metrics["test_skill"] == 0


def test_field_protocol_on_the_real_etth1(etth1: dict[str, str], make_task: MakeTask) -> None:
    task = make_task("mae", data=etth1, protocol="field", horizon=96, lookback=336, patch_size=24)
    counts = {split: len(task.load(split)) for split in ("pretrain", "train", "val", "test")}
    train, scored = 8640 - 336 - 96 + 1, 2880 - 96 + 1
    # what is forecast does not matter to pretraining: all windows of the training part but the last
    assert counts == {"pretrain": 8640 - 336, "train": train, "val": scored, "test": scored}
    own = task.data.values_CT[:, :8640].double()
    torch.testing.assert_close(own.mean(dim=1), torch.zeros(7, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(own.std(dim=1, correction=0), torch.ones(7, dtype=torch.float64), atol=1e-5, rtol=0)
    line = Forecasting.validate(task.config.data, task.config.params)
    assert line == ("17,420 rows x 7 channels; 8,209 train / 2,785 val / 2,785 test windows of 336 + 96 steps; "
                    "49 train / 30 val / 30 test groups: blocks of time")


def test_report_protocol_scales_to_the_training_range(etth1: dict[str, str], make_task: MakeTask) -> None:
    values_CT = make_task("linear", data=etth1).data.values_CT[:, :12194]
    torch.testing.assert_close(values_CT.amin(dim=1), -torch.ones(7))
    torch.testing.assert_close(values_CT.amax(dim=1), torch.ones(7))


# -- windows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_are_slices_of_the_scaled_series(split: str, make_task: MakeTask) -> None:
    task = make_task("linear", lookback=17, horizon=5)
    source, values_CT, time_FT = task.load(split), task.data.values_CT, task.data.time_FT
    assert len(source) == len(task.splits[split])
    index_B = torch.tensor([0, 7, len(source) - 1, 3])
    batch = source.batch(index_B, None)
    for row, index in enumerate(index_B.tolist()):
        start = task.splits[split][index]
        assert torch.equal(batch["window"][row], values_CT[:, start - 17:start])
        assert torch.equal(batch["time"][row], time_FT[:, start - 17:start])
        assert torch.equal(batch["target"][row], values_CT[0, start:start + 5])
    assert not batch["channel"].any()


def test_pretraining_puts_the_drawn_channel_first_and_keeps_the_cycle(make_task: MakeTask) -> None:
    task = make_task("mae")
    source = task.load("pretrain")
    index_B = torch.arange(64)
    batch = source.batch(index_B, Generator().manual_seed(2))
    assert set(batch["channel"].tolist()) == set(range(7))
    for row, channel in enumerate(batch["channel"].tolist()):
        start = task.splits["train"][row]
        window_CL = task.data.values_CT[:, start - 24:start]
        assert torch.equal(batch["window"][row], window_CL.roll(-channel, dims=0))
    assert torch.equal(batch["channel"], source.batch(index_B, Generator().manual_seed(2))["channel"])
    assert not source.batch(index_B, None)["channel"].any()  # without a generator, the target
    only_target = make_task("mae", pretrain_channels="target").load("pretrain")
    assert not only_target.batch(index_B, Generator().manual_seed(2))["channel"].any()


def test_units_are_first_target_steps_in_blocks_of_a_day_or_a_week(make_task: MakeTask) -> None:
    task = make_task(label_fraction=0.3)
    test, train, val = (task.units(split) for split in ("test", "pretrain", "val"))
    assert test.names[0] == "2018-04-15T06:00:00" == test.groups[0]
    assert len(test.names) == len(task.load("test")) == 1742
    assert test.groups[:25] == ("2018-04-15T06:00:00",) * 24 + ("2018-04-16T06:00:00",)
    assert len(set(test.groups)) == 73  # days from the split's first step on, the last one shorter
    assert train.groups[167:169] == (train.names[0], train.names[168])  # 72 weeks in weeks
    assert not {*train.groups} & {*val.groups} | {*val.groups} & {*test.groups}
    assert not {*train.names} & {*val.names} | {*val.names} & {*test.names}
    labelled = task.units("train")
    assert len(labelled.names) == len(task.load("train")) < len(train.names)
    assert dict(zip(labelled.names, labelled.groups, strict=True)).items() <= dict(
        zip(train.names, train.groups, strict=True)).items()


def test_a_block_is_no_shorter_than_the_horizon(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(horizon=48)
    assert Counter(task.units("test").groups)["2018-04-15T06:00:00"] == 48
    path = tmp_path / "daily.csv"
    days = np.datetime64("2020-01-01") + np.arange(900)
    path.write_text("date,OT\n" + "\n".join(f"{day},{index % 7}" for index, day in enumerate(days)) + "\n")
    data = {"name": "daily", "source": "real", "path": str(path)}
    for horizon, wanted in ((1, 10), (3, 10), (14, 14)):  # the root of 90, or the horizon
        units = make_task(data=data, horizon=horizon, covariates="none").units("test")
        assert units.names[0] == "2022-03-21T00:00:00"
        assert Counter(units.groups)[units.names[0]] == wanted


def test_scored_targets_do_not_depend_on_the_lookback(make_task: MakeTask) -> None:
    short, long = make_task("linear", lookback=2), make_task("linear", lookback=336)
    for split in ("val", "test"):
        one, other = (task.load(split) for task in (short, long))
        index_B = torch.arange(len(one))
        assert len(one) == len(other)
        assert torch.equal(one.batch(index_B, None)["target"], other.batch(index_B, None)["target"])


def test_pretraining_is_validated_on_windows_that_hold_no_training_step(make_task: MakeTask) -> None:
    task = make_task("mae", lookback=48, patch_size=12)
    first = task.load("val").starts[0]
    assert task.load("pretext").starts[0] - 48 == first
    assert len(task.load("pretext")) == len(task.load("val")) - 48
    many = make_task("mae", lookback=3600, patch_size=12)  # more steps than validation has
    assert len(many.load("pretext")) == len(many.load("val"))


def test_label_fraction_takes_nested_weeks_by_seed(make_task: MakeTask) -> None:
    def starts(share: float, seed: int = 0) -> list[int]:
        return make_task("mae", seed=seed, label_fraction=share).load("train").starts.tolist()

    tenth, quarter, whole = starts(0.1), starts(0.25), starts(1.0)
    assert set(tenth) < set(quarter) < set(whole)
    assert len(tenth) == math.ceil(0.1 * len(whole))
    assert set(tenth) != set(starts(0.1, seed=1))
    breaks = sum(b - a > 1 for a, b in itertools.pairwise(tenth))
    assert breaks <= len(tenth) / 168 + 1  # whole weeks, not single hours beside held-out ones
    pretraining = make_task("mae", label_fraction=0.1).load("pretrain")
    assert pretraining.starts.tolist() == whole


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("arm", ["lstm", "gru", "scratch"])
def test_predictions_invert_the_normalisation(normalise: str, arm: str, make_task: MakeTask) -> None:
    task = make_task(arm, normalise=normalise, horizon=3)
    batch = some(task, "val")
    own_BL = batch["window"][:, 0]
    silent = task.predict(task.build().eval(), batch)  # every head starts at zero
    base = {"revin": own_BL.mean(dim=1), "none": torch.zeros(5)}.get(normalise, own_BL[:, -1])
    torch.testing.assert_close(silent, base[:, None].expand(-1, 3))
    _, _, base_B1, unit_B1 = task.features(batch)
    assert (unit_B1 > 0).all()
    right = Constant((batch["target"] - base_B1) / unit_B1)
    torch.testing.assert_close(task.predict(right, batch), batch["target"])
    assert float(task.finetune_loss(right, batch).mean) < 1e-12


@torch.no_grad()
def test_linear_is_nlinear(make_task: MakeTask) -> None:
    """Zeng et al. 2023: the last value is subtracted, one linear layer makes the horizon, the last value is added."""
    task = make_task("linear", horizon=3)
    model, batch = task.build(), some(task, "val")
    nn.init.normal_(model.get_parameter("head.weight"))
    nn.init.normal_(model.get_parameter("head.bias"))
    own_BL = batch["window"][:, 0]
    last_B1, scale = own_BL[:, -1:], task.data.unit_C[0]
    layer = model.get_submodule("head")
    wanted_BH = last_B1 + scale * layer((own_BL - last_B1) / task.data.deviation(own_BL.shape[1])[0])
    torch.testing.assert_close(task.predict(model, batch), wanted_BH)
    others = {**batch, "window": torch.cat([own_BL[:, None], torch.randn_like(batch["window"][:, 1:])], dim=1)}
    assert torch.equal(task.predict(model, others), task.predict(model, batch)), "it sees one channel"


def test_units_are_the_windows_own_scale(make_task: MakeTask) -> None:
    batch = some(make_task("gru"), "val")
    own_BL = batch["window"][:, :1]
    for normalise, scaled in (("last", False), ("none", False), ("revin", True), ("local", True)):
        task = make_task("gru", normalise=normalise)
        unit_B1 = task.features(batch)[3]
        wilder = {**batch, "window": own_BL.mean(dim=2, keepdim=True) + 100 * (batch["window"] - own_BL.mean())}
        ratio = task.features(wilder)[3] / unit_B1
        assert torch.allclose(ratio, torch.ones_like(ratio)) is not scaled, normalise
        assert not scaled or (ratio > 10).all()


@pytest.mark.parametrize("covariates", COVARIATES)
@pytest.mark.parametrize("normalise", NORMALISE)
def test_features_come_from_visible_steps_only(normalise: str, covariates: str, make_task: MakeTask) -> None:
    task = make_task("mae", normalise=normalise, covariates=covariates)
    batch = some(task)
    channels = 7 if covariates == "all" else 1
    for seed, kind in enumerate(["random", "suffix", "mixed"]):
        generator = Generator().manual_seed(seed)
        pretraining = make_task("mae", mask_kind=kind).pretraining()
        mask = pretraining.draw_mask(batch, generator)
        seen_BL = ~mask.repeat_interleave(6, dim=1)
        other = pretraining.corrupt(batch, mask, generator)
        assert torch.equal(other["window"][seen_BL[:, None].expand_as(other["window"])],
                           batch["window"][seen_BL[:, None].expand_as(other["window"])])
        features, own, base, unit = task.features(batch, mask)
        moved, own_moved, base_moved, unit_moved = task.features(other, mask)
        assert features.shape == (5, 2 * channels + (0 if covariates == "none" else NUM_TIME_FEATURES), 24)
        seen = seen_BL[:, None].expand_as(features)
        assert torch.equal(features[seen], moved[seen])
        assert torch.equal(base, base_moved)
        assert torch.equal(unit, unit_moved)
        assert not torch.equal(own, own_moved)  # what is predicted does change
        # with nothing hidden the corrupted values are read, so equality above is no accident
        assert not torch.equal(task.features(batch)[0], task.features(other)[0])


@pytest.mark.parametrize("normalise", NORMALISE)
def test_nothing_hidden_is_the_same_as_no_mask(normalise: str, make_task: MakeTask) -> None:
    task = make_task("mae", normalise=normalise, covariates="all")
    batch = some(task)
    for one, other in zip(task.features(batch), task.features(batch, torch.zeros(5, 4, dtype=torch.bool)), strict=True):
        assert torch.equal(one, other)


def test_features_hold_level_change_and_time_in_this_order(make_task: MakeTask) -> None:
    task = make_task("mae", normalise="last", covariates="all")
    batch = some(task, "val")
    features = task.features(batch)[0]
    window = batch["window"]
    deviation_C = task.features.scales.deviation_C
    torch.testing.assert_close(features[:, :7], (window - window[..., -1:]) / deviation_C[None, :, None])
    torch.testing.assert_close(features[:, 7:14, 1:], window.diff(dim=2) / task.data.change_C[None, :, None])
    assert not features[:, 7:14, 0].any()
    assert torch.equal(features[:, 14:], batch["time"])


def test_reference_channels_scale_with_the_channel_that_is_first(make_task: MakeTask) -> None:
    task = make_task("mae", normalise="last", covariates="none")
    batch = some(task)
    assert len(set(batch["channel"].tolist())) > 1
    for row, channel in enumerate(batch["channel"].tolist()):
        own_L = batch["window"][row, 0]
        expected = (own_L - own_L[-1]) / task.features.scales.deviation_C[channel]
        torch.testing.assert_close(task.features(batch)[0][row, 0], expected)
        torch.testing.assert_close(task.features(batch)[3][row, 0], task.data.unit_C[channel])


def test_random_masks_keep_the_last_token(make_task: MakeTask) -> None:
    task = make_task("mae", mask_kind="random", mask_ratio=0.75)
    batch = some(task, count=50)
    mask = task.pretraining().draw_mask(batch, Generator().manual_seed(0))
    assert mask.shape == (50, 4)
    assert (mask.sum(dim=1) == 3).all()
    assert not mask[:, -1].any()


# -- metrics and checks ------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    metrics = ForecastMetrics()
    window = torch.tensor([[[0.0, 1.0]], [[5.0, 2.0]], [[0.0, 0.0]]])
    target = torch.tensor([[2.0, 4.0], [2.0, 2.0], [1.0, -1.0]])
    prediction = torch.tensor([[2.0, 2.0], [3.0, 2.0], [1.0, 1.0]])
    for rows in (slice(0, 1), slice(1, 3)):  # batches of unequal size
        metrics.update(prediction[rows], {"window": window[rows], "target": target[rows]})
    squared, trivial = 4 + 1 + 4, (1 + 9) + 0 + (1 + 1)
    assert metrics.compute() == pytest.approx({"mse": squared / 6, "abs_error": 5 / 6, "skill": 1 - squared / trivial})


def test_skill_of_a_flat_series_is_undefined() -> None:
    metrics = ForecastMetrics()
    metrics.update(torch.ones(2, 1), {"window": torch.zeros(2, 1, 3), "target": torch.zeros(2, 1)})
    assert math.isnan(metrics.compute()["skill"])


def test_skill_is_measured_against_persistence(make_task: MakeTask) -> None:
    gru, persistence = make_task("gru", normalise="revin"), make_task("persistence")
    scores = evaluate(gru, gru.build(), gru.load("val"))
    trivial = evaluate(persistence, persistence.build(), persistence.load("val"))
    assert scores["skill"] == pytest.approx(1 - scores["mse"] / trivial["mse"], rel=1e-9)
    assert scores["skill"] < 0  # the mean of a day is worse than its last hour


@pytest.mark.parametrize(("arm", "changes", "found"), [
    ("mae", {"lookback": 100, "patch_size": 16},
     [("lookback", "lookback=100 must be a multiple of patch_size=16; try 96 or 112")]),
    ("scratch", {"lookback": 10, "patch_size": 16},
     [("lookback", "lookback=10 must be a multiple of patch_size=16; try 16")]),
    ("mae", {"lookback": 24, "patch_size": 24},
     [("patch_size", "patch_size=24 leaves 1 token of lookback=24; masking needs at least 2: at most 12")]),
    ("mae", {"encoder_dim": 50, "encoder_heads": 4},
     [("encoder_dim", "encoder_dim=50 must be a multiple of encoder_heads=4; try 48")]),
    ("mae", {"decoder_dim": 20, "decoder_heads": 3},
     [("decoder_dim", "decoder_dim=20 must be a multiple of decoder_heads=3; try 18")]),
    ("mae", {"lookback": 100, "patch_size": 16, "encoder_dim": 9, "encoder_heads": 16},
     [("lookback", "lookback=100 must be a multiple of patch_size=16; try 96 or 112"),
      ("encoder_dim", "encoder_dim=9 must be a multiple of encoder_heads=16; try 16")]),
    ("scratch", {"decoder_dim": 20, "decoder_heads": 3}, []),  # has no decoder
    ("linear", {"lookback": 100, "patch_size": 16}, []),  # has no patches
    ("gru", {"lookback": 101}, []),
    ("mae", {}, []),
])
def test_impossible_combinations_are_named(
    arm: str, changes: dict[str, int], found: list[tuple[str, str]], make_config: Callable[..., TrialConfig]
) -> None:
    # what a sweep file says about parameters the arm does not have is passed along as well
    params = {**make_config("forecasting", "mae").params, **changes}
    assert Forecasting.schema.check(arm, params) == found


def test_impossible_values_in_check_do_fail_when_built(make_task: MakeTask) -> None:
    with pytest.raises(ValueError, match="multiple of its patch_size"):
        make_task("mae", lookback=100, patch_size=16)


def test_the_target_channel_is_first_and_a_parameter(make_task: MakeTask) -> None:
    oil, load = make_task("linear"), make_task("linear", target="HUFL")
    assert torch.equal(oil.data.values_CT[1], load.data.values_CT[0])
    assert torch.equal(oil.data.values_CT[0], load.data.values_CT[-1])


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 8])
def test_pictures_of_forecasts(make_task: MakeTask, horizon: int) -> None:
    from raymae.tasks.pictures import LINE_HEIGHT, LINE_WIDTH, MODEL

    task = make_task("persistence", horizon=horizon)
    before = torch.get_rng_state()
    (name, picture), = task.pictures(nn.Identity(), "test").items()
    assert (name, picture.shape, picture.dtype) == ("forecast", (3 * LINE_HEIGHT, LINE_WIDTH, 3), np.uint8)
    red = (picture == MODEL).all(axis=2)
    assert red.any()
    if horizon > 1:  # the forecast stands at the right of what came before
        assert np.where(red)[1].min() > LINE_WIDTH / 2
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_of_reconstructions(make_task: MakeTask) -> None:
    from raymae.tasks.pictures import HIDDEN, MODEL

    task = make_task("mae", mask_ratio=0.5, mask_kind="suffix")
    (name, picture), = task.pictures(task.pretraining().build().eval(), "pretrain").items()
    assert name == "reconstruction"
    ground = np.where((picture == HIDDEN).all(axis=2))[1]
    red = np.where((picture == MODEL).all(axis=2))[1]
    assert ground.min() <= red.min() + 1
    assert red.max() <= ground.max() + 1


def test_a_flat_series_is_drawn() -> None:
    from raymae.tasks.pictures import Panel, line_panels

    assert line_panels([Panel("flat", np.zeros(5), np.full(5, np.nan))]).shape[2] == 3


def test_the_scale_of_a_picture_is_that_of_the_truth() -> None:
    from raymae.tasks.pictures import Panel, line_panels

    truth = np.sin(np.arange(50) / 5)
    near, far = (line_panels([Panel("", truth, truth + shift), Panel("", truth, truth)]) for shift in (0.2, 50.0))
    grey = [(image == (90, 98, 110)).all(-1)[22:162] for image in (near, far)]
    assert (grey[0] & grey[1]).sum() > 0.8 * grey[1].sum() > 0  # one scale, whatever the model made of it
    assert (far[170:] == near[170:]).all()  # and nobody draws into the next panel
