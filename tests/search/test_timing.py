"""Arms become equal in steps or in computing: what is measured, and what follows from it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from raymae.search.plan import example_config, make_plan
from raymae.search.timing import MOST_TIMES, EpochCost, _seconds, _steps, measured, times_epochs
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of

TEXT = """
name: fair
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: {mae: {}, scratch: {}, gru: {epochs: 10}, persistence: {}}
training: {epochs: 5, pretrain_epochs: 8}
fair: {by: compute}
"""


@pytest.fixture
def plan():
    return make_plan(parse_sweep(TEXT, "fair.yaml", schema_of=schema_of))


def test_trained_arms_get_the_pretrained_ones_time(plan):
    costs = {"mae": EpochCost(2.0, 1.0), "scratch": EpochCost(0.0, 1.0), "gru": EpochCost(0.0, 0.25)}
    times = times_epochs(plan.arms, costs)  # mae takes 8 * 2 + 5 * 1 = 21 s
    assert times == {"scratch": 4.2, "gru": 8.4}
    assert "persistence" not in times
    assert times_epochs(plan.arms, {**costs, "gru": EpochCost(0.0, 1e-4)})["gru"] == MOST_TIMES
    assert "gru" not in times_epochs(plan.arms, {**costs, "gru": EpochCost(0.0, 99.0)})  # never fewer than asked for


def test_steps_are_counted(plan):
    costs = {name: _steps(example_config(plan, name), 1) for name in ("mae", "scratch")}
    assert costs["mae"].pretrain == costs["mae"].finetune == costs["scratch"].finetune > 0
    assert costs["scratch"].pretrain == 0
    assert times_epochs(plan.arms, costs)["scratch"] == pytest.approx((8 + 5) / 5)


def test_epochs_are_timed(plan):
    mae, scratch = (_seconds(example_config(plan, name), 1) for name in ("mae", "scratch"))
    assert mae.pretrain > 0
    assert mae.finetune > 0
    assert scratch.pretrain == 0
    assert 0.2 < scratch.finetune / mae.finetune < 5  # the same network


def test_an_arm_that_cannot_be_measured_keeps_its_epochs_and_the_sweep_goes_on(plan, monkeypatch):
    class BrokenError(Exception):
        def __init__(self):
            self.cause = ValueError("boom\nat length")

    class Remote:
        def __init__(self, cost):
            self.cost = cost

        def __call__(self, cost):
            return Remote(cost)

        def remote(self, config, threads, given, pretrain):
            return config.arm

    def get(arm):
        if arm == "gru":
            raise BrokenError
        return EpochCost(2.0, 1.0) if arm == "mae" else EpochCost(0.0, 1.0)

    errors = SimpleNamespace(RayTaskError=BrokenError)
    ray = SimpleNamespace(remote=lambda **_: Remote(None), get=get, exceptions=errors)
    monkeypatch.setitem(sys.modules, "ray", ray)
    warnings = []
    found = measured(plan, warnings.append)
    assert found.times_epochs == {"scratch": 4.2}
    assert found.epoch_costs == {"mae": 1.0, "scratch": 1.0}
    assert warnings == ["arm gru could not be measured and keeps its epochs: boom"]


def test_cells_that_share_an_encoder_have_its_cost_measured_once(monkeypatch):
    factors = TEXT + "factors: {label_fraction: [0.2, 0.5, 1.0], patch_size: [6, 12]}\n"
    plan = make_plan(parse_sweep(factors, "fair.yaml", schema_of=schema_of))
    asked = []

    class Remote:
        def __init__(self, cost=None):
            pass

        def __call__(self, cost):
            return self

        def remote(self, config, threads, given, pretrain):
            asked.append((config.arm, config.params.get("patch_size"), pretrain))
            return EpochCost({6: 2.0, 12: 1.0}[config.params["patch_size"]] if config.arm == "mae" else 0.0, 1.0)

    ray = SimpleNamespace(remote=lambda **_: Remote(), get=lambda cost: cost,
                          exceptions=SimpleNamespace(RayTaskError=ZeroDivisionError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    times = measured(plan, print).times_epochs
    measured_anew = [(arm, patch) for arm, patch, pretrain in asked if arm == "mae" and pretrain is None]
    assert measured_anew == [("mae", 6), ("mae", 12)]
    assert sum(arm == "mae" for arm, *_ in asked) == 6
    assert {round(times[lane], 3) for lane in times if lane.startswith("scratch")} == {4.2, 2.6}


def test_what_is_known_of_pretraining_is_not_timed_again(plan, monkeypatch):
    from raymae.train import phases

    def never(*_):
        raise AssertionError("pretrained")

    monkeypatch.setattr(phases, "Pretrain", never)
    assert _seconds(example_config(plan, "mae"), 1, None, 7.0).pretrain == 7.0


def test_a_phase_that_takes_long_is_timed_once(plan, monkeypatch):
    from raymae.search import timing

    monkeypatch.setattr(timing, "ENOUGH_S", 0.0)
    seen = []

    class Phase:
        name = "finetune"

        def run(self):
            for epoch in range(5):
                seen.append(epoch)
                yield epoch

    class Task:
        device = torch.device("cpu")

        def load(self, split):
            assert split in ("train", "val")

    assert timing._evaluated(Task(), Phase()) >= 0
    assert seen == [0]
