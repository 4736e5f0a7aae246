"""The reader of scenes, on the real files and on damaged ones in the same layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymae.data import scenes as module
from raymae.data.scenes import (
    HELD_OUT,
    IGNORED,
    class_pixels,
    pairs,
    read_classes,
    read_scenes,
    read_unlabelled,
    unlabelled_folder,
)
from raymae.data.shelf import WORKER
from raymae.data.synthetic.scenes import scenes_content, synthetic_scenes
from raymae.errors import DataError

NUM_CLASSES = 3


def save(path: Path, array: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five training and two validation pairs of several sizes, as ADE20K lays them out."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for split, sizes in (("training", [(20, 30), (30, 20), (24, 24), (20, 40), (25, 21)]),
                         ("validation", [(22, 28), (40, 20)])):
        for index, size in enumerate(sizes):
            save(root / "images" / split / f"{split}_{index}.jpg", rng.integers(0, 256, (*size, 3), np.uint8))
            save(root / "annotations" / split / f"{split}_{index}.png", rng.integers(0, 4, size, np.uint8))
    (root / "objectInfo.txt").write_text("Idx\tName\n1\tsky\n2\troad, way\n3\tcar\n")
    return root


@pytest.fixture
def ade20k(real_data: Path) -> Path:
    found = real_data / "ade20k" / "ADEChallengeData2016"
    if not found.is_dir():
        pytest.skip(f"needs {found}")
    return found


@pytest.fixture
def camvid(real_data: Path) -> Path:
    found = real_data / "camvid"
    if not found.is_dir():
        pytest.skip(f"needs {found}")
    return found


# -- the real files ----------------------------------------------------------------------------------------------------


def test_real_ade20k_pairs(ade20k: Path) -> None:
    splits = read_scenes(ade20k, 64)
    assert len(splits.classes) == 150
    assert splits.classes[:3] == ("wall", "building, edifice", "sky")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (14, 3, 16)
    for scenes in (splits.train, splits.val, splits.test):
        for image, label in zip(scenes.images, scenes.labels, strict=True):
            assert min(image.shape[:2]) == 64
            assert image.shape[:2] == label.shape
            assert ((label < 150) | (label == IGNORED)).all()
    assert len({image.shape for image in splits.test.images}) > 3
    counted = sum(class_pixels(scenes, 150) for scenes in (splits.train, splits.val, splits.test))
    assert (counted > 0).sum() == pytest.approx(72, abs=5)  # at the files' own size 72 occur, the smallest may be lost


def test_real_ade20k_photos_without_labels(ade20k: Path) -> None:
    photos = read_unlabelled(unlabelled_folder(ade20k), 32)
    assert len(photos) == 172
    assert photos.labels == ()
    fewer = read_unlabelled(unlabelled_folder(ade20k), 32, frozenset(photos.names[:2]))
    assert fewer.names == photos.names[2:]


def test_real_camvid_is_read_as_it_is(camvid: Path) -> None:
    splits = read_scenes(camvid, 360)  # their own size
    assert splits.classes == ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
                              "pedestrian", "cyclist")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (61, 13, 21)
    name = splits.test.names[0]
    stored = np.asarray(Image.open(camvid / "annotations" / "validation" / f"{name}.png")).astype(int)
    label = splits.test.labels[0].astype(int)
    assert np.array_equal(label, np.where(stored == 0, IGNORED, stored - 1))
    assert np.array_equal(splits.test.images[0], Image.open(camvid / "images" / "validation" / f"{name}.png"))


# -- splits, sizes and labels ------------------------------------------------------------------------------------------


def test_images_held_out_depend_on_nothing_but_names(folder: Path) -> None:
    splits = read_scenes(folder, 16)
    names = [f"training_{index}" for index in range(5)]
    assert sorted(splits.train.names + splits.val.names) == names
    assert len(splits.val) == max(1, round(HELD_OUT * 5))
    assert splits.test.names == ("validation_0", "validation_1")
    assert read_scenes(folder, 20).val.names == splits.val.names


def test_sizes_keep_their_shape_and_labels_are_never_mixed(folder: Path) -> None:
    mask = np.zeros((40, 20), np.uint8)
    mask[:, 10:] = 3  # halfway lies 1 or 2, which would be another class
    save(folder / "annotations" / "validation" / "validation_1.png", mask)
    splits = read_scenes(folder, 15)
    assert splits.test.images[0].shape == (15, 19, 3)
    assert splits.test.images[1].shape == (30, 15, 3)
    assert set(np.unique(splits.test.labels[1])) == {2, IGNORED}


def test_pixels_of_classes_are_counted_without_the_ignored(folder: Path) -> None:
    splits = read_scenes(folder, 20)
    label = np.concatenate([label.ravel() for label in splits.train.labels])
    assert class_pixels(splits.train, 3).tolist() == [(label == value).sum() for value in range(3)]


def test_large_sets_are_kept_in_a_file_and_read_from_it_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read_scenes(folder, 18)
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    for decoded in (True, False):
        WORKER.clear()
        if not decoded:
            monkeypatch.setattr(module, "_decode", None)  # must not be called
        got = read_scenes(folder, 18)
        for one, other in zip(got.train.images + got.test.labels, wanted.train.images + wanted.test.labels,
                              strict=True):
            assert np.array_equal(one, other)
    decoded = [item for item in (tmp_path / "cache" / "data" / "decoded").iterdir() if item.suffix != ".lock"]
    assert len(decoded) == 2  # training and validation, no parts left


def test_generated_scenes_are_the_same_everywhere_and_differ_in_size() -> None:
    splits = synthetic_scenes(24)
    assert len({image.shape for image in splits.train.images}) > 2
    assert scenes_content() == scenes_content()
    present = np.unique(np.concatenate([label.ravel() for label in splits.train.labels]))
    assert present.tolist() == [0, 1, 2, 3, 4, IGNORED]


# -- damaged files -----------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


JPEG, MASK = "images/training/training_1.jpg", "annotations/training/training_1.png"


@pytest.mark.parametrize(("file", "damage", "message"), [
    (JPEG, truncate, r"training_1\.jpg is not a readable image: (?i:.*truncated)"),
    (JPEG, lambda path: path.write_bytes(b"no picture"), r"training_1\.jpg is not a readable image: cannot identify"),
    (MASK, truncate, r"training_1\.png is not a readable image"),
    (MASK, lambda path: save(path, np.zeros((20, 30), np.uint8)),
     r"training_1\.png is 30 x 20 pixels, its image .*training_1\.jpg is 20 x 30; they must be of one size"),
    (MASK, lambda path: save(path, np.full((30, 20), 4, np.uint8)),
     r"training_1\.png holds label 4; allowed are 0 \(ignored\) and 1 to 3"),
    (MASK, lambda path: save(path, np.zeros((30, 20, 3), np.uint8)), r"training_1\.png has colour mode RGB; "),
    (MASK, Path.unlink, r"annotations/training/training_1\.png is missing: .*training_1\.jpg has no label map"),
    (JPEG, Path.unlink, r"annotations/training/training_1\.png has no image training_1 in .*images/training"),
    ("images/validation", empty, r"images/validation is empty: it holds no \.jpg"),
    ("annotations", shutil.rmtree, r"annotations/training does not exist; expected the layout of ADE20K"),
    ("objectInfo.txt", Path.unlink, r"set has no objectInfo\*\.txt, which says how many classes there are"),
    ("objectInfo.txt", lambda path: path.write_text("Idx\tName\n"), r"objectInfo\.txt names 0 classes after"),
])
def test_a_damaged_file_is_named(folder: Path, file: str, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / file)
    with pytest.raises(DataError, match=message):
        read_scenes(folder, 16)


def test_one_training_image_is_too_few(folder: Path) -> None:
    for path in [*(folder / "images/training").iterdir(), *(folder / "annotations/training").iterdir()]:
        if path.stem != "training_0":
            path.unlink()
    with pytest.raises(DataError, match="1 training image; at least 2 are needed"):
        read_scenes(folder, 16)


def test_no_folder_of_images_without_labels(folder: Path) -> None:
    with pytest.raises(DataError, match=r"unlabelled=true, but there is no folder .*set/unlabelled_images, "):
        unlabelled_folder(folder)
    for place in (folder.parent / "ade20k", folder.parent, folder):  # the nearest wins
        (place / "unlabelled_images").mkdir(parents=True)
        assert unlabelled_folder(folder) == place / "unlabelled_images"
    with pytest.raises(DataError, match="unlabelled_images is empty"):
        read_unlabelled(folder / "unlabelled_images", 16)


def test_pairs_are_sorted_by_name(folder: Path) -> None:
    assert [image.stem for image, _ in pairs(folder, "training")] == [f"training_{index}" for index in range(5)]
    assert len(read_classes(folder)) == NUM_CLASSES
