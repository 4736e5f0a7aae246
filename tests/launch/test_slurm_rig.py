"""Sweeps under a real Slurm of two nodes on one machine: to the verdict, over a time limit, and ended by its user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.launch.slurm_rig import Rig, missing, slurm

SWEEP = """
name: {name}
task: forecasting
size: debug
data: {{name: ETTh1, if_unavailable: synthetic}}
arms: [mae, scratch, persistence]
space: {{lr: {{loguniform: [1e-3, 1e-2]}}}}
search: {{num_trials: {num_trials}, scheduler: none}}
training: {{epochs: {epochs}, pretrain_epochs: 2}}
replicates: 2
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="rig-"))  # pytest's own is too long for munge's socket
    folder.chmod(0o755)
    try:
        with slurm(folder) as started:
            yield started
        left = [process.name() for process in psutil.process_iter() if _of(process, folder)]
        assert not left
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("HOME") == str(folder / "home")
    except psutil.Error:
        return False


def nothing_is_lost_or_repeated(rig: Rig, name: str, num_trials: int) -> None:
    """Every trial once and completed, every report once, each encoder made once, and a complete verdict."""
    counts = rig.query(name, "SELECT arm, stage, count(*) AS n, count(DISTINCT trial_id) AS different, "
                       "min(status) AS first, max(status) AS last FROM trials GROUP BY arm, stage ORDER BY arm, stage")
    assert [row for row in counts if (row["first"], row["last"], row["n"]) !=
            ("completed", "completed", row["different"])] == []
    found = {(row["arm"], row["stage"]): row["n"] for row in counts if row["stage"] != "pretrain"}
    assert found == {("mae", "search"): num_trials, ("mae", "replicate"): 2, ("scratch", "search"): num_trials,
                     ("scratch", "replicate"): 2, ("persistence", "search"): 1, ("persistence", "replicate"): 1}
    reports = rig.store(name).reports()
    assert not reports.duplicated(["trial_id", "step"]).any()
    for trial_id, mine in reports.groupby("trial_id"):
        assert sorted(mine["step"]) == list(range(len(mine))), trial_id
    made = rig.store(name).trials().query("stage == 'pretrain'")
    assert not made["encoder_id"].duplicated().any()
    verdict = rig.store(name).verdict()
    assert verdict is not None
    assert verdict["complete"]


def test_a_sweep_runs_on_both_nodes_to_its_verdict(rig: Rig) -> None:
    job = rig.submit("short", SWEEP.format(name="short", num_trials=2, epochs=4), "--nodes", "2", "--time", "60")
    rig.wait_for(lambda: rig.ended(job), job)
    printed = rig.printed(job)
    assert rig.show(job)["JobState"] == "COMPLETED", printed
    assert rig.show(job)["ExitCode"] == "0:0"
    assert "Ray is up on 2 of 2 nodes" in printed
    assert "short  forecasting on ETTh1" in printed, "the verdict is in the job's output"
    nothing_is_lost_or_repeated(rig, "short", 2)
    rig.wait_for(lambda: not rig.left_behind(job), job)


def test_a_sweep_goes_on_after_its_time_limit(rig: Rig) -> None:
    """The limit is set once three trials are through, so that it falls amid the sweep however slow the machine is."""
    job = rig.submit("long", SWEEP.format(name="long", num_trials=8, epochs=40), "--nodes", "2", "--time", "60")
    rig.wait_for(lambda: len(list((rig.home / "results" / "long" / "trials").glob("*.parquet"))) >= 3, job)
    hours, minutes, _ = map(int, rig.show(job)["RunTime"].split(":"))
    rig.run("scontrol", "update", f"JobId={job}", f"TimeLimit={hours * 60 + minutes + 3}")  # notice two minutes before
    rig.wait_for(lambda: rig.show(job)["Restarts"] != "0" or rig.ended(job), job)
    printed = rig.printed(job)
    assert not rig.ended(job), printed
    assert "SIGUSR1: the sweep hands its trials back" in printed
    assert "the sweep goes on when Slurm starts the job again" in printed
    rig.wait_for(lambda: not rig.left_behind(job), job)
    first = rig.store("long")
    verdict = first.verdict()
    assert verdict is not None, f"the verdict so far is written: {printed}"
    assert not verdict["complete"]
    kept = first.trials().query("status == 'completed'").set_index("trial_id")
    assert 0 < len(kept) < 2 * (8 + 2) + 2
    reported = first.reports()
    rig.wait_for(lambda: rig.show(job)["JobState"] == "PENDING", job)
    rig.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")
    rig.wait_for(lambda: rig.ended(job), job)
    assert rig.show(job)["JobState"] == "COMPLETED", rig.printed(job)
    nothing_is_lost_or_repeated(rig, "long", 8)
    after = rig.store("long").trials().set_index("trial_id").loc[kept.index]
    assert after[kept.columns].equals(kept), "what had ended is as it was"
    again = rig.store("long").reports().merge(reported, on=list(reported.columns))
    assert len(again) == len(reported), "no report of the first run was lost or made again"


def test_a_sweep_that_its_user_ends_stays_ended(rig: Rig) -> None:
    text = SWEEP.format(name="ended", num_trials=8, epochs=30)
    job = rig.submit("ended", text, "--nodes", "2", "--time", "60")
    rig.wait_for(lambda: len(list((rig.home / "results" / "ended" / "trials").glob("*.parquet"))) >= 1, job)
    rig.run("scancel", "--batch", "--signal=INT", job)
    rig.wait_for(lambda: rig.ended(job), job)
    assert rig.show(job)["JobState"] == "FAILED"
    assert rig.show(job)["ExitCode"] == "130:0"
    assert rig.show(job)["Restarts"] == "0"
    verdict = rig.store("ended").verdict()
    assert verdict is not None
    assert not verdict["complete"]
    rig.wait_for(lambda: not rig.left_behind(job), job)
