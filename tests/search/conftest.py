"""Sweeps run as users run them: the command line in a process of its own, with its own HOME."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from raymae.results.store.store import Store
from raymae.spec.trial import TrialConfig

TIMEOUT_S = 600
ROOT = Path(__file__).parents[2]


@dataclass
class Sweep:
    """One sweep file in a temporary folder, and the processes that run it."""

    folder: Path
    text: str
    more: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "results" / "small")

    def command(self, *arguments: str) -> list[str]:
        (self.folder / "small.yaml").write_text(self.text)
        return [sys.executable, "-m", "raymae.cli", "sweep", "small.yaml", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RAYMAE_", "TUNE_"))}
        # niceness: of the clusters that tests start; an embedded Ray sees to it itself
        return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "RAYMAE_OFFLINE": "1", "RAY_worker_niceness": "0",
                "RAYMAE_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
                **self.more}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.started.append(subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))
        return self.started[-1]

    def close(self) -> None:
        """End what a failed test has left running."""
        for process in self.started:
            process.kill()
            process.wait()
            process.stdout.close()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, text=True, capture_output=True,
            timeout=TIMEOUT_S,
        )

    def wait_for(self, condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        """Poll until something has happened; fail with the output if the sweep ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if condition():
                return
            if process.poll() is not None:
                raise AssertionError(f"the sweep ended first: {process.stdout.read()}")
            time.sleep(0.05)
        process.kill()
        raise AssertionError(f"nothing happened in {TIMEOUT_S} s: {process.stdout.read()}")

    def processes(self) -> list[psutil.Process]:
        """Processes that carry this sweep's HOME: the driver, Ray's daemons, its workers."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.folder / "home") and process.pid != os.getpid():
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def checkpoints(self) -> list[Path]:
        return list((self.folder / "results" / "small" / "checkpoints").glob("*.pt"))

    def num_checkpoints(self) -> int:
        return len(self.checkpoints())

    def num_ended(self) -> int:
        return len(list((self.folder / "results" / "small" / "trials").glob("*.parquet")))


@contextmanager
def raylets(sweep: Sweep) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A cluster whose nodes come and go: its address, and what tells it to `add` or `kill` one."""
    sweep.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.search.raylets"], cwd=ROOT, env=sweep.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def tell(what: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{what}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    try:
        yield process.stdout.readline().strip(), tell
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


SMALL = """
name: small
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [mae, scratch, persistence]
space:
  lr: {loguniform: [1e-3, 1e-2]}
search: {num_trials: 2, scheduler: none}
training: {epochs: 4, pretrain_epochs: 2}
replicates: 2
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path, SMALL)
    yield sweep
    sweep.close()


def check_complete(store: Store) -> None:
    """No completed trial lost, none duplicated, every report there exactly once: from the Parquet itself."""
    spec, trials, reports = store.spec(), store.trials(), store.reports()
    assert not trials["trial_id"].duplicated().any()
    for arm in ("mae", "scratch"):
        mine = trials[trials["arm"] == arm]
        assert (mine["stage"] == "search").sum() == spec.search.num_trials
        assert (mine["stage"] == "replicate").sum() == spec.replicates
    assert (trials["arm"] == "persistence").sum() == 2
    assert not reports.duplicated(["trial_id", "step"]).any()
    for trial_id, mine in reports.groupby("trial_id"):
        row = trials[trials["trial_id"] == trial_id].iloc[0]
        if row["status"] != "completed":
            continue
        assert sorted(mine["step"]) == list(range(len(mine)))
        expected = 2 if row["stage"] == "pretrain" else 1 if row["arm"] == "persistence" else 4
        assert len(mine) == expected + (row["stage"] == "replicate")
    made = trials[trials["stage"] == "pretrain"]
    assert not made["encoder_id"].duplicated().any(), "an encoder is made once"
    assert set(made["encoder_id"]) == set(trials["encoder_id"].dropna())
    assert set(store.configs()) == set(trials["trial_id"])
    verdict = store.verdict()
    assert verdict is not None
    assert verdict["complete"]


def check_long(sweep: Sweep, most_again: int = 0) -> list[int]:
    """The one trial of `odd_task.LONG`, which two processes have trained inside its first epoch, is what one would have
    made of it. Returns how many batches each has trained.

    Args:
        sweep: The sweep, which has ended.
        most_again: Batches that may have been trained twice.
    """
    from raymae.train import run_trial

    [trial] = sweep.store.trials().to_dict("records")
    assert (trial["status"], trial["attempt"]) == ("completed", 1)
    reports = sweep.store.reports().sort_values("step")
    assert list(zip(reports["step"], reports["attempt"], strict=True)) == [(0, 1), (1, 1)]
    config = TrialConfig.from_json(sweep.store.configs()[trial["trial_id"]])
    alone: list[int] = []
    *_, alive = run_trial(replace(config, params={**config.params, "mishap": "none"}),
                          watch=lambda batches, state: alone.append(batches))
    assert trial["val_mse"] == pytest.approx(alive.best["val_mse"], rel=1e-6), "nothing that happened changes it"
    processes = (sweep.folder / "scene.batches").read_text().split()
    assert len(alone) <= len(processes) <= len(alone) + most_again
    counts = [processes.count(process) for process in dict.fromkeys(processes)]
    assert len(counts) == 2
    assert counts[0] < max(alone), "inside the first epoch"
    return counts
