"""Samplers and schedulers, told the truth about how trials ended. No Ray cluster."""

from __future__ import annotations

import math
import random

import optuna
import pytest
from optuna.trial import TrialState

from raymae.search.decide.algorithms import ArmStudy, contains, grid
from raymae.search.engine.schedulers import make_scheduler
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan
from raymae.spec.task import Objective
from raymae.tasks import schema_of

TEXT = """
name: x
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch]
space:
  lr: {loguniform: [1e-4, 1e-2]}
  patch_size: {choice: [6, 12, 24]}
  encoder_depth: {int: [1, 4]}
  dropout: {uniform: [0.0, 0.5]}
  mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}
  drop_path: {uniform: [0.1, 0.3], when: {encoder_depth: [3, 4]}}
search: {num_trials: 30, algorithm: ALGORITHM}
"""
MSE = Objective("mse", "min", "")


def study(algorithm="tpe", arm="mae", objective=MSE, *overrides) -> ArmStudy:
    spec = parse_sweep(TEXT.replace("ALGORITHM", algorithm), "x.yaml", overrides, schema_of=schema_of)
    return ArmStudy(arm_plan(spec, schema_of("forecasting"), arm), spec.search, objective)


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "cmaes", "random"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_proposals_lie_in_the_space_and_respect_conditions(algorithm):
    made = study(algorithm)
    for number in range(16):  # the first ten are drawn at random
        sampled = made.ask(str(number))
        for name, value in sampled.items():
            assert contains(made.plan.space[name], value), (name, value)
        assert ("drop_path" in sampled) == (sampled["encoder_depth"] in (3, 4))
        assert "mask_ratio" in sampled
        value = (math.log10(sampled["lr"]) + 3) ** 2 + sampled["dropout"]
        made.report(str(number), 1, value)
        made.tell(str(number), "completed", value)
    assert "mask_ratio" not in study(algorithm, "scratch").ask("0")


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes", "random", "qmc"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_user_s_points_come_first_and_what_they_leave_open_is_proposed(algorithm):
    points = "search.points=[{lr: 2e-3, mask_ratio: 0.3}, {patch_size: 24, encoder_depth: 1, lr: 1e-3, dropout: 0.1}]"
    for arm in ("mae", "scratch"):
        made = study(algorithm, arm, MSE, points)
        first, second, third = (made.ask(str(number)) for number in range(3))
        assert first["lr"] == 2e-3
        assert first.get("mask_ratio") == (0.3 if arm == "mae" else None), "an arm tries what it searches of a point"
        assert all(contains(made.plan.space[name], value) for name, value in first.items())
        assert {name: second[name] for name in ("patch_size", "encoder_depth", "lr", "dropout")} == {
            "patch_size": 24, "encoder_depth": 1, "lr": 1e-3, "dropout": 0.1}
        assert third["lr"] == made.plan.fixed["lr"], "then what one would have run"
        again = study(algorithm, arm, MSE, points)
        again.add("0", first, "completed", {}, 1.0)
        again.resume("1", second)
        assert again.ask("2")["lr"] == made.plan.fixed["lr"], "a sweep that goes on tries none again"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_constraint_that_the_sampler_keeps_breaking_ends_no_search(seed):
    text = TEXT[:TEXT.index("space:")] + """
space:
  patch_size: {choice: [6, 8, 12, 24]}
  lr: {loguniform: [5e-4, 1e-2]}
  weight_decay: {choice: [0.01, 0.05]}
constraints: ["patch_size + 0 * weight_decay <= 8"]  # of two parameters, so that no choice can be left out before
search: {num_trials: 10, algorithm: tpe}
"""
    spec = parse_sweep(text, "x.yaml", [f"search.seed={seed}"], schema_of=schema_of)
    made, chance = ArmStudy(arm_plan(spec, schema_of("forecasting"), "mae"), spec.search, MSE), random.Random(seed)
    for number in range(20):
        assert made.ask(str(number))["patch_size"] <= 8
        made.report(str(number), 1, 1.0)
        made.tell(str(number), chance.choice(["completed", "stopped"]), chance.random())


