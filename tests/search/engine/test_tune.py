"""What Tune keeps of trials that have ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.air._internal import usage
from ray.tune import registry

from raymae.search.engine.tune import FORGOTTEN_AT_ONCE, TuneIds, _unburdened


class Conductor:
    """Proposes whatever it is asked for."""

    def __init__(self) -> None:
        self.proposed = 0

    def next(self) -> Any:
        self.proposed += 1
        return f"ours {self.proposed}"


@pytest.mark.parametrize(("stopped", "failed", "kept"), [
    (FORGOTTEN_AT_ONCE - 1, 0, FORGOTTEN_AT_ONCE + 4), (FORGOTTEN_AT_ONCE - 10, 10, 5),
])
def test_ended_trials_are_let_go_a_hundred_at_a_time(stopped: int, failed: int, kept: int) -> None:
    ids = TuneIds(Conductor())  # type: ignore[arg-type]
    live, ended = ([TuneTrial(f"{kind}{index}") for index in range(num)]
                   for kind, num in (("live", 5), ("ended", stopped + failed)))
    for trial in (*live, *ended):
        ids.start(trial.trial_id)
    controller: Any = SimpleNamespace(
        _trials=[*ended, *live], _stopped_trials=set(ended[failed:]), _failed_trials=set(ended[:failed]),
    )
    trials = controller._trials
    ids.forget(controller)
    assert controller._trials is trials, "Tune's callbacks were given this list"
    assert len(trials) == kept
    assert trials[-5:] == live
    assert ids["live0"] == "ours 1"
    if kept == len(live):
        assert not controller._stopped_trials
        assert not controller._failed_trials
        with pytest.raises(KeyError):
            ids["ended0"]


class TuneTrial:
    """A trial of Tune's, which goes into sets."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_what_tune_does_for_others_is_left_out_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    registered: dict[str, type] = {}

    def get(category: str, key: str) -> Any:
        asked.append((category, key))
        return registered.get(key)

    monkeypatch.setattr(registry._Registry, "get", lambda self, category, key: get(category, key))
    monkeypatch.setattr(usage, "_count_callbacks", lambda callbacks: pytest.fail("imports MLflow and Weights & Biases"))
    ours = registry._global_registry
    with _unburdened():
        assert usage.tag_callbacks([tune.Callback()]) is False
        assert ours.get("trainable_class", "Slot") is None
        registered["Slot"] = int
        assert [ours.get("trainable_class", "Slot") for _ in range(3)] == [int] * 3
        assert len(asked) == 2, "asked until there is something, then no more"
    with _unburdened():
        registered["Slot"] = float
        assert ours.get("trainable_class", "Slot") is float, "another run has another"
    ours.get("trainable_class", "Slot")
    assert len(asked) == 4
    with pytest.raises(pytest.fail.Exception):
        usage.tag_callbacks([tune.Callback()])
