"""Pictures of volumes: slices side by side, grey with labels in colour.

Shape suffixes: XYZ voxels, XY pixels of a slice, HWC a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLOURS = np.array([
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
    (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 225, 25),
], dtype=np.float64)
GAP, SIDE = 4, 192


def slice_picture(image_XYZ: np.ndarray, index: int, label_XYZ: np.ndarray | None = None,
                  window: tuple[float, float] | None = None) -> np.ndarray:
    """One slice along Z, front up, with labels laid over it: `[H, W, 3]`, uint8.

    Args:
        image_XYZ: In RAS orientation.
        index: Which slice.
        label_XYZ: 0 and 255 are not drawn.
        window: Values drawn black and white; the slice's own 1st and 99th percentile by default.
    """
    image_XY = image_XYZ[:, :, index].astype(np.float64)
    low, high = window or np.percentile(image_XY, (1, 99))
    grey_XY = np.clip((image_XY - low) / max(high - low, 1e-6), 0, 1) * 255
    picture = np.repeat(grey_XY[..., None], 3, axis=2)
    if label_XYZ is not None:
        label_XY = label_XYZ[:, :, index].astype(int)
        drawn = (label_XY > 0) & (label_XY < 255)
        picture[drawn] = 0.45 * picture[drawn] + 0.55 * COLOURS[(label_XY[drawn] - 1) % len(COLOURS)]
    scale = max(1, round(SIDE / max(image_XY.shape)))
    return picture[:, ::-1].transpose(1, 0, 2).repeat(scale, axis=0).repeat(scale, axis=1).astype(np.uint8)


def most_labelled(label_XYZ: np.ndarray) -> int:
    """The slice along Z with most foreground."""
    return int(((label_XYZ > 0) & (label_XYZ < 255)).sum(axis=(0, 1)).argmax())


def table(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures in rows and columns, white between and around those that are smaller."""
    height = max(cell.shape[0] for row in rows for cell in row)
    width = max(cell.shape[1] for row in rows for cell in row)
    columns = max(len(row) for row in rows)
    page = np.full((len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for down, row in enumerate(rows):
        for across, cell in enumerate(row):
            top, left = down * (height + GAP), across * (width + GAP)
            page[top:top + cell.shape[0], left:left + cell.shape[1]] = cell
    return page
