"""A generated stand-in for volumes with labels, for machines without the data. Made from formulas.

A large and a small ellipsoid, always side by side, in a noisy, unevenly lit box; boxes differ in size, as scans do.
"""

from __future__ import annotations

import numpy as np

from raymae.data.shelf import WORKER

CLASSES = ("background", "large blob", "small blob")


@WORKER.keeps(1)
def synthetic_volumes(*, num_volumes: int = 40, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Image, float32 `[1, X, Y, Z]`, and labels, uint8 `[X, Y, Z]`, of every volume; the same on every machine.

    Args:
        num_volumes: How many.
        seed: Draws shapes, places and noise.
    """
    rng = np.random.default_rng(seed)
    return tuple(_volume(rng) for _ in range(num_volumes))


def _volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    size = rng.integers(16, 23, 3)
    grid = np.stack(np.meshgrid(*(np.arange(extent) for extent in size), indexing="ij"))
    centre = size / 2 + rng.uniform(-2.5, 2.5, 3)
    label_XYZ = np.zeros(size, dtype=np.uint8)
    for value, offset, radius in ((1, -2.5, (4.0, 5.5)), (2, 3.5, (2.0, 3.0))):
        radii = rng.uniform(*radius, 3)
        place = centre + np.array([offset, 0, 0])
        inside = (((grid - place[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(axis=0) <= 1
        label_XYZ[inside] = value
    light = np.tensordot(rng.normal(0, 0.3, 3), grid / 20, axes=1)
    brightness = np.array([0.0, 1.2, 2.0])[label_XYZ]
    image_XYZ = brightness + light + rng.normal(0, 0.6, size)
    image_XYZ = (image_XYZ - image_XYZ.mean()) / image_XYZ.std()
    # three decimals hide the last bits in which processors differ; + 0.0 turns -0 into 0
    return (np.round(image_XYZ, 3) + 0.0).astype(np.float32)[None], label_XYZ


def volumes_content() -> bytes:
    """The default volumes, as bytes to be fingerprinted."""
    return b"".join(image.astype("<f4").tobytes() + label.tobytes() for image, label in synthetic_volumes())
