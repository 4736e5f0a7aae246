"""Arms become equal in steps or in computing: what is measured, and what follows from it."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Generator

from raymae.search.plan import example_config, make_plan
from raymae.search.probes import shortest
from raymae.search.timing import (
    FEW_STEPS,
    MOST_TIMES,
    EpochCost,
    _epoch_s,
    epoch_seconds,
    epoch_steps,
    measured,
    times_epochs,
)
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of, task_class
from raymae.train.device import pick_device
from raymae.train.epoch import Steps

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
    costs = {name: epoch_steps(example_config(plan, name)) for name in ("mae", "scratch")}
    assert costs["mae"].pretrain == costs["mae"].finetune == costs["scratch"].finetune > 0
    assert costs["scratch"].pretrain == 0
    assert times_epochs(plan.arms, costs)["scratch"] == pytest.approx((8 + 5) / 5)


def test_epochs_are_timed(plan):
    mae, scratch = (epoch_seconds(example_config(plan, name), 1) for name in ("mae", "scratch"))
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
    assert epoch_seconds(example_config(plan, "mae"), 1, None, 7.0).pretrain == 7.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def epochs(clock, seconds):
    for each in seconds:
        clock.now += each
        yield


def test_the_shortest_of_epochs_in_turns_counts_and_not_the_one_that_warms_up():
    clock = Clock()
    found = shortest([epochs(clock, [0.1, 0.3, 0.2, 0.4]), epochs(clock, [0.9, 0.7, 0.8, 0.65])], clock)
    assert found == pytest.approx([0.2, 0.65])


def test_a_phase_that_takes_long_is_timed_once():
    clock = Clock()
    assert shortest([epochs(clock, [30.0, 9.0]), epochs(clock, [80.0, 9.0])], clock) == [30.0, 80.0]
    times = [2.0, 1.0, 0.5, 0.25]
    assert shortest([epochs(clock, times)], clock) == [0.25]
    assert shortest([epochs(clock, times)], clock, 1.9) == [2.0]
    assert shortest([epochs(clock, times)], clock, 2.5) == [1.0]


@pytest.mark.parametrize(("every", "steps", "evaluation"), [(1, 0.05, 0.3), (2, 0.05, 0.3), (3, 0.02, 0.0)])
def test_a_long_epoch_is_reckoned_from_short_ones(plan, monkeypatch, every, steps, evaluation):
    """Whoever disturbs the machine for seconds disturbs some of the short ones, and all of a long one."""
    clock = Clock()
    config = example_config(plan, "scratch")
    params = {**config.params, "eval_every": every, "batch_size": 32}
    task = task_class("forecasting")(replace(config, params=params), pick_device())
    whole = Steps.of(task.params, "finetune").of_an_epoch(len(task.load("train")))
    assert whole > FEW_STEPS[-1]
    class Phase:
        name = "finetune"

        def __init__(self, short):
            self.task = short
            assert len(short.load("val")) == len(task.load("val"))
            assert short.params.eval_every == 1

        def run(self):
            source, size = self.task.load("train"), self.task.params.batch_size
            assert source.batch(torch.arange(2), Generator()) is not None
            for disturbed in (5.0, 0.0, 1.0, 0.2):
                clock.now += steps * len(source) / size + evaluation + disturbed
                yield

    assert _epoch_s(task, "finetune", Phase, clock) == pytest.approx(whole * steps + evaluation / every)
