"""Examples that belong together are in one split, and every example has a name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from raymae.contract.splits import units_apart
from raymae.data.find.locate import locate
from raymae.data.find.registry import DATASETS
from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.spec.sweep import DataSpec
from raymae.tasks import TASKS, schema_of, task_class
from raymae.tasks.base import Task

READS = {"series": "forecasting", "images": "classification", "scenes": "segmentation", "volumes": "volumes",
         "tables": "imputation"}
# Full Tiny ImageNet is decoded by its own tests.
REAL = [(READS[about.modality], name) for name, about in DATASETS.items()
        if name != "tiny-imagenet" and about.labelled]
CHANGES: dict[str, dict[str, Any]] = {
    # under the transductive protocol every row is learned from, as the protocol says
    "imputation": {"protocol": "inductive"},
    "classification": {"num_classes": 0, "per_class": 0},
}
TABLES = ("imputation", "prediction")
MakeConfig = Callable[..., TrialConfig]


def pretrained(name: str) -> str:
    return next(arm for arm, about in schema_of(name).arms.items() if about.kind == "pretrained")


def made(config: TrialConfig) -> Task:
    return task_class(config.task)(config, torch.device("cpu"))


def read(task: str, name: str) -> dict[str, str]:
    try:
        found = locate(DataSpec(name=name, root=os.environ.get("RAYMAE_DATA")))
    except DataError:
        pytest.skip(f"needs {name} in $RAYMAE_DATA")
    return {"name": name, "source": "real", "path": str(found.path)}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_generated_examples_have_names_and_are_in_one_split(
    name: str, fraction: float, make_config: MakeConfig
) -> None:
    task = made(make_config(name, pretrained(name), label_fraction=fraction, **CHANGES.get(name, {})))
    of = units_apart(task)
    assert (len(of["train"].names) < len(of["pretrain"].names)) == (fraction < 1)


@pytest.mark.parametrize(("name", "data"), REAL)
def test_no_group_of_real_data_is_in_two_splits(
    name: str, data: str, make_config: MakeConfig, real_data: Path
) -> None:
    config = make_config(name, pretrained(name), data=read(name, data), **CHANGES.get(name, {}))
    of = units_apart(made(config))
    known = {"ETTh1", "CamVid", "Hippocampus"}
    assert (of["test"].groups is not None) == (data in known)
    line = task_class(name).validate(config.data, config.params)
    assert ("test groups" in line) == (data in known) != ("no groups known: settings.group" in line)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A user's data of a task on disk, 30 examples of 10 owners in the layouts that people have."""
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    names = [f"owner{index // 3:02d}_{index % 3}" for index in range(30)]

    def classification() -> None:
        for index, name in enumerate(names):
            path = tmp_path / "own" / "ab"[index // 3 % 2] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (index, 0, 0)).save(path)

    def segmentation() -> None:
        for index, name in enumerate(names):
            for kind, mode in (("images", "RGB"), ("annotations", "L")):
                path = tmp_path / "own" / kind / ("validation" if index % 3 == 2 else "training") / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (16, 16), 1 if mode == "L" else (index, 0, 0)).save(path)
        (tmp_path / "own" / "unlabelled_images").mkdir()
        for owner in range(12):
            path = tmp_path / "own" / "unlabelled_images" / f"owner{owner:02d}_9.png"
            Image.new("RGB", (16, 16), (200, owner, 0)).save(path)
        (tmp_path / "own" / "objectInfo.txt").write_text("Idx\tName\n1\tsky\n2\tground\n")

    def volumes() -> None:
        import nibabel
        import numpy as np

        for folder, kind, listed in (("imagesTr", np.int16, names), ("labelsTr", np.uint8, names),
                                     ("imagesTs", np.int16, [f"owner{owner:02d}_9" for owner in range(12)])):
            (tmp_path / "own" / folder).mkdir(parents=True)
            for index, name in enumerate(listed):  # images differ, labels are foreground
                value = index + (100 if folder == "imagesTs" else 0) if kind is np.int16 else 1
                volume = nibabel.Nifti1Image(np.full((4, 4, 4), value, kind), np.eye(4))
                nibabel.save(volume, tmp_path / "own" / folder / f"{name}.nii.gz")

    def table() -> None:
        lines = [f"{index},{index % 7},owner {index // 3}" for index in range(30)]
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "table.csv").write_text("a,b,owner\n" + "\n".join(lines) + "\n")

    def make(name: str) -> Path:
        {"classification": classification, "segmentation": segmentation, "volumes": volumes,
         **dict.fromkeys(TABLES, table)}[name]()
        return tmp_path / "own" / "table.csv" if name in TABLES else tmp_path / "own"

    return make


@pytest.mark.parametrize("name", [name for name in TASKS if "group" in schema_of(name).params.model_fields])
def test_a_users_groups_are_in_one_split(
    name: str, own: Callable[[str], Path], make_config: MakeConfig
) -> None:
    group = "owner" if name in TABLES else "^(owner[0-9]+)_"
    data = {"name": "own", "source": "real", "path": str(own(name))}
    changes: dict[str, Any] = {"classification": {"image_size": 8, "patch_size": 4}}.get(name, {})
    changes = {**changes, **CHANGES.get(name, {}), "data": data}
    if name == "prediction":
        changes["target"] = "b"
    if name in ("segmentation", "volumes"):
        changes["unlabelled"] = True
    config = make_config(name, pretrained(name), **changes, group=group)
    of = units_apart(made(config))
    scored = {*(of["val"].groups or ()), *(of["test"].groups or ())}
    assert len({*(of["pretrain"].groups or ())} | scored) == (12 if name in ("segmentation", "volumes") else 10)
    assert "test groups" in task_class(name).validate(config.data, config.params)
    few = made(make_config(name, pretrained(name), **changes, group=group, label_fraction=0.34))
    labelled, learned = few.units("train").groups, of["train"].groups
    assert labelled is not None
    assert learned is not None
    assert 0 < len({*labelled}) < len({*learned})
    assert all(labelled.count(one) == learned.count(one) for one in {*labelled})  # each whole
    ungrouped = made(make_config(name, pretrained(name), **changes))  # asked for in the same process, and not served
    assert ungrouped.units("test").groups is None
    assert "no groups known: settings.group" in task_class(name).validate(config.data, make_config(
        name, pretrained(name), **changes).params)
    if name not in TABLES:
        assert schema_of(name).check(pretrained(name), {**config.params, "group": "(["})[0][0] == "group"
