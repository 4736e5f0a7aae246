"""What the loop does with checkpoints of every task: ended trials, lost reports, killed processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from subjects import MakeSubject
from test_task_trials import ARMS, PRETRAINED

import raymae
from raymae.contract.subject import RICH
from raymae.contract.trials import difference, plain
from raymae.errors import TrialError
from raymae.train import run_trial

KILLED = Path(__file__).with_name("killed_trial.py")

every_arm = pytest.mark.parametrize(("name", "arm"), ARMS)
every_pretrained_arm = pytest.mark.parametrize(("name", "arm"), PRETRAINED)


@every_arm
@pytest.mark.parametrize("stage", ["search", "replicate"])
def test_nothing_is_left_to_do_after_the_final_report(name: str, arm: str, stage: str, subject: MakeSubject) -> None:
    config, _, checkpoints = subject(name).run(arm, stage=stage)
    assert list(run_trial(config, resume=checkpoints[-1])) == []


@every_arm
def test_lost_reports_are_replayed_as_they_were(name: str, arm: str, subject: MakeSubject) -> None:
    config, reports, checkpoints = subject(name).run(arm, stage="replicate")
    replayed = [plain(report) for report in run_trial(config, resume=checkpoints[-2], replay_from=0)]
    assert replayed == [plain(report) for report in reports]
    only_lost = [report.step for report in run_trial(config, resume=checkpoints[-1], replay_from=len(reports) - 1)]
    assert only_lost == [len(reports) - 1]


@every_pretrained_arm
def test_seconds_go_on_where_the_checkpoint_was_taken(name: str, arm: str, subject: MakeSubject) -> None:
    config, reports, checkpoints = subject(name).run(arm)
    resumed = next(run_trial(config, resume=checkpoints[-2]))
    assert resumed.seconds > reports[-2].seconds


@every_pretrained_arm
def test_another_trials_checkpoint_is_refused(name: str, arm: str, subject: MakeSubject) -> None:
    path = subject(name).run(arm).checkpoints[0]
    for other in (subject(name).config(arm, seed=1, **RICH), subject(name).config(arm, **{**RICH, "epochs": 4})):
        with pytest.raises(TrialError, match=r"belongs to configuration .* delete it"):
            next(run_trial(other, resume=path))


@every_pretrained_arm
def test_killed_after_every_report_equals_uninterrupted(
    name: str, arm: str, subject: MakeSubject, tmp_path: Path
) -> None:
    config, reports, checkpoints = subject(name).run(arm, stage="replicate")
    environment = {**os.environ, "PYTHONPATH": str(Path(raymae.__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, KILLED, tmp_path / "trial.pt"], input=json.dumps(config.to_json()), env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )
    assert child.returncode == 0, child.stderr
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert len({line.pop("pid") for line in lines}) == len(reports)  # a process each, all but the last one killed
    assert lines == [plain(report) for report in reports]
    ended, wanted = (torch.load(path, weights_only=True) for path in (tmp_path / "trial.pt", checkpoints[-1]))
    assert not difference(ended, wanted)
