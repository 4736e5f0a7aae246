"""Save, kill, resume equals uninterrupted: reports, weights, averages, counters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_task_trials import RICH, MakeConfig, assert_same, every_arm, every_pretrained_arm, plain

import raymae
from raymae.errors import TrialError
from raymae.train import run_trial

KILLED = Path(__file__).with_name("killed_trial.py")


@every_arm
def test_resuming_after_any_report_equals_uninterrupted(
    name: str, arm: str, make_config: MakeConfig, run: Callable, tmp_path: Path
) -> None:
    config, reports, checkpoints = run(make_config(name, arm, stage="replicate", **RICH))
    wanted = torch.load(checkpoints[-1], weights_only=True)
    for step, path in enumerate(checkpoints[:-1]):
        torch.manual_seed(987654321 + step)
        resumed = []
        for report in run_trial(config, resume=path):
            report.save(tmp_path / "again.pt")
            resumed.append(plain(report))
        assert resumed == [plain(report) for report in reports[step + 1:]], f"resumed after report {step}"
        assert_same(torch.load(tmp_path / "again.pt", weights_only=True), wanted)


@every_arm
@pytest.mark.parametrize("stage", ["search", "replicate"])
def test_nothing_is_left_to_do_after_the_final_report(
    name: str, arm: str, stage: str, make_config: MakeConfig, run: Callable
) -> None:
    config, _, checkpoints = run(make_config(name, arm, stage=stage, **RICH))
    assert list(run_trial(config, resume=checkpoints[-1])) == []


@every_arm
def test_lost_reports_are_replayed_as_they_were(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    config, reports, checkpoints = run(make_config(name, arm, stage="replicate", **RICH))
    replayed = [plain(report) for report in run_trial(config, resume=checkpoints[-2], replay_from=0)]
    assert replayed == [plain(report) for report in reports]
    only_lost = [report.step for report in run_trial(config, resume=checkpoints[-1], replay_from=len(reports) - 1)]
    assert only_lost == [len(reports) - 1]


@every_pretrained_arm
def test_seconds_go_on_where_the_checkpoint_was_taken(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    config, reports, checkpoints = run(make_config(name, arm, **RICH))
    resumed = next(run_trial(config, resume=checkpoints[-2]))
    assert resumed.seconds > reports[-2].seconds


@every_pretrained_arm
def test_another_trials_checkpoint_is_refused(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    path = run(make_config(name, arm, **RICH)).checkpoints[0]
    for other in (make_config(name, arm, seed=1, **RICH), make_config(name, arm, **{**RICH, "epochs": 4})):
        with pytest.raises(TrialError, match=r"belongs to configuration .* delete it"):
            next(run_trial(other, resume=path))


@every_pretrained_arm
def test_killed_after_every_report_equals_uninterrupted(
    name: str, arm: str, make_config: MakeConfig, run: Callable, tmp_path: Path
) -> None:
    config, reports, checkpoints = run(make_config(name, arm, stage="replicate", **RICH))
    environment = {**os.environ, "PYTHONPATH": str(Path(raymae.__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, KILLED, tmp_path / "trial.pt"], input=json.dumps(config.to_json()), env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )
    assert child.returncode == 0, child.stderr
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert len({line.pop("pid") for line in lines}) == len(reports)  # a process each, all but the last one killed
    assert lines == [plain(report) for report in reports]
    assert_same(torch.load(tmp_path / "trial.pt", weights_only=True), torch.load(checkpoints[-1], weights_only=True))
