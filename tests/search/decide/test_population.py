"""Population-based training: on a simulated clock, and its children in a worker's own loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import pytest

from raymae.errors import SpecError
from raymae.search.decide.population import Population
from raymae.search.engine.workers import run_job
from raymae.search.messages import Job, Parent
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan
from raymae.spec.task import Objective
from raymae.tasks import schema_of
from tests.search.decide.test_conductor import conductor, message

PBT = ("search.scheduler=pbt", "arms=[scratch]", "space={lr: {loguniform: [1e-4, 1e-2]}}", "training.epochs=9",
       "search.grace_epochs=2", "replicates=2")


def population(*overrides: str) -> Population:
    text = "name: x\ntask: forecasting\ndata: {name: ETTh1}\narms: [scratch]\nspace:\n" \
           "  lr: {loguniform: [1e-4, 1e-2]}\n  patch_size: {choice: [6, 12]}\n" \
           "search: {scheduler: pbt, grace_epochs: 2}\n"
    spec = parse_sweep(text, "x.yaml", overrides, schema_of=schema_of)
    return Population(arm_plan(spec, schema_of(spec.task), "scratch"), spec.search, Objective("mse", "min", ""))


def test_the_worst_quarter_makes_way_for_children_of_the_best():
    made = population()
    for number in range(8):
        made.note(f"t{number}", 2, 1, float(number))
    parents = [made.judge(f"t{number}", 2) for number in range(8)]
    assert [parent is not None for parent in parents] == [False] * 6 + [True] * 2
    assert {parent.trial_id for parent in parents[6:]} <= {"t0", "t1"}
    assert all((parent.epoch, parent.step) == (2, 1) for parent in parents[6:])
    assert made.judge("t7", 4) is None, "nobody has come that far"
    few = population()
    for number in range(3):
        few.note(f"t{number}", 2, 1, float(number))
    assert few.judge("t2", 2) is None, "three trials say nothing about a quarter"
    assert [made.is_milestone(epoch) for epoch in (0, 1, 2, 4, 10)] == [False, False, True, True, False]


def test_children_differ_only_in_what_may_change_and_stay_in_the_space():
    made = population("constraints=[lr < 5e-3]")
    parent = {"lr": 4.9e-3, "patch_size": 12}
    children = [made.mutate(parent) for _ in range(200)]
    assert all(child["patch_size"] == 12 for child in children)
    assert all(1e-4 <= child["lr"] < 5e-3 for child in children)
    assert len({child["lr"] for child in children}) > 10
    assert any(math.isclose(child["lr"], 0.8 * 4.9e-3) for child in children)


def test_a_space_without_anything_that_may_change_is_refused():
    with pytest.raises(SpecError, match="none that the arm scratch searches can change; search one of clip_norm, lr"):
        population("space={patch_size: {choice: [6, 12]}}")


def evolve(made, clock):
    """Run to the end: the score of an epoch is far from ideal by the distance of lr from 1e-3, in decades."""
    live, best, ended = [], {}, []
    for _ in range(10_000):
        while (trial := made.next()) is not None:
            live.append((trial, trial.parent.epoch if trial.parent else 0))
        if not live:
            assert made.finished()
            return ended
        clock.now += 1.0
        trial, epoch = live.pop(0)
        epoch += 1
        value = abs(math.log10(trial.config.params["lr"]) + 3) + 1 / epoch
        best[trial.trial_id] = min(value, best.get(trial.trial_id, math.inf))
        final = epoch == 9
        made.on_report(trial, message(trial, epoch, value, final=final, seconds=float(epoch),
                                      best=best[trial.trial_id]))
        if final or made.replaces(trial, epoch, epoch - 1, best[trial.trial_id]):
            made.on_end(trial)
            ended.append(trial)
        else:
            live.append((trial, epoch))
    raise AssertionError("the sweep does not end")


def test_a_sweep_keeps_its_population_and_replicates_the_best_schedule():
    made, store, clock = conductor(*PBT, "search.num_trials=12", slots=4)
    ended = evolve(made, clock)
    search = [trial for trial in ended if trial.stage == "search"]
    children = [trial for trial in search if trial.parent]
    stopped = [trial for trial in search if trial.status == "stopped"]
    assert len(stopped) == len(children) > 0, "a child for everyone that made way"
    assert len(search) - len(children) == 12, "children do not count against the arm's trials"
    assert sum(trial.status == "completed" for trial in search) == 12
    assert sorted(trial.config.seed for trial in search if not trial.parent) == list(range(12))
    for child in children:
        (until, before), parent = child.config.earlier[-1], made.trials[child.parent.trial_id]
        assert until == child.parent.epoch
        assert before == {"lr": parent.config.params["lr"]}
        assert child.config.params_at(until - 1)["lr"] == parent.config.params["lr"]
        assert child.config.params_at(until)["lr"] == child.config.params["lr"]
        assert child.config.config_id != parent.config.config_id
        assert child.config.seed == parent.config.seed
        row = next(row for row in store.trials if row["trial_id"] == child.trial_id)
        assert row["parent"] == f"{parent.trial_id}@{until}"
    best = made.trials.best("scratch")
    assert all(t.config.earlier == best.config.earlier for t in ended if t.stage == "replicate")
    again, _, other = conductor(*PBT, "search.num_trials=12", slots=4)
    assert [t.sampled for t in evolve(again, other)] == [t.sampled for t in ended], "the same seed, the same search"


@pytest.mark.parametrize("lost", [False, True])
def test_a_child_goes_on_from_its_parent_as_if_it_had_trained_from_the_start(tmp_path, make_config, lost):
    (tmp_path / "checkpoints").mkdir()
    config = make_config("forecasting", "mae", epochs=4, lr=1e-3)
    job = Job("p", 0, config, "val_mse", str(tmp_path), milestones=2)
    first = [(m.report.step, m.report.metrics) for m in islice(run_job(job), 4)]
    assert (tmp_path / "checkpoints" / "p@2.pt").exists()
    params = {**config.params, "lr": 4e-3, "weight_decay": 0.3}
    before = {"lr": 1e-3, "weight_decay": config.params["weight_decay"]}
    child = replace(config, params=params, earlier=((2, before),))
    if lost:
        (tmp_path / "checkpoints" / "p@2.pt").unlink()
    parent = Parent("p", 2, 2, config.config_id)
    messages = list(run_job(replace(job, trial_id="c", config=child, next_step=3, parent=parent)))
    whole = [m.report for m in run_job(replace(job, trial_id="w", config=child))]
    plain = [(r.step, r.phase, r.epoch, r.metrics, r.best) for r in whole]
    assert [(r.step, r.phase, r.epoch, r.metrics, r.best) for r in (m.report for m in messages)] == plain[3:]
    assert [one[0::3] for one in plain[:3]] == [one[0:2] for one in first[:3]], "until then it is its parent"
    assert plain[3][3] != first[3][1]
    assert messages[-1].final


def test_a_replicate_of_a_child_follows_its_schedule(make_config):
    from raymae.train import run_trial

    plain = make_config("forecasting", "scratch", epochs=3, lr=1e-3, seed=5)
    scheduled = replace(plain, params={**plain.params, "lr": 1e-2}, earlier=((2, {"lr": 1e-3}),))
    a, b = list(run_trial(plain)), list(run_trial(scheduled))
    assert [r.metrics for r in a[:2]] == [r.metrics for r in b[:2]]
    assert b[2].metrics["lr"] == pytest.approx(10 * a[2].metrics["lr"])
