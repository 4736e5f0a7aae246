"""The networks over a table's columns, built from a task's parameters.

Shape suffixes: C columns, K bins or categories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from raymae.models.columns import ColumnEmbedding, ColumnMeans
from raymae.models.mae import Encoder
from raymae.tasks.columns.cells import OwnScales
from raymae.tasks.transformer import encoder_of

Network = TypeVar("Network", bound=nn.Module)
ROWS_AT_ONCE, CELLS_AT_ONCE = 2048, 40_960


def rows_at_once(columns: int) -> int:
    """Rows of a network's batch without gradients: of a wide table fewer."""
    return min(ROWS_AT_ONCE, max(CELLS_AT_ONCE // columns, 1))


def column_encoder(p: Any, scales: OwnScales, *, drop_path: float, dropout: float) -> Encoder:
    """Make an encoder of a row's cells, freshly initialised.

    Args:
        p: See `raymae.tasks.columns.schema.ColumnParams`.
        scales: Of the columns.
        drop_path: Stochastic depth of the last block: fine-tuning's `drop_path`, or `pretrain_drop_path`.
        dropout: Dropout after attention and MLP, likewise.
    """
    embedding = ColumnEmbedding(scales.num_categories, p.encoder_dim, frequencies=p.frequencies,
                                frequency_scale=p.frequency_scale)
    return encoder_of(p, embedding, drop_path=drop_path, dropout=dropout)


def with_decoder(
    kind: Callable[..., Network], p: Any, scales: OwnScales, centres_CK: Tensor, *, drop_path: float, dropout: float
) -> Network:
    """Make an encoder, a decoder and what says of decoded tokens which cells they are; see `column_encoder`.

    Args:
        kind: `ColumnTransformer`, or `ColumnAutoencoder`.
        p: Also `decoder_dim`, `decoder_depth` and `decoder_heads`.
        scales: Of the columns.
        centres_CK: Of their bins, see `IncompleteTable.bins`.
        drop_path: See `column_encoder`.
        dropout: Likewise.
    """
    encoder = column_encoder(p, scales, drop_path=drop_path, dropout=dropout)
    means = ColumnMeans(p.decoder_dim, centres_CK, scales.deviation_C)
    return kind(encoder, means, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
                decoder_heads=p.decoder_heads)
