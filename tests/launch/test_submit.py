"""Sweeps handed to a running cluster: a real head of `ray start` on loopback, with its own HOME, token and ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.launch.jobs import _copy_source
from raymae.results.store.store import Store
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
SWEEP = """
name: {name}
task: forecasting
size: debug
data: {{name: ETTh1, if_unavailable: synthetic}}
arms: [scratch, persistence]
training: {{epochs: {epochs}}}
search: {{num_trials: {num_trials}, scheduler: none}}
replicates: 2
results: {results}
"""


@dataclass
class Head:
    """A cluster of one machine."""

    folder: Path
    address: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RAYMAE_", "TUNE_"))}
        return {**kept, "HOME": str(self.folder), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(ROOT)}

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raymae.cli", *arguments, "--address", self.address], cwd=self.folder, text=True,
            env={**self.environment, **environment}, capture_output=True, timeout=TIMEOUT_S,
        )

    def submit(self, name: str, *, epochs: int = 1, num_trials: int = 1) -> str:
        (self.folder / f"{name}.yaml").write_text(SWEEP.format(
            name=name, epochs=epochs, num_trials=num_trials, results=self.folder / "results"))
        done = self.cli("submit", f"{name}.yaml", "--python", sys.executable, "--env", "RAYMAE_OFFLINE=1",
                        "--env", f"RAYMAE_CACHE={self.folder / 'cache'}", "--no-wait", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout)["job"])

    def status(self, job: str) -> str:
        rows = json.loads(self.cli("jobs", "--json").stdout)
        return str(next(row["status"] for row in rows if row["job"] == job))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(1)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Started as the cluster files start it: token, loopback dashboard, `trial_driver` on the head."""
    folder = tmp_path_factory.mktemp("head")
    ray = str(Path(sys.executable).with_name("ray"))
    found = Head(folder, f"http://127.0.0.1:{(dashboard := free_port())}")
    token = subprocess.run([ray, "get-auth-token", "--generate"], env=found.environment, capture_output=True, text=True)
    assert token.returncode == 0, token.stderr
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [ray, "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=2", "--node-ip-address=127.0.0.1",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
             f"--ray-client-server-port={free_port()}",
             "--resources", '{"trial_driver": 1000}', f"--temp-dir={folder / 'ray'}", "--disable-usage-stats"],
            env=found.environment, stdout=output, stderr=subprocess.STDOUT, text=True,
        )
    try:
        found.wait_for(lambda: found.cli("jobs", "--json").returncode == 0 or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_submitted_sweep_runs_on_its_own(head: Head) -> None:
    job = head.submit("quick")
    head.wait_for(lambda: head.status(job) in ("succeeded", "failed", "stopped"))
    printed = head.cli("logs", job).stdout
    assert head.status(job) == "succeeded", printed
    assert "scratch-0000 completed" in printed
    verdict = Store.open(str(head.folder / "results" / "quick")).verdict()
    assert verdict is not None
    assert verdict["complete"]


@pytest.mark.slow
def test_a_stopped_sweep_keeps_what_it_did_and_goes_on(head: Head) -> None:
    trials = head.folder / "results" / "long" / "trials"
    job = head.submit("long", epochs=3, num_trials=8)
    head.wait_for(lambda: len(list(trials.glob("*.parquet"))) >= 3)
    assert json.loads(head.cli("stop", job, "--json").stdout)["stopping"] is True
    head.wait_for(lambda: head.status(job) in ("stopped", "failed", "succeeded"))
    assert head.status(job) == "stopped"
    assert "goes on" in head.cli("logs", job).stdout or "interrupted" in head.cli("logs", job).stdout
    before = Store.open(str(head.folder / "results" / "long")).trials()
    kept = set(before[before["status"] == "completed"]["trial_id"])
    assert len(kept) >= 3
    again = head.submit("long", epochs=3, num_trials=8)
    head.wait_for(lambda: head.status(again) in ("stopped", "failed", "succeeded"))
    assert head.status(again) == "succeeded", head.cli("logs", again).stdout
    after = Store.open(str(head.folder / "results" / "long")).trials()
    assert kept <= set(after["trial_id"])
    assert Counter(after["trial_id"]).most_common(1)[0][1] == 1
    assert head.cli("stop", again).stdout.strip() == f"{again} had ended already"


@pytest.mark.slow
def test_a_wrong_token_and_a_wrong_job_are_messages(head: Head) -> None:
    refused = head.cli("jobs", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 1
    assert "token" in refused.stderr
    assert "Traceback" not in refused.stderr
    unknown = head.cli("logs", "nothing")
    assert unknown.returncode == 1
    assert "there is no job 'nothing'" in unknown.stderr


def test_relative_results_are_refused_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.yaml").write_text(SWEEP.format(name="here", epochs=1, num_trials=1, results="results"))
    result = CliRunner().invoke(main, ["submit", "here.yaml", "--address", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "here.yaml: results: 'results' is relative" in result.output
    assert "s3://" in result.output


def test_nobody_at_the_address_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    result = CliRunner().invoke(main, ["jobs", "--address", f"127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "no Ray job server answers" in result.output
    assert "ray dashboard" in result.output


def test_the_source_is_sent_without_what_git_ignores(tmp_path: Path) -> None:
    _copy_source(tmp_path)
    assert (tmp_path / "raymae" / "cli" / "jobs.py").is_file()
    assert not {".git", ".venv", "results"} & {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.rglob("__pycache__"))
