"""Sweeps for a server to show, and the server."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymae.results import Store
from raymae.spec import load_sweep
from raymae.tasks import schema_of

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)>&\"' %2e%2e"
ERROR = "ValueError: <script>document.title='owned'</script>"


def state(word: str, **changes: Any) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).isoformat()
    planned = {arm: {"search": 2, "replicates": 2} for arm in ("mae", "scratch", "persistence")}
    return {"state": word, "time": now, "started_at": now, "host": "elsewhere", "pid": 1, "every_s": 600.0,
            "dashboard": "", "slots": 2, "elapsed_s": 10.0, "left_s": 20.0, "planned": planned, "running": [],
            "error": None, **changes}


def make_sweep(root: Path | str, scores: dict[str, float], **changes: Any) -> Store:
    spec = load_sweep(ROOT / "sweeps" / "debug.yaml", [], schema_of=schema_of)
    store = Store.create(root, spec, schema_of(spec.task), environment={"python": "3"},
                         data={"name": "ETTh1", "source": "real", "fingerprint": "f"})
    for trial_id, score in scores.items():
        add_trial(store, trial_id, score)
    store.write_state(state(**changes))
    return store


def add_report(store: Store, trial_id: str, epoch: int, score: float | None = None, **changes: Any) -> None:
    """A report of a trial that runs, on disk at once."""
    store.add_report({"trial_id": trial_id, "arm": trial_id.partition("-")[0], "stage": "search", "attempt": 0,
                      "step": epoch, "phase": "finetune", "epoch": epoch, "wall_s": 1.0, "loss": 1.0 / epoch,
                      "time": dt.datetime.now(dt.UTC), "lr": 1e-3, "val_mse": score, **changes})
    assert store.flush()


def add_trial(store: Store, trial_id: str, score: float | None, **changes: Any) -> None:
    now = dt.datetime.now(dt.UTC)
    arm = trial_id.partition("-")[0]
    row = {"trial_id": trial_id, "config_id": "c" + arm, "arm": arm, "stage": "search", "attempt": 0,
           "status": "completed", "seed": 0, "val_mse": score, "lr": 1e-3, "wall_s": 1.0, "started_at": now,
           "ended_at": now, "epochs_done": 1}
    store.add_report({"trial_id": trial_id, "arm": arm, "stage": "search", "attempt": 0, "step": 0, "phase": "finetune",
                      "epoch": 1, "wall_s": 1.0, "time": now, "loss": 1.0, "lr": 1e-3, "val_mse": score})
    store.add_trial({**row, **changes})


@dataclass
class Served:
    folder: Path
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raymae.cli", "serve", str(folder), "--port", "0", *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
