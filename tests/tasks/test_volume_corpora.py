"""Pretraining on other volumes than are segmented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.volumes.task import Volumes

CPU = torch.device("cpu")
MakeConfig = Callable[..., TrialConfig]
SIDE = 18


def save(path: Path, seed: int, *, label: bool = False, channels: int = 1) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE, SIDE) if channels == 1 else (SIDE, SIDE, SIDE, channels)
    voxels = rng.integers(0, 2, shape).astype(np.uint8) if label else rng.integers(-500, 500, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    for number in range(8):
        save(tmp_path / "own" / "imagesTr" / f"scan{number}.nii.gz", number)
        save(tmp_path / "own" / "labelsTr" / f"scan{number}.nii.gz", number, label=True)
    return {"name": "own", "source": "real", "path": str(tmp_path / "own")}


def make(make_config: MakeConfig, data: dict[str, Any], *paths: Path, own: bool = True) -> Volumes:
    data = {**data, "pretraining": {"data": [{"path": str(path)} for path in paths], "own": own}}
    return Volumes(make_config("volumes", "mae", data=data, num_classes=2, pretrain_boxes=0), CPU)


def test_volumes_of_both_are_seen_and_none_that_is_scored(
    make_config: MakeConfig, own: dict[str, Any], tmp_path: Path
) -> None:
    import nibabel

    alone = make(make_config, own)
    for split in ("val", "test"):
        name = alone.units(split).names[0]
        copy: Any = nibabel.load(tmp_path / "own" / "imagesTr" / f"{name}.nii.gz")
        saved = nibabel.Nifti1Image(np.asarray(copy.dataobj).astype(np.float32), np.eye(4))
        (tmp_path / "more" / "deep").mkdir(parents=True, exist_ok=True)
        nibabel.save(saved, tmp_path / "more" / "deep" / f"again_{split}.nii")
    for number in range(3):
        save(tmp_path / "more" / f"x{number}.nii.gz", 100 + number)
        save(tmp_path / "more" / "labelsTr" / f"x{number}.nii.gz", number, label=True)
    task = make(make_config, own, tmp_path / "more")
    count = len(alone.load("pretrain"))
    assert len(task.load("pretrain")) == count + 3
    assert task.units("pretrain").names == (*alone.units("pretrain").names,
                                            *(f"more/x{number}.nii.gz" for number in range(3)))
    line = task.pretrains_on(task.config.data, task.config.params)
    assert line == f"{count} training volumes and 3 volumes of more (2 left out, as val or test has the same)"
    index = torch.arange(count + 3)
    whole = task.load("pretrain").batch(index, None)["image"]
    assert torch.equal(whole[:count], alone.load("pretrain").batch(index[:count], None)["image"])
    assert torch.equal(make(make_config, own, tmp_path / "more", own=False).load("pretrain").batch(
        torch.arange(3), None)["image"], whole[count:])


def test_what_is_no_corpus_is_said(make_config: MakeConfig, own: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none holds no NIfTI file"):
        make(make_config, own, tmp_path / "none").load("pretrain")
    save(tmp_path / "wide" / "a.nii.gz", 1, channels=2)
    with pytest.raises(DataError, match=r"a.nii.gz: has 2 channels, but the labelled volumes have 1"):
        make(make_config, own, tmp_path / "wide").load("pretrain")
