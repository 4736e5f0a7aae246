"""The driver's signs of life, and the last one."""

from __future__ import annotations

import json

import pytest

from raymae.search.decide.trials import Trial
from raymae.search.live.state_file import beating, describe
from raymae.search.messages import Message, ReportData
from tests.search.decide.test_conductor import conductor


class States(list):
    def write_state(self, state):
        json.dumps(state, allow_nan=False)
        self.append(state)


@pytest.fixture
def swept(monkeypatch):
    made, store, _ = conductor()
    states = States()
    store.write_state = states.write_state
    return made, states


def test_it_beats_and_says_how_it_ended(swept):
    made, states = swept
    beats = []
    with beating(made, every_s=0.02) as pulse:
        assert (states[0]["state"], states[0]["dashboard"]) == ("running", None)
        pulse.dashboard, pulse.also = "http://127.0.0.1:1", lambda: beats.append(1)
        while len(beats) < 3:
            pass
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
        made.interrupted = True
    assert (states[-1]["state"], states[-1]["error"]) == ("interrupted", None)


def test_what_runs_and_what_is_planned(swept):
    made, _ = swept
    trial = made.next()
    assert isinstance(trial, Trial)
    made.on_report(trial, Message(trial.trial_id, 0, ReportData("pretrain", 1, 0, {"loss": 1.0}, {}, 1.0, 1, False)))
    described = describe(made)
    assert described["planned"] == {"mae": {"search": 6, "replicates": 3}, "scratch": {"search": 6, "replicates": 3},
                                    "persistence": {"search": 1, "replicates": 1}}
    one, = described["running"]
    assert (one["trial_id"], one["phase"], one["epoch"], one["best"]) == (trial.trial_id, "pretrain", 1, None)
    assert one["epochs"] == trial.config.params["pretrain_epochs"]
    assert described["left_s"] is None
    trial.best = {made.metric: float("nan")}
    assert describe(made)["running"][0]["best"] is None


def test_a_trial_added_while_it_counts_costs_one_sign_of_life(swept, monkeypatch):
    made, states = swept

    def changed(conductor):
        raise RuntimeError("dictionary changed size during iteration")

    with beating(made, every_s=60) as pulse:
        before = len(states)
        monkeypatch.setattr("raymae.search.live.state_file.describe", changed)
        pulse.beat()
        assert len(states) == before
        monkeypatch.undo()
    assert states[-1]["state"] == "ended"


def test_metrics_that_fail_are_said_once_and_the_signs_of_life_go_on(swept):
    made, states = swept
    said: list[str] = []
    made.warn = said.append

    def fails():
        raise KeyError("arm")

    with beating(made, every_s=0.02) as pulse:
        pulse.also = fails
        while len(states) < 5:
            pass
    assert said == ["Ray is told no more metrics: KeyError: 'arm'"]
