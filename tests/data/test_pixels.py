"""Pictures as they are shown: ranges, orientation tags and transparency, the same in every task."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymae.data.find.locate import locate
from raymae.data.images import read_images
from raymae.data.pixels import as_rgb, upright_size
from raymae.data.scenes import read_pairs
from raymae.errors import DataError
from raymae.spec.sweep import DataSpec

RAMP_HX = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)


def in_both_tasks(path: Path) -> list[np.ndarray]:
    """One picture as scenes and as classification read it, in its own size."""
    for label in ("a", "b"):
        for index in range(2):
            other = path.parent / "classes" / label / f"{index}{path.suffix}"
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(path.read_bytes())
    with Image.open(path) as opened:
        side = min(upright_size(opened))
    scenes = read_pairs([(path, None)], side, 0)
    images = read_images(locate(DataSpec(name="mine", path=str(path.parent / "classes"))), side)
    return [scenes.images[0], images.images_NHWC[0]]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_scaled_by_their_range(ending: str, tmp_path: Path) -> None:
    Image.fromarray(RAMP_HX).save(tmp_path / f"ramp.{ending}")
    for image_HXC in in_both_tasks(tmp_path / f"ramp.{ending}"):
        assert image_HXC.shape == (64, 64, 3)
        assert image_HXC.mean() == pytest.approx(127.5, abs=1)
        assert (image_HXC[0, 0], image_HXC[-1, -1]) == (pytest.approx(0), pytest.approx(255))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize(("tag", "corner"), [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (5, (0, 0)),
                                             (6, (0, -1)), (7, (-1, -1)), (8, (-1, 0))])
def test_an_orientation_tag_turns_a_photograph(ending: str, tag: int, corner: tuple[int, int], tmp_path: Path) -> None:
    stored_HXC = np.zeros((32, 48, 3), np.uint8)
    stored_HXC[:16, :16] = 255  # bright in the upper left as stored
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(stored_HXC).save(tmp_path / f"photo.{ending}", exif=exif)
    scene_HXC, _ = in_both_tasks(tmp_path / f"photo.{ending}")
    assert scene_HXC.shape == ((48, 32, 3) if tag >= 5 else (32, 48, 3))
    corners = {place: int(scene_HXC[place][0]) for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert {place for place, value in corners.items() if value > 200} == {corner}


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    hidden.paste((0, 0, 200, 255), (0, 0, 8, 16))
    hidden.save(tmp_path / "clear.png")
    for image_HXC in in_both_tasks(tmp_path / "clear.png"):
        assert image_HXC[8, 12].tolist() == [255, 255, 255]
        assert image_HXC[8, 3].tolist() == [0, 0, 200]
    index = Image.new("P", (4, 4), 0)
    index.putpalette([9, 9, 9, 50, 60, 70])
    index.putpixel((0, 0), 1)
    stream = io.BytesIO()
    index.save(stream, "PNG", transparency=0)
    shown = np.asarray(as_rgb(Image.open(stream)))
    assert shown[1, 1].tolist() == [255, 255, 255]
    assert shown[0, 0].tolist() == [50, 60, 70]


def test_numbers_without_a_known_range_are_refused(tmp_path: Path) -> None:
    for name, values_HX in (("fractions", np.full((8, 8), 0.5, np.float32)), ("32-bit", np.full((8, 8), 70000))):
        Image.fromarray(values_HX.astype(np.int32) if name == "32-bit" else values_HX).save(tmp_path / "grey.tif")
        with pytest.raises(DataError, match=rf"grey\.tif .*{name}.*range is not known"):
            in_both_tasks(tmp_path / "grey.tif")
