"""Two ranks train the same network as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import raymae
from raymae.spec import TrialConfig
from raymae.tasks import TASKS, schema_of
from raymae.train import run_trial
from tests.train.one_step import step

ONE_RANK = Path(__file__).with_name("one_rank.py")
ONE_STEP = Path(__file__).with_name("one_step.py")
PHASES = [(name, arm, phase) for name in TASKS for arm, about in schema_of(name).arms.items()
          for phase in ("pretrain", "finetune")
          if about.kind != "reference" and (phase == "finetune" or about.kind == "pretrained")]


class Ranks(NamedTuple):
    """The trials by name, the metrics that each of two ranks reported, and the folder with rank 0's checkpoints."""

    configs: dict[str, TrialConfig]
    metrics: tuple[dict[str, list[dict[str, float]]], dict[str, list[dict[str, float]]]]
    folder: Path


class Steps(NamedTuple):
    """Trials by task, arm and phase, and the loss and gradients that two ranks had in a step of each."""

    configs: dict[str, TrialConfig]
    taken: dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def ranks(make_config: Callable[..., TrialConfig], tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """All trials of this file, trained by two processes that talk over the loopback."""
    few = {"label_fraction": 0.05}
    configs = {
        # 609 windows in 8 batches of 76 or 77: shares of unequal size
        "linear": make_config("forecasting", "linear", stage="replicate", batch_size=77, epochs=3, clip_norm=0.01,
                              **few),
        # dropout and masks are drawn per rank, so only without them is it the same training
        "scratch": make_config("forecasting", "scratch", stage="replicate", batch_size=301, epochs=2, dropout=0.0,
                               ema_decay=0.5, patience=1, **few),
        "mae": make_config("forecasting", "mae", batch_size=1024, epochs=1, freeze_epochs=1, **few),
    }
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "trials.json").write_text(json.dumps({name: config.to_json() for name, config in configs.items()}))
    outputs = two_ranks(ONE_RANK, folder, folder)
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
    return Ranks(configs, (first, second), folder)


def two_ranks(program: Path, folder: Path, last_argument: Path) -> list[str]:
    """Run a program as two processes that talk over the loopback, on a folder's `trials.json`: what they print."""
    environment = {**os.environ, "PYTHONPATH": str(Path(raymae.__file__).parents[1]), "GLOO_SOCKET_IFNAME": "lo"}
    processes = []
    for rank in range(2):
        with (folder / "trials.json").open() as trials, (folder / f"{rank}.out").open("w") as out:
            command = [sys.executable, program, str(rank), "2", folder / "meet", last_argument]
            processes.append(subprocess.Popen(command, stdin=trials, stdout=out, stderr=out, env=environment))
    try:
        codes = [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    outputs = [(folder / f"{rank}.out").read_text() for rank in range(2)]
    assert codes == [0, 0], "\n".join(outputs)
    return outputs


@pytest.mark.parametrize("arm", ["linear", "scratch"])
def test_two_ranks_equal_one(arm: str, ranks: Ranks, tmp_path: Path) -> None:
    alone = []
    for report in run_trial(ranks.configs[arm]):
        alone.append(report.metrics)
        report.save(tmp_path / "one.pt")
    together = ranks.metrics[0][arm]
    assert len(together) == len(alone)
    for got, wanted in zip(together, alone, strict=True):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    paths = (tmp_path / "one.pt", ranks.folder / f"{arm}.pt")
    one, two = (torch.load(path, weights_only=True)["model"] for path in paths)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6 if arm == "linear" else 1e-5)


@pytest.mark.parametrize("arm", ["linear", "scratch", "mae"])
def test_both_ranks_report_the_same(arm: str, ranks: Ranks) -> None:
    """So both decide alike on stopping, and on which weights are best."""
    assert ranks.metrics[0][arm] == ranks.metrics[1][arm]


def test_ranks_draw_their_own_masks(ranks: Ranks) -> None:
    alone = next(run_trial(ranks.configs["mae"])).metrics["loss"]
    together = ranks.metrics[0]["mae"][0]["loss"]
    assert together == pytest.approx(alone, rel=0.1)
    assert together != alone


@pytest.fixture(scope="module")
def stepped(make_config: Callable[..., TrialConfig], tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """A step of every task, arm and phase, as two ranks took it."""
    folder = tmp_path_factory.mktemp("steps")
    still = {"dropout": 0.0, "drop_path": 0.0, "clip_norm": 0.0}
    configs = {f"{name} {arm} {phase}": make_config(
        name, arm, **{key: value for key, value in still.items() if key in schema_of(name).params.model_fields})
        for name, arm, phase in PHASES}
    (folder / "trials.json").write_text(json.dumps({name: config.to_json() for name, config in configs.items()}))
    two_ranks(ONE_STEP, folder, folder / "steps.pt")
    return Steps(configs, torch.load(folder / "steps.pt", weights_only=True))


@pytest.mark.parametrize(("name", "arm", "phase"), PHASES)
def test_two_ranks_have_the_loss_and_gradients_of_one(name: str, arm: str, phase: str, stepped: Steps) -> None:
    """Whatever a loss counts: the ranks' parts hold unequally many examples, hidden cells and labelled pixels."""
    case = f"{name} {arm} {phase}"
    alone, together = step(stepped.configs[case], phase), stepped.taken[case]
    assert alone.keys() == together.keys()
    assert any(value.abs().max() > 1e-3 for key, value in alone.items() if key != "loss")
    for key, value in alone.items():
        error = (together[key] - value).abs()
        assert (error <= 1e-6 * (1 + value.abs())).all(), f"{key} differs by up to {error.max():.1e}"
