"""Which folders are classes and which splits, what counts as an image, and that nothing vanishes without a word."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raymae.data.find.locate import locate
from raymae.data.images import SPLITS, ImageSet, read_images
from raymae.errors import DataError
from raymae.spec.sweep import DataSpec
from raymae.tasks.classification.images import LabelledImages

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path: Path, seed: int | None = None, **options: str) -> Path:
    """An image that no other is like, unless it has the same seed."""
    rng = RNG if seed is None else np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path, **options)
    return path


def classes_in(folder: Path, *labels: str, count: int = 4, ending: str = ".png") -> None:
    for label in labels:
        for index in range(count):
            picture(folder / label / f"{index}{ending}")


def read(path: Path) -> ImageSet:
    return read_images(locate(DataSpec(name="mine", path=str(path))), 8)


def split(path: Path) -> LabelledImages:
    return LabelledImages(read(path), 8, 0, 0, torch.device("cpu"), str(path))


def counts(images: ImageSet) -> dict[str, int]:
    return {name: int((images.split_N == index).sum()) for index, name in enumerate(SPLITS)}


# -- splits and classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [
    ("train", "valid", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "dev", "Test"),
    ("training_set", "val_set", "test_set"), ("trainset", "valset", "testset"), ("seg_train", "eval", "seg_test"),
])
def test_usual_names_of_splits_are_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    chosen = dict(zip(SPLITS, names, strict=True)) if names[1] != "eval" else {"train": names[0], "test": names[2]}
    for name in chosen.values():
        classes_in(tmp_path / "set" / name, "cat", "dog")
    images = read(tmp_path / "set")
    assert images.classes == ("cat", "dog")
    assert counts(images) == {name: 8 if name in chosen else 0 for name in SPLITS}


@pytest.mark.parametrize(("folders", "message"), [
    (("train", "val", "samples"), r"train/, val/ are named like a split, but samples/ lies beside"),
    (("cat", "dog", "test"), r"test/ is named like a split, but cat/, dog/ lie beside"),
    (("train_a", "test_b"), r"test_b/, train_a/ look like splits, but are not understood"),
    (("train", "Training"), r"two of Training/, train/ are the same split"),
    (("val", "test"), r"of the splits only test/, val/ is there, nothing to learn from"),
])
def test_folders_that_are_half_splits_are_refused_with_the_tree(
    folders: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for folder in folders:
        classes_in(tmp_path / folder, "cat", "dog")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert f"\n  {min(folders)}/cat/ 4 files" in str(caught.value)


@pytest.mark.parametrize(("folders", "message"), [
    (("cat/train", "cat/test", "dog/train", "dog/test"), r"test/ below a class is named like a split"),
    (("part1/cat", "part1/dog", "part2/cat", "part2/dog"), r"part1, part2 would be the classes, but each holds the "
                                                             r"same folders cat, dog"),
])
def test_classes_below_other_folders_are_refused(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    classes_in(tmp_path, *folders)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_folders_within_a_class_belong_to_it(tmp_path: Path) -> None:
    classes_in(tmp_path, "cat/2020", "cat/2021", "dog")
    assert read(tmp_path).classes == ("cat", "dog")


def test_a_text_beside_the_folder_of_all_does_not_stop_the_descent(tmp_path: Path) -> None:
    for name in ("train", "test"):
        classes_in(tmp_path / "set" / "data" / name, "cat", "dog")
    (tmp_path / "set" / "README.md").write_text("about")
    images = read(tmp_path / "set")
    assert images.classes == ("cat", "dog")
    assert images.note == "left out as no images: 1 .md, such as README.md"


# -- what is an image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [
    ("{}.tif", "TIFF"), ("{}.TIFF", "TIFF"), ("{}.gif", "GIF"), ("{}.jfif", "JPEG"), ("{}", "PNG"), ("{}.dat", "JPEG"),
    ("_MG_{}.JPG", "JPEG"), ("{}.ppm", "PPM"),
])
def test_what_pillow_reads_is_an_image(name: str, kind: str, tmp_path: Path) -> None:
    classes_in(tmp_path, "cat", "_background_")
    for index in range(4):
        picture(tmp_path / "fox" / name.format(index), format=kind)
        picture(tmp_path / "fox" / f"._{index}.png")
        picture(tmp_path / "__MACOSX" / f"{index}.png")
    images = read(tmp_path)
    assert images.classes == ("_background_", "cat", "fox")
    assert np.bincount(images.labels_N).tolist() == [4, 4, 4]


def test_what_is_no_image_is_counted_and_a_class_of_it_refused(tmp_path: Path) -> None:
    classes_in(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "notes.txt").write_text("fine")
    (tmp_path / "dog" / "film.mp4").write_text("long")
    assert split(tmp_path).note == "left out as no images: 1 .txt, 1 .mp4, such as cat/notes.txt"
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "0.heic").write_text("a telephone's")
    with pytest.raises(DataError, match=r"fox holds no image, only 0\.heic and the like \(1\), so a class"):
        read(tmp_path)


# -- links and archives ------------------------------------------------------------------------------------------------


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    classes_in(tmp_path / "set", "cat", "dog")
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "fox").mkdir()
    for index in range(3):
        picture(tmp_path / "fox" / f"{index}.png")
    (tmp_path / "set" / "fox").symlink_to(tmp_path / "fox")
    images = read(tmp_path / "set")
    assert np.bincount(images.labels_N).tolist() == [4, 4, 3]
    before = locate(DataSpec(name="mine", path=str(tmp_path / "set"))).fingerprint
    picture(tmp_path / "fox" / "3.png")  # what links lead to is part of the fingerprint
    assert locate(DataSpec(name="mine", path=str(tmp_path / "set"))).fingerprint != before


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    classes_in(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "x").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "y").symlink_to(tmp_path / "cat")
    assert np.bincount(read(tmp_path).labels_N).tolist() == [8, 8]  # of each class its own, and the other's once
    assert "WARNING: images in two classes: " in split(tmp_path).note


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    classes_in(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "dead.png").symlink_to("/nonexistent/place")
    with pytest.raises(DataError, match=r"cat/dead\.png is a link to nowhere"):
        read(tmp_path)


def test_archives_as_tools_write_them(tmp_path: Path) -> None:
    classes_in(tmp_path / "set", "cat", "dog")
    with tarfile.open(tmp_path / "dots.tar", "w") as archive:  # as `tar cf … .` does
        archive.add(tmp_path / "set", ".")
    with zipfile.ZipFile(tmp_path / "dots.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.png"):
            archive.writestr(zipfile.ZipInfo(f"./{path.relative_to(tmp_path / 'set')}"), path.read_bytes())
    for name in ("dots.tar", "dots.zip"):
        assert counts(read(tmp_path / name))["train"] == 8


# -- copies ------------------------------------------------------------------------------------------------------------


def test_no_image_is_in_two_splits(tmp_path: Path) -> None:
    for name in SPLITS:
        classes_in(tmp_path / name, "cat", "dog", count=6)
    shutil.copy(tmp_path / "test/cat/0.png", tmp_path / "train/cat/copy.png")
    with Image.open(tmp_path / "val/dog/1.png") as image:
        image.save(tmp_path / "train/dog/other.bmp")  # other bytes, the same pixels
    shutil.copy(tmp_path / "test/dog/2.png", tmp_path / "val/dog/2.png")
    data = split(tmp_path)
    content = {name: {data.images_NHWC[row].numpy().tobytes() for row in rows} for name, rows in data.rows.items()}
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 12, "val": 11, "test": 12}
    assert not content["train"] & content["val"] | content["val"] & content["test"] | content["train"] & content["test"]
    assert "2 of train left out, as test has the same, such as train/cat/copy.png, which is test/cat/0.png" in data.note


def test_copies_within_what_is_split_by_lot_are_in_one_split(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for index in range(40):
            picture(tmp_path / label / f"{index}.png", seed=index // 2 + 100 * (label == "dog"))
    data = split(tmp_path)
    content = [{data.images_NHWC[row].numpy().tobytes() for row in rows} for rows in data.rows.values()]
    assert sum(map(len, content)) == len(set().union(*content)) == 40
    assert "of train left out, as test has the same" in data.note


def test_one_image_in_two_classes_is_said(tmp_path: Path) -> None:
    classes_in(tmp_path, "cat", "dog", count=30)
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "dog/cat.png")
    note = split(tmp_path).note
    assert "WARNING: images in two classes: 1, such as dog/cat.png" in note or "left out, as" in note
