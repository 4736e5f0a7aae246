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
from raymae.contract.trials import difference
from raymae.spec import TrialConfig
from raymae.tasks import TASKS, schema_of
from raymae.train import run_trial
from tests.train.one_step import step

ONE_RANK = Path(__file__).with_name("one_rank.py")
PHASES = [(name, arm, phase) for name in TASKS for arm, about in schema_of(name).arms.items()
          for phase in ("pretrain", "finetune")
          if about.kind != "reference" and (phase == "finetune" or about.kind == "pretrained")]


class Ranks(NamedTuple):
    """What two ranks made of the trials and steps of this file.

    Attributes:
        configs: The trials by name, and those of the steps by task, arm and phase.
        metrics: What each rank reported of the trials.
        steps: The loss and gradients of each step.
        overlapped: The same by torch's DistributedDataParallel.
        folder: Holds rank 0's checkpoints.
    """

    configs: dict[str, TrialConfig]
    metrics: tuple[dict[str, list[dict[str, float]]], dict[str, list[dict[str, float]]]]
    steps: dict[str, dict[str, torch.Tensor]]
    overlapped: dict[str, dict[str, torch.Tensor]]
    folder: Path


@pytest.fixture(scope="module")
def ranks(make_config: Callable[..., TrialConfig], tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Two processes that talk over the loopback train the trials of this file, and take a step of every task."""
    few = {"label_fraction": 0.05}
    configs = {
        # 609 windows in 8 batches of 76 or 77: shares of unequal size
        "linear": make_config("forecasting", "linear", stage="replicate", batch_size=77, epochs=3, clip_norm=0.01,
                              **few),
        # dropout and masks are drawn per rank, so only without them is it the same training
        "scratch": make_config("forecasting", "scratch", stage="replicate", batch_size=301, epochs=2, dropout=0.0,
                               ema_decay=0.5, patience=1, **few),
        "mae": make_config("forecasting", "mae", batch_size=1024, epochs=1, freeze_epochs=1, **few),
        # every rank draws masks and dropout of its own
        "both": make_config("forecasting", "mae", pretrain_batch_size=4000, batch_size=250, pretrain_epochs=1, epochs=2,
                            freeze_epochs=1, dropout=0.2, ema_decay=0.5, **few),
    }
    again = {name: configs[name] for name in ("scratch", "both")}
    still = {"dropout": 0.0, "drop_path": 0.0, "clip_norm": 0.0, "pretrain_clip_norm": 0.0}
    steps = {f"{name} {arm} {phase}": make_config(
        name, arm, **{key: value for key, value in still.items() if key in schema_of(name).params.model_fields})
        for name, arm, phase in PHASES}
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "asked.json").write_text(json.dumps({
        kind: {name: config.to_json() for name, config in named.items()}
        for kind, named in (("trials", configs), ("steps", steps), ("left", {"both": configs["both"]}),
                            ("overlapped", again))}))
    first, second = (json.loads(output.splitlines()[-1]) for output in two_ranks(folder))
    taken, overlapped = (torch.load(folder / f"{way}.pt", weights_only=True) for way in ("steps", "overlapped"))
    return Ranks({**configs, **steps}, (first, second), taken, overlapped, folder)


def two_ranks(folder: Path) -> list[str]:
    """Run `one_rank.py` as two processes on a folder's `asked.json`: what they print."""
    environment = {**os.environ, "PYTHONPATH": str(Path(raymae.__file__).parents[1]), "GLOO_SOCKET_IFNAME": "lo"}
    processes = []
    for rank in range(2):
        with (folder / "asked.json").open() as asked, (folder / f"{rank}.out").open("w") as out:
            command = [sys.executable, ONE_RANK, str(rank), "2", folder / "meet", folder]
            processes.append(subprocess.Popen(command, stdin=asked, stdout=out, stderr=out, env=environment))
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


@pytest.mark.parametrize("arm", ["linear", "scratch", "mae", "both", "both left", "scratch overlapped",
                                 "both overlapped"])
def test_both_ranks_report_the_same(arm: str, ranks: Ranks) -> None:
    """So both decide alike on stopping, and on which weights are best."""
    assert ranks.metrics[0][arm] == ranks.metrics[1][arm]


def test_ranks_draw_their_own_masks(ranks: Ranks) -> None:
    alone = next(run_trial(ranks.configs["mae"])).metrics["loss"]
    together = ranks.metrics[0]["mae"][0]["loss"]
    assert together == pytest.approx(alone, rel=0.1)
    assert together != alone


@pytest.mark.parametrize(("name", "arm", "phase"), PHASES)
def test_two_ranks_have_the_loss_and_gradients_of_one(name: str, arm: str, phase: str, ranks: Ranks) -> None:
    """Whatever a loss counts: the ranks' parts hold unequally many examples, hidden cells and labelled pixels."""
    case = f"{name} {arm} {phase}"
    alone, together = step(ranks.configs[case], phase), ranks.steps[case]
    assert alone.keys() == together.keys()
    assert any(value.abs().max() > 1e-3 for key, value in alone.items() if key != "loss")
    for key, value in alone.items():
        error = (together[key] - value).abs()
        assert (error <= 1e-6 * (1 + value.abs())).all(), f"{key} differs by up to {error.max():.1e}"


@pytest.mark.parametrize(("name", "arm", "phase"), PHASES)
def test_overlapped_gradients_are_those_of_one_message(name: str, arm: str, phase: str, ranks: Ranks) -> None:
    case = f"{name} {arm} {phase}"
    ours, torchs = ranks.steps[case], ranks.overlapped[case]
    assert ours.keys() == torchs.keys()
    for key, value in ours.items():
        error = (torchs[key] - value).abs()
        assert (error <= 1e-6 * (1 + value.abs())).all(), f"{key} differs by up to {error.max():.1e}"


@pytest.mark.parametrize("trial", ["scratch", "both"])
def test_overlapped_training_is_that_of_one_message(trial: str, ranks: Ranks) -> None:
    """Over many steps, in both phases, and where the encoder is frozen and then is not."""
    ours, torchs = ranks.metrics[0][trial], ranks.metrics[0][f"{trial} overlapped"]
    assert len(ours) == len(torchs)
    for got, wanted in zip(torchs, ours, strict=True):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_two_ranks_that_leave_after_every_batch_equal_uninterrupted_ones(ranks: Ranks) -> None:
    assert ranks.metrics[0]["both left"] == ranks.metrics[0]["both"]
    left, whole = (torch.load(ranks.folder / f"{name}.pt", weights_only=True) for name in ("both left", "both"))
    assert not difference(left, whole)
