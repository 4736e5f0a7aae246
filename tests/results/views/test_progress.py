"""What a follower says about a sweep, from its folder alone, while it is written by somebody else."""

from __future__ import annotations

import datetime as dt
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_task import DATA, ENVIRONMENT, report, tiny_schema, tiny_spec, trial

from raymae.cli import main
from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.store.parts import Parts
from raymae.results.verdict.verdict import TrialCounts
from raymae.results.views.follower import Follower
from raymae.results.views.progress import DriverState, Failure, Progress
from raymae.spec import Arm

PLANNED = {"mae": {"search": 3, "replicates": 2}, "scratch": {"search": 3, "replicates": 2},
           "gru": {"search": 3, "replicates": 2}, "persistence": {"search": 1, "replicates": 1}}
ROOT = Path(__file__).parents[3]


def state(word: str = "running", age_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    return {"state": word, "time": now.isoformat(), "started_at": now.isoformat(), "host": "elsewhere", "pid": 1,
            "every_s": 5.0, "dashboard": "http://127.0.0.1:8265", "slots": 2, "elapsed_s": 10.0, "left_s": 20.0,
            "planned": PLANNED, "running": [], "error": None, **changes}


RUNNING = {"trial_id": "mae-1", "arm": "mae", "stage": "search", "attempt": 0, "phase": "finetune", "epoch": 2,
           "epochs": 4, "wall_s": 3.0, "best": 0.5}


def test_without_a_driver_a_reference_is_taken_to_search_what_names_it(make_store):
    space = {"max_rounds": {"int": [2, 6], "when": {"arm": ["forest"]}}, "lr": {"loguniform": [1e-4, 1e-2]}}
    arms = {"mae": Arm("pretrained", ""), "forest": Arm("reference", "", stochastic=True), "mean": Arm("reference", "")}
    store = make_store(spec=tiny_spec(arms=list(arms), space=space, search={"num_trials": 4}, replicates=3),
                       schema=tiny_schema(arms=arms, primary=None))
    assert {arm.arm: (arm.search.planned, arm.replicates.planned) for arm in Follower(store.root).look().arms} == {
        "mae": (4, 3), "forest": (4, 3), "mean": (1, 1)}


def test_it_counts_what_ended_and_names_what_runs(make_store):
    store = make_store()
    follower = Follower(store.root)
    store.write_state(state(running=[RUNNING]))
    seen = follower.look()
    assert (seen.state, seen.num_ended, seen.num_planned) == ("running", 0, 17)
    assert seen.headline.startswith("No verdict yet")
    store.add_report(report("mae-0", 0))
    store.add_trial(trial("mae-0", val_mse=0.25))
    store.add_trial(trial("scratch-0", "scratch", status="stopped"))
    store.add_trial(trial("scratch-1", "scratch", status="failed", error="NaN\nmore", val_mse=None))
    seen = follower.look()
    assert (seen.num_ended, seen.num_reports) == (3, 1)
    assert seen.num_trials == TrialCounts(1, 1, 1)
    arms = {arm.arm: arm for arm in seen.arms}
    assert (arms["mae"].search.done, arms["mae"].search.planned) == (1, 3)
    assert (arms["mae"].best, arms["scratch"].best) == (0.25, 0.5)
    assert arms["scratch"].search.done == 2
    assert arms["scratch"].search.statuses == {"completed": 0, "stopped": 1, "failed": 1}
    assert seen.failures == (Failure("scratch-1", "NaN\nmore"),)
    assert [one.trial_id for one in seen.running] == ["mae-1"]
    assert Progress.from_json(json.loads(json.dumps(seen.to_json(), allow_nan=False))) == seen
    later = {**state(running=[{**RUNNING, "later": 1}]), "later": 1}
    assert DriverState.from_json(later).to_json() == state(running=[RUNNING]) | {
        name: later[name] for name in ("time", "started_at")}


def test_a_trial_that_ended_since_the_sign_of_life_is_not_shown_as_running(make_store):
    store = make_store()
    store.write_state(state(running=[RUNNING, {**RUNNING, "trial_id": "mae-2", "attempt": 1}]))
    store.add_trial(trial("mae-1"))
    store.add_trial(trial("mae-2", status="failed", val_mse=None))  # attempt 0 failed, attempt 1 runs
    assert [one.trial_id for one in Follower(store.root).look().running] == ["mae-2"]


@pytest.mark.parametrize(("written", "word", "note"), [
    (None, "unknown", "no driver"), ({}, "running", ""), ({"dashboard": None}, "running", "starting Ray"),
    ({"word": "ended"}, "ended", ""), ({"word": "interrupted"}, "interrupted", "the same command goes on"),
    ({"word": "failed", "error": "disk on fire"}, "failed", "failed: disk on fire"),
    ({"age_s": 1200}, "lost", "no sign of life for 120"),
])
def test_states(make_store, written, word, note):
    store = make_store()
    if written is not None:
        store.write_state(state(**written))
    seen = Follower(store.root).look()
    assert seen.state == word
    assert note in seen.note
    assert bool(note) == bool(seen.note)
    assert word != "lost" or "(elsewhere, process 1)" in seen.note


def test_a_driver_whose_clock_is_behind_lives_if_it_is_seen_to_move(make_store):
    store = make_store()
    follower = Follower(store.root)
    store.write_state(state(age_s=3600))
    assert follower.look().state == "lost"
    store.write_state(state(age_s=3595))
    assert follower.look().state == "running"


def test_a_dead_driver_on_this_machine_is_known_at_once(make_store):
    store = make_store()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    store.write_state(state(host=os.uname().nodename, pid=child.pid))
    seen = Follower(store.root).look()
    assert seen.state == "lost"
    assert "is gone" in seen.note


def test_each_look_reads_only_new_parts_and_survives_compaction(make_store, monkeypatch):
    store = make_store()
    loaded: list[str] = []
    load = Parts._load
    monkeypatch.setattr(Parts, "_load", lambda self, files: loaded.extend(files) or load(self, files))
    for number in range(5):
        store.add_trial(trial(f"mae-{number}"))
    follower = Follower(store.root)
    assert follower.look().num_ended == 5
    loaded.clear()
    store.add_trial(trial("mae-5"))
    assert follower.look().num_ended == 6
    assert len(loaded) == 1
    loaded.clear()
    assert follower.look().num_ended == 6
    assert loaded == []
    store.compact()
    store.add_trial(trial("mae-6"))
    assert follower.look().num_ended == 7
    fresh = make_store(fresh=True)
    fresh.add_trial(trial("mae-0"))
    assert follower.look().num_ended == 1


def test_it_follows_an_extended_sweep(make_store):
    store = make_store()
    follower = Follower(store.root)
    planned = follower.look().num_planned
    spec = tiny_spec()
    more = spec.model_copy(update={"search": spec.search.model_copy(update={"num_trials": 100})})
    make_store(spec=more, extend=True)
    assert follower.look().num_planned > planned


# --- the command


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["watch", *arguments])


