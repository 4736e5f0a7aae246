"""Kept networks as ONNX: onnxruntime computes what they do, for any number of examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raymae.errors import ModelError, ResultsError
from raymae.inference.export_onnx import export_onnx
from raymae.inference.load import load_model

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def synthetic(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "no-cache"))
    torch.set_num_threads(1)


@pytest.mark.parametrize(("task", "holds"), [("forecasting", "prediction"), ("classification", "prediction"),
                                            ("segmentation", "network"), ("prediction", "prediction")])
def test_onnxruntime_computes_the_same(sweep_of, tmp_path, task, holds):
    store = sweep_of(task)
    done = export_onnx(store.location, tmp_path / "x.onnx")
    assert (done.holds, done.arm) == (holds, "mae")
    assert done.max_difference < (1e-4 if task != "prediction" else 0.1)  # dollars, of 200,000
    assert {shape[0] for shape in done.inputs.values()} == {"batch"}
    with pytest.raises(ResultsError, match="exists already"):
        export_onnx(store.location, tmp_path / "x.onnx")


def test_a_classifiers_file_takes_images(sweep_of, tmp_path):
    import onnxruntime

    store = sweep_of("classification")
    done = export_onnx(store.location, tmp_path / "x.onnx", "mae")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    images_BCHW = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    assert done.inputs == {"image": ["batch", 3, 32, 32]}
    scores_BK = session.run(None, {"image": images_BCHW})[0]
    assert scores_BK.shape == (5, 10)
    assert load_model(store.location, arm="mae").card.trial_id == done.trial_id


def test_no_model_is_said(sweep_of, tmp_path):
    with pytest.raises(ModelError, match="unknown arm"):
        export_onnx(sweep_of("forecasting").location, tmp_path / "x.onnx", "scratch")
