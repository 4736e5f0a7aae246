"""A kept model, loaded in a new process, has the score that was recorded: to the last bit that is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raymae
from raymae.errors import DataError, ModelError
from raymae.tasks import TASKS

from .finished import finished, text_of

SCORE = """
import json, sys, torch
torch.set_num_threads(1)
import raymae
model = raymae.load_model(sys.argv[1], device="cpu")
print(json.dumps([model.card.trial_id, model.score(), model.score("val")]))
"""


def scored_elsewhere(folder, **environment):
    """What a new process says of a folder's best model."""
    known = {**os.environ, "PYTHONPATH": str(Path(raymae.__file__).parents[1]), **environment}
    done = subprocess.run([sys.executable, "-c", SCORE, folder], capture_output=True, text=True, timeout=300,
                          env={name: value for name, value in known.items() if value})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_against_rows(store, told):
    """The scores are those of the trial's row in Parquet."""
    trial_id, test, val = told
    trials = store.trials()
    row = trials[trials["trial_id"] == trial_id].iloc[0]
    columns = {f"test_{name}" for name in store.manifest.task.metrics if f"test_{name}" in row.dropna().index}
    assert columns
    assert {name: test[name] for name in columns} == {name: row[name] for name in columns}
    objective = store.objective()
    assert val[objective.val] == row[objective.val]
    replicates = trials[trials["stage"] == "replicate"][objective.val]
    assert row[objective.val] == (replicates.min() if objective.mode == "min" else replicates.max())


@pytest.mark.parametrize("task", TASKS)
def test_a_new_process_reproduces_the_recorded_score(sweep_of, task):
    store = sweep_of(task)
    told = scored_elsewhere(store.location, RAYMAE_DATA="", RAYMAE_OFFLINE="1", RAYMAE_CACHE="/nowhere")
    check_against_rows(store, told)


def test_on_real_data(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYMAE_DATA", str(real_data))
    store = finished(tmp_path, text_of("forecasting", arms="[mae, scratch, persistence]", if_unavailable="error"))
    check_against_rows(store, scored_elsewhere(store.location))
    cards = [raymae.load_model(store.root, arm, ensemble=True).cards for arm in ("mae", "scratch")]
    assert [card.data["licence"] for card in cards[0]] == ["CC BY-ND 4.0"] * 2
    assert cards[0][0].encoder_id is not None
    assert cards[1][0].encoder_id is None
    with pytest.raises(ModelError, match="unknown arm 'persistence'"):
        raymae.load_model(store.root, "persistence")
    other = tmp_path / "other.csv"
    other.write_text("\n".join((real_data / "ett" / "ETTh1.csv").read_text().splitlines()[:9000]))
    with pytest.raises(DataError, match=f"{cards[0][0].fingerprint}"):
        raymae.load_model(store.root).score(path=other)


def test_an_ensemble_has_members(sweep_of, monkeypatch):
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", "/nowhere")
    store = sweep_of("forecasting")
    model = raymae.load_model(store.root, "mae", ensemble=True, device="cpu")
    with pytest.raises(ModelError, match="members"):
        model.score()
    objective = store.objective().test
    assert [one.score()[objective] for one in model.members] == [card.scores[objective] for card in model.cards]
