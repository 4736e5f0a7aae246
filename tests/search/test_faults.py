"""Things that go wrong in workers, caused for real; and what can be done with a sweep afterwards."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from raymae.spec.trial import TrialConfig
from raymae.train import run_trial
from tests.search.conftest import TIMEOUT_S, Sweep, check_complete, check_long, raylets
from tests.search.odd_task import LATE, LONG

ROOT = Path(__file__).parents[2]

ODD = """
name: small
task: tests.search.odd_task:Odd
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
settings: {scene: SCENE}
arms: [scratch]
space: {mishap: {choice: [none, hang, raise, die, die-once, unreadable]}}
search: {algorithm: grid, scheduler: none}
training: {epochs: 3}
replicates: 1
resources: {report_timeout_s: 45, recycle_after: 1}
"""


def raymae(small: Sweep, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raymae.cli", *arguments], cwd=small.folder, env=small.environment, text=True,
        capture_output=True, timeout=TIMEOUT_S,
    )


@pytest.mark.slow
def test_a_trial_that_hangs_raises_or_dies_fails_with_its_reason_and_no_other_is_harmed(small):
    small.text = ODD.replace("SCENE", str(small.folder / "scene"))
    done = small.run()
    assert done.returncode == 0, done.stderr
    trials = small.store.trials().set_index("mishap")
    search = trials[trials["stage"] == "search"]
    assert dict(search["status"]) == {"none": "completed", "hang": "failed", "raise": "failed", "die": "failed",
                                      "die-once": "completed", "unreadable": "failed"}
    assert "no report for 45 s" in search.loc["hang", "error"]
    assert search.loc["raise", "error"] == "RuntimeError: boom"
    assert search.loc["unreadable", "error"] == "OSError: [Errno 5] Input/output error: 'ETTh1.csv'"
    assert "died 3 times" in search.loc["die", "error"]
    assert search.loc["die-once", "attempt"] == 1
    reports = small.store.reports()
    once = reports[reports["trial_id"] == search.loc["die-once", "trial_id"]]
    assert sorted(once["step"]) == [0, 1, 2], "the reports before the death are kept, none is repeated"
    assert list(once.sort_values("step")["attempt"]) == [0, 1, 1], "only what was not reported is trained again"
    config = TrialConfig.from_json(small.store.configs()[search.loc["die-once", "trial_id"]])
    *_, alive = run_trial(replace(config, params={**config.params, "mishap": "none"}))
    assert search.loc["die-once", "val_mse"] == pytest.approx(alive.best["val_mse"], rel=1e-6), "dying changes nothing"
    replicate = small.store.trials().query("stage == 'replicate'")
    assert list(replicate["status"]) == ["completed"]
    assert replicate["pid"].iloc[0] != search.loc["none", "pid"], "workers are replaced after recycle_after trials"


@pytest.mark.slow
def test_a_trial_that_dies_inside_a_long_epoch_goes_on_inside_it(small):
    small.text = LONG.replace("SCENE", str(small.folder / "scene")).replace("MISHAP", "slow-die")
    done = small.run()
    assert done.returncode == 0, done.stderr
    first, second = check_long(small, most_again=LATE - 10)
    assert first == LATE, "it died before its first report"
    assert second > LATE, "and long before its end"


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_inside_a_long_epoch_goes_on_inside_it(small):
    small.text = LONG.replace("SCENE", str(small.folder / "scene")).replace("MISHAP", "slow")
    small.text = small.text.replace("checkpoint_minutes: 0.001", "checkpoint_minutes: 10")
    batches = small.folder / "scene.batches"
    process = small.start()
    small.wait_for(lambda: batches.exists() and len(batches.read_text().split()) >= 20, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    assert small.num_checkpoints() == 1
    assert not len(small.store.reports()), "it did not wait for the epoch's end"
    assert small.run().returncode == 0
    check_long(small)


@pytest.mark.slow
def test_a_worker_killed_for_its_memory_fails_its_trial_and_no_other(small):
    memory = psutil.virtual_memory()
    if memory.available < 12e9:
        pytest.skip(f"needs 12 GB of free memory, there are {memory.available / 1e9:.0f}")
    mishaps = "none, hang, raise, die, die-once, unreadable"
    small.text = ODD.replace("SCENE", "nowhere").replace(mishaps, "none, greedy").replace("_s: 45", "_s: 200")
    limit = (memory.total - memory.available + 7e9) / memory.total
    small.more = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    done = small.run()
    assert done.returncode == 0, done.stderr
    search = small.store.trials().query("stage == 'search'").set_index("mishap")
    assert dict(search["status"]) == {"none": "completed", "greedy": "failed"}
    assert "out of memory" in search.loc["greedy", "error"]
    assert list(small.store.trials().query("stage == 'replicate'")["status"]) == ["completed"]


@pytest.fixture
def small_disk(small):
    """Results on a file system of a few megabytes."""
    where = small.folder / "results"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(where)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_no_trial_once_there_is_room_again(small, small_disk):
    process = small.start()
    small.wait_for(lambda: small.num_ended() >= 1, process)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    output = ""
    while "No space left on device" not in output.replace("\n", " "):
        output += process.stdout.readline() or pytest.fail(output)
    time.sleep(3)  # the sweep may end meanwhile: what it holds must be in its verdict all the same
    still_there = process.poll() is None
    ballast.unlink()
    rest, _ = process.communicate(timeout=TIMEOUT_S)
    output += rest
    assert still_there, "it goes on with what it has in memory"
    assert process.returncode == 0, output
    assert "Traceback" not in output
    check_complete(small.store)
    assert set(small.store.trials()["status"]) == {"completed"}


@pytest.mark.slow
def test_a_node_that_vanishes_costs_no_trial(small):
    small.text = small.text.replace("epochs: 4", "epochs: 4, batch_size: 8")
    with raylets(small) as (address, tell):
        tell("add")
        tell("add")
        process = small.start("--address", address)
        small.wait_for(lambda: small.num_ended() >= 2 and small.num_checkpoints() >= 2, process)
        tell("kill")
        time.sleep(5)
        tell("add")
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, output
        check_complete(small.store)
        trials = small.store.trials()
        assert set(trials["status"]) == {"completed"}
        assert trials["attempt"].max() >= 1, "somebody was on that node"


@pytest.mark.slow
def test_a_population_that_is_killed_goes_on(small):
    small.text = small.text.replace("scheduler: none", "scheduler: pbt, grace_epochs: 1").replace(
        "num_trials: 2", "num_trials: 6").replace("arms: [mae, scratch, persistence]", "arms: [mae, scratch]").replace(
        "epochs: 4", "epochs: 4, batch_size: 64")
    process = small.start()
    small.wait_for(lambda: "stopped" in _statuses(small), process)
    process.kill()
    process.communicate()
    done = small.run()
    assert done.returncode == 0, done.stderr
    trials, reports = small.store.trials(), small.store.reports()
    children = trials[trials["parent"].notna()]
    assert len(children) == (trials["status"] == "stopped").sum() > 0
    assert ((trials["stage"] == "search") & (trials["status"] == "completed")).sum() == 12
    assert not trials["trial_id"].duplicated().any()
    assert not reports.duplicated(["trial_id", "step"]).any()
    for child in children.itertuples():
        epoch = int(child.parent.partition("@")[2])
        mine = reports[(reports["trial_id"] == child.trial_id) & (reports["phase"] == "finetune")]
        assert min(mine["epoch"]) == epoch + 1, "it goes on from its parent"
    assert small.num_checkpoints() == 0


def _statuses(small):
    from raymae.errors import RayMAEError

    with contextlib.suppress(RayMAEError):
        return set(small.store.trials()["status"])
    return set()


@pytest.mark.slow
def test_two_workers_a_trial_train_the_same_as_one(small):
    small.text = small.text.replace("arms: [mae, scratch, persistence]", "arms: [linear, mae]").replace(
        "replicates: 2", "replicates: 0").replace("num_trials: 2", "num_trials: 1")
    one = small.run("--set", "results=one")
    two = small.run("--set", "results=two", "--set", "resources.workers=2", "--set", "resources.cpus_per_worker=0.5")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    small_one, small_two = (_trials(small, name) for name in ("one", "two"))
    assert small_two.loc["linear", "val_mse"] == pytest.approx(small_one.loc["linear", "val_mse"], rel=1e-4)
    assert small_two.loc["mae", "val_mse"] == pytest.approx(small_one.loc["mae", "val_mse"], rel=0.5)


def _trials(small, name):
    from raymae.results.store.store import Store

    trials = Store.open(small.folder / name / "small").trials()
    return trials[trials["stage"] == "search"].set_index("arm")


@pytest.mark.slow
def test_a_finished_sweep_can_be_extended_and_forked_and_its_failed_trials_retried(small):
    small.text = small.text.replace("lr: {loguniform: [1e-3, 1e-2]}", "lr: {choice: [1e-3, 2e-3, 1e30]}").replace(
        "arms: [mae, scratch, persistence]", "arms: [scratch]").replace("num_trials: 2", "num_trials: 2, seed: 4")
    assert small.run().returncode == 0
    before = small.store.trials()

    done = raymae(small, "extend", "results/small", "--num-trials", "5", "--json")
    assert done.returncode == 0, done.stderr
    after = small.store.trials()
    assert (after["stage"] == "search").sum() == 5
    assert set(before["trial_id"]) <= set(after["trial_id"])
    assert json.loads(done.stdout)["verdict"]["arms"][0]["n"] == 2
    fewer = raymae(small, "extend", "results/small", "--num-trials", "2")
    assert fewer.returncode == 2
    assert "has 5 trials" in fewer.stderr

    done = raymae(small, "fork", "results/small", "other", "--set", "space.lr={choice: [1e-3, 2e-3]}")
    assert done.returncode == 0, done.stderr
    learned = (before["stage"] == "search").sum() + 3 - (after["lr"] == 1e30).sum()
    assert f"warm start: {learned} trials" in done.stderr, "only what lies in the new space counts"

    failed = after[after["status"] == "failed"]
    assert len(failed), "seed 4 draws 1e30 at least once"
    done = raymae(small, "retry", "results/small", "--failed")
    assert done.returncode == 0, done.stderr
    trials = small.store.trials()
    for trial_id in failed["trial_id"]:
        both = trials[trials["trial_id"] == trial_id].sort_values("attempt")
        assert list(both["attempt"]) == [0, 1]
        assert both["config_id"].nunique() == 1
        assert both["seed"].nunique() == 1


@pytest.mark.slow
def test_a_sweep_on_s3_is_killed_and_goes_on(small, s3_endpoint, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    from raymae.results.store.store import Store

    where = f"s3://bucket/{small.folder.name}"
    process = small.start("--set", f"results={where}")
    while process.poll() is None and "completed" not in process.stdout.readline():
        pass
    process.kill()
    process.communicate()
    done = small.run("--set", f"results={where}")
    assert done.returncode == 0, done.stderr
    assert "continuing:" in done.stderr
    check_complete(Store.open(f"{where}/small"))
    shown = raymae(small, "query", f"{where}/small", "SELECT count(*) AS n FROM trials", "--json")
    assert json.loads(shown.stdout) == [{"n": 10}]


@pytest.mark.slow
def test_killed_at_twenty_random_moments_nothing_is_lost_or_repeated(small):
    import random

    generator = random.Random(0)
    small.text = small.text.replace("num_trials: 2", "num_trials: 6").replace("epochs: 4", "epochs: 4, batch_size: 64")
    kills = 0
    while kills < 20:
        process = small.start()
        try:
            process.communicate(timeout=generator.uniform(8, 30))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0
            break
    done = small.run()
    assert done.returncode == 0, done.stderr
    check_complete(small.store)
