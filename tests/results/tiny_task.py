"""A task that exists only for these tests, described without torch, and the rows it could write."""

from __future__ import annotations

import datetime as dt
import zlib
from typing import Any, Literal

from raymae.spec import Arm, Objective, SweepSpec, TaskSchema, TrainingParams, param

START = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
DATA = {"name": "etth1", "source": "real", "fingerprint": "abc123"}
ENVIRONMENT = {"python": "3.11", "commit": "0000000"}


class TinyParams(TrainingParams):
    mask_ratio: float = param(0.5, "fraction hidden", kinds=("pretrained",), gt=0, lt=1)
    patch_size: int = param(16, "steps per token", kinds=("pretrained", "trained"), ge=1)
    norm_target: bool = param(True, "normalise targets", kinds=("pretrained",))
    protocol: Literal["short", "long"] = param("short", "which split")
    depth: int | None = param(None, "layers, None is the preset's", kinds=("pretrained", "trained"))


def tiny_schema(**changes: Any) -> TaskSchema:
    fields: dict[str, Any] = {
        "name": "tiny",
        "params": TinyParams,
        "arms": {
            "mae": Arm("pretrained", "masked pretraining"), "scratch": Arm("trained", "no pretraining"),
            "gru": Arm("trained", "a GRU"), "persistence": Arm("reference", "the last value"),
        },
        "sizes": {"debug": {}},
        "objective": Objective("mse", "min", "squared standard deviations"),
        "metrics": ("mse", "abs_error"),
        "check": lambda arm, params: [],
        "primary": ("mae", "scratch"),
    }
    return TaskSchema(**{**fields, **changes})


def tiny_spec(**changes: Any) -> SweepSpec:
    fields: dict[str, Any] = {
        "name": "ett", "task": "tiny", "data": {"name": "etth1"},
        "arms": ["mae", "scratch", "gru", "persistence"],
        "space": {"lr": {"loguniform": [1e-4, 1e-2]}, "mask_ratio": {"uniform": [0.2, 0.8], "when": {"arm": "mae"}}},
        "training": {"epochs": 4},
    }
    return SweepSpec.model_validate({**fields, **changes})


def trial(trial_id: str, arm: str = "mae", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_id": trial_id, "config_id": "c" + trial_id, "arm": arm, "stage": "search", "attempt": 0,
        "status": "completed", "seed": zlib.crc32(trial_id.encode()), "epochs": 4, "lr": 1e-3, "epochs_done": 4,
        "num_parameters": 1000,
        "wall_s": 2.0, "started_at": START, "ended_at": START + dt.timedelta(seconds=2), "host": "here",
        "device": "cpu", "pid": 7, "val_mse": 0.5, "val_abs_error": 0.4,
    }
    if arm == "mae":
        row |= {"mask_ratio": 0.75, "norm_target": True}
    return {**row, **changes}


def report(trial_id: str, step: int, arm: str = "mae", **changes: Any) -> dict[str, Any]:
    row = {
        "trial_id": trial_id, "arm": arm, "stage": "search", "attempt": 0, "step": step, "phase": "finetune",
        "epoch": step + 1, "wall_s": 0.1 * step, "time": START + dt.timedelta(seconds=step), "loss": 1 / (step + 1),
        "lr": 1e-3, "val_mse": 0.5,
    }
    return {**row, **changes}
