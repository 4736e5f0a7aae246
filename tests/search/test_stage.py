"""Pretraining as a stage of whole sweeps: killed in its middle, shared by two sweeps at once, damaged on disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.search.conftest import TIMEOUT_S, check_complete, raylets

LONG = "pretrain_epochs: 2"


@pytest.fixture
def pretraining(small):
    """A sweep whose pretrainings take seconds: somebody can be killed in their middle."""
    small.text = small.text.replace(LONG, "pretrain_epochs: 40, pretrain_eval_every: 20").replace(
        "num_trials: 2", "num_trials: 2, finetunes_per_encoder: 2")
    return small


def is_pretraining(sweep):
    """Whether a pretraining has reported once, and goes on."""
    return any("-encoder-" in path.name for path in sweep.checkpoints())


@pytest.mark.slow
@pytest.mark.parametrize("who", ["driver", "worker"])
def test_killed_in_the_middle_of_a_pretraining_it_goes_on_from_there(pretraining, who):
    process = pretraining.start()
    pretraining.wait_for(lambda: is_pretraining(pretraining), process)
    if who == "driver":
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 60
        while pretraining.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        process = pretraining.start()
    else:
        for one in pretraining.processes():
            if "RayTrainWorker" in " ".join(one.cmdline()):
                one.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    trials = pretraining.store.trials()
    check_complete(pretraining.store)
    made = trials[trials["stage"] == "pretrain"]
    assert made["attempt"].max() == 1, "somebody was in its middle"
    reports = pretraining.store.reports()
    assert sorted(reports[reports["trial_id"] == made.iloc[0]["trial_id"]]["epoch"]) == [20, 40]
    assert set(trials["status"]) == {"completed"}


@pytest.mark.slow
def test_a_node_that_vanishes_in_the_middle_of_a_pretraining_costs_no_trial(pretraining):
    with raylets(pretraining) as (address, tell):
        tell("add")
        process = pretraining.start("--address", address)
        pretraining.wait_for(lambda: is_pretraining(pretraining), process)
        tell("kill")
        time.sleep(5)
        tell("add")
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, output
        check_complete(pretraining.store)
        assert set(pretraining.store.trials()["status"]) == {"completed"}


@pytest.mark.slow
def test_a_truncated_encoder_is_said_and_made_again(pretraining):
    assert pretraining.run("--set", "replicates=0").returncode == 0
    [weights] = (pretraining.folder / "results" / "small" / "encoders").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    done = subprocess.run(
        [sys.executable, "-m", "raymae.cli", "extend", "results/small", "--num-trials", "3"], text=True,
        cwd=pretraining.folder, env=pretraining.environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    trials = pretraining.store.trials()
    assert (trials[trials["arm"] == "mae"]["stage"] == "search").sum() == 3
    assert set(trials["status"]) == {"completed"}
    if trials[trials["stage"] == "search"]["encoder_id"].nunique() == 1:  # the third started from the damaged one
        assert "damaged" in done.stderr
        assert "the encoder is made again" in done.stderr
        assert weights.read_bytes() == whole


@pytest.mark.slow
def test_two_sweeps_at_once_share_a_shelf_and_make_each_encoder_once(pretraining):
    shelf = pretraining.folder / "shelf"
    options = ["--set", f"encoders={shelf}", "--set", "search.algorithm=random", "--set", "search.max_concurrent=1"]
    started = [pretraining.start("--set", f"name={name}", *options) for name in ("one", "two")]
    for process in started:
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, output
    from raymae.results.store.store import Store

    tables = [Store.open(pretraining.folder / "results" / name).trials() for name in ("one", "two")]
    made = [name for table in tables for name in table[table["stage"] == "pretrain"]["encoder_id"]]
    assert sorted(made) == sorted(path.stem for path in shelf.glob("*.json"))
    assert not list(shelf.glob("*.claim")), "claims are given back"
    assert all(set(table["status"]) == {"completed"} for table in tables)
