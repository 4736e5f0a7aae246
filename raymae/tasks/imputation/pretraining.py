"""Masked pretraining of the network that imputes: observed cells are re-masked beside the missing ones.

Shape suffixes: B batch, C columns.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from raymae.models.columns import Cells, ColumnTransformer
from raymae.models.mae import Encoder
from raymae.models.transfer import Coverage, transfer
from raymae.tasks.base import Batch
from raymae.tasks.columns.pretraining import Asked, CellPretraining


class ImputerPretraining(CellPretraining[ColumnTransformer]):
    """The network that is pretrained is also the one that is fine-tuned, but for its dropout."""

    def cells(self, model: ColumnTransformer, tokens_BN1: Tensor, hidden_BN: Tensor) -> Cells:
        """What is said of all cells."""
        return model(tokens_BN1, hidden_BN)

    def encoder(self, model: ColumnTransformer) -> Encoder:
        """What sees visible cells."""
        return model.autoencoder.encoder

    def asked(self, batch: Batch, generator: Generator) -> Asked:
        """Cells taken away from validation rows, which no network learns from, whatever the protocol; no mask is drawn.
        """
        told_BC = batch["scored"] & ~batch["absent"]
        return Asked(nn.functional.pad(batch["missing"], (1, 0)), self.data.to_own(batch["truth"]), told_BC)

    def transfer(self, pretrained: ColumnTransformer, model: nn.Module) -> Coverage:
        """Move the whole autoencoder: its decoder is what fills cells in."""
        return transfer(pretrained.autoencoder, model, lambda key: f"autoencoder.{key}")
