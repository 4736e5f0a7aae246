"""Pictures as a viewer shows them: one decoder for every task that learns from images.

16-bit greyscale is scaled by the type's range (0 to 65,535 become 0 to 255), a photograph is turned as its orientation
tag says, and what is transparent lies on white. Of several frames or pages the first is read.

Shape suffixes: H and X rows and columns.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raymae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Made = TypeVar("Made")
SUFFIXES = (  # of what Pillow reads without further programs
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jfif", ".jpe", ".mpo", ".apng", ".dib", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".tga", ".ico", ".pcx", ".psd", ".dds", ".sgi", ".xbm",
    ".xpm",
)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")  # known by their first bytes
ORIENTATION = 0x0112  # EXIF's tag
WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def content_of(pixels_HXC: np.ndarray) -> int:
    """A hash of decoded pixels, below 2 ** 64, by which copies are found whatever their files are."""
    return int.from_bytes(hashlib.blake2b(pixels_HXC.tobytes(), digest_size=8).digest())


def is_picture(name: str) -> bool:
    """Whether a file's ending is one of a picture."""
    return name.lower().endswith(SUFFIXES)


def orientation(opened: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, from a file's header; 1 is upright."""
    if opened.format == "PNG" and not {"exif", "XML:com.adobe.xmp", "Raw profile type exif"} & set(opened.info):
        return 1  # Pillow would decode all of it in search of a tag behind the pixels
    if opened.format == "TIFF":
        return 1  # Pillow turns it itself
    found = opened.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Columns and rows of an image as it is shown, from its header."""
    columns, rows = opened.size
    return (rows, columns) if orientation(opened) >= 5 else (columns, rows)


def turned(image: Image.Image, tag: int) -> Image.Image:
    """Turn or mirror an image from how it is stored, with this orientation, to how it is shown."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[tag]) if tag in turns else image


def upright(opened: Image.Image) -> Image.Image:
    """Decode an opened image as it is, turned as its orientation tag says; for label maps, whose numbers count."""
    tag = orientation(opened)
    opened.load()
    return turned(opened, tag)


@contextmanager
def decoding(what: str, advice: str = "") -> Iterator[None]:
    """Decode an image in a `with` block.

    Args:
        what: What cannot be decoded, for messages.
        advice: What to do about it.

    Raises:
        DataError: Whatever Pillow raises on damaged files.
    """
    try:
        yield
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ... on damaged files
        reason = "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
        raise DataError(f"{what}: {reason}{advice}") from None


def read_image(content: bytes, name: str, decode: Callable[[Image.Image], Made]) -> Made:
    """What `decode` makes of the contents of an image's file.

    Raises:
        DataError: It is damaged, or no image; names it.
    """
    from PIL import Image

    with decoding(f"{name}: damaged image of {len(content)} bytes", "; restore or delete it"), \
            Image.open(io.BytesIO(content)) as opened:
        return decode(opened)


def as_rgb(opened: Image.Image) -> Image.Image:
    """Decode an opened image into 8-bit RGB; greyscale is repeated.

    Raises:
        ValueError: Its numbers have no known range, so what is white is not known; besides what Pillow raises on
            damaged files.
    """
    from PIL import Image

    tag, image = orientation(opened), opened
    if opened.mode in WIDE:
        values_HX = np.asarray(opened).astype(np.int64)
        if values_HX.min() < 0 or values_HX.max() > 65535:
            raise ValueError("it holds 32-bit numbers, whose range is not known; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(values_HX / 257).astype(np.uint8))
    elif opened.mode == "F":
        raise ValueError("it holds fractions, whose range is not known; save it with 8 or 16 bits")
    elif opened.has_transparency_data:
        shown = opened.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return turned(image.convert("RGB"), tag)
