"""What a prediction is scored by.

Shape suffixes: B batch, R rows, K categories of the target, or 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raymae.tasks.base import Batch, Metrics, UnitScores
from raymae.tasks.prediction.table import LabelledTable

SUMS = 5  # of numbers: rows, squared errors, absolute errors, values, squared values
TINY = 1e-30  # the weight of a row that is exactly at the mean


class NumberMetrics(Metrics):
    """Sums over rows whose label is a number, from which R² and errors in the file's units are computed.

    Args:
        data: The table, for the labels of its test rows.
    """

    def __init__(self, data: LabelledTable) -> None:
        super().__init__(SUMS)
        rows = data.inputs.rows
        self.middle = float(data.label_R[rows["train"]].mean())  # taken off, or squares of large numbers would lose all
        self.test_mean = float(data.label_R[rows["test"]].mean())

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add predictions `[B, 1]` in the file's units."""
        label_B = batch["label"].cpu().double()
        error_B, value_B = prediction[:, 0].detach().cpu().double() - label_B, label_B - self.middle
        one_B = torch.ones_like(error_B)
        self.totals += torch.stack([one_B, error_B**2, error_B.abs(), value_B, value_B**2]).sum(dim=1)

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """1 - e² / d² of each row with weight d², e being its error and d how far its label is from the mean of all
        test rows: the weighted mean over them is R²."""
        label_B = batch["label"].cpu().double()
        weight_B = ((label_B - self.test_mean) ** 2).clamp(min=TINY)
        score_B = 1 - (prediction[:, 0].detach().cpu().double() - label_B) ** 2 / weight_B
        return UnitScores(score_B[:, None], weight_B[:, None])

    def compute(self) -> dict[str, float]:
        """column_score, which is R² (0 where all labels are the same), rmse and abs_error in the file's units."""
        count, squared, absolute, value, value_squared = self.totals.tolist()
        spread = value_squared - value**2 / count
        known = spread > 1e-12 * value_squared  # rounding leaves equal labels some spread
        return {"column_score": 1 - squared / spread if known else 0.0, "rmse": math.sqrt(squared / count),
                "abs_error": absolute / count}


class CategoryMetrics(Metrics):
    """How often the category is right, summed cross entropy, and the number of rows."""

    def __init__(self) -> None:
        super().__init__(3)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add log probabilities `[B, K]`; of equal ones the first category counts."""
        log_BK, label_B = prediction.detach().cpu().double(), batch["label"].cpu().long()
        nll_B = -log_BK.gather(1, label_B[:, None])[:, 0]
        self.totals += torch.stack([_right(prediction, batch), nll_B, torch.ones_like(nll_B)]).sum(dim=1)

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """1 for each row whose category is right, else 0."""
        return UnitScores.plain(_right(prediction, batch))

    def compute(self) -> dict[str, float]:
        """column_score, which is the share of rows, and nats per row."""
        right, nll, count = self.totals.tolist()
        return {"column_score": right / count, "nll": nll / count}


def _right(prediction: Tensor, batch: Batch) -> Tensor:
    """Whether the likeliest category is the label's: float64 `[B]`, NaN for a broken network."""
    log_BK, label_B = prediction.detach().cpu().double(), batch["label"].cpu().long()
    return torch.where(log_BK.isnan().any(dim=1), math.nan, (log_BK.argmax(dim=1) == label_B).double())
