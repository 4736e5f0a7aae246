"""Networks for the cells of a table: a masked autoencoder over columns, a head on its encoder, dense autoencoders.

Shape suffixes: B batch, C columns, N tokens (the class token, then the columns), F features of a number, D width,
K bins or categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raymae.models.heads import WITH_LAST_BLOCK, Layers, encoder_layers
from raymae.models.mae import NORM_EPS, Encoder, MaskedAutoencoder, take


class ColumnEmbedding(nn.Module):
    """One token per cell, by the embedding of its own column, after a class token that is always visible.

    A number becomes itself and sines and cosines of learned frequencies (Gorishniy et al. 2022, arXiv:2203.05556),
    mapped linearly by its column's own weights; a category is looked up.

    Args:
        num_categories: Categories of every column; 0 for a numeric one.
        dim: D.
        frequencies: Sines per number; 0 leaves a linear embedding.
        frequency_scale: Standard deviation of the initial frequencies, in half-turns per unit.
    """

    token_dim = 1
    offset_C: Tensor
    categorical_C: Tensor

    def __init__(
        self, num_categories: Sequence[int], dim: int, *, frequencies: int = 16, frequency_scale: float = 2.0
    ) -> None:
        super().__init__()
        columns = len(num_categories)
        self.num_tokens, self.dim = columns + 1, dim
        features = 1 + 2 * frequencies
        self.frequency = nn.Parameter(frequency_scale * math.pi * torch.randn(columns, frequencies))
        self.weight = nn.Parameter(torch.randn(columns, features, dim) / math.sqrt(features))
        self.bias = nn.Parameter(0.1 * torch.randn(columns, dim))
        self.class_token = nn.Parameter(0.1 * torch.randn(dim))
        counts = torch.tensor(list(num_categories))
        self.has_categories = any(num_categories)
        self.categories = nn.Embedding(int(counts.sum()) + 1, dim)  # never without a row
        self.register_buffer("offset_C", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("categorical_C", counts > 0, persistent=False)

    def forward(self, tokens_BN1: Tensor, index_BV: Tensor | None = None) -> Tensor:
        """`[B, N, 1]` → `[B, N, D]`, or `[B, V, D]` at the indices; the first token's value is not read."""
        value_BC = tokens_BN1[:, 1:, 0]
        angle_BCF = value_BC[..., None] * self.frequency
        features_BCF = torch.cat([value_BC[..., None], angle_BCF.sin(), angle_BCF.cos()], dim=-1)
        x_BCD = torch.einsum("bcf,cfd->bcd", features_BCF, self.weight)
        if self.has_categories:
            which_BC = self.offset_C + torch.where(self.categorical_C, value_BC, 0).long()
            x_BCD = torch.where(self.categorical_C[:, None], self.categories(which_BC), x_BCD)
        x_BND = torch.cat([self.class_token.expand(value_BC.shape[0], 1, -1), x_BCD + self.bias], dim=1)
        return x_BND if index_BV is None else take(x_BND, index_BV)


class Cells(NamedTuple):
    """What a network says about every cell.

    Attributes:
        log_chances_BCK: Of bins or categories, a very low one where the column has fewer than K.
        mean_BC: The expected value, in units of the column's observed range.
    """

    log_chances_BCK: Tensor
    mean_BC: Tensor


