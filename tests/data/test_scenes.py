"""The reader of scenes, on the real files and on damaged ones in the same layout."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymae.data import scenes as module
from raymae.data.scene_labels import IGNORED, Labelling, read_classes
from raymae.data.scene_splits import HELD_OUT, SceneSplits, read_scenes
from raymae.data.scenes import class_pixels, pairs, read_unlabelled, unlabelled_folder
from raymae.data.shelf import WORKER
from raymae.data.synthetic.scenes import scenes_content, synthetic_scenes
from raymae.errors import DataError

NUM_CLASSES = 3
RNG = np.random.default_rng(1)


def save(path: Path, array: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def unlike(rows: int, columns: int) -> np.ndarray:
    """An image that no other is like."""
    return RNG.integers(0, 256, (rows, columns, 3), np.uint8)


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
    assert (len(splits.train), len(splits.val), len(splits.test)) == (62, 13, 20)
    for scenes, folder in ((splits.train, "validation"), (splits.test, "training")):  # its own lists are not kept
        index = scenes.names.index("0016E5_07959") if folder == "validation" else 0
        name = scenes.names[index]
        stored = np.asarray(Image.open(camvid / "annotations" / folder / f"{name}.png")).astype(int)
        label = scenes.labels[index].astype(int)
        assert np.array_equal(label, np.where(stored == 0, IGNORED, stored - 1))
        assert np.array_equal(scenes.images[index], Image.open(camvid / "images" / folder / f"{name}.png"))


def test_each_drive_of_the_real_camvid_is_one_split(camvid: Path) -> None:
    splits = read_scenes(camvid, 16)
    assert [{*scenes.groups} for scenes in (splits.train, splits.val, splits.test)] == [
        {"0016E5"}, {"0001TP"}, {"0006R0"}]
    assert splits.note == "split anew by group, as the official lists have 0016E5 in two splits"
    assert list(splits.train.names) == sorted(splits.train.names)
    assert all(name.startswith(group) for name, group in zip(splits.test.names, splits.test.groups, strict=True))


# -- drives ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drives(tmp_path: Path) -> Callable[..., Path]:
    """A data set in the layout of ADE20K, of drives with so many training and validation images each."""
    def make(**counts: tuple[int, int]) -> Path:
        root = tmp_path / "drives"
        shutil.rmtree(root, ignore_errors=True)
        WORKER.clear()
        for drive, (training, validation) in counts.items():
            for index in range(training + validation):
                split = "training" if index < training else "validation"
                save(root / "images" / split / f"{drive}_f{index:04d}.png", unlike(4, 4))
                save(root / "annotations" / split / f"{drive}_f{index:04d}.png", np.ones((4, 4), np.uint8))
        (root / "objectInfo.txt").write_text("Idx\tName\n1\tsky\n")
        return root

    return make


def images_by_drive(splits: SceneSplits) -> list[dict[str, int]]:
    """Of train, val and test: how many images of each drive, by the names of their files."""
    return [dict(Counter(name.split("_")[0] for name in scenes.names))
            for scenes in (splits.train, splits.val, splits.test)]


def test_official_lists_that_share_a_drive_are_split_anew_by_drive(drives: Callable[..., Path]) -> None:
    splits = read_scenes(drives(d0001TP=(6, 0), d2=(8, 6), d3=(3, 0), d4=(4, 0), d5=(1, 1)), 4, "^(d[^_]+)_")
    parts = images_by_drive(splits)
    assert parts == [{"d2": 14, "d4": 4}, {"d3": 3}, {"d0001TP": 6, "d5": 2}]  # near 18, 4 and 7
    assert splits.note == "split anew by group, as the official lists have d2, d5 in two splits"
    assert splits.scored == {"d3", "d0001TP", "d5"}


def test_no_split_is_empty_where_there_are_as_many_drives(drives: Callable[..., Path]) -> None:
    assert images_by_drive(read_scenes(drives(a=(9, 9), b=(9, 0), c=(1, 0)), 4, "^(.)")) == [
        {"a": 18}, {"c": 1}, {"b": 9}]


def test_official_lists_that_keep_drives_apart_are_kept(drives: Callable[..., Path]) -> None:
    splits = read_scenes(drives(a=(9, 0), b=(2, 0), c=(0, 4), d=(0, 1)), 4, "^(.)")
    assert images_by_drive(splits) == [{"a": 9}, {"b": 2}, {"c": 4, "d": 1}]
    assert splits.note == ""


def test_a_single_drive_is_cut_into_blocks_with_a_warning(drives: Callable[..., Path]) -> None:
    splits = read_scenes(drives(**{"0016E5": (10, 4)}), 4)
    assert splits.train.names + splits.val.names + splits.test.names == tuple(f"0016E5_f{i:04d}" for i in range(14))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [8, 2, 4]
    assert "official lists have 0016E5 in two splits; WARNING: val and test hold other images of a drive that is in " \
           "train (0016E5)" in splits.note
    assert {*splits.train.groups} == {"0016E5 from 0016E5_f0000"}  # a block each
    assert {*splits.test.groups} == {"0016E5 from 0016E5_f0010"}
    assert splits.scored == {"0016E5"}


def test_of_two_drives_the_test_is_the_smaller_one(drives: Callable[..., Path]) -> None:
    splits = read_scenes(drives(a=(9, 1), b=(4, 0)), 4, "^(.)")
    assert images_by_drive(splits) == [{"a": 8}, {"a": 2}, {"b": 4}]
    assert "WARNING: val hold other images of a drive that is in train (a)" in splits.note
    assert {*splits.test.groups} == {"b"}
    splits = read_scenes(drives(a=(9, 0), b=(0, 4)), 4, "^(.)")
    assert images_by_drive(splits) == [{"a": 7}, {"a": 2}, {"b": 4}]


def test_a_setting_changes_what_was_read_before(drives: Callable[..., Path]) -> None:
    folder = drives(a=(9, 9), b=(9, 0), c=(1, 0))
    plain, grouped = read_scenes(folder, 4), read_scenes(folder, 4, "^(.)")
    assert plain.train.groups == ()
    assert plain.test.names != grouped.test.names
    assert read_scenes(folder, 4).test.names == plain.test.names
    with pytest.raises(DataError, match=r"settings.group='z' matches none of 28 file names"):
        read_scenes(folder, 4, "z")


def test_no_image_without_labels_is_of_a_drive_that_is_scored(drives: Callable[..., Path]) -> None:
    folder = drives(a=(9, 9), b=(9, 0), c=(1, 0))
    splits = read_scenes(folder, 4, "^([abc])")
    for name in ("a_f0099", "b_f0099", "c_f0099", "street"):
        save(folder / "unlabelled_images" / f"{name}.png", unlike(4, 4))
    more = read_unlabelled(folder / "unlabelled_images", 4, frozenset(), splits.pattern, splits.scored)
    assert dict(zip(more.names, more.groups, strict=True)) == {"a_f0099": "a", "street": "street"}


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
    assert [*pairs(folder, "training")] == [f"training_{index}" for index in range(5)]
    assert len(read_classes(folder)) == NUM_CLASSES


# -- label maps as tools write them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "first", "wanted"), [
    ("Idx\tName\n0\tbackground\n1\tsky\n2\troad, way\n3\tcar\n", 1, ("sky", "road, way", "car")),
    ("Idx\tName\n3\tcar\n1\tsky\n2\troad, way\n", 1, ("sky", "road, way", "car")),
    ("1\tsky\n2\troad, way\n3\tcar\n", 1, ("sky", "road, way", "car")),  # no header
    ("Idx Name\n1 sky\n3 car\n", 1, ("sky", "label 2", "car")),
    ("Name\nsky\nroad, way\ncar\n", 1, ("sky", "road, way", "car")),
    ("Idx\tName\n0\tsky\n1\tcar\n255\tvoid\n", 0, ("sky", "car")),
])
def test_classes_are_named_by_their_number(text: str, first: int, wanted: tuple[str, ...], folder: Path) -> None:
    (folder / "objectInfo.txt").write_text(text)
    assert read_classes(folder, Labelling(first, 0 if first else 255)) == wanted


@pytest.mark.parametrize(("text", "message"), [
    ("Idx\tName\n1\tsky\n1\tcar\n", "names 1 twice, 'sky' and 'car'"),
    ("Idx\tName\n1\tsky\ncar\n", "the line 'car' does not begin with a number"),
])
def test_class_lists_that_are_half_numbered_are_refused(text: str, message: str, folder: Path) -> None:
    (folder / "objectInfo.txt").write_text(text)
    with pytest.raises(DataError, match=rf"objectInfo\.txt:? {message}"):
        read_classes(folder)


def test_another_first_class_and_another_ignored_label(folder: Path) -> None:
    for path in (folder / "annotations").rglob("*.png"):
        values = np.asarray(Image.open(path)).copy()
        save(path, np.where(values == 3, 255, values).astype(np.uint8))
    (folder / "objectInfo.txt").write_text("Idx\tName\n0\tground\n1\tsky\n2\tcar\n")
    message = r"holds label 255; allowed are 0 \(ignored\) and 1 to 2, .*settings\.ignore_label and settings\.first_la"
    with pytest.raises(DataError, match=message):
        read_scenes(folder, 20)
    scenes = read_scenes(folder, 20, "", Labelling(0, 255)).test
    stored = np.asarray(Image.open(folder / "annotations/validation/validation_1.png"))
    assert np.array_equal(scenes.labels[1], np.where(stored == 255, IGNORED, stored))
    assert np.array_equal(module.native_label(scenes.files[1], scenes.labelling), scenes.labels[1])


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_a_lossy_label_map_is_refused(ending: str, folder: Path) -> None:
    path = folder / "annotations" / "training" / "training_1.png"
    Image.open(path).convert("L" if ending == "jpg" else "RGB").save(path.with_suffix(f".{ending}"))
    path.unlink()
    with pytest.raises(DataError, match=rf"training_1\.{ending} is a label map saved as .*, which blurs its numbers"):
        read_scenes(folder, 16)


def test_scenes_in_folders_of_towns_are_read_and_others_said(folder: Path) -> None:
    for kind in ("images", "annotations"):
        for index in (2, 3):
            path = next((folder / kind / "training").glob(f"training_{index}.*"))
            path.parent.joinpath("town").mkdir(exist_ok=True)
            path.rename(path.parent / "town" / path.name)
    (folder / "images" / "training" / "notes.txt").write_text("sunny")
    splits = read_scenes(folder, 16)
    assert sorted(splits.train.names + splits.val.names) == [
        "town/training_2", "town/training_3", "training_0", "training_1", "training_4"]
    assert splits.note == "left out as no images: 1 .txt, such as images/training/notes.txt"
    save(folder / "images" / "training" / "town" / "training_2.png", unlike(4, 4))
    with pytest.raises(DataError, match=r"training_2\.jpg and .*training_2\.png are two files of one name"):
        pairs(folder, "training")


def test_no_scene_is_in_two_splits(folder: Path) -> None:
    for kind, ending in (("images", "jpg"), ("annotations", "png")):
        shutil.copy(folder / kind / "validation" / f"validation_0.{ending}", folder / kind / "training" / f"x.{ending}")
    splits = read_scenes(folder, 16)
    assert "x" not in splits.train.names + splits.val.names
    assert "left out, as test has the same, such as x, which is validation_0" in splits.note
    shutil.copytree(folder / "images" / "validation", folder / "unlabelled_images")
    save(folder / "unlabelled_images" / "new.png", unlike(20, 20))
    scored = splits.val.sources + splits.test.sources
    assert read_unlabelled(folder / "unlabelled_images", 16, scored=scored).names == ("new",)


def test_a_split_without_a_labelled_pixel_is_said(folder: Path) -> None:
    for path in (folder / "annotations" / "validation").iterdir():
        with Image.open(path) as mask:
            save(path, np.zeros(mask.size[::-1], np.uint8))
    with pytest.raises(DataError, match="no pixel of test is labelled: every one is 0, which is ignored"):
        read_scenes(folder, 16)
