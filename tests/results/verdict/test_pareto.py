from __future__ import annotations

from collections.abc import Callable

from tiny_task import tiny_spec, trial

from raymae.results import Store, render, verdict_of
from raymae.results.views.show import summary

Make = Callable[..., Store]


def test_the_front_holds_whom_nobody_beats(make_store: Make) -> None:
    store = make_store(spec=tiny_spec(search={"cost": "wall_s", "num_trials": 5}))
    for trial_id, arm, value, seconds, status in (
        ("a", "mae", 0.10, 100.0, "completed"),
        ("b", "mae", 0.20, 10.0, "completed"),
        ("worse-and-dearer", "mae", 0.21, 11.0, "completed"),
        ("c", "scratch", 0.15, 50.0, "completed"),
        ("as-good-but-dearer", "scratch", 0.15, 60.0, "completed"),
        ("stopped", "scratch", 0.01, 1.0, "stopped"),
        ("failed", "scratch", None, 1.0, "failed"),
    ):
        store.add_trial(trial(trial_id, arm, status=status, val_mse=value, wall_s=seconds, epochs_done=3))
    store.add_trial(trial("p", "persistence", val_mse=0.3, wall_s=0.0, epochs_done=0))
    found = verdict_of(store).pareto
    assert found is not None
    assert found.cost == "wall_s"
    assert [(p.trial_id, p.arm, p.value, p.cost) for p in found.front] == [
        ("b", "mae", 0.20, 10.0), ("c", "scratch", 0.15, 50.0), ("a", "mae", 0.10, 100.0)]
    render(summary(store))


def test_no_cost_no_front(make_store: Make) -> None:
    assert "pareto" not in verdict_of(make_store()).to_json()