class ColumnLogits(nn.Module):
    """For every column its own linear layer: logits of bins, appended to the decoded tokens they are made of.

    Args:
        dim: D.
        shape: Columns and K.
    """

    def __init__(self, dim: int, shape: tuple[int, int]) -> None:
        super().__init__()
        columns, bins = shape
        self.weight = nn.Parameter(torch.randn(columns, dim, bins) * 0.02)
        self.bias = nn.Parameter(torch.zeros(columns, bins))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Decoded tokens, the class token first: `[B, N, D]` → `[B, C, D + K]`."""
        x_BCD = x_BND[:, 1:]
        return torch.cat([x_BCD, torch.einsum("bcd,cdk->bck", x_BCD, self.weight) + self.bias], dim=-1)


class ColumnMeans(nn.Module):
    """What is expected of a cell: the mean of its distribution over bins, and a correction linear in its token.

    Args:
        dim: D.
        centres_CK: Mean of the observed values in each bin, or the code of each category; NaN where there is none.
        deviation_C: Typical size of the correction.
    """

    centres_CK: Tensor
    absent_CK: Tensor
    deviation_C: Tensor

    def __init__(self, dim: int, centres_CK: Tensor, deviation_C: Tensor) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.randn(len(centres_CK), dim) * 0.02)
        self.bias = nn.Parameter(torch.zeros(len(centres_CK)))
        self.register_buffer("absent_CK", centres_CK.isnan(), persistent=False)
        self.register_buffer("centres_CK", centres_CK.nan_to_num(), persistent=False)
        self.register_buffer("deviation_C", deviation_C, persistent=False)

    def forward(self, x_BCX: Tensor) -> Cells:
        """What `ColumnLogits` made, `[B, C, D + K]`, to what is said about each cell."""
        x_BCD, logits_BCK = x_BCX[..., :self.dim].float(), x_BCX[..., self.dim:].float()
        log_chances_BCK = logits_BCK.masked_fill(self.absent_CK, -1e4).log_softmax(dim=-1)
        mean_BC = (log_chances_BCK.exp() * self.centres_CK).sum(dim=-1)
        correction_BC = (x_BCD * self.weight).sum(dim=-1) + self.bias
        return Cells(log_chances_BCK, mean_BC + 0.1 * self.deviation_C * correction_BC)


class ColumnAutoencoder(MaskedAutoencoder):
    """A masked autoencoder over columns, of which the encoder is kept.

    Args:
        encoder: Over a `ColumnEmbedding`.
        means: On decoded tokens and logits.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
    """

    def __init__(
        self, encoder: Encoder, means: ColumnMeans, *, decoder_dim: int, decoder_depth: int, decoder_heads: int
    ) -> None:
        columns, bins = means.centres_CK.shape
        super().__init__(encoder, (encoder.num_tokens,), decoder_dim=decoder_dim, decoder_depth=decoder_depth,
                         decoder_heads=decoder_heads, predict=ColumnLogits(decoder_dim, (columns, bins)))
        self.means = means

    def cells(self, tokens_BN1: Tensor, hidden_BN: Tensor) -> Cells:
        """Everything about all cells from the visible ones."""
        return self.means(self(tokens_BN1, hidden_BN))


class ColumnTransformer(nn.Module):
    """A masked autoencoder over columns, and the head on it.

    The whole `autoencoder` is pretrained and then fine-tuned, its decoder as well: the decoder is what fills cells in.

    Args:
        encoder: Over a `ColumnEmbedding`.
        head: On decoded tokens and logits.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
    """

    def __init__(
        self, encoder: Encoder, head: ColumnMeans, *, decoder_dim: int, decoder_depth: int, decoder_heads: int
    ) -> None:
        super().__init__()
        columns, bins = head.centres_CK.shape
        self.autoencoder = MaskedAutoencoder(
            encoder, (encoder.num_tokens,), decoder_dim=decoder_dim, decoder_depth=decoder_depth,
            decoder_heads=decoder_heads, predict=ColumnLogits(decoder_dim, (columns, bins)),
        )
        self.head = head

    def forward(self, tokens_BN1: Tensor, hidden_BN: Tensor) -> Cells:
        """Everything about all cells from the visible ones."""
        return self.head(self.autoencoder(tokens_BN1, hidden_BN))

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay; the decoder learns with the last block."""
        top = r"^autoencoder\.(?:bridge|decoder|norm|predict|mask_token|encoder\.norm)"  # timm numbers what is captured
        return {"stem": r"^autoencoder\.encoder\.embedding",
                "blocks": [(r"^autoencoder\.encoder\.blocks\.(\d+)", None), (top, WITH_LAST_BLOCK)]}


class PooledColumns(nn.Module):
    """An encoder, the mean of a row's visible tokens, a norm and one linear layer.

    Args:
        encoder: Over a `ColumnEmbedding`, pretrained or fresh.
        outputs: K, or 1.
        dropout: Dropout before the linear layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.dim, outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens_BN1: Tensor, hidden_BN: Tensor) -> Tensor:
        """Everything about a row from its visible cells: `[B, K]`."""
        return self.head(self.dropout(self.norm(self.features(tokens_BN1, hidden_BN))))

    def features(self, tokens_BN1: Tensor, hidden_BN: Tensor) -> Tensor:
        """The mean of a row's visible tokens, the class token among them: `[B, D]`."""
        there_BN1 = (~hidden_BN)[..., None]
        return (self.encoder(tokens_BN1, hidden_BN) * there_BN1).sum(dim=1) / there_BN1.sum(dim=1)

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return encoder_layers()


class DenseAutoencoder(nn.Module):
    """A dense encoder and decoder on whole rows, with or without the row's mask beside its values.

    Args:
        columns: C.
        dim: Width of the hidden layers; the code is half as wide.
        dropout: Dropout in the encoder.
        with_mask: Whether the input is the row beside its mask (2 C wide).
    """

    def __init__(self, columns: int, dim: int, *, dropout: float, with_mask: bool) -> None:
        super().__init__()
        inputs = 2 * columns if with_mask else columns
        self.with_mask = with_mask
        self.encoder = nn.Sequential(
            nn.Linear(inputs, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim // 2), nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.decoder = nn.Sequential(nn.Linear(dim // 2, dim), nn.ReLU(), nn.Linear(dim, columns))

    def forward(self, filled_BC: Tensor, visible_BC: Tensor) -> Tensor:
        """Rows with something in their hidden cells, and where they are visible: `[B, C]` → `[B, C]`."""
        row = [filled_BC, visible_BC.to(filled_BC.dtype)] if self.with_mask else [filled_BC]
        return self.decoder(self.encoder(torch.cat(row, dim=1)))

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return {"stem": r"^encoder\.0", "blocks": [(r"^encoder\.3", None), (r"^decoder", WITH_LAST_BLOCK)]}
