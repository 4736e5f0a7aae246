"""The driver's signs of life, and the last one."""

from __future__ import annotations

import json
import time

import pytest

from raymae.results.views.progress import DriverState
from raymae.search.live.state_file import beating, spent_before
from raymae.search.messages import Message
from raymae.spec.trial import ReportData
from tests.search.decide.test_conductor import Notes, conductor

KEYS = ["state", "time", "started_at", "host", "pid", "every_s", "dashboard", "slots", "elapsed_s", "left_s", "planned",
        "running", "error"]
RUNNING = ["trial_id", "arm", "stage", "attempt", "phase", "epoch", "epochs", "wall_s", "best"]


@pytest.fixture
def swept():
    made, store, _ = conductor()
    states = []

    def write_state(state):
        assert list(state) == KEYS, "older versions read these"
        assert DriverState.from_json(json.loads(json.dumps(state, allow_nan=False))).to_json() == state
        states.append(state)

    store.write_state = write_state
    return made, states


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_beats_and_says_how_it_ended(swept):
    made, states = swept
    notes = Notes()
    made.add_observer(notes)
    with beating(made, every_s=0.02):
        assert (states[0]["state"], states[0]["dashboard"]) == ("running", None)
        made.connected("http://127.0.0.1:1")
        wait_for(lambda: len(notes.beats) >= 4)
    assert states[-1]["state"] == "ended"
    assert states[-1]["dashboard"] == "http://127.0.0.1:1"
    assert {state["state"] for state in states[:-1]} == {"running"}
    assert states[0]["started_at"] == states[-1]["started_at"] < states[-1]["time"]


@pytest.mark.parametrize(("error", "word", "reason"), [
    (RuntimeError("disk on fire"), "failed", "disk on fire"), (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    (ValueError(), "failed", "ValueError"),
])
def test_an_error_is_told_and_goes_on(swept, error, word, reason):
    made, states = swept
    with pytest.raises(type(error)), beating(made, every_s=60):
        raise error
    assert (states[-1]["state"], states[-1]["error"]) == (word, reason)


def test_an_interrupted_sweep(swept):
    made, states = swept
    with beating(made, every_s=60):
        made.interrupt()
    assert (states[-1]["state"], states[-1]["error"]) == ("interrupted", None)


def test_what_runs_and_what_is_planned(swept):
    made, states = swept
    trial = made.next()
    made.on_report(trial, Message(trial.trial_id, 0, ReportData("pretrain", 1, 0, {"loss": 1.0}, {}, 1.0, 1, False)))
    with beating(made, every_s=60):
        assert states[0]["planned"] == {
            "mae": {"search": 6, "replicates": 3}, "scratch": {"search": 6, "replicates": 3},
            "persistence": {"search": 1, "replicates": 1}}
        one, = states[0]["running"]
        assert list(one) == RUNNING
        assert (one["trial_id"], one["phase"], one["epoch"], one["best"]) == (trial.trial_id, "pretrain", 1, None)
        assert one["epochs"] == trial.config.params["pretrain_epochs"]
        assert states[0]["left_s"] is None
        trial.best = {made.objective.val: float("nan")}
        made.beat()
        assert states[-1]["running"][0]["best"] is None
    assert states[-1]["running"] == []


@pytest.mark.parametrize(("word", "counts"), [
    ("running", 4.25), ("interrupted", 4.25), ("failed", 4.25), ("ended", 0.0),
])
def test_dollars_of_a_run_that_was_cut_off_count_in_the_next(word, counts):
    made, store, _ = conductor("budget.dollars=5", "budget.price_per_node_hour=1")
    states = []
    store.write_state = states.append
    made.budget._clock.now = 4.25 * 3600
    with beating(made, every_s=60):
        made.beat()
    store.state, store.uri = lambda: json.loads(json.dumps({**states[0], "state": word})), str
    assert states[0]["dollars"] == 4.25
    assert spent_before(store) == counts
    for damaged in ({"state": word}, None):
        store.state = lambda damaged=damaged: damaged
        assert spent_before(store) == 0.0
