"""A sweep of any size that nobody ran: rows made up by a formula, for tests and benchmarks of what reads results."""

from __future__ import annotations

import datetime as dt
import io
import random
from pathlib import Path
from typing import Any

from raymae.results.store.store import Store
from tests.results.tiny_task import DATA, ENVIRONMENT, START, tiny_schema, tiny_spec

HOSTILE = '<script>document.title="owned"</script>"\'`${7*7}{{7*7}}<img src=x onerror=alert(1)>../../etc'
SPACE = {
    "mask_ratio": {"uniform": [0.1, 0.9], "when": {"arm": "mae"}},
    "patch_size": {"choice": [8, 12, 16, 24]},
    "lr": {"loguniform": [1e-4, 1e-2]},
    "norm_target": {"choice": [True, False], "when": {"arm": "mae"}},
    "depth": {"int": [1, 8]},
}


def make_sweep(
    root: Path, num_trials: int, num_reports: int = 5, *, name: str = "made", hostile: bool = False,
    replicates: int = 3, data: dict[str, Any] | None = None, picture: bool = False,
) -> Store:
    """Fill a folder with so many search trials, spread over three arms and one reference.

    Args:
        root: The folder.
        num_trials: Search trials in all, of which one in ten fails and one in five is stopped early.
        num_reports: Reports of a completed trial.
        name: The sweep's name.
        hostile: Arms, hosts, errors and the command hold `HOSTILE`.
        replicates: Seeds of each arm's best configuration.
        data: What `sweep.json` says of the data.
        picture: Whether a replicate has a picture.
    """
    draw = random.Random(0)
    arms = ["mae", "scratch", "gru"]
    schema = tiny_schema()
    if hostile:
        arms[2] = HOSTILE
        schema = tiny_schema(arms={**schema.arms, HOSTILE: schema.arms["gru"]})
    spec = tiny_spec(name=name, arms=[*arms, "persistence"], space=SPACE, replicates=replicates,
                     search={"num_trials": max(1, num_trials // 3)})
    environment = {**ENVIRONMENT, "command": ["x", "sweep", HOSTILE if hostile else "sweeps/made.yaml"]}
    store = Store.create(root, spec, schema, environment=environment, data=data or DATA)
    trials, reports = store._parts["trials"], store._parts["reports"]  # a part a trial would take minutes
    clock, best = START, {}
    for index in range(num_trials):
        arm = arms[index % 3]
        lr, patch, depth = 10 ** draw.uniform(-4, -2), draw.choice([8, 12, 16, 24]), draw.randint(1, 8)
        params: dict[str, Any] = {"lr": lr, "patch_size": patch, "depth": depth}
        score = 0.3 + (lr - 0.002) ** 2 * 2e3 + abs(patch - 12) / 200 + draw.gauss(0, 0.01) + 0.02 * (arm != "mae")
        if arm == "mae":
            params |= {"pretext_loss": 0.7, "pretext_skill": 0.3 + 0.01 * depth}
            params |= {"mask_ratio": draw.uniform(0.1, 0.9), "norm_target": draw.random() < 0.5}
            score += (params["mask_ratio"] - 0.6) ** 2 / 4
        status = "failed" if index % 10 == 9 else "stopped" if index % 5 == 3 else "completed"
        trial_id = f"{'gru' if arm == HOSTILE else arm}-{index // 3:04d}"
        done = {"completed": num_reports, "stopped": max(1, num_reports // 3), "failed": 1}[status]
        for step in range(done):
            pretraining = arm == "mae" and step < num_reports // 3
            reports.add({
                "sweep": name, "trial_id": trial_id, "arm": arm, "stage": "search", "attempt": 0, "step": step,
                "phase": "pretrain" if pretraining else "finetune", "epoch": step + 1, "wall_s": 0.5 * step,
                "time": clock + dt.timedelta(seconds=step), "loss": 1 / (step + 1), "lr": lr, "data_source": "real",
                **({"pretext_loss": 1 / (step + 1), "pretext_skill": 0.4 - 0.5 / (step + 1)} if pretraining else
                   {"val_mse": score * (1 + 2 / (step + 1))}),
            })
        clock += dt.timedelta(seconds=2)
        error = f"TrialError: the loss is NaN at step 7 {HOSTILE if hostile else ''}\nTraceback: line 1"
        row = _row(name, trial_id, arm, clock, status=status, host=HOSTILE if hostile else "here", **params)
        row |= {"val_mse": score} if status != "failed" else {"error": error}
        trials.add(row)
        if status == "completed" and score < best.get(arm, (9.0, row))[0]:
            best[arm] = (score, row)
    trials.add(_row(name, "persistence-0000", "persistence", clock, val_mse=0.9))
    for score, row in best.values():
        for seed in range(replicates):
            clock += dt.timedelta(seconds=2)
            trials.add({**row, "trial_id": f"{row['trial_id']}-seed{seed}", "stage": "replicate", "seed": 100 + seed,
                        "val_mse": score + 0.001 * seed, "test_mse": score + draw.gauss(0.01, 0.004),
                        "ended_at": clock})
    trials.add(_row(name, "persistence-0000-seed0", "persistence", clock, stage="replicate", val_mse=0.9,
                    test_mse=0.95))
    store.flush()
    if picture:
        _draw(Path(root) / "pictures" / f"{best['mae'][1]['trial_id']}-seed0-reconstruction.png")
    return store


def _row(name: str, trial_id: str, arm: str, clock: dt.datetime, **more: Any) -> dict[str, Any]:
    return {
        "sweep": name, "trial_id": trial_id, "config_id": "c" + trial_id, "arm": arm, "stage": "search", "attempt": 0,
        "status": "completed", "seed": 0, "task": "tiny", "epochs": 4, "epochs_done": 4, "num_parameters": 1000,
        "wall_s": 2.0, "started_at": clock - dt.timedelta(seconds=2), "ended_at": clock, "device": "cpu", "pid": 7,
        "data_name": "etth1", "data_source": "real", "data_fingerprint": "abc123", **more,
    }


def _draw(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    stream = io.BytesIO()
    Image.new("RGB", (96, 32), (200, 60, 40)).save(stream, "png")
    path.write_bytes(stream.getvalue())
