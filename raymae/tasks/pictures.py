"""Pictures for people of what a network did: lines, histograms, slices, class colours, and grids of images.

Every picture is RGB `[H, W, 3]`, uint8. Shape suffixes: T steps, C columns, R rows of a table, XYZ voxels, XY pixels of
a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

INK, MODEL = (40, 40, 40), (196, 52, 38)
TRUE, HIDDEN = (90, 98, 110), (226, 230, 236)  # of lines
BAR = (188, 196, 208)  # a true distribution
LINE_WIDTH, LINE_HEIGHT, LINE_MARGIN = 560, 170, 22
BAR_WIDTH, BAR_HEIGHT, BAR_MARGIN, ACROSS, BINS = 240, 150, 18, 4, 40
SQUARE = 320  # side of a scatter
BEYOND = 0.15  # room above and below the truth of lines, as a share of its range
SIDE = 192  # of a slice, about
WIDE = 560  # a grid that is narrower is enlarged
CAPTION, TEXT, CHIP = 20, 13, 12  # pixels of a line of text, of its letters, of a colour in a legend
RIGHT, WRONG = (10, 107, 52), (163, 32, 13)
LABELS = np.array([
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
    (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 225, 25),
], dtype=np.float64)


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: What it shows.
        truth_T: The series, drawn in grey where it is finite.
        model_T: What the model made of it, drawn in red where it is finite.
        hidden: Stretches `(first, last + 1)` of steps with a grey ground.
    """

    title: str
    truth_T: np.ndarray
    model_T: np.ndarray
    hidden: Sequence[tuple[int, int]] = ()


