"""A sweep's runs in MLflow, on a server of its own on loopback, read back over its REST interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raymae.search.live import recording
from raymae.search.live.mlflow_runs import QUIET, MlflowRuns
from raymae.search.live.recorded import sweep_id
from tests.ports import free_port
from tests.search.live.simulated import Killed, digits, sweep

pytest.importorskip("mlflow", reason="needs mlflow: pip install 'raymae[mlflow]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
STARTING_S = 240  # its first start makes a database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(recording, "FIRST_PAUSE_S", 0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", "sqlite:///runs.db", "--artifacts-destination", "./artifacts"],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true",
                 "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, folder / "log")
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            if "No module named" in log.read_text():
                pytest.skip(f"needs MLflow's server, pip install mlflow: {log.read_text().splitlines()[-1]}")
            raise AssertionError(log.read_text())
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


class Wire:
    """A wire to a server that can be cut and mended: connections to it go there, or nowhere."""

    def __init__(self, to: str) -> None:
        self._to = int(to.rpartition(":")[2])
        self._open: list[socket.socket] = []
        self.is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self.is_cut:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._to))
                self._open += [here, there]
                for a, b in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, a: socket.socket, b: socket.socket) -> None:
        with suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        for one in (a, b):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(server: str) -> Iterator[Wire]:
    made = Wire(server)
    yield made
    made.close()


def asked(server: str, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", headers={"Content-Type": "application/json"},
                                     data=None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def runs_of(server: str, store: Any) -> dict[str, Any]:
    """The runs of a sweep by name, each as its status, its parameters, metrics and tags."""
    ids = [one["experiment_id"] for one in asked(server, "experiments/search?max_results=100")["experiments"]]
    found = asked(server, "runs/search", {
        "experiment_ids": ids, "max_results": 100,
        "filter": f"tags.`raymae.sweep_id` = '{sweep_id(store.manifest)}'"}).get("runs", [])
    names = [run["info"]["run_name"] for run in found]
    assert len(names) == len(set(names)), "a trial has one run"
    return {run["info"]["run_name"]: {
        "id": run["info"]["run_id"], "status": run["info"]["status"],
        **{kind: {one["key"]: one["value"] for one in run["data"].get(kind, [])}
           for kind in ("params", "metrics", "tags")}} for run in found}


def steps_of(server: str, run: Any, key: str = "epoch") -> list[int]:
    found = asked(server, f"metrics/get-history?run_id={run['id']}&metric_key={key}")
    return [one["step"] for one in found.get("metrics", [])]


def check_whole(server: str, store: Any) -> dict[str, Any]:
    """Every trial has a run, every report is there once, and the sweep's run has the answer."""
    runs = runs_of(server, store)
    assert set(runs) == {"simulated", *store.trials()["trial_id"]}
    for name, mine in store.reports().groupby("trial_id"):
        assert sorted(steps_of(server, runs[name])) == sorted(mine["step"]), name
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    return runs


def test_a_sweep_is_there_with_its_answer(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 120.0)
    store, said = sweep(tmp_path / "r", [MlflowRuns(server, "whole")])
    assert said == []
    runs = check_whole(server, store)
    parent, trial = runs["simulated"], runs["mae-0000"]
    (pair, *_) = store.verdict()["pairs"]
    assert parent["metrics"]["difference"] == pytest.approx(pair["difference"])
    assert parent["tags"]["verdict"] == "undecided"
    assert parent["tags"]["mlflow.note.content"].startswith("Undecided whether MAE pretraining helps")
    assert trial["tags"]["mlflow.parentRunId"] == parent["id"]
    assert {"arm": "mae", "stage": "search", "seed": "0", "commit": "0123456789abcdef", "status": "completed",
            "sweep": "simulated"}.items() <= trial["tags"].items()
    row = store.trials().set_index("trial_id").loc["mae-0000"]
    assert float(trial["params"]["lr"]) == row["lr"]
    assert trial["metrics"]["val_mse"] == trial["metrics"]["val/mse"] == row["val_mse"]
    assert runs["mae-0000-seed0"]["metrics"]["test_mse"] > 0
    with urllib.request.urlopen(f"{server}/get-artifact?run_uuid={parent['id']}&path=verdict.json", timeout=30) as file:
        assert json.load(file) == store.verdict()


def test_a_sweep_that_goes_on_has_the_same_runs_and_no_point_twice(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 120.0)

    def die(number: int) -> None:
        if number == 9:
            time.sleep(3)  # some of it is there by now
            raise Killed

    with pytest.raises(Killed):
        sweep(tmp_path / "r", [MlflowRuns(server, "on")], before_report=die)
    store, said = sweep(tmp_path / "r", [MlflowRuns(server, "on")])
    assert said == []
    check_whole(server, store)


def test_a_server_that_dies_in_the_middle_and_comes_back_for_the_next_run(
    server: str, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 5.0)

    def cut(number: int) -> None:
        if number == 9:
            time.sleep(3)
            wire.cut()

    store, said = sweep(tmp_path / "r", [MlflowRuns(wire.url, "dies")], before_report=cut)
    assert digits(store) == digits(sweep(tmp_path / "alone", [])[0])
    assert len(said) == 2
    assert said[0].startswith("MLflow does not take what it is told: API request to http://127.0.0.1")
    assert "the verdict" in said[1]
    wire.is_cut = False
    monkeypatch.setattr(recording, "PATIENCE_S", 120.0)
    store, said = sweep(tmp_path / "r", [MlflowRuns(wire.url, "dies")])
    assert said == []
    check_whole(server, store)


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_costs_the_end_a_few_seconds(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1] if fault == "hangs" else 1
        started = time.monotonic()
        store, said = sweep(tmp_path / "r", [MlflowRuns(f"http://me:secret@127.0.0.1:{port}", "none")])
        assert time.monotonic() - started < 60
    assert len(store.trials()) == 10
    assert "the ends of 10 trials, 15 reports, the verdict" in said[-1]
    assert "secret" not in "".join(said)
