"""Classes of real files by a network that knows no more than its card, scored by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import log_loss, top_k_accuracy_score

from raymae.errors import DataError
from raymae.tasks.predictor import Item
from tests.tasks.kept import Kept, MakeConfig, kept


@pytest.fixture(scope="session")
def mini(real_data: Path) -> Path:
    path = real_data / "tiny_imagenet" / "mini" / "tiny-imagenet-200"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


@pytest.fixture(scope="session")
def network(make_config: MakeConfig, mini: Path) -> Kept:
    where = {"name": "tiny-imagenet-mini", "source": "real", "path": str(mini)}
    return kept(make_config("classification", "mae", data=where, stage="replicate", epochs=2))


def test_a_folder_of_real_files_has_the_recorded_score(network: Kept, mini: Path, tmp_path: Path) -> None:
    predictor, folder, to = network.predictor, mini / "val" / "images", tmp_path / "out.csv"
    writer = predictor.writer(to, folder)
    for item in predictor.items(folder):
        inputs = item.read()
        assert writer.add(item, inputs, network.answer(inputs)) == []
    assert writer.close() == [to]
    found = pd.read_csv(to)
    labels = pd.read_csv(folder.parent / "val_annotations.txt", sep="\t", header=None).set_index(0)[1]
    truth, classes = labels[found["file"]], sorted((mini / "wnids.txt").read_text().split())
    assert list(found.columns) == ["file", "class", "probability", *(f"p_{name}" for name in classes)]
    chances = found[[f"p_{name}" for name in classes]].to_numpy()
    assert np.mean(found["class"].to_numpy() == truth.to_numpy()) == pytest.approx(network.scores["top1"], abs=1e-12)
    assert top_k_accuracy_score(truth, chances, k=5, labels=classes) == pytest.approx(network.scores["top5"])
    assert log_loss(truth, chances, labels=classes) == pytest.approx(network.scores["nll"], rel=1e-5)
    assert np.allclose(found["probability"], chances.max(axis=1))


def as_opened(path: Path) -> Image.Image:
    return Image.open(path)


def as_array(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("form", [str, as_opened, as_array])
def test_an_image_may_come_in_several_forms(network: Kept, mini: Path, form: Callable[[Path], object]) -> None:
    some = sorted((mini / "val" / "images").iterdir())[:3]
    pd.testing.assert_frame_equal(network.answer([form(path) for path in some]), network.answer(some))
    encoded = network.predictor.encode(network.model, network.predictor.prepare(some))
    assert encoded.shape == (3, 16)
    assert not np.allclose(encoded[0], encoded[1])


def test_files_of_another_size_and_bad_ones(network: Kept, mini: Path, tmp_path: Path) -> None:
    good = sorted((mini / "val" / "images").iterdir())[0]
    with Image.open(good) as opened:
        opened.resize((300, 200)).save(tmp_path / "large.png")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "short.JPEG").write_bytes(good.read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("not looked at")
    items = list(network.predictor.items(tmp_path))
    assert [item.name for item in items] == ["below/short.JPEG", "large.png"]
    with pytest.raises(DataError, match=r"short\.JPEG: damaged image of 200 bytes"):
        items[0].read()
    assert network.answer(items[1].read())["class"][0] in network.predictor.state["classes"]
    with pytest.raises(DataError, match="nothing to predict for; looked for images"):
        list(network.predictor.items(_empty(tmp_path)))
    with pytest.raises(DataError, match=r"uint8 with shape \(rows, columns, 3\), got float64 with shape \(8, 8, 3\)"):
        network.answer(np.zeros((8, 8, 3)))
    with pytest.raises(DataError, match=r"out\.txt: cannot be written; its name must end with one of \.csv"):
        network.predictor.writer(tmp_path / "out.txt", tmp_path)
    writer = network.predictor.writer(tmp_path / "new" / "out.parquet", tmp_path)
    writer.add(Item("a", lambda: None), None, network.answer(good))
    writer.close()
    assert list(pd.read_parquet(tmp_path / "new" / "out.parquet")["file"]) == ["a"]


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"
