"""Masked pretraining on the cells of a table: observed cells are hidden and predicted, missing ones never counted.

Shape suffixes: B batch, C columns, N tokens (a class token, then the columns), V visible tokens, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from raymae.models.columns import Cells
from raymae.models.mae import Encoder
from raymae.tasks.base import Batch, Hidden, Loss, Pretraining
from raymae.tasks.columns.cells import IncompleteTable

Network = TypeVar("Network", bound=nn.Module)


class Asked(NamedTuple):
    """Which cells a pretraining is validated on.

    Attributes:
        hidden_BN: What the encoder does not see.
        truth_BC: What stands in the cells, own units: float64.
        told_BC: The cells that count.
    """

    hidden_BN: Tensor
    truth_BC: Tensor
    told_BC: Tensor


def weighted_mean(loss_BC: Tensor, weight_BC: Tensor) -> Loss:
    """The mean of cells' losses under a weight for each of them; 0 where nothing counts."""
    weight = weight_BC.sum()
    return Loss((loss_BC * weight_BC).sum() / torch.where(weight > 0, weight, 1), weight)


def cell_loss(output: Cells, batch: Batch, weight_BC: Tensor, span_C: Tensor, mean_weight: float) -> Loss:
    """Cross entropy over bins, and squared error of the mean in units of the column's range.

    Args:
        output: What is said of every cell.
        batch: Holds their `bin` and `value`.
        weight_BC: Of every cell.
        span_C: Own units of a column in units of its range.
        mean_weight: Of the squared error.
    """
    chosen_BC = -output.log_chances_BCK.gather(-1, batch["bin"][..., None])[..., 0]
    error_BC = ((output.mean_BC - batch["value"]) * span_C).square()
    return weighted_mean(chosen_BC + mean_weight * error_BC, weight_BC)


class CellPretraining(Pretraining[Network]):
    """Observed cells are hidden beside the missing ones, and predicted.

    Args:
        make: Makes the masked autoencoder over columns.
        draw: Chooses hidden cells from where cells are missing.
        weighted_loss: Loss of predicted cells under a weight for each of them `[B, C]`.
        visible_weight: Weight of visible cells beside 1 on hidden ones.
        data: The table.
    """

    def __init__(
        self, make: Callable[[], Network], draw: Callable[[Tensor, Generator], Tensor],
        weighted_loss: Callable[[Cells, Batch, Tensor], Loss], visible_weight: float, data: IncompleteTable,
    ) -> None:
        self.make, self.draw, self.weighted_loss = make, draw, weighted_loss
        self.visible_weight, self.data = visible_weight, data

    def build(self) -> Network:
        """Predicts every cell from the visible ones."""
        return self.make()

    @abstractmethod
    def cells(self, model: Network, tokens_BN1: Tensor, hidden_BN: Tensor) -> Cells:
        """What the network says of all cells from the visible ones."""

    @abstractmethod
    def encoder(self, model: Network) -> Encoder:
        """The part of the network that sees visible cells."""

    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Hide missing cells, and some observed ones."""
        return self.draw(batch["missing"], generator)

    def loss(self, model: Network, batch: Batch, mask: Tensor) -> Loss:
        """Over re-masked cells, and with less weight over visible ones; never over missing ones."""
        weight_BC = torch.where(mask[:, 1:], 1.0, self.visible_weight) * ~batch["missing"]
        return self.weighted_loss(self.cells(model, batch["tokens"], mask), batch, weight_BC)

    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """Put other values into hidden tokens."""
        noise_BN1 = torch.rand(batch["tokens"].shape, generator=generator, device=mask.device)
        counts_N1 = torch.tensor([[0], *([count] for count in self.data.num_categories)], device=mask.device)
        noise_BN1 = torch.where(counts_N1 > 0, (noise_BN1 * counts_N1).floor(), noise_BN1)
        return {**batch, "tokens": torch.where(mask[..., None], noise_BN1, batch["tokens"]),
                "value": torch.where(mask[:, 1:], noise_BN1[:, 1:, 0], batch["value"])}

    def encode_visible(self, model: Network, batch: Batch, mask: Tensor) -> Tensor:
        """Encode the visible cells; rows are padded to the longest, and padding is nobody's input: `[B, V, D]`."""
        seen = self.encoder(model).visible(batch["tokens"], mask)
        if seen.padded_BV is None:
            return seen.features_BVD
        return seen.features_BVD.masked_fill(seen.padded_BV[..., None], 0.0)

    def asked(self, batch: Batch, generator: Generator) -> Asked:
        """Observed cells of validation rows, hidden as while pretraining."""
        hidden_BN = self.draw_mask(batch, generator)
        return Asked(hidden_BN, batch["value"].double(), hidden_BN[:, 1:] & ~batch["missing"])

    def errors(self, model: Network, batch: Batch, generator: Generator) -> Hidden:
        """Squared errors of hidden cells, in deviations of their column, beside those of its mean; of a category
        whether it is wrong, beside its most frequent one."""
        hidden_BN, truth_BC, told_BC = self.asked(batch, generator)
        output = self.cells(model, batch["tokens"], hidden_BN)
        deviation_C = self.data.deviation_C.double().clamp(min=1e-6)
        categorical_C = torch.as_tensor(self.data.table.is_categorical, device=truth_BC.device)
        chosen_BC = output.log_chances_BCK.argmax(dim=-1)

        def squared(number_BC: Tensor, category_BC: Tensor) -> Tensor:
            error_BC = ((number_BC.double() - truth_BC) / deviation_C).square()
            wrong_BC = (category_BC != truth_BC.round()).double()
            return (torch.where(categorical_C, wrong_BC, error_BC) * told_BC).sum()

        usual_C = self.data.usual_C
        return Hidden(squared(output.mean_BC, chosen_BC), squared(usual_C, usual_C), told_BC.sum())
