"""The transformer that the arms `mae` and `scratch` share, built from a task's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid

LEARNING: tuple[Literal["pretrained", "trained"], ...] = ("pretrained", "trained")


def encoder(
    p: Any, grid: TokenGrid, *, like: TokenGrid | None = None, drop_path: float, dropout: float = 0.0
) -> Encoder:
    """Make an encoder of a grid's tokens, freshly initialised.

    Args:
        p: `encoder_dim`, `encoder_depth`, `encoder_heads` and `mlp_ratio`.
        grid: Cuts what it sees into tokens.
        like: The grid that it is pretrained on, where that is another.
        drop_path: Stochastic depth of the last block: fine-tuning's `drop_path`, or `pretrain_drop_path`.
        dropout: Dropout after attention and MLP, likewise.
    """
    embedding = PatchEmbedding(grid.token_dim, grid.shape, p.encoder_dim, like=like.shape if like else None)
    return encoder_of(p, embedding, drop_path=drop_path, dropout=dropout)


def encoder_of(p: Any, embedding: nn.Module, *, drop_path: float, dropout: float = 0.0) -> Encoder:
    """Make an encoder of tokens that are embedded in a way of their own; see `encoder`."""
    return Encoder(embedding, depth=p.encoder_depth, heads=p.encoder_heads, mlp_ratio=p.mlp_ratio,
                   drop_path=drop_path, dropout=dropout)


def autoencoder(p: Any, encoder: Encoder, grid: TokenGrid, *, target_dim: int | None = None) -> MaskedAutoencoder:
    """Make the masked autoencoder that pretrains an encoder.

    Args:
        p: `decoder_dim`, `decoder_depth`, `decoder_heads` and `norm_target`.
        encoder: It becomes a part of the autoencoder.
        grid: The encoder's.
        target_dim: Values predicted per token; all of a token's by default.
    """
    return MaskedAutoencoder(encoder, grid.shape, decoder_dim=p.decoder_dim, decoder_depth=p.decoder_depth,
                             decoder_heads=p.decoder_heads, norm_target=p.norm_target, target_dim=target_dim)


def uneven_heads(params: Mapping[str, Any], *parts: str) -> list[tuple[str, str]]:
    """Widths that their attention heads do not divide, as `TaskSchema.check` returns problems.

    Args:
        params: Holds `<part>_dim` and `<part>_heads`.
        parts: `encoder`, `decoder`.
    """
    problems = []
    for part in parts:
        dim, heads = int(params[f"{part}_dim"]), int(params[f"{part}_heads"])
        if dim % heads:
            problems.append((f"{part}_dim", f"{part}_dim={dim} must be a multiple of {part}_heads={heads}; "
                                            f"try {dim // heads * heads or heads}"))
    return problems
