"""A sweep with factors as users run it, on Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

import pytest

from .conftest import TIMEOUT_S, Sweep


@pytest.mark.slow
def test_a_sweep_with_factors_ends_with_an_answer_in_every_cell(small: Sweep) -> None:
    small.text += "factors: {label_fraction: [0.25, 1]}\n"
    ran = small.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = small.store
    verdict = store.verdict()
    assert verdict is not None
    assert verdict["complete"]
    assert [cell["cell"] for cell in verdict["cells"]] == [{"label_fraction": 0.25}, {"label_fraction": 1}]
    trials = store.trials()
    counts = Counter((row["arm"], row["stage"], row["label_fraction"]) for row in trials.to_dict("records")
                     if row["arm"] != "persistence" and row["stage"] != "pretrain")
    assert set(counts.values()) == {2}
    assert len(counts) == 2 * 2 * 2
    made = trials[trials["stage"] == "pretrain"]
    assert not made["encoder_id"].duplicated().any()
    assert len(made) == 2 + 2, "cells share the encoders of the search and of the replicates"
    assert "in every cell" in ran.stdout.lower()


@pytest.mark.slow
def test_a_bisected_factor_opens_cells_while_it_runs(small: Sweep) -> None:
    small.text += "factors: {label_fraction: {bisect: [0.25, 1], cells: 3}}\nfair: {by: steps}\n"
    ran = small.run("--set", "search.at={label_fraction: 0.25}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = small.store
    verdict, opened = store.verdict(), store.manifest.opened
    assert verdict is not None
    assert verdict["complete"]
    assert len(verdict["cells"]) == 2 + len(opened)
    assert opened == (() if verdict["place"]["changes"] == 0 else (0.625,)), "by the sign, whatever it is here"
    assert not store.trials()["trial_id"].duplicated().any()
    again = small.run("--set", "search.at={label_fraction: 0.25}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "opens a cell" not in again.stdout + again.stderr
    assert store.verdict() == verdict


CHANGES = """
name: small
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [mae, persistence]
factors: {lr: {bisect: [1.0e-6, 2.0e-3], cells: 3}}
space: {weight_decay: {choice: [0.0, 0.05]}}
search: {num_trials: 2, algorithm: grid, scheduler: none, finalists: 2, finalist_seeds: 1, at: {lr: 2.0e-3}}
training: {epochs: 2, pretrain_epochs: 1, label_fraction: 0.2}
replicates: 2
margin: 1.0e-5
"""


@pytest.mark.slow
def test_a_bisection_with_finals_is_interrupted_continued_and_given_more_cells(small: Sweep) -> None:
    """What has learned nothing is as good as the last value, from which its network starts, and what has learned is
    better by more than the margin."""
    small.text = CHANGES
    process = small.start()
    small.wait_for(lambda: small.num_ended() > 0 and bool(small.store.manifest.opened), process)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, told
    assert "opens a cell: lr 4.47e-05" in told
    assert small.store.manifest.opened == (4.47e-05,)
    before = small.store.trials()

    ran = small.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = small.store
    verdict, trials = store.verdict(), store.trials()
    assert verdict is not None
    assert verdict["complete"]
    assert (verdict["place"]["a"], verdict["place"]["changes"], verdict["place"]["end"]) == ("mae", 1, "cells")
    assert "bisected: 3 of at most 3 cells" in " ".join(ran.stdout.lower().split())
    assert set(before["trial_id"]) <= set(trials["trial_id"])
    assert not trials["trial_id"].duplicated().any()
    counts = Counter((row["stage"], row["lr"]) for row in trials.to_dict("records") if row["arm"] == "mae")
    assert counts["search", 0.002] == counts["final", 0.002] == 2
    assert [counts["replicate", value] for value in (1e-6, 4.47e-05, 0.002)] == [2, 2, 2]
    assert counts["search", 4.47e-05] == counts["final", 4.47e-05] == 0, "one cell is searched for all"
    made = trials[trials["stage"] == "pretrain"]
    assert len(made) == 2 + 1 + 2, "of the search, the finals and the replicates; no cell makes its own"

    longer = subprocess.run(
        [sys.executable, "-m", "raymae.cli", "extend", "results/small", "--cells", "4"], text=True,
        cwd=small.folder, env=small.environment, capture_output=True, timeout=TIMEOUT_S)
    assert longer.returncode == 0, longer.stderr
    verdict = small.store.verdict()
    assert verdict is not None
    assert (len(verdict["cells"]), verdict["rule"]["looked_before"]) == (4, True)
    assert len(small.store.trials()) == len(trials) + 2
