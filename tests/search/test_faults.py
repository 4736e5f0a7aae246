"""Things that go wrong in workers, caused for real; and what can be done with a sweep afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.conftest import TIMEOUT_S, Sweep, check_complete

ROOT = Path(__file__).parents[2]

ODD = """
name: small
task: tests.search.odd_task:Odd
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
settings: {scene: SCENE}
arms: [scratch]
space: {mishap: {choice: [none, hang, raise, die, die-once]}}
search: {algorithm: grid, scheduler: none}
training: {epochs: 3}
replicates: 1
resources: {report_timeout_s: 8, recycle_after: 1}
"""


def raymae(small: Sweep, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raymae.cli", *arguments], cwd=small.folder, env=small.environment, text=True,
        capture_output=True, timeout=TIMEOUT_S,
    )


def test_a_trial_that_hangs_raises_or_dies_fails_with_its_reason_and_no_other_is_harmed(small):
    small.text = ODD.replace("SCENE", str(small.folder / "scene"))
    done = small.run()
    assert done.returncode == 0, done.stderr
    trials = small.store.trials().set_index("mishap")
    search = trials[trials["stage"] == "search"]
    assert dict(search["status"]) == {"none": "completed", "hang": "failed", "raise": "failed", "die": "failed",
                                      "die-once": "completed"}
    assert "no report for 8 s" in search.loc["hang", "error"]
    assert search.loc["raise", "error"] == "RuntimeError: boom"
    assert "died 3 times" in search.loc["die", "error"]
    assert search.loc["die-once", "attempt"] == 1
    reports = small.store.reports()
    once = reports[reports["trial_id"] == search.loc["die-once", "trial_id"]]
    assert sorted(once["step"]) == [0, 1, 2], "the reports before the death are kept, none is repeated"
    assert list(once.sort_values("step")["attempt"]) == [0, 1, 1], "only what was not reported is trained again"
    assert search.loc["die-once", "val_mse"] == search.loc["none", "val_mse"], "dying changes no result"
    replicate = small.store.trials().query("stage == 'replicate'")
    assert list(replicate["status"]) == ["completed"]
    assert replicate["pid"].iloc[0] != search.loc["none", "pid"], "workers are replaced after recycle_after trials"


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
    from raymae.results.store import Store

    return Store.open(small.folder / name / "small").trials().set_index("arm")


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


def test_a_sweep_on_s3_is_killed_and_goes_on(small, s3_endpoint, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    from raymae.results.store import Store

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
