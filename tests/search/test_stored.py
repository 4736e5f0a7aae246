"""A sweep that version 0.1.0 began and a kill -9 cut short: this version finishes it, with the same scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raymae.results import Store
from tests.search.conftest import Sweep

STORED = Path(__file__).parents[1] / "results" / "stored"
TEST_MSE = {  # what version 0.1.0 itself made of the same folder
    "scratch": 0.0005656916283134257, "mae": 0.0005660567388141753, "persistence": 0.0021697658755190623,
}


@pytest.mark.slow
def test_a_folder_of_an_older_version_is_continued(tmp_path: Path):
    shutil.copytree(STORED / "cut", tmp_path / "results" / "cut")
    before = Store.open(tmp_path / "results" / "cut").trials()
    sweep = Sweep(tmp_path, (STORED / "stored.yaml").read_text())
    done = sweep.run("--set", "name=cut", "--set", "training.epochs=4", "--set", "search.num_trials=2",
                     "--set", "replicates=2")
    assert done.returncode == 0, done.stderr
    assert "continuing: 3 trials are done, 2 were under way" in done.stderr
    store = Store.open(tmp_path / "results" / "cut")
    trials = store.trials()
    assert (trials["stage"] != "pretrain").sum() == 10
    assert not trials["trial_id"].duplicated().any()
    kept = trials[trials["trial_id"].isin(before["trial_id"])]
    assert sorted(kept["ended_at"]) == sorted(before["ended_at"]), "ended trials are not run again"
    verdict = store.verdict()
    assert verdict["complete"]
    assert {arm["arm"]: arm["metrics"]["test_mse"]["mean"] for arm in verdict["arms"]} == pytest.approx(
        TEST_MSE, rel=1e-4)
