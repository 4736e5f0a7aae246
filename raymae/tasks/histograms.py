"""A picture of what was imputed: for every column the true and the imputed distribution. C columns, R rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

WIDTH, HEIGHT, MARGIN, ACROSS, BINS = 240, 150, 18, 4, 40
TRUE, IMPUTED, INK = (188, 196, 208), (196, 52, 38), (40, 40, 40)


def draw_histograms(
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
    image = Image.new("RGB", (WIDTH * min(ACROSS, len(scores)), HEIGHT * down), "white")
    pen = ImageDraw.Draw(image)
    for column, (name, score) in enumerate(scores.items()):
        left, top = column % ACROSS * WIDTH + MARGIN // 2, column // ACROSS * HEIGHT + MARGIN + 12
        right, bottom = left + WIDTH - MARGIN, top + HEIGHT - 2 * MARGIN - 12
        pen.text((left, top - MARGIN - 8), name[:34], fill=INK)
        pen.text((left, top - MARGIN + 4), f"rmse {score['rmse']:.3f}  r2 {score['r2']:.2f}  "
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
            pen.rectangle((xs[bin_], bottom - bars[bin_] * scale, xs[bin_ + 1], bottom), fill=TRUE)
        steps = [(x, bottom - line[bin_] * scale) for bin_ in range(BINS) for x in xs[bin_:bin_ + 2]]
        pen.line(steps, fill=IMPUTED, width=2)
        pen.line((left, bottom, right, bottom), fill=INK)
    return np.asarray(image)