def test_once(make_store, tmp_path):
    store = make_store()
    store.write_state(state(running=[RUNNING]))
    store.add_trial(trial("mae-0", val_mse=0.25))
    done = run(str(store.root), "--once")
    assert done.exit_code == 0, done.output
    assert "mae-1 finetune 2/4" in done.stdout
    assert "1/17" in done.stdout
    seen = json.loads(run(str(store.root), "--once", "--json").stdout)
    assert seen["arms"][0]["best"] == 0.25
    done = run(str(tmp_path / "none"), "--once")
    assert done.exit_code == 1
    assert "no sweep here" in done.stderr
    assert "did you mean" in run(str(tmp_path / "etk"), "--once").stderr


def test_markup_in_an_error_is_text(make_store):
    store = make_store()
    store.add_trial(trial("mae-0", status="failed", val_mse=None, error="[bold]x[/nope] <script>"))
    done = run(str(store.root), "--once")
    assert "[bold]x[/nope] <script>" in done.stdout, done.output


def follow(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raymae.cli", "watch", str(root), "--every", "0.1", *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_it_waits_for_the_folder_follows_and_ends_with_the_sweep(tmp_path):
    root = tmp_path / "ett"
    watcher = follow(root, "--json")
    assert "no sweep here" in watcher.stderr.readline()
    assert "waiting for it to appear" in watcher.stderr.readline()
    with Store.create(root, tiny_spec(), tiny_schema(), environment=ENVIRONMENT, data=DATA) as store:
        store.write_state(state())
        while json.loads(line := watcher.stdout.readline())["state"] != "running":
            pass
        assert json.loads(line)["num_ended"] == 0
        store.add_trial(trial("mae-0"))
        assert json.loads(watcher.stdout.readline())["num_ended"] == 1
        store.write_state(state("ended"))
        out, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, err
    assert json.loads(out)["state"] == "ended"


def test_ctrl_c_ends_the_watching_cleanly(make_store):
    store = make_store()
    store.write_state(state())
    watcher = follow(Path(store.root))
    assert watcher.stdout.readline().startswith("ett running")
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 130
    assert "no longer watching" in out
    assert "Traceback" not in err


def read_until(terminal, wanted):
    shown, deadline = b"", time.monotonic() + 120
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"{wanted!r} was not shown: {shown!r}"
        shown += os.read(terminal, 4096)
    return shown


def test_on_a_terminal_a_panel_is_redrawn_and_ctrl_c_ends_it(make_store):
    store = make_store()
    store.write_state(state(running=[RUNNING]))
    ours, theirs = os.openpty()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "raymae.cli", "watch", str(store.root), "--every", "0.1"], stdin=theirs, stdout=theirs,
        stderr=theirs, env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    try:
        shown = read_until(ours, b"mae-1 finetune 2/4")
        store.add_trial(trial("mae-1"))
        shown += read_until(ours, b"1/17")
        watcher.send_signal(signal.SIGINT)
        shown += read_until(ours, b"no longer watching")
        assert watcher.wait(30) == 130
    finally:
        watcher.kill()
    os.close(ours)
    assert b"\x1b[2K" in shown, "lines are taken back"
    assert b"Traceback" not in shown


def test_a_folder_that_is_no_storage_location_is_refused():
    done = run("nope://x/y")
    assert done.exit_code == 1
    assert "not a usable storage location" in done.stderr


def test_a_vanished_sweep_is_an_error_for_the_follower(make_store):
    store = make_store()
    follower = Follower(store.root)
    (Path(store.root) / "sweep.json").unlink()
    with pytest.raises(ResultsError, match="no sweep here"):
        follower.look()


def test_on_s3(s3_endpoint, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true",
                        "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    root = f"s3://bucket/follow-{time.time_ns()}?region=us-east-1"
    with Store.create(root, tiny_spec(), tiny_schema(), environment=ENVIRONMENT, data=DATA) as store:
        store.write_state(state(running=[RUNNING]))
        store.add_trial(trial("mae-0", val_mse=0.25))
        follower = Follower(root)
        assert follower.look().num_ended == 1
        store.add_trial(trial("mae-2"))
        assert follower.look().num_ended == 2
        done = run(root, "--once")
        assert done.exit_code == 0, done.output
        assert "mae-1 finetune 2/4" in done.stdout
