"""A budget of dollars on a simulated clock: nodes come and go, and what is up is charged."""

from __future__ import annotations

import pytest

from raymae.search.decide.meter import Meter
from tests.search.decide.test_budget import replicates, simulate
from tests.search.decide.test_conductor import Clock, Notes, conductor

HEAD, WORKER = 36.0, 360.0  # dollars for an hour: a cent and ten cents a second


def test_what_is_up_is_charged_for_as_long_as_it_is_up():
    clock = Clock()
    meter = Meter(clock)
    clock.now = 50.0
    assert (meter.spent, meter.seconds_left(5.0)) == (0.0, None), "nothing before the first look"
    meter.look(HEAD)
    clock.now = 60.0
    assert meter.spent == pytest.approx(0.1)
    meter.look(HEAD + 2 * WORKER)
    assert meter.spent == pytest.approx(2.1), "who came in between is charged from the look before"
    clock.now = 70.0
    assert meter.spent == pytest.approx(4.2)
    meter.look(HEAD + WORKER)
    clock.now = 80.0
    meter.look(HEAD)
    assert meter.spent == pytest.approx(5.3), "who went in between is charged up to the look after"
    assert meter.seconds_left(26.3) == pytest.approx(100.0), "with as much up as there has been at once"
    assert meter.seconds_left(5.0) == 0.0


def test_what_an_earlier_run_has_spent_counts():
    clock = Clock()
    meter = Meter(clock, earlier=3.0)
    assert meter.seconds_left(3.0) == 0.0
    meter.look(WORKER)
    clock.now = 10.0
    assert meter.spent == pytest.approx(4.0)


def two_nodes(dollars, *, earlier=0.0, slots=2, until=10**9):
    """A sweep on a head and two workers, one trial each, that come after half a minute and go after `until`."""
    made, _, clock = conductor("search.num_trials=100", "training.epochs=4", "training.pretrain_epochs=4",
                               f"budget.dollars={dollars}", slots=slots)
    notes, meter = Notes(), Meter(clock, earlier)
    made.add_observer(notes)
    made.budget.meter = meter
    meter.look(HEAD)

    def epoch_s(trial):
        meter.look(HEAD + (2 * WORKER if clock.now < until else 0))
        return 0.5

    simulate(made, clock, epoch_s, start_s=30.0)
    return made, clock, notes, meter


@pytest.mark.parametrize("dollars", [20, 40])
def test_a_sweep_on_two_nodes_stops_at_its_dollars_with_its_replicates(dollars):
    made, clock, notes, meter = two_nodes(dollars)
    assert meter.spent <= dollars + 0.21, "a look's worth, no more"
    assert meter.spent > 0.6 * dollars, "and it has used them"
    assert replicates(made) == {"mae": 3, "scratch": 3, "persistence": 1}
    assert made.trials.num_asked("mae") < 100, "it was cut short, or this proves nothing"
    assert clock.now < dollars / 0.1 * 0.6, "one node alone would have had more than twice as long"
    assert made.progress().dollars == pytest.approx(meter.spent, abs=1e-3)
    assert made.budget.share_spent() == pytest.approx(meter.spent / dollars)
    assert "the budget cuts the search short" in notes.warnings[0]


def test_a_resumed_sweep_has_what_is_left():
    _, whole, _, _ = two_nodes(40)
    made, clock, _, meter = two_nodes(40, earlier=20.0)
    assert meter.spent <= 40.21
    assert clock.now < 0.75 * whole.now
    assert replicates(made) == {"mae": 3, "scratch": 3, "persistence": 1}
    made, clock, _, _ = two_nodes(40, earlier=40.0)
    assert made.budget.time_is_up()
    assert len(made.trials) == 0, "nothing is started on a spent budget"


def test_on_this_machine_one_node_is_charged_as_before():
    made, _, clock = conductor("budget.dollars=5", "budget.price_per_node_hour=0.5")
    clock.now = 3600.0
    assert made.budget.seconds_left() == 9 * 3600
    assert made.budget.share_spent() == pytest.approx(0.1)
    assert made.progress().dollars == 0.5
    free, _, _ = conductor()
    assert free.progress().dollars is None
