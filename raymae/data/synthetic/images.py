"""A generated stand-in for labelled images, for machines without the data: shapes on stripes, made from formulas.

The class is the shape and whether its stripes are fine or coarse; place, size, turn, colours, shading and noise say
nothing about it.

Shape suffixes: N images, H and W pixels.
"""

from __future__ import annotations

import numpy as np

from raymae.data.images import SPLITS, ImageSet
from raymae.data.shelf import WORKER

SHAPES = ("disc", "ring", "square", "cross", "triangle")
CLASSES = tuple(f"{shape}-{stripes}" for shape in SHAPES for stripes in ("coarse", "fine"))


@WORKER.keeps(2)
def synthetic_images(image_size: int = 64, *, num_train: int = 50, num_test: int = 10, seed: int = 0) -> ImageSet:
    """Ten classes of RGB images, the same on every machine for the same arguments.

    Args:
        image_size: Pixels along both sides.
        num_train: Training images per class.
        num_test: Test images per class.
        seed: Draws everything but the classes.
    """
    rng = np.random.default_rng(seed)
    per_class = num_train + num_test
    labels_N = np.repeat(np.arange(len(CLASSES)), per_class)
    split_N = np.tile(np.repeat([SPLITS.index("train"), SPLITS.index("test")], [num_train, num_test]), len(CLASSES))
    images_NHWC = np.empty((len(labels_N), image_size, image_size, 3), np.uint8)
    y_HW, x_HW = np.mgrid[-1:1:image_size * 1j, -1:1:image_size * 1j]
    for index, label in enumerate(labels_N):
        centre_x, centre_y = rng.uniform(-0.35, 0.35, 2)
        turn, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.6)
        u = (np.cos(turn) * (x_HW - centre_x) + np.sin(turn) * (y_HW - centre_y)) / radius
        v = (np.cos(turn) * (y_HW - centre_y) - np.sin(turn) * (x_HW - centre_x)) / radius
        inside_HW = _inside(SHAPES[label // 2], u, v)
        stripes_HW = np.sin((6.0 if label % 2 == 0 else 18.0) * u + rng.uniform(0, 2 * np.pi)) > 0
        ground, dark, light = rng.uniform(0.1, 0.9, 3), rng.uniform(0.0, 0.5, 3), rng.uniform(0.5, 1.0, 3)
        shade_HW = 1 + rng.uniform(-0.3, 0.3) * x_HW + rng.uniform(-0.3, 0.3) * y_HW
        figure = np.where(stripes_HW[..., None], light, dark)
        picture = np.where(inside_HW[..., None], figure, ground) * shade_HW[..., None]
        picture = picture + rng.normal(0, 0.04, picture.shape)
        images_NHWC[index] = np.clip(np.round(picture * 255), 0, 255)
    names = tuple(f"{CLASSES[label]}/{index:04d}" for index, label in enumerate(labels_N))
    return ImageSet(images_NHWC, labels_N, split_N, CLASSES, names)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    distance = np.hypot(u, v)
    return {
        "disc": distance < 0.9,
        "ring": (distance < 1) & (distance > 0.5),
        "square": np.maximum(abs(u), abs(v)) < 0.8,
        "cross": (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1),
        "triangle": (v > -0.6) & (v < 1.0 - 1.7 * abs(u)),
    }[shape]


def images_content() -> bytes:
    """The default images, as bytes to be fingerprinted."""
    images = synthetic_images()
    return images.images_NHWC.tobytes() + images.labels_N.astype("<i8").tobytes()
