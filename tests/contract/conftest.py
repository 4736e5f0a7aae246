"""Every registered task, on synthetic data and, where it has any and the machine holds it, on real data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from raymae.spec import TrialConfig
from raymae.tasks import TASKS, task_class
from raymae.tasks.base import Task
from raymae.train import Report, run_trial

REAL_NAMES = {  # the small real data set that a task is tested on as well
    "forecasting": "ETTh1", "classification": "tiny-imagenet-mini", "segmentation": "CamVid",
    "imputation": "california-housing",
}
SOURCES = [*((name, "synthetic") for name in TASKS), *((name, "real") for name in REAL_NAMES)]


class Run(NamedTuple):
    """A finished trial, and the checkpoint written after each of its reports."""

    config: TrialConfig
    reports: list[Report]
    checkpoints: list[Path]


@pytest.fixture(params=SOURCES, ids="-".join)
def make_task(request: pytest.FixtureRequest, make_config: Callable[..., TrialConfig]) -> Callable[..., Task]:
    """A task of debug size under its first arm of a kind, or under a named arm."""
    name, source = request.param
    data = None
    if source == "real":
        data = {"name": REAL_NAMES[name], "source": "real", "root": str(request.getfixturevalue("real_data"))}
    cls = task_class(name)

    def make(kind: str = "pretrained", *, arm: str | None = None, **changes: Any) -> Task:
        arm = arm or next(arm for arm, about in cls.schema.arms.items() if about.kind == kind)
        torch.manual_seed(0)
        return cls(make_config(name, arm, data=data, **changes), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrialConfig], Run]:
    """Run a trial to its end, saving after every report; once per configuration."""
    done: dict[str, Run] = {}

    def run_once(config: TrialConfig) -> Run:
        key = json.dumps(config.to_json())
        if key not in done:
            folder = tmp_path_factory.mktemp("run")
            reports, checkpoints = [], []
            for report in run_trial(config):
                checkpoints.append(folder / f"{report.step}.pt")
                report.save(checkpoints[-1])
                reports.append(report)
            done[key] = Run(config, reports, checkpoints)
        return done[key]

    return run_once
