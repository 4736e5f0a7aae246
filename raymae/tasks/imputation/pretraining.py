"""Masked pretraining on the cells of a table: observed cells are re-masked and predicted, missing ones never counted.

Shape suffixes: B batch, C columns, N tokens (a class token, then the columns), V visible tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from raymae.models.columns import Cells, ColumnTransformer
from raymae.models.transfer import Coverage, transfer
from raymae.tasks.base import Batch, Hidden, Loss, Pretraining
from raymae.tasks.imputation.cells import IncompleteTable


class CellPretraining(Pretraining[ColumnTransformer]):
    """Observed cells are hidden beside the missing ones, and predicted.

    Args:
        make: Makes the network, which is also the one that is fine-tuned, but for its dropout.
        draw: Chooses hidden cells from where cells are missing.
        weighted_loss: Loss of predicted cells under a weight for each of them `[B, C]`.
        visible_weight: Weight of visible cells beside 1 on hidden ones.
        data: The table.
    """

    def __init__(
        self, make: Callable[[], ColumnTransformer], draw: Callable[[Tensor, Generator], Tensor],
        weighted_loss: Callable[[Cells, Batch, Tensor], Loss], visible_weight: float, data: IncompleteTable,
    ) -> None:
        self.make, self.draw, self.weighted_loss = make, draw, weighted_loss
        self.visible_weight, self.data = visible_weight, data

    def build(self) -> ColumnTransformer:
        """Predicts every cell from the visible ones."""
        return self.make()

    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Hide missing cells, and some observed ones."""
        return self.draw(batch["missing"], generator)

    def loss(self, model: ColumnTransformer, batch: Batch, mask: Tensor) -> Loss:
        """Over re-masked cells, and with less weight over visible ones; never over missing ones."""
        weight_BC = torch.where(mask[:, 1:], 1.0, self.visible_weight) * ~batch["missing"]
        return self.weighted_loss(model(batch["tokens"], mask), batch, weight_BC)

    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """Put other values into hidden tokens."""
        noise_BN1 = torch.rand(batch["tokens"].shape, generator=generator, device=mask.device)
        counts_N1 = torch.tensor([[0], *([count] for count in self.data.num_categories)], device=mask.device)
        noise_BN1 = torch.where(counts_N1 > 0, (noise_BN1 * counts_N1).floor(), noise_BN1)
        return {**batch, "tokens": torch.where(mask[..., None], noise_BN1, batch["tokens"]),
                "value": torch.where(mask[:, 1:], noise_BN1[:, 1:, 0], batch["value"])}

    def encode_visible(self, model: ColumnTransformer, batch: Batch, mask: Tensor) -> Tensor:
        """Encode the visible cells; rows are padded to the longest, and padding is nobody's input: `[B, V, D]`."""
        seen = model.autoencoder.encoder.visible(batch["tokens"], mask)
        if seen.padded_BV is None:
            return seen.features_BVD
        return seen.features_BVD.masked_fill(seen.padded_BV[..., None], 0.0)

    def errors(self, model: ColumnTransformer, batch: Batch, generator: Generator) -> Hidden:
        """Squared errors of cells taken away, in deviations of their column, beside those of its mean; of a category
        whether it is wrong, beside its most frequent one.

        They are the validation rows' cells that no network learns from, whatever the protocol; no mask is drawn.
        """
        told_BC = batch["scored"] & ~batch["absent"]
        output: Cells = model(batch["tokens"], nn.functional.pad(batch["missing"], (1, 0)))
        truth_BC = self.data.to_own(batch["truth"])
        deviation_C = self.data.deviation_C.double().clamp(min=1e-6)
        categorical_C = torch.as_tensor(self.data.table.is_categorical, device=truth_BC.device)
        chosen_BC = output.log_chances_BCK.argmax(dim=-1)

        def squared(number_BC: Tensor, category_BC: Tensor) -> Tensor:
            error_BC = ((number_BC.double() - truth_BC) / deviation_C).square()
            wrong_BC = (category_BC != truth_BC.round()).double()
            return (torch.where(categorical_C, wrong_BC, error_BC) * told_BC).sum()

        usual_C = self.data.usual_C
        return Hidden(squared(output.mean_BC, chosen_BC), squared(usual_C, usual_C), told_BC.sum())

    def transfer(self, pretrained: ColumnTransformer, model: nn.Module) -> Coverage:
        """Move the whole autoencoder: its decoder is what fills cells in."""
        return transfer(pretrained.autoencoder, model, lambda key: f"autoencoder.{key}")