@pytest.mark.parametrize(("algorithm", "resumed"), [("tpe", False), ("tpe", True), ("gp", True), ("random", False)])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_moves_away_from_pretrainings_that_nobody_may_choose(algorithm, resumed):
    """However good they are: here high mask ratios are the best, and those above 0.5 did not learn."""
    def high(skilled):
        made, number = study(algorithm), 0
        for number in range(40):
            sampled = made.ask(str(number))
            lacking = None if skilled else max(0.0, sampled["mask_ratio"] - 0.5)
            made.report(str(number), 1, 1 - sampled["mask_ratio"])
            made.tell(str(number), "completed", 1 - sampled["mask_ratio"], lacking=lacking)
            if resumed and number == 19:  # a sweep that goes on knows as much
                before = made.study.get_trials()
                made = study(algorithm)
                for trial in before:
                    made.add(f"of {trial.number}", trial.params, "completed", {1: trial.value}, trial.value,
                             lacking=trial.constraints.get("pretext_skill"))
        return sum(trial.params["mask_ratio"] > 0.62 for trial in made.study.get_trials()[20:])

    if algorithm == "random":
        assert high(skilled=True) == high(skilled=False), "it learns from nothing"
    else:
        assert high(skilled=True) > 14
        assert high(skilled=False) < 6


def test_the_first_proposal_is_the_default_configuration():
    made = study()
    sampled = made.ask("0")
    assert sampled["lr"] == made.plan.fixed["lr"] == 1e-3
    assert sampled["mask_ratio"] == made.plan.fixed["mask_ratio"]


def test_stopped_is_pruned_with_intermediate_values_and_never_complete():
    made = study()
    made.ask("a")
    made.report("a", 1, 0.7)
    made.report("a", 2, 0.6)
    made.tell("a", "stopped", 0.6)
    (trial,) = made.study.get_trials()
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.7, 2: 0.6}


@pytest.mark.parametrize(("status", "value"), [
    ("failed", 0.1), ("failed", None), ("completed", math.nan), ("completed", math.inf), ("completed", None),
])
def test_no_finite_value_is_a_failure_and_nothing_stays_running(status, value):
    made = study()
    made.ask("a")
    if value is not None:
        made.report("a", 1, value)
    made.tell("a", status, value)
    assert [trial.state for trial in made.study.get_trials()] == [TrialState.FAIL]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_tpe_improves_in_the_objective_s_direction(mode):
    made = study("tpe", "scratch", Objective("mse", mode, ""))
    sign = 1 if mode == "min" else -1
    found = []
    for number in range(60):
        sampled = made.ask(str(number))
        loss = (math.log10(sampled["lr"]) + 3.7) ** 2 + sampled["dropout"]
        found.append(loss)
        made.tell(str(number), "completed", sign * loss)
    assert sum(found[-15:]) / 15 < 0.6 * sum(found[:15]) / 15


def test_the_same_seed_proposes_the_same_and_arms_draw_from_their_own_streams():
    def draws(**changes):
        spec = parse_sweep(TEXT.replace("ALGORITHM", "random"), "x", (), schema_of=schema_of)
        made = ArmStudy(arm_plan(spec, schema_of("forecasting"), "scratch"), spec.search, MSE, **changes)
        return [made.ask(str(n)) for n in range(5)]

    assert draws(index=0) == draws(index=0)
    assert draws(index=0)[1:] != draws(index=1)[1:]


GRID = ("space={lr: {choice: [1e-3, 2e-3]}, encoder_depth: {int: [1, 3]}, "
        "drop_path: {choice: [0.0, 0.1], when: {encoder_depth: 3}}}")


