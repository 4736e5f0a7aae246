"""A budget of time on a simulated clock: whatever the machine's speed, the replicates fit, or every arm has some."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter

import pytest

from raymae.errors import BudgetSpentError
from raymae.search.run import _spent
from tests.search.decide.test_conductor import Notes, conductor, message

EPOCHS = 4


def simulate(made, clock, epoch_s, start_s=30.0):
    """Run every trial epoch by epoch, as many at once as there are slots; `epoch_s` says how long one takes now."""
    clock.now, number, heap, order = start_s, itertools.count(), [], []
    while True:
        while (trial := made.next()) is not None:
            order.append(trial)
            heapq.heappush(heap, (clock.now + epoch_s(trial), next(number), trial, 1, clock.now))
        if not heap:
            return order
        clock.now, _, trial, epoch, began = heapq.heappop(heap)
        fixed, seconds = trial.config.arm == "persistence", clock.now - began
        before = EPOCHS if trial.config.arm == "mae" else 0
        final = fixed or epoch == before + EPOCHS
        if epoch <= before:
            made.on_report(trial, message(trial, epoch, 0.5, final=False, seconds=seconds, phase="pretrain", best=9.0))
            trial.best.clear()
        else:
            value = trial.config.params.get("lr", 0.5)
            made.on_report(trial, message(trial, epoch - before, value, final=final and trial.stage == "search",
                                          seconds=seconds))
        if final and trial.stage == "replicate":
            made.on_report(trial, message(trial, EPOCHS, 0.5, final=True, seconds=seconds, phase="test"))
        if final or made.must_stop(trial):
            made.on_end(trial)
        else:
            heapq.heappush(heap, (clock.now + epoch_s(trial), next(number), trial, epoch + 1, began))


def replicates(made):
    return Counter(t.config.arm for t in made.trials if t.stage == "replicate" and t.status == "completed")


def sweep(minutes=3, **options):
    made, _, clock = conductor("search.num_trials=100", f"training.epochs={EPOCHS}",
                                   f"training.pretrain_epochs={EPOCHS}", f"budget.wall_minutes={minutes}", **options)
    notes = Notes()
    made.add_observer(notes)
    return made, clock, notes


@pytest.mark.parametrize("slow", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_every_arm_has_its_replicates_within_the_budget_on_a_slower_machine_too(slow, slots):
    made, clock, notes = sweep(slots=slots)
    simulate(made, clock, lambda trial: 0.5 * slow)
    assert clock.now <= 180
    assert replicates(made) == {"mae": 3, "scratch": 3, "persistence": 1}
    short = made.trials.num_asked("mae") < 100
    assert [text.partition(" after ")[0] for text in notes.warnings] == ["the budget cuts the search short"] * short


def test_a_machine_that_gets_busy_in_the_replicates_keeps_the_verdict_within_the_budget():
    made, clock, _ = sweep()
    simulate(made, clock, lambda trial: 0.5 * (1.2 if trial.stage == "replicate" else 1.0))
    assert clock.now <= 180
    assert replicates(made) == {"mae": 3, "scratch": 3, "persistence": 1}


def test_a_budget_for_hardly_more_than_one_trial_each_ends_with_replicates_of_every_arm():
    made, clock, _ = sweep()
    order = simulate(made, clock, lambda trial: 5.0)  # 40 s a trial of mae, 20 s one of scratch
    searched = Counter(trial.config.arm for trial in order if trial.stage == "search")
    assert searched["mae"] == 1
    assert searched["scratch"] <= 2
    assert clock.now <= 180 + 5
    assert min(replicates(made)[arm] for arm in ("mae", "scratch")) >= 1, "arms take turns in their replicates"
    said = _spent(made)
    assert "the budget is spent (budget.wall_minutes=3) and no verdict is reached" in said
    assert "--set budget.wall_minutes=6" in said
    assert "raymae extend" in said
    assert BudgetSpentError(said).exit_code == 3


def test_a_trial_that_was_stopped_early_is_reserved_all_its_epochs():
    made, _, _ = sweep()
    trial = made.next()
    assert trial.whole_s is None
    made.on_report(trial, message(trial, 1, 0.5, final=False, seconds=10.0))
    before = EPOCHS if trial.config.arm == "mae" else 0
    assert trial.whole_s == 10.0 * (before + EPOCHS) / (before + 1)


def test_with_patience_a_trial_is_reserved_what_it_takes_if_nothing_improves():
    """One of fifty epochs that may end after a handful was reserved fifty, and its search cut after one trial."""
    made, _, _ = conductor("training.epochs=50", "training.patience=2", "training.eval_every=3", slots=3)
    trial = next(one for one in iter(made.next, None) if one.config.arm == "scratch")
    made.on_report(trial, message(trial, 3, 0.5, final=False, seconds=10.0))
    assert trial.whole_s == 10.0 * (3 + 2 * 3) / 3
    made.on_report(trial, message(trial, 48, 0.4, final=False, seconds=160.0))
    assert trial.whole_s == pytest.approx(160.0 * 50 / 48)


def test_a_leader_under_way_is_reserved_for_and_an_arm_without_a_score_is_not_stopped():
    made, clock, _ = sweep(slots=2)
    mae, scratch = made.next(), made.next()
    clock.now = 100.0
    made.on_report(scratch, message(scratch, 1, 0.5, final=False, seconds=60.0))
    assert made.must_stop(scratch), "three replicates of four minutes do not fit: no more is learned by going on"
    assert not made.must_stop(mae), "without a score there would be nothing to replicate"


def test_a_sweep_that_gave_all_its_places_to_another_goes_on_with_its_budget():
    made, _, clock = conductor("budget.gpu_hours=1", "resources.gpus_per_worker=1", "search.num_trials=4", slots=2)
    made.use_slots(0)
    clock.now = 60.0
    assert made.next() is None, "no place"
    assert made.budget.seconds_left() == 3600.0
    assert not made.is_over()
    made.use_slots(2)
    assert made.next() is not None
