"""Finished sweeps, each made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raymae.results.store.store import Store

from .finished import finished, text_of


@pytest.fixture(scope="session")
def sweep_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """A finished sweep of debug size over a task, on generated data."""
    made: dict[str, Store] = {}

    def make(task: str) -> Store:
        if task not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("RAYMAE_DATA", raising=False)
                patch.setenv("RAYMAE_OFFLINE", "1")
                patch.setenv("RAYMAE_CACHE", str(tmp_path_factory.getbasetemp() / "no-cache"))
                small = {} if task == "forecasting" else {"epochs": 1, "replicates": 1}
                made[task] = finished(tmp_path_factory.mktemp(task), text_of(task, **small))
        return made[task]

    return make


@pytest.fixture
def copied(tmp_path: Path, sweep_of: Callable[[str], Store]) -> Path:
    """A copy of a forecasting sweep's folder, to be damaged."""
    folder = tmp_path / "copied"
    shutil.copytree(sweep_of("forecasting").location, folder)
    return folder
