"""Pretraining on other data than is fine-tuned on: pictures."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raymae.errors import DataError, SpecError
from raymae.search.description import render
from raymae.search.dry_run import describe
from raymae.search.plan import make_plan
from raymae.spec import TrialConfig
from raymae.spec.encoder import encoder_id, pretraining_of
from raymae.spec.load import load_sweep, parse_sweep
from raymae.spec.sweep import DataSpec, PretrainingSpec
from raymae.spec.trial import TrialData
from raymae.tasks import schema_of, task_class
from raymae.tasks.base import Task
from raymae.train import run_trial

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"image_size": 16, "patch_size": 4, "num_classes": 0, "per_class": 0}
SCENES: dict[str, Any] = {"image_size": 24, "crop_size": 16, "patch_size": 4}
MakeConfig = Callable[..., TrialConfig]


def save(path: Path, seed: int, size: tuple[int, int] = (24, 20)) -> None:
    """A picture that no other seed makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two classes of 20 images, 4 of each in test; and the cache."""
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    for split, label, number in itertools.product(("train", "test"), "ab", range(20)):
        if split == "train" or number < 4:
            save(tmp_path / "own" / split / label / f"p{number:02d}_{split}.png",
                 1000 * (split == "test") + 100 * "ab".index(label) + number)
    return {"name": "own", "source": "real", "path": str(tmp_path / "own")}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A flat folder of five pictures, one of them in a folder below; and a text beside them."""
    for number in range(5):
        save(tmp_path / "photos" / ("deep/er" if number == 3 else "") / f"x{number}.png", 5000 + number, (30, 40))
    (tmp_path / "photos" / "read me.txt").write_text("nothing")
    return tmp_path / "photos"


def make(make_config: MakeConfig, data: dict[str, Any], *paths: Path, own: bool = True, task: str = "classification",
         **changes: Any) -> Task:
    data = {**data, "pretraining": {"data": [{"path": str(path)} for path in paths], "own": own}}
    small = SMALL if task == "classification" else SCENES
    return task_class(task)(make_config(task, "mae", data=data, **{**small, **changes}), CPU)


def images_of(task: Task, split: str) -> set[bytes]:
    source = task.load(split)
    return {image.numpy().tobytes() for image in source.batch(torch.arange(len(source)), None)["image"]}


def told(task: Task) -> str:
    return task.pretrains_on(task.config.data, task.config.params)


# -- classification ----------------------------------------------------------------------------------------------------


def test_pretraining_sees_both(make_config: MakeConfig, data: dict[str, Any], corpus: Path) -> None:
    alone, task = make(make_config, data), make(make_config, data, corpus)
    assert len(alone.load("pretrain")) == 36
    assert len(task.load("pretrain")) == 41
    assert images_of(alone, "pretrain") < images_of(task, "pretrain")
    for split in ("train", "val", "test", "pretext"):
        assert images_of(task, split) == images_of(alone, split)
    assert task.units("pretrain").names[:36] == alone.units("pretrain").names
    assert task.units("pretrain").names[36:] == (
        "photos/deep/er/x3.png", "photos/x0.png", "photos/x1.png", "photos/x2.png", "photos/x4.png")
    assert told(alone) == ""
    assert told(task) == ("36 training images and 5 pictures of photos (left out as no images: 1 .txt, such as "
                          "read me.txt)")
    only = make(make_config, data, corpus, own=False)
    assert images_of(only, "pretrain") == images_of(task, "pretrain") - images_of(alone, "pretrain")
    assert told(only).startswith("5 pictures of photos")


