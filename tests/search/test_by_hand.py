"""People act on a sweep that runs on an embedded Ray: a trial is stopped, a point is tried, and a kill forgets none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.search.conftest import TIMEOUT_S
from tests.search.test_sweep import _wait_until_gone as wait_until_gone

FOLDER = "results/small"


def ask(sweep, *words: str, code: int = 0) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-m", "raymae.cli", words[0], FOLDER, *words[1:], "--wait", "--json"],
                          cwd=sweep.folder, env=sweep.environment, text=True, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def running(sweep, stage: str) -> list[str]:
    state = sweep.folder / FOLDER / "state.json"
    found = json.loads(state.read_text())["running"] if state.exists() else []
    return [one["trial_id"] for one in found if one["stage"] == stage and one["phase"] == "finetune"]


@pytest.mark.slow
def test_a_trial_is_stopped_and_a_point_is_tried_also_after_a_kill(small):
    small.text = small.text.replace("num_trials: 2", "num_trials: 3").replace("epochs: 4", "epochs: 30")
    process = small.start()
    small.wait_for(lambda: bool(running(small, "search")), process)
    victim = running(small, "search")[0]
    stopped = ask(small, "stop-trial", victim)
    assert (stopped["status"], stopped["text"]) == ("applied", f"{victim} ends at its next report")
    added = ask(small, "add", "lr=2e-3")
    assert added["status"] == "applied", added
    small.wait_for(lambda: any((small.folder / FOLDER / "trials").glob("*.parquet")), process)
    process.kill()
    process.communicate()
    wait_until_gone(small)
    again = small.start()
    output = again.communicate(timeout=TIMEOUT_S)[0]
    assert again.returncode == 0, output
    trials = small.store.trials().set_index("trial_id")
    assert trials.loc[victim, "status"] == "stopped"
    assert trials.loc[victim, "stopped_by"] == stopped["by"]
    search = trials[trials["stage"] == "search"]
    tried = search[search["added_by"].notna()]
    assert sorted(tried["arm"]) == ["mae", "scratch"], "once in each arm that searches it"
    assert set(tried["lr"]) == {2e-3}
    assert (search["arm"].value_counts()[["mae", "scratch"]] == 3).all(), "arms keep equal numbers of trials"
    headline = small.store.verdict()["rule"]["note"]
    assert "by hand, points were added (mae 1, scratch 1) and trials were stopped" in headline
    late = subprocess.run([sys.executable, "-m", "raymae.cli", "stop-trial", FOLDER, victim], cwd=small.folder,
                          env=small.environment, text=True, capture_output=True, timeout=TIMEOUT_S)
    assert late.returncode == 1
    assert "no sweep runs here" in late.stderr
