"""Labels of real scans by a network that knows no more than its card, scored by MONAI."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from raymae.errors import DataError
from tests.tasks.kept import Kept, MakeConfig, kept

CLASSES = 3


@pytest.fixture(scope="session")
def hippocampus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen of the real scans, in the layout without a list."""
    source = real_data / "hippocampus" / "Task04_Hippocampus"
    if not source.exists():
        pytest.skip(f"needs {source}")
    folder = tmp_path_factory.mktemp("scans")
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
        for path in sorted((source / kind).glob("hippocampus_*.nii.gz"))[:24]:
            shutil.copy(path, folder / kind)
    return folder


def train(make_config: MakeConfig, folder: Path, **changes: Any) -> Kept:
    where = {"name": "own", "source": "real", "path": str(folder)}
    return kept(make_config("volumes", "mae", data=where, stage="replicate", epochs=1, num_classes=CLASSES,
                            intensity="volume", **changes))


@pytest.fixture(scope="session")
def network(make_config: MakeConfig, hippocampus: Path) -> Kept:
    return train(make_config, hippocampus)


def labelled(network: Kept, source: Path, to: Path) -> list[Path]:
    writer, written = network.predictor.writer(to, source), []
    for item in network.predictor.items(source):
        inputs = item.read()
        written += writer.add(item, inputs, network.answer(inputs))
    return written + writer.close()


def test_labels_of_real_files_have_the_recorded_score(network: Kept, hippocampus: Path, tmp_path: Path) -> None:
    task: Any = network.task
    (tmp_path / "in").mkdir()
    for scan in task.data.scans["test"]:
        shutil.copy(scan.image, tmp_path / "in")
    dice = DiceMetric(include_background=False, reduction="mean_batch")
    written = labelled(network, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == [scan.image.name for scan in task.data.scans["test"]]
    for path, scan in zip(written, task.data.scans["test"], strict=True):
        label, image, truth = (nibabel.load(one) for one in (path, scan.image, scan.label))
        assert label.shape == image.shape
        assert np.array_equal(label.affine, image.affine)
        assert label.get_data_dtype() == np.uint8
        assert [int(label.header[code]) for code in ("qform_code", "sform_code")] == [
            int(image.header[code]) for code in ("qform_code", "sform_code")]
        said, true = (one_hot(torch.tensor(np.asarray(one.dataobj).astype(np.int64))[None, None], CLASSES)
                      for one in (label, truth))
        dice(said, true)
    assert float(dice.aggregate().mean()) == pytest.approx(network.scores["dice"], rel=1e-6)


def test_the_own_grid_comes_back_from_another_orientation_and_spacing(
    make_config: MakeConfig, network: Kept, hippocampus: Path, tmp_path: Path
) -> None:
    path = sorted((hippocampus / "imagesTr").iterdir())[0]
    image = nibabel.load(path)
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt("PSL"))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    plain, other = network.answer(path), network.answer(tmp_path / "turned.nii.gz")
    assert plain.shape != other.shape
    back = nibabel.Nifti1Image(other, turned.affine).as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(turned.affine), nibabel.orientations.io_orientation(image.affine)))
    assert np.array_equal(np.asarray(back.dataobj), plain)
    array = np.asarray(image.dataobj, dtype=np.float32)
    assert np.array_equal(network.answer((array, image.affine)), plain)
    assert network.predictor.encode(network.model, network.predictor.prepare(path)).shape == (
        1, network.predictor.params.encoder_dim)

    resampling = train(make_config, hippocampus, spacing="1.4x1.2x1.6")
    found = resampling.answer(path)
    assert found.shape == image.shape
    prepared, _ = resampling.predictor.prepare(path)
    assert prepared.shape[1:] != image.shape
    onto = torch.zeros(prepared.shape[1:])
    onto[5:20, 6:20, 4:12] = 1
    scores = torch.stack([1 - onto, onto, 0 * onto]).numpy()
    box = resampling.predictor.answer(scores, (prepared, None))
    corners = np.argwhere(box == 1)
    millimetres = (image.affine @ np.c_[corners, np.ones(len(corners))].T)[:3]
    wanted = np.asarray(prepared.affine) @ np.array([[5, 6, 4, 1], [19, 19, 11, 1]]).T
    assert np.abs(millimetres.min(axis=1) - wanted[:3].min(axis=1)).max() <= 1.6
    assert np.abs(millimetres.max(axis=1) - wanted[:3].max(axis=1)).max() <= 1.6


def test_bad_files_are_refused(network: Kept, hippocampus: Path, tmp_path: Path) -> None:
    path = sorted((hippocampus / "imagesTr").iterdir())[0]
    image = nibabel.load(path)
    (tmp_path / "torn.nii.gz").write_bytes(path.read_bytes()[:3000])
    (tmp_path / "other.nii").write_bytes(gzip.compress(b"text"))
    two = np.stack([np.asarray(image.dataobj)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(two, image.affine), tmp_path / "two.nii.gz")
    complaints = {"torn.nii.gz": "is damaged or no NIfTI", "other.nii": "is damaged or no NIfTI",
                  "two.nii.gz": "has 2 channels, the network has learned from 1"}
    items = list(network.predictor.items(tmp_path))
    assert {item.name for item in items} == set(complaints)
    for item in items:
        with pytest.raises(DataError, match=complaints[item.name]) as caught:
            item.read()
        assert item.name in str(caught.value)
    with pytest.raises(DataError, match="must be the name of a folder"):
        network.predictor.writer(tmp_path / "out.nii.gz", tmp_path)
