"""A generated stand-in for labelled scenes, for machines without the data. Made from formulas, not from real images.

Sky over ground, with discs, boxes and wedges: colour says much about the class, texture and shape say the rest.

Shape suffixes: H and X rows and columns.
"""

from __future__ import annotations

import numpy as np

from raymae.data.scene_labels import IGNORED
from raymae.data.scene_splits import SceneSplits, split_scenes
from raymae.data.scenes import Scenes
from raymae.data.shelf import WORKER

CLASSES = ("sky", "ground", "disc", "box", "wedge")
COLOURS = ((140, 170, 210), (120, 110, 90), (190, 80, 70), (80, 90, 180), (90, 160, 90))


@WORKER.keeps(4)
def synthetic_scenes(image_size: int, *, num_training: int = 34, num_validation: int = 8, seed: int = 0) -> SceneSplits:
    """Scenes in the form of CamVid, the same on every machine for the same arguments.

    Args:
        image_size: Length of every image's shorter side, in pixels; the longer one differs.
        num_training: Labelled images to learn from and to select on.
        num_validation: Images of the test split.
        seed: Draws them.
    """
    rng = np.random.default_rng(seed)
    drawn = [_scene(rng, image_size) for _ in range(num_training + num_validation)]
    names = tuple(f"scene_{index:04d}" for index in range(len(drawn)))
    scenes = Scenes(names, tuple(image for image, _ in drawn), tuple(label for _, label in drawn))
    official = (scenes.take(range(num_training)), scenes.take(range(num_training, len(drawn))))
    return split_scenes(CLASSES, *official, name="synthetic")


def _scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    long = int(size * rng.choice([1.0, 1.25, 1.5]))
    rows, columns = (size, long) if rng.random() < 0.75 else (long, size)
    y, x = np.mgrid[:rows, :columns] / size
    horizon = rng.uniform(0.3, 0.6) + 0.05 * np.round(np.sin(6 * x + rng.uniform(0, 6)), 6)
    label = (y > horizon).astype(np.uint8)
    for _ in range(rng.integers(2, 5)):
        kind, radius = int(rng.integers(2, 5)), rng.uniform(0.1, 0.25)
        dy, dx = y - rng.uniform(0.2, rows / size), x - rng.uniform(0, columns / size)
        inside = {2: dy**2 + dx**2 < radius**2, 3: np.maximum(abs(dy), abs(dx)) < 0.8 * radius,
                  4: (dy < radius) & (dy > 2 * abs(dx) - radius)}[kind]
        label[inside] = kind
    colour = np.array(COLOURS)[label] + rng.normal(0, 12, 3) + rng.normal(0, 18, (rows, columns, 3))
    image = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
    label[:, : max(1, size // 16)] = IGNORED
    return image, label


def scenes_content() -> bytes:
    """The default scenes at 64 pixels, as bytes to be fingerprinted."""
    splits = synthetic_scenes(64)
    parts = [part for scenes in (splits.train, splits.val, splits.test) for part in (*scenes.images, *scenes.labels)]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
