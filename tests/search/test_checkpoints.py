"""Large checkpoints are written beside training, and somebody always waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.contract.trials import difference
from raymae.search.checkpoints import TrialFiles
from raymae.spec import TrialConfig
from raymae.train import Report, checkpoint, run_trial
from raymae.train.trial import TrialState


@pytest.fixture
def config(make_config: Callable[..., TrialConfig], tmp_path: Path) -> TrialConfig:
    (tmp_path / "checkpoints").mkdir()
    return make_config("forecasting", "linear", epochs=3, batch_size=300, label_fraction=0.05)


class Storage:
    """Storage that takes its time: what was asked of it, and what lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.full = threading.Event(), False
        self.asked: list[tuple[str, bool]] = []
        written = checkpoint.save_checkpoint

        def save(path: Path, state: dict[str, Any]) -> None:
            self.asked.append((path.name, threading.current_thread() is threading.main_thread()))
            assert self.go.wait(60)
            if self.full:
                raise OSError(28, "No space left on device")
            written(path, state)

        monkeypatch.setattr(checkpoint, "save_checkpoint", save)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    slow = Storage(monkeypatch)
    yield slow
    slow.go.set()


def saved(tmp_path: Path, name: str = "t") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(tmp_path / "checkpoints" / f"{name}.pt", weights_only=True)
    return loaded


def test_training_goes_on_while_a_large_state_is_written_as_it_was(
    config: TrialConfig, tmp_path: Path, storage: Storage
) -> None:
    wanted = []
    for report in run_trial(config):
        report.save(tmp_path / "own.pt")
        wanted.append(torch.load(tmp_path / "own.pt", weights_only=True))
    files, reports = TrialFiles(str(tmp_path), "t", large=0), run_trial(config)
    assert files.keep(next(reports)) is None
    ahead: Report = next(reports)  # an epoch later nothing is written yet
    assert not (tmp_path / "checkpoints" / "t.pt").exists()
    storage.go.set()
    files.settle()
    assert not difference(saved(tmp_path), wanted[0])
    files.keep(ahead)
    files.settle()
    assert not difference(saved(tmp_path), wanted[1])
    files.keep(next(reports))
    assert not difference(saved(tmp_path), wanted[2]), "the last one is there at once"
    files.close()
    assert storage.asked == [("t.pt", False), ("t.pt", False), ("t.pt", True)]


def test_the_next_one_waits_for_the_one_before(config: TrialConfig, tmp_path: Path, storage: Storage) -> None:
    files, reports = TrialFiles(str(tmp_path), "t", large=0), run_trial(config)
    files.keep(next(reports))
    second = next(reports)
    waiting = threading.Thread(target=files.keep, args=(second,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    storage.go.set()
    waiting.join(60)
    files.close()
    assert len(saved(tmp_path)["history"]) == 2


def test_small_states_are_written_before_training_goes_on(
    config: TrialConfig, tmp_path: Path, storage: Storage
) -> None:
    storage.go.set()
    files = TrialFiles(str(tmp_path), "t")
    for number, report in enumerate(run_trial(config), 1):
        assert files.keep(report) is None
        assert len(saved(tmp_path)["history"]) == number
    assert {in_main for _, in_main in storage.asked} == {True}


def test_a_state_is_kept_once_in_so_many_seconds_and_milestones_always(
    config: TrialConfig, tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.go.set()
    now = [100.0]
    monkeypatch.setattr("raymae.search.checkpoints.time.monotonic", lambda: now[0])
    files, reports = TrialFiles(str(tmp_path), "t", every_s=1.0), run_trial(config)
    assert files.keep(next(reports)) is None
    assert not (tmp_path / "checkpoints" / "t.pt").exists(), "it has only begun"
    files.catch_up()
    assert len(saved(tmp_path)["history"]) == 1, "it leaves here"
    storage.asked.clear()
    files.catch_up()
    assert not storage.asked, "and that was kept"
    now[0] += 1.0
    files.keep(next(reports), milestones=3)
    assert len(saved(tmp_path)["history"]) == 2
    now[0] += 0.5
    files.keep(next(reports), milestones=3)
    assert len(saved(tmp_path)["history"]) == len(saved(tmp_path, "t@3")["history"]) == 3
    soon = TrialFiles(str(tmp_path), "soon", every_s=1.0)
    soon.keep_state(next(run_trial(config)).state())
    assert len(saved(tmp_path, "soon")["history"]) == 1, "inside an epoch whoever asks knows why"


@pytest.mark.parametrize("large", [0, 2**30])
def test_storage_that_is_full_is_said_with_a_report_and_then_no_more(
    large: int, config: TrialConfig, tmp_path: Path, storage: Storage
) -> None:
    storage.go.set()
    storage.full = True
    files = TrialFiles(str(tmp_path), "t", large)
    states: list[TrialState] = []

    def watch(batches: int, state: Callable[[], TrialState]) -> None:
        if not states:
            states.append(state())
            files.keep_state(states[0])

    reports = run_trial(config, watch=watch)
    first = next(reports)
    files.settle()
    storage.full = False
    why = "a checkpoint could not be written: [Errno 28] No space left on device"
    assert files.keep(first) == why, "inside the epoch"
    assert files.keep(next(reports)) is None
    files.settle()
    storage.full = True
    assert files.keep(next(reports)) == why, "the last one is waited for"


def test_a_milestone_is_on_storage_at_once_and_of_its_own_report(
    config: TrialConfig, tmp_path: Path, storage: Storage
) -> None:
    storage.go.set()
    files = TrialFiles(str(tmp_path), "t", large=0)
    for report in run_trial(config):
        files.keep(report, milestones=2)
        if report.epoch == 2:
            milestone = saved(tmp_path, "t@2")
            break
    assert milestone["epoch"] == 2
    last = run_trial(config, resume=tmp_path / "checkpoints" / "t@2.pt")
    files.keep(next(last))
    repeated = run_trial(config, resume=tmp_path / "checkpoints" / "t.pt", replay_from=1)
    assert next(repeated).epoch == 2
    files.keep(next(run_trial(config, resume=tmp_path / "checkpoints" / "t.pt", replay_from=1)), milestones=2)
    assert not difference(saved(tmp_path, "t@2"), milestone), "a repeated report comes with a later state"
