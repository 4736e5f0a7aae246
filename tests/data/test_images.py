from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymae.data.find.locate import cache_folder, locate
from raymae.data.images import (
    SPLITS,
    ImageSet,
    read_images,
)
from raymae.data.shelf import WORKER
from raymae.data.synthetic.images import synthetic_images
from raymae.errors import DataError
from raymae.spec.sweep import DataSpec

WNIDS = ("n01", "n02", "n03")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))


def jpeg(colour: tuple[int, ...] | int, size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes of three training and two validation images in the official layout; one is greyscale."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for label, wnid in enumerate(WNIDS):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "val/images").mkdir(parents=True, exist_ok=True)
        for index in range(3):
            colour = 40 * index if (label, index) == (1, 2) else (80 * label, 40 * index, 200)
            (root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG").write_bytes(jpeg(colour))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
        for index in range(2):
            name = f"val_{2 * label + index}.JPEG"
            (root / "val/images" / name).write_bytes(jpeg((80 * label, 40 * index, 100)))
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (root / "val/val_annotations.txt").write_text("".join(reversed(lines)))
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    (root / "test/images").mkdir(parents=True)
    (root / "test/images/test_0.JPEG").write_bytes(jpeg(1))
    return root


def read(path: Path, image_size: int = 64, name: str = "mine") -> ImageSet:
    return read_images(locate(DataSpec(name=name, path=str(path))), image_size)


def counts(images: ImageSet) -> dict[str, int]:
    return {split: int((images.split_N == index).sum()) for index, split in enumerate(SPLITS)}


def packed(tiny: Path, kind: str) -> Path:
    """The same files in another container."""
    if kind == "folder":
        return tiny
    files = [path for path in sorted(tiny.rglob("*")) if path.is_file()]
    if kind == "zip":
        path = tiny.parent / "tiny-imagenet-200.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(tiny.parent))
        return path
    shards = tiny.parent / "shards"
    shards.mkdir()
    for name, chosen in (("train-0", lambda f: "train" in f.parts), ("val", lambda f: "train" not in f.parts)):
        with tarfile.open(shards / f"{name}.tar.xz", "w:xz") as archive:
            for file in filter(chosen, files):
                archive.add(file, file.relative_to(tiny.parent))
    (shards / "mini").mkdir()
    return shards


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip", "shards"])
def test_tiny_imagenet_in_every_container(tiny: Path, kind: str) -> None:
    images = read(packed(tiny, kind))
    assert images.images_NHWC.dtype == np.uint8
    assert images.images_NHWC.shape == (15, 64, 64, 3)
    assert images.classes == WNIDS
    assert counts(images) == {"train": 9, "val": 0, "test": 6}  # the official val is the test split
    for pixels_HWC, label, split in zip(images.images_NHWC, images.labels_N, images.split_N, strict=True):
        red, green, blue = pixels_HWC.astype(float).mean(axis=(0, 1))
        if abs(red - green) < 1.5 and abs(green - blue) < 1.5:
            continue  # the greyscale one, or dark
        assert red == pytest.approx(80 * label, abs=4)
        assert blue == pytest.approx(200 if SPLITS[split] == "train" else 100, abs=4)


def test_greyscale_becomes_rgb(tiny: Path) -> None:
    images = read(tiny)
    grey = [pixels for pixels in images.images_NHWC if np.ptp(pixels.reshape(-1, 3).mean(axis=0)) == 0]
    assert len(grey) == 1
    assert grey[0].mean() == pytest.approx(80, abs=1)


def kept_folders() -> list[Path]:
    """What the cache holds of decoded images, locks aside."""
    return [item for item in (cache_folder() / "decoded").glob("*") if item.suffix != ".lock"]


def test_decoded_once_and_memory_mapped_afterwards(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(tiny)

    def fail(path: Path) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr("raymae.data.images.open_tree", fail)
        again = read(tiny)
    assert isinstance(again.images_NHWC, np.memmap)
    assert np.array_equal(first.images_NHWC, again.images_NHWC)
    assert np.array_equal(first.labels_N, again.labels_N)
    assert again.classes == first.classes
    (tiny / "train/n01/images/n01_0.JPEG").write_bytes(jpeg((250, 250, 250)))  # other content, other key
    assert read(tiny).images_NHWC.mean() > first.images_NHWC.mean()


def test_a_damaged_cache_is_made_again(tiny: Path) -> None:
    first = read(tiny)
    wanted = np.array(first.images_NHWC)
    [kept] = kept_folders()
    content = (kept / "images.npy").read_bytes()
    (kept / "images.npy").write_bytes(content[: len(content) // 2])
    assert np.array_equal(read(tiny).images_NHWC, wanted)
    assert kept_folders() == [kept]  # and nothing half-made


def test_a_cache_that_cannot_be_written_costs_only_time(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.parent / "file").write_text("")
    monkeypatch.setenv("RAYMAE_CACHE", str(tiny.parent / "file"))
    assert counts(read(tiny))["train"] == 9


def test_a_known_data_sets_own_folder_may_be_the_path(tiny: Path) -> None:
    found = locate(DataSpec(name="tiny-imagenet", path=str(tiny)))
    assert (found.name, found.path) == ("tiny-imagenet", tiny)
    with pytest.raises(DataError, match="does not hold tiny-imagenet"):
        locate(DataSpec(name="tiny-imagenet", path=str(tiny / "val")))


@pytest.mark.parametrize(("parts", "wanted"), [
    (("",), {"train": 8, "val": 0, "test": 0}),
    (("train/", "val/"), {"train": 8, "val": 0, "test": 8}),
    (("train/", "val/", "test/"), {"train": 8, "val": 8, "test": 8}),
])
def test_a_folder_per_class(parts: tuple[str, ...], wanted: dict[str, int], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for part in parts:
        for label in ("cat", "dog"):
            (root / f"{part}{label}").mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (90 + index, 50), (200 if label == "dog" else 20, 0, 0)).save(
                    root / f"{part}{label}" / f"{index}.{'png' if index % 2 else 'jpg'}")
    images = read(root, image_size=24)
    assert images.images_NHWC.shape[1:] == (24, 24, 3)
    assert images.classes == ("cat", "dog")
    assert counts(images) == wanted
    assert np.array_equal(images.images_NHWC[:, 12, 12, 0] > 100, images.labels_N == 1)
    assert read(root, image_size=16).images_NHWC.shape[1:] == (16, 16, 3)  # another size is another cache


# -- what is refused ---------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def edited(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text().replace(old, new)) and None  # type: ignore[func-returns-value]


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


ANNOTATIONS = "val/val_annotations.txt"


@pytest.mark.parametrize(("where", "harm", "message"), [
    ("train/n02/images/n02_1.JPEG", truncated, r"n02_1\.JPEG: damaged image of 300 bytes"),
    ("train/n02/images/n02_1.JPEG", lambda path: path.write_bytes(b"no"), r"n02_1\.JPEG: damaged .* not an image"),
    ("train/n02/images/n02_1.JPEG", lambda path: path.write_bytes(jpeg(1, (64, 32))), r"n02_1\.JPEG: 64 x 32 pixels"),
    ("val/images/val_9.JPEG", lambda path: path.write_bytes(jpeg(1)), r"images/val_9\.JPEG has no line in val/val_"),
    ("val/images/val_2.JPEG", Path.unlink, r"val_annotations\.txt:\d: names val_2\.JPEG, which val/images does not"),
    (ANNOTATIONS, edited("val_2.JPEG\tn02", "val_2.JPEG\tn09"), r"val_annotations\.txt:\d: unknown class n09"),
    (ANNOTATIONS, edited("\tn02\t0\t0\t63\t63", " n02"), r"val_annotations\.txt:\d: expected an image's name, a tab"),
    (ANNOTATIONS, Path.unlink, r"val_annotations\.txt is missing"),
    ("wnids.txt", edited("n02\n", ""), r"train/n02/images/n02_0\.JPEG: unknown class n02: wnids"),
    ("train/n03/images", emptied, r"the training folder of class n03 is empty"),
    ("train/n03/images", lambda path: [file.unlink() for file in list(path.iterdir())[1:]], r"class n03 holds 1 image"),
])
def test_damage_is_named(tiny: Path, where: str, harm: Callable[[Path], object], message: str) -> None:
    harm(tiny / where)
    with pytest.raises(DataError, match=message) as caught:
        read(tiny)
    assert str(tiny) in str(caught.value)
    assert not kept_folders()  # nothing half-made is kept


@pytest.mark.parametrize("kind", ["zip", "shards"])
def test_a_damaged_archive_is_named(tiny: Path, kind: str) -> None:
    path = packed(tiny, kind)
    file = path if kind == "zip" else path / "train-0.tar.xz"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(DataError, match=rf"{file.name}.*whole"):
        read(path)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"photos holds no image \(\.jpg.*a folder per class"):
        read(root)
    Image.new("RGB", (8, 8)).save(root / "cat/0.png")
    Image.new("RGB", (8, 8)).save(root / "cat/1.png")
    with pytest.raises(DataError, match="1 class found"):
        read(root)
    (root / "dog").mkdir()
    with pytest.raises(DataError, match="training folder of class dog is empty"):
        read(root)
    Image.new("RGB", (8, 8)).save(root / "0.png")
    with pytest.raises(DataError, match=r"0\.png lies in no class folder"):
        read(root)


# -- generated images --------------------------------------------------------------------------------------------------


def test_generated_images_repeat_and_differ() -> None:
    images = synthetic_images(16, num_train=3, num_test=1)
    assert counts(images) == {"train": 30, "val": 0, "test": 10}
    WORKER.clear()
    assert np.array_equal(synthetic_images(16, num_train=3, num_test=1).images_NHWC, images.images_NHWC)
    assert not np.array_equal(synthetic_images(16, num_train=3, num_test=1, seed=1).images_NHWC, images.images_NHWC)


# -- the real files ----------------------------------------------------------------------------------------------------


def test_the_real_mini_set(real_data: Path) -> None:
    if not (real_data / "tiny_imagenet/mini").is_dir():
        pytest.skip(f"needs {real_data}/tiny_imagenet/mini")
    images = read_images(locate(DataSpec(name="tiny-imagenet-mini", root=str(real_data))), 64)
    assert counts(images) == {"train": 600, "val": 0, "test": 100}
    assert len(images.classes) == 10
    assert np.bincount(images.labels_N[images.split_N == 0]).tolist() == [60] * 10
    assert np.bincount(images.labels_N[images.split_N == 2]).tolist() == [10] * 10
    grey = (images.images_NHWC == images.images_NHWC[..., :1]).all(axis=(1, 2, 3))
    assert 0 < grey.sum() < 60
    assert images.images_NHWC.std() > 40