def line_panels(panels: Sequence[Panel]) -> np.ndarray:
    """Panels below each other: RGB `[H, W, 3]`, uint8.

    A panel's scale is that of its truth alone, so that the pictures of all arms have the same one; what leaves it by
    far runs along the panel's edge.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (LINE_WIDTH, LINE_HEIGHT * len(panels)), "white")
    pen = ImageDraw.Draw(image)
    for row, panel in enumerate(panels):
        left, right, top, bottom = 8, LINE_WIDTH - 8, row * LINE_HEIGHT + LINE_MARGIN, (row + 1) * LINE_HEIGHT - 8
        xs = np.linspace(left, right, len(panel.truth_T))
        drawn = panel.truth_T if np.isfinite(panel.truth_T).any() else np.zeros(1)  # all of it may be missing
        low, high = np.nanmin(drawn), np.nanmax(drawn)
        room = BEYOND * (high - low if high > low else 1.0)
        low, high = low - room, high + room
        scale = (bottom - top) / (high - low)
        half = (xs[1] - xs[0]) / 2 if len(xs) > 1 else 0
        for first, last in panel.hidden:
            pen.rectangle((xs[first] - half, top, xs[last - 1] + half, bottom), fill=HIDDEN)
        pen.text((left, row * LINE_HEIGHT + 5), panel.title, fill=INK)
        for values_T, colour, width in ((panel.truth_T, TRUE, 2), (panel.model_T, MODEL, 1)):
            known = np.isfinite(values_T)
            values_T = np.clip(values_T, low, high)
            for run in np.flatnonzero(known[:-1] & known[1:]):
                pen.line([(xs[k], bottom - (values_T[k] - low) * scale) for k in (run, run + 1)], fill=colour,
                         width=width)
    return np.asarray(image)


def histogram_panels(
    truth_RC: np.ndarray, imputed_RC: np.ndarray, hidden_RC: np.ndarray, scores: Mapping[str, Mapping[str, float]],
) -> np.ndarray:
    """Panels, one per column: grey bars are the true values of the hidden cells, the red line what was imputed.

    Args:
        truth_RC: On the reference scale.
        imputed_RC: Likewise.
        hidden_RC: Which cells were imputed.
        scores: For every column, in their order, its `rmse`, `r2` and `wasserstein`.

    Returns:
        RGB `[H, W, 3]`, uint8.
    """
    from PIL import Image, ImageDraw

    down = -(-len(scores) // ACROSS)
    image = Image.new("RGB", (BAR_WIDTH * min(ACROSS, len(scores)), BAR_HEIGHT * down), "white")
    pen = ImageDraw.Draw(image)
    for column, (name, score) in enumerate(scores.items()):
        left, top = column % ACROSS * BAR_WIDTH + BAR_MARGIN // 2, column // ACROSS * BAR_HEIGHT + BAR_MARGIN + 12
        right, bottom = left + BAR_WIDTH - BAR_MARGIN, top + BAR_HEIGHT - 2 * BAR_MARGIN - 12
        pen.text((left, top - BAR_MARGIN - 8), name[:34], fill=INK)
        pen.text((left, top - BAR_MARGIN + 4), f"rmse {score['rmse']:.3f}  r2 {score['r2']:.2f}  "
                                           f"W {score['wasserstein']:.4f}", fill=INK)
        there = hidden_RC[:, column]
        if not there.any():
            continue
        truth, imputed = truth_RC[there, column], imputed_RC[there, column]
        # a long tail would squeeze everything else into one bar
        low, high = np.quantile(truth, [0.005, 0.995])
        borders = np.linspace(low, high if high > low else low + 1, BINS + 1)
        bars, line = (np.histogram(values.clip(borders[0], borders[-1]), borders)[0] for values in (truth, imputed))
        scale = (bottom - top) / max(bars.max(), line.max())
        xs = np.linspace(left, right, BINS + 1)
        for bin_ in range(BINS):
            pen.rectangle((xs[bin_], bottom - bars[bin_] * scale, xs[bin_ + 1], bottom), fill=BAR)
        steps = [(x, bottom - line[bin_] * scale) for bin_ in range(BINS) for x in xs[bin_:bin_ + 2]]
        pen.line(steps, fill=MODEL, width=2)
        pen.line((left, bottom, right, bottom), fill=INK)
    return np.asarray(image)


def scatter(truth_R: np.ndarray, said_R: np.ndarray, name: str) -> np.ndarray:
    """A dot for every row, what was predicted over what is true; on the grey line they are equal.

    Both axes reach over all but the outermost 0.5 % of the truth; what leaves them lies on the edge.

    Args:
        truth_R: In the file's units.
        said_R: Likewise.
        name: Of the column.

    Returns:
        RGB `[H, W, 3]`, uint8.
    """
    from PIL import Image, ImageDraw

    low, high = np.quantile(truth_R, [0.005, 0.995])
    high = high if high > low else low + 1
    image = Image.new("RGB", (SQUARE + 2 * BAR_MARGIN, SQUARE + 3 * BAR_MARGIN), "white")
    pen = ImageDraw.Draw(image, "RGBA")
    left, top, right, bottom = BAR_MARGIN, 2 * BAR_MARGIN - 8, BAR_MARGIN + SQUARE, 2 * BAR_MARGIN - 8 + SQUARE
    ends = " to ".join(f"{end:,.0f}" if high - low > 100 else f"{end:.4g}" for end in (low, high))
    pen.text((left, 5), f"{name[:34]}: predicted (up) over true, {ends}", fill=INK)
    pen.rectangle((left, top, right, bottom), outline=HIDDEN)
    pen.line((left, bottom, right, top), fill=TRUE)
    x_R, y_R = (((values_R - low) / (high - low)).clip(0, 1) * SQUARE for values_R in (truth_R, said_R))
    for x, y in zip(x_R[np.isfinite(y_R)], y_R[np.isfinite(y_R)], strict=True):
        pen.ellipse((left + x - 1.5, bottom - y - 1.5, left + x + 1.5, bottom - y + 1.5), fill=(*MODEL, 70))
    return np.asarray(image)


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
        picture[drawn] = 0.45 * picture[drawn] + 0.55 * LABELS[(label_XY[drawn] - 1) % len(LABELS)]
    scale = max(1, round(SIDE / max(image_XY.shape)))
    return picture[:, ::-1].transpose(1, 0, 2).repeat(scale, axis=0).repeat(scale, axis=1).astype(np.uint8)


def most_labelled(label_XYZ: np.ndarray) -> int:
    """The slice along Z with most foreground."""
    return int(((label_XYZ > 0) & (label_XYZ < 255)).sum(axis=(0, 1)).argmax())


def palette(num_classes: int) -> np.ndarray:
    """A fixed colour for every class, that of PASCAL VOC's tools, uint8 `[256, 3]`; black where a pixel is ignored."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(num_classes):
        for bit in range(24):  # three bits of the class number at a time, from each colour's highest bit down
            if (index + 1) >> bit & 1:
                colours[index, bit % 3] |= 128 >> (bit // 3)
    return colours


def grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int, edge: int = 0) -> np.ndarray:
    """Pictures in rows and columns, white between them and around those that are smaller.

    Args:
        rows: Of every row its pictures.
        gap: White pixels between neighbours.
        edge: White pixels around the whole.
    """
    height, width = (max(picture.shape[axis] for row in rows for picture in row) + gap for axis in (0, 1))
    columns = max(map(len, rows))
    page = np.full((len(rows) * height - gap + 2 * edge, columns * width - gap + 2 * edge, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            top, left = down * height + edge, across * width + edge
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page


def captioned(
    picture: np.ndarray, *, columns: Sequence[str] = (), rows: Sequence[str] = (),
    legend: Sequence[tuple[str, Sequence[int]]] = (),
) -> np.ndarray:
    """A grid with headings over its columns and beside its rows, and a legend of classes below: `[H, W, 3]`, uint8.

    Args:
        picture: The grid; a narrow one is enlarged, each pixel to a square.
        columns: Headings over as many columns of one width.
        rows: Headings beside as many rows of one height.
        legend: Names and colours.
    """
    from PIL import Image, ImageDraw

    times = max(1, WIDE // picture.shape[1])
    picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    height, width = picture.shape[:2]
    left = round(max((_length(text) for text in rows), default=-8)) + 8
    places, lines = _legend(legend, left + width)
    above = CAPTION * bool(columns)
    page = Image.new("RGB", (left + width, above + height + lines * CAPTION), "white")
    page.paste(Image.fromarray(picture), (left, above))
    pen = ImageDraw.Draw(page)
    for index, text in enumerate(columns):
        pen.text((left + (index + 0.5) * width / len(columns), above / 2), text, INK, _font(), anchor="mm")
    for index, text in enumerate(rows):
        pen.text((left - 8, above + (index + 0.5) * height / len(rows)), text, INK, _font(), anchor="rm")
    for (text, colour), (x, line) in zip(legend, places, strict=True):
        middle = above + height + (line + 0.5) * CAPTION
        pen.rectangle((x, middle - CHIP / 2, x + CHIP, middle + CHIP / 2), fill=tuple(int(part) for part in colour))
        pen.text((x + CHIP + 4, middle), text, INK, _font(), anchor="lm")
    return np.asarray(page)


def told(pictures_BHWC: np.ndarray, truths: Sequence[str], predictions: Sequence[str], across: int = 4) -> np.ndarray:
    """Images in rows, under each its true class and, green where right and red where wrong, the predicted one.

    Args:
        pictures_BHWC: uint8.
        truths: Names of classes.
        predictions: Likewise.
        across: Images beside each other.
    """
    from PIL import Image, ImageDraw

    cells, side = [], WIDE // across
    for picture, truth, predicted in zip(pictures_BHWC, truths, predictions, strict=True):
        times = max(1, side // picture.shape[1])
        image = Image.fromarray(picture.repeat(times, axis=0).repeat(times, axis=1))
        cell = Image.new("RGB", (max(side, image.width), image.height + 2 * CAPTION), "white")
        cell.paste(image, ((cell.width - image.width) // 2, 0))
        pen = ImageDraw.Draw(cell)
        for line, (text, colour) in enumerate((
                (f"truth: {truth}", INK), (f"predicted: {predicted}", RIGHT if predicted == truth else WRONG))):
            pen.text((0, image.height + (line + 0.5) * CAPTION), _fitting(text, cell.width), colour, _font(),
                     anchor="lm")
        cells.append(np.asarray(cell))
    return grid([cells[first : first + across] for first in range(0, len(cells), across)], gap=8)


def _legend(legend: Sequence[tuple[str, Sequence[int]]], width: int) -> tuple[list[tuple[float, int]], int]:
    """Where every entry stands, as x and line, and how many lines they take."""
    places: list[tuple[float, int]] = []
    x, line = 0.0, 0
    for text, _ in legend:
        long = CHIP + 4 + _length(text) + 14
        if x and x + long > width:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += long
    return places, line + 1 if places else 0


def _fitting(text: str, width: int) -> str:
    """A text, or its beginning, in so many pixels."""
    if _length(text) <= width:
        return text
    while text and _length(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _length(text: str) -> float:
    return float(_font().getlength(text))


@lru_cache(maxsize=1)
def _font() -> Any:
    """The letters that come with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)
