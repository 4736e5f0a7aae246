"""A trial that is left after any batch of an epoch goes on at the next one, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.contract.trials import difference, plain
from raymae.spec import TrialConfig
from raymae.train import Report, run_trial
from raymae.train.checkpoint import num_bytes, save_checkpoint, snapshot
from raymae.train.trial import TrialState

FEW = {"label_fraction": 0.05}  # of forecasting 609 windows
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "both phases": ("mae", {"pretrain_epochs": 2, "epochs": 2, "freeze_epochs": 1, "pretrain_batch_size": 4000,
                            "batch_size": 200, "dropout": 0.2, "pretrain_dropout": 0.1}),
    "an average": ("scratch", {"epochs": 2, "ema_decay": 0.7, "batch_size": 250, "drop_path": 0.3, "layer_decay": 0.8}),
    "several passes": ("scratch", {"epochs": 1, "batch_size": 400, "epoch_steps": 5, "dropout": 0.1}),
    "one batch": ("linear", {"epochs": 3, "batch_size": 4000, "eval_every": 3}),
}


class Left(Exception):  # noqa: N818
    """Training was left."""


def leaving(path: Path, after: int = 1) -> Callable[[int, Callable[[], TrialState]], None]:
    """What saves after so many batches, and leaves."""
    seen = itertools.count(1)

    def watch(batches: int, state: Callable[[], TrialState]) -> None:
        if next(seen) == after:
            save_checkpoint(path, state().to_plain())
            raise Left

    return watch


@pytest.mark.parametrize("case", CASES)
def test_left_after_every_batch_equals_uninterrupted(
    case: str, make_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    arm, changes = CASES[case]
    config = make_config("forecasting", arm, stage="replicate", **{**FEW, **changes})
    reports, trained = [], 0
    for report in run_trial(config, watch=lambda batches, state: None):
        report.save(tmp_path / "whole.pt")
        reports.append(report)
    got: list[Report] = []
    path = tmp_path / "piece.pt"
    while not (got and got[-1].final):
        torch.manual_seed(trained)  # as another process begins with another state
        try:
            for report in run_trial(config, resume=path if path.exists() else None, watch=leaving(path)):
                report.save(path)
                got.append(report)
        except Left:
            trained += 1
    assert [plain(one) for one in got] == [plain(one) for one in reports]
    ended, wanted = (torch.load(one, weights_only=True) for one in (path, tmp_path / "whole.pt"))
    assert not difference(ended, wanted)
    assert trained >= {"both phases": 10, "an average": 6, "several passes": 5, "one batch": 3}[case]


@pytest.fixture
def inside(make_config: Callable[..., TrialConfig], tmp_path: Path) -> tuple[TrialConfig, Path]:
    """A trial that was left after two batches of three, and its checkpoint."""
    config, path = make_config("forecasting", "linear", epochs=2, batch_size=250, **FEW), tmp_path / "inside.pt"
    with pytest.raises(Left):
        next(run_trial(config, watch=leaving(path, after=2)))
    return config, path


def test_the_batches_that_are_left_are_trained_and_no_other(
    inside: tuple[TrialConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymae.tasks.forecasting.windows import Windows

    config, path = inside
    seen: list[list[int]] = []
    batch = Windows.batch

    def recording(self: Windows, index_B: torch.Tensor, generator: Any) -> Any:
        if generator is not None:
            seen.append(index_B.tolist())
        return batch(self, index_B, generator)

    monkeypatch.setattr(Windows, "batch", recording)
    whole = next(run_trial(config))
    assert len(seen) == 3
    assert next(run_trial(config, resume=path)).metrics == whole.metrics
    assert seen[3:] == seen[2:3]


def test_a_report_that_is_repeated_and_saved_loses_no_place(
    make_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = make_config("forecasting", "linear", epochs=2, batch_size=250, **FEW)
    with pytest.raises(Left):
        list(run_trial(config, watch=leaving(tmp_path / "inside.pt", after=4)))
    repeated = next(run_trial(config, resume=tmp_path / "inside.pt", replay_from=0))
    assert repeated.epoch == 1
    repeated.save(tmp_path / "again.pt")
    first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("inside", "again"))
    assert second["within"]["batches"] == 1
    assert not difference(second, first)


def test_what_a_watch_takes_is_not_the_trial_s_time(
    make_config: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymae.train import trial

    now = itertools.count(step=1e-6)
    slept = [0.0]
    monkeypatch.setattr(trial.time, "monotonic", lambda: next(now) + slept[0])
    told: list[float] = []

    def watch(batches: int, state: Callable[[], TrialState]) -> None:
        slept[0] += 1000.0
        told.append(state().seconds)

    report = next(run_trial(make_config("forecasting", "linear", epochs=1, batch_size=250, **FEW), watch=watch))
    assert len(told) == 3
    assert told == sorted(told)
    assert report.seconds < 1.0


def test_a_checkpoint_of_before_is_read(make_config: Callable[..., TrialConfig], tmp_path: Path) -> None:
    config, path = make_config("forecasting", "linear", epochs=2, **FEW), tmp_path / "old.pt"
    first, second = with_saved(config, path)
    old = {key: value for key, value in torch.load(path, weights_only=True).items() if key != "within"}
    torch.save({**old, "version": 1}, path)
    assert [plain(report) for report in run_trial(config, resume=path)] == [plain(second)]
    assert first.epoch == 1


def with_saved(config: TrialConfig, path: Path) -> list[Report]:
    """All reports; the first one's checkpoint is kept."""
    reports: list[Report] = []
    for report in run_trial(config):
        if not reports:
            report.save(path)
        reports.append(report)
    return reports


def test_on_another_number_of_ranks_it_goes_on_too(inside: tuple[TrialConfig, Path]) -> None:
    """Draws are others there, and nothing else."""
    config, path = inside
    state = torch.load(path, weights_only=True)
    state["within"]["streams"]["ranks"] *= 2
    torch.save(state, path)
    assert next(run_trial(config, resume=path)).metrics == next(run_trial(config)).metrics, "linear draws nothing"


def test_a_snapshot_is_what_training_does_not_change() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        model(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()

    step()
    state: dict[str, Any] = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "best": {"x": 1.0},
                             "none": []}
    taken = snapshot(state)
    assert not difference(taken, state)
    assert taken["model"]._metadata == state["model"]._metadata
    before = taken["model"]["0.weight"].clone()
    step()
    assert difference(taken, state)
    assert torch.equal(taken["model"]["0.weight"], before)
    weights = 4 * (6 + 2 + 2 + 2)
    assert num_bytes(state) == 3 * weights + 4 * 4 + 4 * 4 + 8  # moments, their steps, running statistics
