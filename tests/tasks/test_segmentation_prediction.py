"""Masks of real photographs by a network that knows no more than its card, scored by scikit-learn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from raymae.errors import DataError
from tests.tasks.kept import Kept, MakeConfig, kept


@pytest.fixture(scope="session")
def network(make_config: MakeConfig, real_data: Path) -> Kept:
    path = real_data / "camvid"
    if not path.exists():
        pytest.skip(f"needs {path}")
    where = {"name": "CamVid", "source": "real", "path": str(path)}
    return kept(make_config("segmentation", "mae", data=where, stage="replicate", epochs=1, pretrain_crop=48))


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_masks_of_real_files_have_the_recorded_score(network: Kept, tmp_path: Path) -> None:
    task: Any = network.task
    folder, to = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    tested = task.data.test
    for source in tested.sources:
        shutil.copy(source, folder)
    predictor = network.predictor
    writer, written = predictor.writer(to, folder), []
    for item in predictor.items(folder):
        inputs = item.read()
        written += writer.add(item, inputs, network.answer(inputs))
    written += writer.close()
    assert all(path.is_file() for path in written)
    table = pd.read_csv(to / "classes.csv").set_index("number")
    assert list(table["class"]) == list(task.data.classes)
    confusion = np.zeros((len(table), len(table)))
    for source, label in zip(tested.sources, tested.files, strict=True):
        mask, truth_HX = opened(to / "masks" / f"{source.stem}.png"), np.asarray(opened(label))
        assert mask.mode == "P"
        said_HX = np.asarray(mask)
        known = truth_HX > 0
        confusion += confusion_matrix(truth_HX[known], said_HX[known], labels=table.index)
        row, column = 5, 7
        colour = np.asarray(mask.convert("RGB"))[row, column]
        assert table["colour"][said_HX[row, column]] == "#" + bytes(colour).hex()
        assert opened(to / "overlays" / f"{source.stem}.jpg").size == mask.size
    hit, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert (hit / union)[union > 0].mean() == pytest.approx(network.scores["miou_native"], rel=1e-5)


def test_forms_of_an_image_and_bad_ones(network: Kept, tmp_path: Path) -> None:
    task: Any = network.task
    path = task.data.test.sources[0]
    shutil.copy(path, tmp_path / "same.png")
    image = opened(path)
    image.convert("RGB").resize((70, 40)).save(tmp_path / "same.jpg")
    plain, array = network.answer(image), np.asarray(image.convert("RGB"))
    assert plain.shape == array.shape[:2]
    assert np.array_equal(plain, network.answer(path))
    assert np.array_equal(plain, network.answer(array))
    assert network.predictor.encode(network.model, network.predictor.prepare(array)).shape == (1, 16)
    (tmp_path / "torn.png").write_bytes(path.read_bytes()[:500])
    small, whole, torn = network.predictor.items(tmp_path)
    with pytest.raises(DataError, match=r"torn\.png is not a readable image"):
        torn.read()
    writer = network.predictor.writer(tmp_path / "out.d", tmp_path)
    for item in (small, whole):
        given = item.read()
        writer.add(item, given, network.answer(given))
    masks = tmp_path / "out.d" / "masks"
    assert opened(masks / "same.png").size == (70, 40)
    assert opened(masks / "same.png.png").size == array.shape[1::-1]
    with pytest.raises(DataError, match="must be the name of a folder"):
        network.predictor.writer(tmp_path / "mask.png", tmp_path)
