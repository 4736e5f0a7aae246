"""The imputer of a sweep is the network that the sweep kept: loaded, not trained."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

import raymae
from raymae.data.synthetic.tables import synthetic_table
from raymae.errors import ModelError
from raymae.tasks.imputation import Imputation

pytestmark = pytest.mark.skipif(Imputation.predictor is None, reason="imputation cannot predict yet")


@pytest.fixture
def frame(sweep_of):
    """Rows of the sweep's own kind, a tenth of their cells away."""
    table = synthetic_table()
    rows = pd.DataFrame(table.values_RC, columns=list(table.columns)).dropna().head(200)
    for name, categories in zip(table.columns, table.categories, strict=True):
        if categories:
            rows[name] = [categories[int(code)] for code in rows[name]]
    rows = rows[raymae.load_model(sweep_of("imputation").root, "mae").card.state["columns"]]
    return rows.mask(np.random.default_rng(0).random(rows.shape) < 0.1)


def test_it_fills_without_training(sweep_of, frame, monkeypatch):
    root = sweep_of("imputation").root
    monkeypatch.setattr("raymae.imputer.run_trial", lambda *args, **more: pytest.fail("it trains"))
    imputer = raymae.MAEImputer.from_sweep(root)
    filled = imputer.transform(frame)
    assert not filled.isna().any().any()
    assert list(filled.columns) == list(frame.columns)
    for name in frame:
        there = frame[name].notna()
        assert (filled[name][there] == frame[name][there]).all()
    pd.testing.assert_frame_equal(filled, raymae.load_model(root, "mae").predict(frame))
    card = raymae.load_model(root, "mae").card
    assert imputer.scores_["rmse"] == card.scores["val_rmse"]
    assert imputer.config_.to_json() == card.config


def test_without_a_model_it_says_how(sweep_of, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(sweep_of("imputation").location, folder)
    shutil.rmtree(folder / "models")
    with pytest.raises(ModelError, match="refit=True"):
        raymae.MAEImputer.from_sweep(folder)
    assert raymae.MAEImputer.from_sweep(folder, refit=True).settings["encoder_dim"]
