"""Masked pretraining of the encoder that predicts: hidden cells of rows, labelled or not, are predicted."""

from __future__ import annotations

from torch import Tensor

from raymae.models.columns import Cells, ColumnAutoencoder
from raymae.models.mae import Encoder
from raymae.tasks.columns.pretraining import CellPretraining


class RowPretraining(CellPretraining[ColumnAutoencoder]):
    """Of the masked autoencoder the encoder is kept."""

    def cells(self, model: ColumnAutoencoder, tokens_BN1: Tensor, hidden_BN: Tensor) -> Cells:
        """What is said of all cells."""
        return model.cells(tokens_BN1, hidden_BN)

    def encoder(self, model: ColumnAutoencoder) -> Encoder:
        """What sees visible cells."""
        return model.encoder
