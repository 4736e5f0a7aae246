"""Whole sweeps on an embedded Ray, from the command line to the verdict."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.search.conftest import check_complete


def test_a_sweep_runs_from_file_to_verdict_and_a_second_run_has_nothing_to_do(small):
    done = small.run()
    assert done.returncode == 0, done.stderr
    store = small.store
    check_complete(store)

    trials = store.trials()
    assert set(trials["status"]) == {"completed"}
    assert set(trials["data_source"]) == {"synthetic"}
    assert "SYNTHETIC" in done.stderr
    assert "SYNTHETIC" in done.stdout
    assert trials[trials["stage"] == "search"]["test_mse"].isna().all(), "the test split is scored by replicates only"
    assert trials[trials["stage"] == "replicate"]["test_mse"].notna().all()
    assert trials.groupby("arm")["pretext_skill"].agg(lambda skill: skill.notna().all()).to_dict() == {
        "mae": True, "scratch": False, "persistence": False}
    verdict = store.verdict()
    assert (verdict["pairs"][0]["a"], verdict["pairs"][0]["b"]) == ("mae", "scratch")
    assert {arm["arm"]: arm["n"] for arm in verdict["arms"]} == {"mae": 2, "scratch": 2, "persistence": 1}
    assert store.environment()["versions"]["ray"]

    assert "dashboard http://127.0.0.1:" in done.stderr
    chatter = ("WARNING", "ray.", "Traceback", "raylet", "FutureWarning")
    assert not [word for word in chatter if word in done.stderr + done.stdout], done.stderr
    token = small.folder / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0, "Ray's token is for its owner only"
    assert small.num_checkpoints() == 0, "an ended trial keeps no checkpoint"
    assert not _left_over(small), "no process is left behind"

    state = store.state()
    assert (state["state"], state["running"], state["error"]) == ("ended", [], None)
    assert sum(sum(arm.values()) for arm in state["planned"].values()) == (trials["stage"] != "pretrain").sum()
    events = small.folder / "results" / "small" / "tensorboard"
    assert {folder.name for folder in events.iterdir() if folder.is_dir()} == set(trials["trial_id"])
    curve = EventAccumulator(str(events / "mae-0000")).Reload().Scalars("val/mse")
    reports = store.reports().query("trial_id == 'mae-0000' and phase == 'finetune'").sort_values("step")
    assert [one.step for one in curve] == list(reports["step"])
    assert [one.value for one in curve] == pytest.approx(list(reports["val_mse"]), rel=1e-6)

    started = time.monotonic()
    again = small.run("--json")
    assert again.returncode == 0
    assert "starting Ray" not in again.stderr
    assert time.monotonic() - started < 60
    assert json.loads(again.stdout)["verdict"]["pairs"] == verdict["pairs"]
    assert len(small.store.trials()) == len(trials)

    other = small.run("--set", "training.epochs=3")
    assert other.returncode == 1
    assert "training.epochs" in other.stderr
    assert "4" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_killed_sweep_goes_on_and_repeats_nothing_even_with_a_damaged_checkpoint(small):
    process = small.start()
    small.wait_for(lambda: small.num_ended() >= 2 and small.num_checkpoints() >= 1, process)
    process.kill()
    process.communicate()
    for damaged in list(small.checkpoints())[:1]:
        damaged.write_bytes(damaged.read_bytes()[:1000])
    ended = {row.trial_id: row.ended_at for row in small.store.trials().itertuples()}
    _wait_until_gone(small)
    done = small.run()
    assert done.returncode == 0, done.stderr
    check_complete(small.store)
    after = {row.trial_id: row.ended_at for row in small.store.trials().itertuples()}
    assert {name: after[name] for name in ended} == ended, "what had ended was not run again"


def test_a_killed_worker_costs_no_trial_and_one_that_fails_is_recorded_with_its_reason(small):
    small.text = small.text.replace("lr: {loguniform: [1e-3, 1e-2]}", "lr: {choice: [1e-3, 1e30]}").replace(
        "num_trials: 2", "num_trials: 2, algorithm: grid").replace("epochs: 4", "epochs: 4, eval_every: 1")
    process = small.start()
    small.wait_for(lambda: small.num_checkpoints() >= 1, process)
    workers = [p for p in small.processes() if "RayTrainWorker" in " ".join(p.cmdline())]
    assert workers
    workers[0].send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    check_complete(small.store)
    trials = small.store.trials()
    failed = trials[trials["status"] == "failed"]
    assert set(failed["lr"]) == {1e30}, "the trial of the killed worker is not among them"
    assert len(failed) == 2
    assert failed["error"].str.contains("lower").all()
    assert set(trials[trials["lr"] != 1e30]["status"]) == {"completed"}


@pytest.mark.slow
def test_a_killed_keeper_of_slots_fails_the_trials_under_way_and_the_sweep_goes_on(small):
    process = small.start()
    small.wait_for(lambda: small.num_checkpoints() >= 1, process)
    # a process of Ray is called by what it does: the keeper's waits for a trial's next report
    keepers = [p for p in small.processes() if re.match(r"ray::(\w+: \S+-0000|Keeper)", " ".join(p.cmdline()))]
    assert len(keepers) == 1
    keepers[0].send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    check_complete(small.store)
    failed = small.store.trials().query("status == 'failed'")
    died = "the process that ran the trial died"
    assert 1 <= failed["error"].str.startswith(died).sum() <= 2, "one in each slot"
    assert failed["error"].str.contains(died).all(), "and what needs the encoder of one of them"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_once_it_ends_with_the_verdict_so_far_and_can_go_on(small, number):
    process = small.start()
    small.wait_for(lambda: small.num_ended() >= 2, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output
    assert small.store.verdict() is not None
    assert not small.store.verdict()["complete"]
    if number == signal.SIGINT:
        done = small.run()
        assert done.returncode == 0, done.stderr
        check_complete(small.store)


@pytest.mark.slow
def test_interrupted_before_a_trial_has_ended_it_is_no_failure(small):
    """Whoever starts it again by its exit code, as a job of Slurm's does, would give it up."""
    small.text = small.text.replace("epochs: 4, pretrain_epochs: 2", "epochs: 400, pretrain_epochs: 400")
    process = small.start()
    small.wait_for(lambda: small.num_checkpoints() >= 1, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert not (small.store.trials()["status"] == "completed").any()


@pytest.mark.slow
def test_interrupted_twice_it_ends_at_once(small):
    process = small.start()
    small.wait_for(lambda: small.num_ended() >= 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - started < 20
    _wait_until_gone(small)


def _left_over(small) -> list[str]:
    """What is still there of a sweep that has ended or was killed, after waiting for it to go.

    The server from which Ray's dashboard forks imports all that it forks before it looks whether its parent is alive:
    on a busy machine that took longer than 20 s.
    """
    deadline = time.monotonic() + 120
    while (left := small.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(p.cmdline())[:80] for p in left if p.is_running()]


def _wait_until_gone(small) -> None:
    left = _left_over(small)
    assert not left, left
