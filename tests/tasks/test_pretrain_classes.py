"""Pretraining on the images of more classes than are told apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from raymae.errors import SpecError
from raymae.search.description import render
from raymae.search.dry_run import describe
from raymae.search.plan import make_plan
from raymae.spec import TrialConfig
from raymae.spec.encoder import encoder_id, pretraining_of
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of
from raymae.tasks.classification.task import Classification
from raymae.train import run_trial

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_classes": 2, "per_class": 0}
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Six classes of 20 training and 4 test images; a picture's red is its class, its green its number."""
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    for split, label, number in itertools.product(("train", "test"), range(6), range(20)):
        if split == "train" or number < 4:
            path = tmp_path / "data" / split / f"class{label}" / f"p{label}{number:02d}_{split}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * label, number, 200 * (split == "test"))).save(path)
    return {"name": "six", "source": "real", "path": str(tmp_path / "data")}


def seen(task: Classification, split: str = "pretrain") -> list[tuple[int, int]]:
    """Class and number of every image of a split, by its colour."""
    source = task.load(split)
    pixels_BCHW = source.data.pixels(source.rows_N)
    return [(round(float(red) * 255) // 40, round(float(green) * 255)) for red, green in pixels_BCHW[:, :2, 0, 0]]


def make(make_config: MakeConfig, arm: str = "mae", **changes: Any) -> Classification:
    return Classification(make_config("classification", arm, **{**SMALL, **changes}), CPU)


def test_pretraining_sees_the_images_of_further_classes(make_config: MakeConfig, folder: dict[str, str]) -> None:
    own = make(make_config, data=folder)
    told_apart = {label for label, _ in seen(own)}
    assert len(told_apart) == 2
    assert len(seen(own)) == 36  # 2 of 20 are held out to select on
    every = make(make_config, data=folder, pretrain_classes=0)
    assert seen(every)[:36] == seen(own)
    assert sorted(seen(every)[36:]) == [(label, number) for label in sorted({*range(6)} - told_apart)
                                        for number in range(20)]
    for split in ("train", "val", "test", "pretext"):
        assert seen(every, split) == seen(own, split)
    three = make(make_config, data=folder, pretrain_classes=3)
    assert {*seen(own)} < {*seen(three)} < {*seen(every)}
    assert len(seen(three)) == 56
    assert every.build().head.out_features == 2  # type: ignore[union-attr]
    assert every.load("pretrain").batch(torch.arange(30, 40), Generator().manual_seed(0)).keys() == {"image"}
    units = every.units("pretrain")
    assert len({*units.names}) == len(units.names) == len(every.load("pretrain")) == 116
    assert [int(name.split("class")[1][0]) for name in units.names] == [label for label, _ in seen(every)]


@pytest.mark.parametrize("size", [8, 16])
def test_batches_are_of_the_images_asked_for(make_config: MakeConfig, folder: dict[str, str], size: int) -> None:
    """Indices on both sides of where one array ends and the next begins, in any order."""
    source = make(make_config, data=folder, pretrain_classes=0, image_size=size, patch_size=2).load("pretrain")
    order = torch.randperm(len(source), generator=Generator().manual_seed(1))
    whole = source.batch(torch.arange(len(source)), None)["image"]
    assert torch.equal(source.batch(order, None)["image"], whole[order])
    assert len(whole.flatten(1).unique(dim=0)) == len(whole) == 116


def test_nothing_of_validation_and_test_comes_back_as_another_class(
    make_config: MakeConfig, folder: dict[str, str]
) -> None:
    own = make(make_config, data=folder)
    root = Path(folder["path"])
    other = next(label for label in range(6) if label not in {label for label, _ in seen(own)})
    for split in ("val", "test"):
        name = own.units(split).names[0]
        (root / "train" / f"class{other}" / f"p{other}99_{split}.png").write_bytes((root / name).read_bytes())
    task = make(make_config, data={**folder, "name": "again"}, pretrain_classes=0)
    scored = {*seen(task, "val"), *seen(task, "test")}
    assert len(seen(task)) == 116
    source = task.load("pretrain")
    bytes_of = {part.numpy().tobytes() for part in source.data.pixels(source.rows_N)}
    for split in ("val", "test"):
        held = task.load(split)
        assert not bytes_of & {part.numpy().tobytes() for part in held.data.pixels(held.rows_N)}
    assert scored
    line = Classification.pretrains_on(task.config.data, task.config.params)
    assert line == "36 training images and 80 of 4 further classes; 2 left out, as val or test has the same"


def test_nobody_of_validation_and_test_is_pretrained_on(make_config: MakeConfig, folder: dict[str, str]) -> None:
    task = make(make_config, data=folder, pretrain_classes=0, group="[0-9]([0-9]{2})")  # the number is the patient
    units, scored = task.units("pretrain"), {*(task.units("val").groups or ()), *(task.units("test").groups or ())}
    assert units.groups is not None
    assert len(units.groups) == len(units.names) == len(task.load("pretrain"))
    assert scored
    assert not scored & {*units.groups}
    assert {*task.units("train").names} <= {*units.names}
    line = Classification.pretrains_on(task.config.data, task.config.params)
    assert "left out, as their group is in val or test" in line


def test_per_class_is_of_further_classes_too(make_config: MakeConfig, folder: dict[str, str]) -> None:
    few, more = (seen(make(make_config, data=folder, pretrain_classes=0, per_class=n)) for n in (5, 7))
    assert len(few) == 6 * 5
    assert len(more) == 6 * 7
    assert {*few} < {*more}


def test_without_it_names_are_those_of_before(make_config: MakeConfig) -> None:
    """A parameter of None is as if there was none: sweeps keep their configurations' and encoders' names."""
    config = make_config("classification", "mae")
    before = replace(config, params={name: value for name, value in config.params.items()
                                     if name != "pretrain_classes"})
    assert config.params["pretrain_classes"] is None
    assert config.config_id == before.config_id
    every = replace(config, params={**config.params, "pretrain_classes": 0})
    schema = schema_of("classification")
    names = [encoder_id(pretraining_of(one, schema), "sha256:0") for one in (config, before, every)]  # type: ignore[arg-type]
    assert names[0] == names[1] != names[2]
    tuned = replace(every, params={**every.params, "label_fraction": 0.5})
    assert encoder_id(pretraining_of(tuned, schema), "sha256:0") == names[2]  # type: ignore[arg-type]


SWEEP = """
name: more
task: classification
size: debug
data: {name: synthetic, path: %s}
arms: [mae, scratch]
settings: {num_classes: 2, image_size: 8, patch_size: 4, per_class: 0}
space: {pretrain_classes: {choice: [2, 0]}}
"""


def test_it_may_be_searched_and_a_dry_run_says_what_pretraining_sees(folder: dict[str, str]) -> None:
    plan = make_plan(parse_sweep(SWEEP % folder["path"], "more.yaml", schema_of=schema_of))
    assert [*plan.arms["mae"].space] == ["pretrain_classes"]
    assert not plan.arms["scratch"].space
    assert plan.pretrains_on == ("36 training images", "36 training images and 80 of 4 further classes")
    told = describe(plan)
    assert json.loads(json.dumps(told.to_json()))["data"]["pretrains_on"] == list(plan.pretrains_on)
    assert "pretraining sees 36 training images and 80 of 4 further classes" in _text(render(told))


def _text(drawn: Any) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


@pytest.mark.parametrize(("settings", "message"), [
    ("num_classes: 3, pretrain_classes: 2", "pretrain_classes=2 must be at least num_classes=3"),
    ("num_classes: 0, pretrain_classes: 4", "pretrain_classes=4 must be at least num_classes=0, which is all"),
    ("num_classes: 3, pretrain_classes: -1", "greater than or equal to 0"),
])
def test_what_is_impossible_is_said(settings: str, message: str) -> None:
    text = (SWEEP % ".").replace("num_classes: 2,", f"{settings},").replace("space:", "constraints: []\nspare:")
    text = text.partition("spare")[0]
    with pytest.raises(SpecError, match=message):
        parse_sweep(text, "more.yaml", schema_of=schema_of)


def test_a_trial_pretrains_on_them(make_config: MakeConfig, folder: dict[str, str]) -> None:
    reports = {}
    for classes in (None, 0):
        config = make_config("classification", "mae", data=folder, pretrain_classes=classes, **SMALL)
        reports[classes] = [report.metrics for report in run_trial(config)]
    assert all(np.isfinite(list(report.values())).all() for report in reports[0])
    assert reports[0][0]["loss"] != reports[None][0]["loss"]


def test_images_in_another_size_than_that_of_their_cache(
    real_data: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (real_data / "tiny_imagenet" / "mini").is_dir():
        pytest.skip(f"needs {real_data}/tiny_imagenet/mini")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    data = {"name": "tiny-imagenet-mini", "source": "real", "root": str(real_data)}
    task = make(make_config, data=data, pretrain_classes=0, num_classes=4, image_size=32, patch_size=8)
    source, every = task.load("pretrain"), make(make_config, data=data, num_classes=0, image_size=32, patch_size=8)
    assert len(source) == 4 * 54 + 6 * 60
    assert source.batch(torch.tensor([0, 575, 3]), None)["image"].shape == (3, 3, 32, 32)
    by_name = dict(zip(every.data.names, every.data.images_NHWC, strict=True))
    pixels_BCHW = source.data.pixels(source.rows_N)
    for name, image_CHW in zip(task.units("pretrain").names, pixels_BCHW, strict=True):
        assert torch.equal((image_CHW * 255).round().byte(), by_name[name].permute(2, 0, 1))


@pytest.mark.slow
def test_of_the_real_images_all_classes_are_seen(
    real_data: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (real_data / "tiny_imagenet" / "train-0.tar.xz").is_file():
        pytest.skip(f"needs {real_data}/tiny_imagenet/train-0.tar.xz")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    data = {"name": "tiny-imagenet", "source": "real", "root": str(real_data)}
    task = make(make_config, data=data, pretrain_classes=0, num_classes=10, image_size=64, patch_size=8)
    assert len(task.load("train")) == 2700
    assert len(task.load("pretrain")) == 2700 + 190 * 300
    units = task.units("pretrain")
    assert len({*units.names}) == 59_700
    scored = {content for split in ("val", "test")
              for content in (part.tobytes() for part in task.data.images_NHWC[task.data.rows[split]].numpy())}
    corpus = task.load("pretrain").data
    for part in corpus.parts[1:]:
        assert not any(image.tobytes() in scored for image in part.images_NHWC[part.rows_N].numpy())
