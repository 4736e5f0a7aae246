"""The conductor on a simulated clock: hundreds of trials in seconds, no Ray."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pandas as pd
import pytest

from raymae.results.store.opening import described
from raymae.results.verdict.judge import judge
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.proposals import Proposals
from raymae.search.decide.trials import Trial
from raymae.search.messages import NOT_STARTED, Message, Worker
from raymae.search.timing import Measured, lengthened
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan, trial_config
from raymae.spec.trial import ReportData
from raymae.tasks import schema_of

TEXT = """
name: simulated
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch, persistence]
space:
  lr: {loguniform: [1e-4, 1e-2]}
  mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}
search: {num_trials: 6}
replicates: 3
"""


class Recorder:
    """Stands in for the store: keeps what it is told."""

    manifest = SimpleNamespace(data=SimpleNamespace(fingerprint="sha256:1"))

    def __init__(self, location):
        self.location = str(location)
        self.trials, self.reports, self.configs = [], [], {}

    def add_trial(self, row):
        self.trials.append(row)

    def add_report(self, row):
        self.reports.append(row)

    def write_config(self, trial_id, config):
        assert trial_id not in self.configs, "a trial is started once"
        self.configs[trial_id] = config


class Notes:
    """An observer that writes down what it is told."""

    def __init__(self):
        self.warnings, self.reports, self.rows, self.seen, self.beats = [], [], [], [], []

    def warned(self, text):
        self.warnings.append(text)

    def reported(self, row, message):
        assert message.report is not None
        self.reports.append(row)

    def ended(self, row, progress):
        self.rows.append(row)
        self.seen.append(progress)

    def beat(self, progress):
        self.beats.append(progress)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def conductor(*overrides, slots=2, location="/nowhere", store=Recorder):
    spec = parse_sweep(TEXT, "simulated.yaml", overrides, schema_of=schema_of)
    schema = schema_of(spec.task)
    plans = {name: arm_plan(spec, schema, name) for name in spec.arms}
    clock = Clock()
    made = Conductor(spec, plans, schema.objective, store(location), source="real", slots=slots, clock=clock)
    return made, made.store, clock


def message(trial: Trial, epoch: int, value: float, *, final: bool, seconds: float, phase="finetune", best=None):
    metrics = {"loss": 1.0, "val_mse": value} if phase == "finetune" else {"test_mse": value}
    best = {"val_mse": value if best is None else best}
    report = ReportData(phase, epoch, epoch - 1, metrics, best, seconds, 1, final)
    return Message(trial.trial_id, 0, report, worker=Worker("h", 1, "cpu"))


def failure(made: Conductor, trial: Trial, why: str) -> Message:
    return Message.failed(made.job(trial), why)


def run(made: Conductor, clock: Clock, *, seconds=10.0, value=lambda trial: trial.config.params.get("lr", 0.5)):
    """End the longest-running trial, again and again, until nothing is left; returns the order of starts."""
    order, live = [], []
    for _ in range(10_000):
        while (trial := made.next()) is not None:
            order.append(trial)
            live.append(trial)
        if not live:
            assert made.finished()
            return order
        assert len(live) <= made.slots
        clock.now += seconds / made.slots
        trial = live.pop(0)
        if made.must_stop(trial):
            made.on_report(trial, message(trial, 1, value(trial), final=False, seconds=seconds))
        else:
            made.on_report(trial, message(trial, 1, value(trial), final=trial.stage == "search", seconds=seconds))
            if trial.stage == "replicate":
                made.on_report(trial, message(trial, 2, value(trial), final=True, seconds=seconds, phase="test"))
        made.on_end(trial)
    raise AssertionError("the sweep does not end")


def test_every_arm_gets_its_trials_and_its_best_is_replicated_on_fresh_seeds():
    made, store, clock = conductor()
    run(made, clock)
    rows = {arm: [r for r in store.trials if r["arm"] == arm] for arm in ("mae", "scratch", "persistence")}
    for arm, trials, seeds in (("mae", 6, 3), ("scratch", 6, 3), ("persistence", 1, 1)):
        assert sum(r["stage"] == "search" for r in rows[arm]) == trials
        assert sum(r["stage"] == "replicate" for r in rows[arm]) == seeds
    for arm in ("mae", "scratch"):
        search = [r for r in rows[arm] if r["stage"] == "search"]
        again = [r for r in rows[arm] if r["stage"] == "replicate"]
        best = min(search, key=lambda r: r["val_mse"])
        assert {r["config_id"] for r in again} == {best["config_id"]}
        assert len({r["seed"] for r in again}) == 3
        assert not {r["seed"] for r in again} & {r["seed"] for r in search}
        assert all("test_mse" in r for r in again)
        assert not any("test_mse" in r for r in search)
    assert [r["seed"] for r in rows["mae"] if r["stage"] == "replicate"] == [
        r["seed"] for r in rows["scratch"] if r["stage"] == "replicate"
    ], "arms are compared on the same seeds"
    assert len(store.trials) == len(made.trials) == made.progress().num_planned


def test_search_trials_have_seeds_of_their_own_the_same_for_every_arm_and_none_of_a_replicate():
    made, store, clock = conductor("search.seed=2", "replicates=8")
    run(made, clock)
    seeds = {arm: [r["seed"] for r in store.trials if r["arm"] == arm and r["stage"] == "search"]
             for arm in ("mae", "scratch", "persistence")}
    assert seeds["mae"] == seeds["scratch"] == list(range(2000, 2006))
    assert seeds["persistence"] == [2000]
    proposals = Proposals(made.spec, made.plans, "real", clock)
    searched = {proposals.sampled("t", "mae", k, {}).config.seed for k in range(25_000)}
    assert len(searched) == 10_000, "however long the search, the seeds of its replicates are fresh"
    assert not searched & {r["seed"] for r in store.trials if r["stage"] == "replicate"}


def test_a_search_that_goes_on_later_gives_its_trials_the_seeds_that_it_would_have_given():
    first, _, _ = conductor(slots=5)
    left = [first.next() for _ in range(5)]
    made, _, clock = conductor(slots=5)
    for trial in left:
        trial.status = "pending"
    made.take_over([], left)
    run(made, clock)
    for arm in ("mae", "scratch"):
        assert [t.config.seed for t in made.trials.of(arm, "search")] == list(range(6))


def test_arms_take_turns_so_that_an_interrupted_search_is_fair():
    made, _, clock = conductor("search.num_trials=20", slots=1)
    order = [trial for trial in run(made, clock) if trial.stage == "search"]
    for index in range(2, 40):
        counts = [sum(t.config.arm == arm for t in order[:index]) for arm in ("mae", "scratch")]
        assert abs(counts[0] - counts[1]) <= 1


def test_replicates_wait_until_the_arm_s_search_is_over():
    made, _, clock = conductor(slots=3)
    order = run(made, clock)
    for arm in ("mae", "scratch"):
        stages = [trial.stage for trial in order if trial.config.arm == arm]
        assert stages == ["search"] * 6 + ["replicate"] * 3


def test_the_budget_of_trials_is_shared_evenly():
    made, store, clock = conductor("budget.num_trials=7")
    run(made, clock)
    counts = {arm: sum(r["arm"] == arm and r["stage"] == "search" for r in store.trials)
              for arm in ("mae", "scratch", "persistence")}
    assert counts == {"mae": 3, "scratch": 3, "persistence": 1}


@pytest.mark.parametrize("minutes", [1, 2, 5])
def test_the_budget_of_time_includes_the_replicates(minutes):
    made, store, clock = conductor("search.num_trials=1000", f"budget.wall_minutes={minutes}")
    run(made, clock, seconds=4.0)
    assert clock.now <= 60 * minutes + 4.0
    done = {arm: sum(r["arm"] == arm and r["stage"] == "replicate" and r["status"] == "completed" for r in store.trials)
            for arm in ("mae", "scratch")}
    assert done == {"mae": 3, "scratch": 3}, "the search ends early enough for every replicate"


def test_a_failed_trial_is_recorded_and_never_chosen():
    made, store, clock = conductor("search.num_trials=3")
    failed = made.next()
    made.on_report(failed, failure(made, failed, "the loss is nan"))
    made.on_end(failed)
    run(made, clock)
    row = next(r for r in store.trials if r["trial_id"] == failed.trial_id)
    assert (row["status"], row["error"]) == ("failed", "the loss is nan")
    assert made.trials.best(failed.config.arm).trial_id != failed.trial_id
    assert len(made.trials.of(failed.config.arm, "replicate")) == made.replicates[failed.config.arm]


def test_an_arm_that_always_fails_has_no_replicates_and_does_not_block_the_others():
    made, store, _ = conductor()
    notes = Notes()
    made.add_observer(notes)
    for number in itertools.count():
        trial = made.next()
        if trial is None:
            break
        broken = trial.config.arm == "mae"
        made.on_report(trial, failure(made, trial, f"boom {number}") if broken
                       else message(trial, 1, 0.5, final=True, seconds=1.0))
        made.on_end(trial)
    assert made.finished()
    assert not made.trials.of("mae", "replicate")
    assert len(made.trials.of("scratch", "replicate")) == 3
    failed = sum(r["status"] == "failed" for r in store.trials)
    assert 3 <= failed <= 3 + made.slots, "an arm that fails systematically is given up"
    assert len(notes.warnings) == 1
    assert "boom" in notes.warnings[0]
    assert [row["trial_id"] for row in notes.rows] == [row["trial_id"] for row in store.trials]
    assert [progress.num_ended for progress in notes.seen] == list(range(1, len(store.trials) + 1))
    assert len(notes.reports) == len(store.reports)


def test_stopped_trials_count_as_proposed_but_a_completed_one_is_preferred():
    made, _, _clock = conductor("search.num_trials=2", "arms=[scratch]", "space.mask_ratio=null",
                                "space={lr: {loguniform: [1e-4, 1e-2]}}")
    first, second = made.next(), made.next()
    made.on_report(first, message(first, 1, 0.1, final=False, seconds=1.0))
    made.on_end(first)
    made.on_report(second, message(second, 1, 0.2, final=True, seconds=1.0))
    made.on_end(second)
    assert (first.status, second.status) == ("stopped", "completed")
    assert made.trials.best("scratch") is second


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_a_random_reference_is_searched_and_repeated_like_every_arm(scheduler):
    made, _, _ = conductor("task=imputation", "arms=[scratch, missforest, mean]", "space.mask_ratio=null",
                           "space.node_size={int: [1, 9]}", f"search.scheduler={scheduler}")
    assert made.searches.quota == {"scratch": 6, "missforest": 6, "mean": 1}
    assert made.replicates == {"scratch": 3, "missforest": 3, "mean": 1}
    assert list(made.searches.populations) == (["scratch"] if scheduler == "pbt" else [])


def test_an_actor_s_death_is_a_failure_with_its_reason():
    made, store, _ = conductor()
    trial = made.next()
    made.on_end(trial, "the process died")
    made.on_end(trial, "told twice")
    assert [(r["status"], r["error"]) for r in store.trials] == [("failed", "the process died")]


def test_an_actor_s_death_after_the_sweep_was_told_to_end_is_none():
    """Slurm ends all processes of a job at once: its next run goes on with their trials."""
    made, store, _ = conductor()
    trial = made.next()
    made.interrupt()
    made.on_end(trial, "the process died")
    assert (trial.status, trial.error) == ("pending", None)
    assert store.trials == []


def test_a_trial_for_which_no_workers_came_is_left_for_the_next_run():
    made, store, _ = conductor()
    trial = made.next()
    made.on_report(trial, failure(made, trial, NOT_STARTED))
    made.on_end(trial)
    assert trial.status == "pending"
    assert store.trials == []
    assert made.trials.running == {}


def test_the_best_is_the_one_that_the_verdict_names():
    made, store, clock = conductor("search.num_trials=12")
    run(made, clock, value=lambda trial: round(trial.config.params.get("lr", 0.5), 3))  # with ties
    data = {"name": "ETTh1", "source": "real", "fingerprint": "f"}
    manifest = described(made.spec, schema_of("forecasting"), data)
    answer = judge(pd.DataFrame(store.trials), made.spec, manifest)
    assert {arm.arm: arm.val.trial_id for arm in answer.arms} == {
        arm: made.trials.best(arm).trial_id for arm in made.plans}
    assert {arm.arm: arm.best_trial for arm in made.progress().arms} == {
        arm.arm: arm.val.trial_id for arm in answer.arms}


def test_progress_can_be_taken_while_the_sweep_goes_on():
    made, _, clock = conductor("search.num_trials=150", "search.algorithm=random", slots=3)
    over, seen = threading.Event(), []

    def watch():
        while not over.is_set():
            seen.append(made.progress())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run(made, clock)
    over.set()
    watcher.join()
    assert len(seen) > 10
    for progress in seen:
        assert progress.num_ended == sum(arm.search.done + arm.replicates.done for arm in progress.arms)
        assert len(progress.running) == sum(
            stage.statuses.get("running", 0) for arm in progress.arms for stage in (arm.search, arm.replicates))
    last = made.progress()
    assert (last.num_ended, last.running, last.left_s) == (last.num_planned, (), 0.0)
    assert {arm.arm: (arm.search.done, arm.replicates.done) for arm in last.arms} == {
        "mae": (150, 3), "scratch": (150, 3), "persistence": (1, 1)}


def test_an_arm_is_searched_no_more_once_its_replicates_have_begun():
    """The estimate of what replicates take can fall, and time seem to be left again: test scores are known by then."""
    made, _, clock = conductor("budget.wall_minutes=2", slots=1)
    order, slow = [], True
    while (trial := made.next()) is not None:
        order.append(trial)
        clock.now += 25 if slow else 0.1
        slow = trial.stage == "search" and len(order) < 3
        made.on_report(trial, message(trial, 1, 0.5, final=trial.stage == "search", seconds=25 if slow else 0.1))
        if trial.stage == "replicate":
            made.on_report(trial, message(trial, 2, 0.5, final=True, seconds=0.1, phase="test"))
        made.on_end(trial)
    for arm in ("mae", "scratch", "persistence"):
        stages = [trial.stage for trial in order if trial.config.arm == arm]
        assert stages == sorted(stages, key=["search", "replicate"].index)
    assert len([trial for trial in order if trial.stage == "search"]) < 13  # it was cut short, or this proves nothing


class Judged(Recorder):
    """Stands in for the store of a sweep in rounds, whose verdict the test decides."""

    flushed = 0

    def flush(self):
        self.flushed += 1


@pytest.mark.parametrize(("decided_at", "wanted"), [(4, 4), (5, 6), (100, 7)])
def test_replicates_come_in_rounds_until_the_comparison_is_decided(monkeypatch, decided_at, wanted):
    made, store, clock = conductor("replicates={min: 2, max: 7, until: decided}", store=Judged)

    def verdict(_):
        counts = [sum(r["arm"] == arm and r["stage"] == "replicate" for r in store.trials)
                  for arm in ("mae", "scratch")]
        assert counts[0] == counts[1]  # judged between rounds only
        word = "helps" if counts[0] >= decided_at else "undecided"
        return SimpleNamespace(pairs=[SimpleNamespace(verdict=word)])

    monkeypatch.setattr("raymae.search.decide.rounds.verdict_of", verdict)
    run(made, clock)
    for arm, count in (("mae", wanted), ("scratch", wanted), ("persistence", 1)):
        assert sum(r["arm"] == arm and r["stage"] == "replicate" for r in store.trials) == count


def test_a_round_is_gone_on_with():
    made, _, _ = conductor("replicates={min: 2, max: 7, until: decided}")
    best = Trial("mae-0000", trial_config(made.spec, made.plans["mae"], {}, seed=0, stage="search", source="real"), {},
                 0.0, datetime.now(UTC), status="completed", best={"val_mse": 0.5})
    config = replace(best.config, stage="replicate")
    earlier = [best, *(Trial(f"mae-0000-seed{number}", replace(config, seed=number), {}, 0.0, datetime.now(UTC),
                             status="completed") for number in range(3))]
    made.take_over(earlier, [])
    assert made.replicates == {"mae": 4, "scratch": 4, "persistence": 1}


def test_arms_get_so_many_times_their_epochs():
    made, _, clock = conductor()
    made.use_plans(lengthened(made.plans, Measured({"scratch": 3.0})))
    order = run(made, clock)
    epochs = {trial.config.arm: trial.config.params.get("epochs") for trial in order}
    assert epochs["scratch"] == 3 * epochs["mae"]
