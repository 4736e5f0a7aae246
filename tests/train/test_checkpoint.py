from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.errors import TrialError
from raymae.train.checkpoint import load_checkpoint, save_checkpoint

STATE: dict[str, Any] = {"config_id": "abc", "seed": 3, "weights": {"w": torch.arange(300.0)}, "best": {"val_mse": 0.5}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trial" / "checkpoint.pt"
    save_checkpoint(path, STATE)
    return path


def load(path: Path) -> dict[str, Any]:
    return load_checkpoint(path, config_id="abc", seed=3)


def test_what_is_saved_is_loaded(path: Path) -> None:
    state = load(path)
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])
    assert (state["best"], state["seed"]) == (STATE["best"], 3)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync", "os.replace"])
def test_a_crash_while_saving_leaves_the_old_file(
    broken: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any, **kwargs: Any) -> None:
        if broken == "torch.save":
            args[1].write(b"half a checkpoint")
        raise KeyboardInterrupt

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(broken, crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {**STATE, "best": {}})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]  # nothing half-written stays


def test_the_file_appears_only_when_it_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks while it is being written, or after a power cut, sees the old one or the new one."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), load(Path(a)), replace(a, b))[2])
    save_checkpoint(path, STATE)
    assert order == ["fsync", "replace"]


def test_a_truncated_file_fails_the_trial_with_advice(path: Path) -> None:
    whole = path.read_bytes()
    for length in (0, 1, 2, 3, 10, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TrialError, match=r"checkpoint\.pt: damaged checkpoint .*delete it to start the trial over"):
            load(path)


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\x80\x02.", b"PK\x03\x04" + bytes(200), bytes(500)])
def test_rubbish_fails_the_trial_with_advice(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(TrialError, match="delete it to start the trial over"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=r"nowhere\.pt: damaged checkpoint \(FileNotFoundError\)"):
        load(tmp_path / "nowhere.pt")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("form", ["checkpoint", "pickle"])
def test_a_malicious_checkpoint_is_refused_unexecuted(form: str, path: Path, tmp_path: Path) -> None:
    made = tmp_path / "executed"
    state = {"version": 1, **STATE, "extra": Evil(str(made))}
    if form == "checkpoint":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(TrialError, match="damaged checkpoint"):
        load(path)
    assert not made.exists()


@pytest.mark.parametrize("state", [{}, {"version": 0, "config_id": "abc", "seed": 3}, [1, 2]])
def test_something_else_than_a_checkpoint_is_refused(state: Any, path: Path) -> None:
    torch.save(state, path)
    with pytest.raises(TrialError, match="not a checkpoint of version"):
        load(path)


def test_another_configurations_or_seeds_checkpoint_is_refused(path: Path) -> None:
    with pytest.raises(TrialError, match="belongs to configuration abc with seed 3, not to xyz with seed 3"):
        load_checkpoint(path, config_id="xyz", seed=3)
    with pytest.raises(TrialError, match="belongs to configuration abc with seed 3, not to abc with seed 4"):
        load_checkpoint(path, config_id="abc", seed=4)
    torch.save({"version": 1}, path)
    with pytest.raises(TrialError, match="belongs to configuration None"):
        load(path)