def test_archives_and_folders_of_classes_are_corpora_too(
    make_config: MakeConfig, data: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for path in sorted(corpus.rglob("*.png")):
            archive.write(path, f"class/{path.name}")
    folder, packed = make(make_config, data, corpus), make(make_config, data, tmp_path / "more.zip")
    assert images_of(folder, "pretrain") == images_of(packed, "pretrain")
    both = make(make_config, data, corpus, tmp_path / "more.zip")
    assert len(both.load("pretrain")) == 46  # a picture twice is no leak


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_nothing_that_is_scored_is_pretrained_on(
    make_config: MakeConfig, data: dict[str, Any], corpus: Path, split: str, kind: str
) -> None:
    """Whatever file it is saved as, and although both are resized."""
    before = make(make_config, data)
    for name in before.units(split).names[:2]:
        with Image.open(Path(data["path"]) / name) as image:
            image.save(corpus / f"again_{Path(name).stem}_{Path(name).parent.name}.{kind}")
    with Image.open(Path(data["path"]) / before.units("train").names[0]) as image:
        image.save(corpus / f"known.{kind}")
    task = make(make_config, data, corpus)
    assert len(task.load("pretrain")) == 36 + 5 + 1
    assert not images_of(task, "pretrain") & (images_of(task, "val") | images_of(task, "test"))
    assert "6 pictures of photos (2 left out, as val or test has the same; " in told(task)


def test_nobody_who_is_scored_is_pretrained_on(make_config: MakeConfig, data: dict[str, Any], corpus: Path) -> None:
    group = "^(.)[0-9]"  # of every file the first letter
    for path in Path(data["path"]).rglob("*.png"):
        path.rename(path.with_name(f"{'tv'[path.parts[-3] == 'train']}{path.name}"))
    for number, path in enumerate(sorted(Path(data["path"]).rglob("train/*/*.png"))):
        path.rename(path.with_name(f"{'abcdefghij'[number % 10]}{number}.png"))
    for number, path in enumerate(sorted(Path(data["path"]).rglob("test/*/*.png"))):
        path.rename(path.with_name(f"t{number}.png"))
    save(corpus / "t9.png", 1)
    task = make(make_config, data, corpus, group=group)
    assert "t" in {*(task.units("test").groups or ())}
    units = task.units("pretrain")
    assert "photos/t9.png" not in units.names
    assert not {*(units.groups or ())} & {*(task.units("val").groups or ()), *(task.units("test").groups or ())}
    assert "1 left out, as their group is in val or test" in told(task)


def test_a_corpus_is_in_the_encoder_s_name_and_in_no_other_arm_s(
    make_config: MakeConfig, data: dict[str, Any], corpus: Path
) -> None:
    schema = schema_of("classification")
    configs = [make(make_config, data).config, make(make_config, data, corpus).config,
               make(make_config, data, corpus, own=False).config]
    names = {encoder_id(pretraining_of(config, schema), "sha256:0") for config in configs}  # type: ignore[arg-type]
    assert len(names) == len({config.config_id for config in configs}) == 3
    for config in configs:
        assert TrialConfig.from_json(config.to_json()) == config
    elsewhere = configs[1].to_json()
    elsewhere["data"]["pretraining"]["data"][0]["path"] = "/mnt/photos"  # type: ignore[index]
    assert TrialConfig.from_json(elsewhere).config_id == configs[1].config_id
    plain = configs[0].to_json()
    assert "pretraining" not in plain["data"]  # type: ignore[operator]


def test_a_trial_pretrains_on_it(make_config: MakeConfig, data: dict[str, Any], corpus: Path) -> None:
    losses = [next(run_trial(make(make_config, data, *paths).config)).metrics["loss"] for paths in ((), (corpus,))]
    assert losses[0] != losses[1]


def test_what_is_no_corpus_is_said(make_config: MakeConfig, data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"none holds no image .* to pretrain on"):
        make(make_config, data, tmp_path / "none").load("pretrain")
    (tmp_path / "none" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none/a.png: damaged image"):
        make(make_config, data, tmp_path / "none").load("pretrain")


# -- segmentation ------------------------------------------------------------------------------------------------------

@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Twelve scenes to learn from and four more, with label maps of two classes, in ADE20K's layout."""
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "scenes"
    for split, count in (("training", 12), ("validation", 4)):
        for number in range(count):
            save(root / "images" / split / f"{split}{number}.png", 100 * (split == "training") + number, (40, 30))
            labels = np.random.default_rng(number).integers(0, 3, (30, 40), np.uint8)
            (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(root / "annotations" / split / f"{split}{number}.png")
    (root / "objectInfo2.txt").write_text("Idx\tName\n1\tsky\n2\troad\n")
    return {"name": "scenes", "source": "real", "path": str(root)}


def test_scenes_pretrain_on_other_photographs(make_config: MakeConfig, scenes: dict[str, Any], corpus: Path) -> None:
    alone = make(make_config, scenes, task="segmentation")
    for split in ("val", "test"):
        with Image.open(next(Path(scenes["path"]).rglob(f"images/**/{alone.units(split).names[0]}.png"))) as image:
            image.save(corpus / f"again_{split}.bmp")
    task = make(make_config, scenes, corpus, task="segmentation")
    own, every = alone.load("pretrain"), task.load("pretrain")
    assert len(every) == len(own) + 5
    assert task.units("pretrain").names == (*alone.units("pretrain").names, *(
        f"photos/{name}" for name in ("deep/er/x3.png", "x0.png", "x1.png", "x2.png", "x4.png")))
    sizes = [image.shape for image in every.scenes.images]  # type: ignore[attr-defined]
    assert sizes[len(own):] == [(32, 24, 3)] * 5
    assert every.batch(torch.tensor([0, len(own), len(own) + 4]), None)["image"].shape == (3, 3, 16, 16)
    assert told(task) == (f"{len(own)} training images and 5 pictures of photos (2 left out, as val or test has the "
                          "same; left out as no images: 1 .txt, such as read me.txt)")
    for split in ("train", "val", "test"):
        assert task.units(split) == alone.units(split)
    only = make(make_config, scenes, corpus, own=False, task="segmentation")
    assert only.units("pretrain").names == task.units("pretrain").names[len(own):]


def test_label_maps_of_another_data_set_are_no_photographs(
    make_config: MakeConfig, data: dict[str, Any], scenes: dict[str, Any]
) -> None:
    task = make(make_config, data, Path(scenes["path"]))
    assert len(task.load("pretrain")) == 36 + 16
    assert all("/images/" in name for name in task.units("pretrain").names[36:])
    itself = make(make_config, scenes, Path(scenes["path"]), task="segmentation")
    scored = len(itself.load("val")) + len(itself.load("test"))
    assert len(itself.load("pretrain")) == 2 * (16 - scored)


def test_real_photographs_for_real_scenes(
    real_data: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = real_data / "tiny_imagenet" / "mini"
    if not corpus.is_dir() or not (real_data / "camvid").is_dir():
        pytest.skip(f"needs {real_data}/tiny_imagenet/mini and {real_data}/camvid")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    data = {"name": "CamVid", "source": "real", "root": str(real_data)}
    task = make(make_config, data, corpus, task="segmentation", image_size=48)
    own = make(make_config, data, task="segmentation", image_size=48)
    assert len(task.load("pretrain")) == len(own.load("pretrain")) + 700
    assert np.isfinite([report.metrics["loss"] for report in run_trial(task.config)]).all()


# -- the sweep file ----------------------------------------------------------------------------------------------------


SWEEP = """
name: more
task: classification
size: debug
data: {name: own, path: own}
pretraining: {data: [{path: photos}]}
arms: [mae, scratch]
settings: {num_classes: 0, image_size: 16, patch_size: 4, per_class: 0}
"""


def test_a_sweep_file_names_corpora(data: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(SWEEP)
    spec = load_sweep(tmp_path / "more.yaml", schema_of=schema_of)
    assert [(one.name, one.path) for one in spec.pretraining.data] == [("photos", str(corpus))]
    plan = make_plan(spec)
    alone = make_plan(load_sweep(tmp_path / "more.yaml", ["pretraining.data=[]"], schema_of=schema_of))
    assert plan.data.fingerprint != alone.data.fingerprint
    save(corpus / "more.png", 9)
    assert make_plan(spec).data.fingerprint != plan.data.fingerprint
    assert alone.pretrains_on == ()
    assert plan.pretrains_on == ("36 training images and 5 pictures of photos (left out as no images: 1 .txt, such as "
                                 "read me.txt)",)
    assert "pretraining sees 36 training images and 5 pictures" in _text(render(describe(plan)))


def _text(drawn: Any) -> str:
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def test_the_results_say_what_pretraining_saw(data: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    from raymae.results import Store
    from raymae.results.views.show import render as drawn
    from raymae.results.views.show import summary

    (tmp_path / "more.yaml").write_text(SWEEP)
    plan = make_plan(load_sweep(tmp_path / "more.yaml", schema_of=schema_of))
    found = {"name": "own", "source": "real", "fingerprint": plan.data.fingerprint}
    for folder, saw in (("with", "\n".join(plan.pretrains_on)), ("without", "")):
        with Store.create(tmp_path / folder, plan.spec, plan.schema, environment={}, data={**found,
                                                                                         "pretrains_on": saw}):
            pass
        told = summary(Store.open(tmp_path / folder))
        assert told.to_json()["pretrains_on"] == saw
        assert ("pretraining saw 36 training images and 5 pictures of photos" in _text(drawn(told))) == bool(saw)


def test_arms_that_do_not_pretrain_keep_their_names(data: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    from raymae.search.plan import example_config

    (tmp_path / "more.yaml").write_text(SWEEP)
    with_it, without = (make_plan(load_sweep(tmp_path / "more.yaml", extra, schema_of=schema_of))
                        for extra in ([], ["pretraining.data=[]"]))
    ids = {arm: [example_config(plan, arm).config_id for plan in (with_it, without)] for arm in ("mae", "scratch")}
    assert ids["scratch"][0] == ids["scratch"][1]
    assert ids["mae"][0] != ids["mae"][1]


@pytest.mark.parametrize(("section", "key", "message"), [
    ("{data: [{}]}", "pretraining.data.0", "needs a name from `raymae data list`, or a path"),
    ("{data: [{path: a, pth: b}]}", "pretraining.data.0.pth", "did you mean `path`"),
    ("{own: false}", "pretraining", "leaves nothing to pretrain on"),
    ("{data: [{path: a, separator: ;}]}", "pretraining.data.0.separator", "does not read it"),
    ("{data: [{path: a, if_unavailable: synthetic}]}", "pretraining.data.0.if_unavailable", "must be 'error'"),
])
def test_mistakes_are_named_with_their_key(section: str, key: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_sweep(SWEEP.replace("{data: [{path: photos}]}", section), "more.yaml", schema_of=schema_of)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert message in str(caught.value)


def test_corpora_that_nobody_would_read_are_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"pretraining.data: no arm of scratch pretrains; leave it out, or add mae"):
        parse_sweep(SWEEP.replace("[mae, scratch]", "[scratch]"), "more.yaml", schema_of=schema_of)
    (tmp_path / "more.yaml").write_text(SWEEP.replace("{path: photos}", "{name: ETTh1}"))
    with pytest.raises(DataError, match=r"pretraining.data.0: ETTh1 is of the kind series, and classification "
                                        r"pretrains on folders or archives of images"):
        make_plan(load_sweep(tmp_path / "more.yaml", schema_of=schema_of))
    (tmp_path / "more.yaml").write_text(SWEEP)
    with pytest.raises(DataError, match=r"pretraining.data.0: path=.*photos does not exist"):
        make_plan(load_sweep(tmp_path / "more.yaml", schema_of=schema_of))


def test_data_without_labels_is_a_corpus_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "ade20k" / "unlabelled_images"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 24), (9, 8, 7)).save(folder / "a.png")
    at = {"name": "ade20k-photographs", "root": str(tmp_path)}
    [found] = task_class("segmentation").locate_corpora(PretrainingSpec.model_validate({"data": [at]}))
    assert found.path == folder
    for if_unavailable in ("error", "synthetic"):
        with pytest.raises(DataError, match=r"data.name: ade20k-photographs has no labels to learn from and be scored "
                                            r"on; name it under pretraining.data, and here .*: ADE20K, CamVid$"):
            task_class("segmentation").locate(DataSpec.model_validate({**at, "if_unavailable": if_unavailable}))


def test_trial_data_without_corpora_is_as_before() -> None:
    plain = {"name": "a", "path": None, "root": None, "if_unavailable": "error", "source": "synthetic"}
    assert TrialData.from_json(plain).to_json() == plain