def test_a_grid_visits_every_admissible_point_once():
    made = study("grid", "scratch", MSE, GRID)
    points = [made.ask(str(number)) for number in range(made.num_trials)]
    assert made.num_trials == 2 * (2 + 2)
    assert {tuple(sorted(p.items())) for p in points} == {tuple(sorted(p.items())) for p in grid(made.plan)}
    assert all(("drop_path" in p) == (p["encoder_depth"] == 3) for p in points)


class FakeTrial:
    def __init__(self, trial_id):
        self.trial_id = trial_id
        self.status = "RUNNING"

    def is_finished(self):
        return self.status == "TERMINATED"


class FakeController:
    """The little of Tune's controller that the schedulers here touch."""

    def __init__(self, trials):
        self.trials = trials

    def get_live_trials(self):
        return {trial for trial in self.trials if trial.status == "RUNNING"}

    def get_trials(self):
        return list(self.trials)


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_schedulers_stop_the_worse_ones_on_a_simulated_clock(scheduler, mode):
    spec = parse_sweep(TEXT.replace("ALGORITHM", "random"), "x", [f"search.scheduler={scheduler}"], schema_of=schema_of)
    sign = 1 if mode == "min" else -1
    made = make_scheduler(spec.search, Objective("mse", mode, ""), 9)
    trials = [FakeTrial(f"t{n:03d}") for n in range(120)]
    controller = FakeController(trials)
    epochs = dict.fromkeys(trials, 0)
    for trial in trials:
        made.on_trial_add(controller, trial)
    for epoch in range(1, 10):
        for rank, trial in enumerate(trials):
            if trial.status != "RUNNING":
                continue
            epochs[trial] = epoch
            value = sign * (0.1 + 0.01 * ((rank * 37) % 120))
            result = {"epoch": epoch, "objective": value, "training_iteration": epoch}
            if made.on_trial_result(controller, trial, result) == "STOP":
                trial.status = "TERMINATED"
                made.on_trial_complete(controller, trial, result)
    quality = {trial: (rank * 37) % 120 for rank, trial in enumerate(trials)}
    finished = [quality[t] for t in trials if epochs[t] == 9]
    stopped = [quality[t] for t in trials if epochs[t] < 9]
    assert finished
    assert stopped
    assert sum(finished) / len(finished) < sum(stopped) / len(stopped)
    assert min(epochs.values()) >= spec.search.grace_epochs
    assert sum(epochs.values()) < 0.8 * 120 * 9, "early stopping saves work"


def test_none_never_stops():
    spec = parse_sweep(TEXT.replace("ALGORITHM", "random"), "x", ["search.scheduler=none"], schema_of=schema_of)
    made = make_scheduler(spec.search, MSE, 9)
    trial = FakeTrial("t")
    controller = FakeController([trial])
    made.on_trial_add(controller, trial)
    results = [{"epoch": epoch, "objective": 9.0} for epoch in range(1, 10)]
    assert {made.on_trial_result(controller, trial, result) for result in results} == {"CONTINUE"}


def test_optuna_logs_nothing_per_trial():
    study()
    assert optuna.logging.get_verbosity() >= optuna.logging.WARNING


def test_metric_and_cost_are_searched_together_and_nothing_is_pruned():
    made = study("tpe", "mae", MSE, "search.cost=num_parameters")
    for number in range(6):
        sampled = made.ask(str(number))
        made.report(str(number), 1, 0.5)
        made.tell(str(number), "stopped" if number == 5 else "completed", sampled["dropout"],
                  100.0 * sampled["encoder_depth"])
    states = [trial.state for trial in made.study.trials]
    assert states == [TrialState.COMPLETE] * 5 + [TrialState.FAIL], "optuna#3450: such a study cannot prune"
    assert [len(trial.values) for trial in made.study.trials[:5]] == [2] * 5
    made.add("old", made.study.trials[0].params, "completed", {1: 0.4}, 0.4, 7.0)
    assert made.study.trials[-1].values == [0.4, 7.0]
    made.ask("6")
    made.tell("6", "completed", 0.3, None)
    assert made.study.trials[-1].state == TrialState.FAIL, "no cost, no verdict"
