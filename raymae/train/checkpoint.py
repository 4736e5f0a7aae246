"""Checkpoints: one file, written whole or not at all, loaded without executing code."""

from __future__ import annotations

import os
import tempfile
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raymae.errors import CheckpointError

VERSION = 2  # may be taken inside an epoch, which those that know 1 alone would train again
READABLE = (1, 2)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to `path` atomically.

    Raises:
        OSError: The storage failed, or is full; an earlier file of this name is still whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # torch's name for a failed write
            raise OSError(f"{path}: {error}") from error
        raise


def load_checkpoint(path: Path, *, config_id: str, seed: int) -> dict[str, Any]:
    """Read a checkpoint of the same configuration and seed; only tensors and plain values are ever unpickled.

    Raises:
        CheckpointError: It is damaged, of another version, or of another trial.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises all kinds on damaged files, IndexError among them
        raise CheckpointError(
            f"{path}: damaged checkpoint ({type(error).__name__}); delete it to start the trial over"
        ) from error
    if not isinstance(state, dict) or state.get("version") not in READABLE:
        raise CheckpointError(f"{path}: not a checkpoint of version {VERSION}; delete it to start the trial over")
    if (state.get("config_id"), state.get("seed")) != (config_id, seed):
        raise CheckpointError(
            f"{path}: belongs to configuration {state.get('config_id')} with seed {state.get('seed')}, "
            f"not to {config_id} with seed {seed}; delete it to start the trial over"
        )
    return state


def num_bytes(state: Any) -> int:
    """Bytes of all tensors in plain values."""
    if isinstance(state, Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(map(num_bytes, parts))


def snapshot(state: Any) -> Any:
    """A copy of plain values in this machine's memory, which training does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        copied = copy(state)  # with what torch's own dictionaries say of modules' versions
        copied.update((key, snapshot(value)) for key, value in state.items())
        return copied
    return type(state)(map(snapshot, state)) if isinstance(state, (list, tuple)) else state
