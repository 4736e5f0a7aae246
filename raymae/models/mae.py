"""The one masked autoencoder, for any token grid (He et al. 2022, arXiv:2111.06377).

The encoder sees visible tokens only; a light decoder fills mask tokens in and predicts every token's values; the loss
is taken where tokens are hidden and not missing.

Shape suffixes: B batch, N tokens, V visible tokens (padded to the longest row), P values in a token, T values predicted
per token, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.models.block import NORM_EPS, Block, take
from raymae.models.tokens import sincos_positions


def init_weights(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform linear layers, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Placed(nn.Module):
    """A part that adds fixed positions to tokens, computed and not saved; those of somebody's weights are saved.

    Args:
        positions_ND: What is added to tokens.
        shape: Tokens along every axis; N is their product.
    """

    positions_ND: Tensor

    def __init__(self, positions_ND: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("positions_ND", positions_ND, persistent=False)

    @property
    def has_others(self) -> bool:
        """Whether positions are those of somebody's weights."""
        return "positions_ND" not in self._non_persistent_buffers_set

    def place(self, positions_ND: Tensor) -> None:
        """Take positions of somebody's weights, which are saved with them from now on."""
        self.register_buffer("positions_ND", positions_ND.detach().to(self.positions_ND, copy=True), persistent=True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}positions_ND" in state_dict:
            self.place(self.positions_ND)  # to be overwritten
        super()._load_from_state_dict(state_dict, prefix, *args)


def expect_positions(model: nn.Module, names: Iterable[str]) -> None:
    """Make a network ready for weights with positions of somebody's, which then are among its own `state_dict`.

    Args:
        model: The network.
        names: Of the weights.
    """
    found = set(names)
    for name, part in model.named_modules():
        if isinstance(part, Placed) and f"{name}.positions_ND".lstrip(".") in found:
            part.place(part.positions_ND)


class PatchEmbedding(Placed):
    """Linear embedding of a token's values plus fixed sin-cos positions.

    Args:
        token_dim: P.
        shape: Tokens along every axis; N is their product.
        dim: D.
        like: The grid whose positions are stretched over this one, where the network learned on another.
    """

    def __init__(
        self, token_dim: int, shape: tuple[int, ...], dim: int, *, like: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(sincos_positions(shape, dim, like=like), shape)
        self.token_dim, self.num_tokens, self.dim = token_dim, math.prod(shape), dim
        self.project = nn.Linear(token_dim, dim)

    def forward(self, tokens_BNP: Tensor, index_BV: Tensor | None = None) -> Tensor:
        """`[B, N, P]` → `[B, N, D]`; with indices only those tokens, `[B, V, D]`."""
        if index_BV is None:
            return self.project(tokens_BNP) + self.positions_ND
        return self.project(take(tokens_BNP, index_BV)) + self.positions_ND[index_BV]


def visible_first(hidden_BN: Tensor, num_visible: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Where visible tokens are, in their order.

    Args:
        hidden_BN: What is hidden.
        num_visible: V, where every row is known to have so many; asking the mask makes a GPU wait.

    Returns:
        Indices `[B, V]` (V is the most any row has), and a bool `[B, V]` that is True where a row is padded, or None
        where every row has equally many.
    """
    order_BN = hidden_BN.to(torch.uint8).argsort(dim=1, stable=True)
    if num_visible is not None:
        return order_BN[:, :num_visible], None
    counts_B = (~hidden_BN).sum(dim=1)
    longest = int(counts_B.max())
    index_BV = order_BN[:, :longest]
    return index_BV, hidden_BN.gather(1, index_BV) if bool((counts_B != longest).any()) else None


def attention_bias(padded_BV: Tensor | None) -> Tensor | None:
    """A boolean attention mask `[B, 1, 1, V]` (True: may be attended to), or None where nothing is padded."""
    return None if padded_BV is None else ~padded_BV[:, None, None, :]


class Visible(NamedTuple):
    """The visible tokens of a batch, encoded.

    Attributes:
        features_BVD: Features.
        index_BV: Index of each in the grid.
        padded_BV: Where rows are padded, see `visible_first`.
    """

    features_BVD: Tensor
    index_BV: Tensor
    padded_BV: Tensor | None


class Encoder(nn.Module):
    """A transformer over embedded tokens that computes on visible ones only.

    Args:
        embedding: Maps tokens `[B, N, P]` to `[B, N, D]`, or those at given indices `[B, V]` to `[B, V, D]`; has
            `num_tokens`, `token_dim` and `dim`.
        depth: Blocks.
        heads: Attention heads; divides the width.
        drop_path: Stochastic depth of the last block, rising linearly from 0.
        dropout: Dropout after attention and MLP.
        mlp_ratio: Width of each block's MLP, in widths of the encoder.
    """

    def __init__(
        self, embedding: nn.Module, *, depth: int, heads: int, drop_path: float = 0.0, dropout: float = 0.0,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.num_tokens, self.token_dim, self.dim = (
            int(embedding.num_tokens), int(embedding.token_dim), int(embedding.dim),  # type: ignore[arg-type]
        )
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(self.dim, heads, mlp_ratio, dropout=dropout, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(self.dim, eps=NORM_EPS)
        self.apply(init_weights)

    def forward(self, tokens_BNP: Tensor, hidden_BN: Tensor | None = None) -> Tensor:
        """All tokens: `[B, N, P]` → `[B, N, D]`.

        Args:
            tokens_BNP: Their values.
            hidden_BN: Tokens that no other sees, and whose own features say nothing; for rows that hide few, where
                `visible` would sort them for little.
        """
        x_BND = self.embedding(tokens_BNP)
        mask = attention_bias(hidden_BN)
        for block in self.blocks:
            x_BND = block(x_BND, mask)
        return self.norm(x_BND)

    def intermediate(self, tokens_BNP: Tensor, at: tuple[int, ...]) -> list[Tensor]:
        """What these blocks make of all tokens, each normalised: `[B, N, D]` for every index in `at`."""
        x_BND, after = self.embedding(tokens_BNP), []
        for block in self.blocks:
            x_BND = block(x_BND)
            after.append(x_BND)
        return [self.norm(after[index]) for index in at]

    def visible(self, tokens_BNP: Tensor, hidden_BN: Tensor, num_visible: int | None = None) -> Visible:
        """Compute on visible tokens only.

        Args:
            tokens_BNP: Values of all tokens; hidden ones are never read.
            hidden_BN: Which tokens are hidden.
            num_visible: See `visible_first`.
        """
        index_BV, padded_BV = visible_first(hidden_BN, num_visible)
        x_BVD = self.embedding(tokens_BNP, index_BV)
        mask = attention_bias(padded_BV)
        for block in self.blocks:
            x_BVD = block(x_BVD, mask)
        return Visible(self.norm(x_BVD), index_BV, padded_BV)


class MaskedAutoencoder(Placed):
    """An encoder, and the light decoder that pretraining throws away.

    Args:
        encoder: What is kept.
        shape: Tokens along every axis, for the decoder's positions.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
        norm_target: Predict each token's values normalised by that token's own mean and variance.
        target_dim: Values predicted per token; P by default, less where a token also holds covariates.
        predict: What makes them of decoded tokens `[B, N, decoder_dim]`; one linear layer for all tokens by default.
    """

    def __init__(
        self, encoder: Encoder, shape: tuple[int, ...], *, decoder_dim: int, decoder_depth: int, decoder_heads: int,
        norm_target: bool = False, target_dim: int | None = None, predict: nn.Module | None = None,
    ) -> None:
        super().__init__(sincos_positions(shape, decoder_dim), shape)
        self.encoder = encoder
        self.norm_target = norm_target
        self.bridge = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        self.decoder = nn.ModuleList(Block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=NORM_EPS)
        self.predict = predict or nn.Linear(decoder_dim, target_dim or encoder.token_dim)
        for part in (self.bridge, self.decoder, self.predict):
            part.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, tokens_BNP: Tensor, hidden_BN: Tensor, num_visible: int | None = None, wanted_BH: Tensor | None = None
    ) -> Tensor:
        """Predict tokens from the visible ones, in the target's normalisation.

        Args:
            tokens_BNP: Values of all tokens; hidden ones are never read.
            hidden_BN: What the encoder does not see.
            num_visible: See `visible_first`.
            wanted_BH: Indices of the tokens to predict; all by default.

        Returns:
            `[B, N, T]`, or `[B, H, T]` for the wanted tokens.
        """
        x_BVD, index_BV, padded_BV = self.encoder.visible(tokens_BNP, hidden_BN, num_visible)
        x_BVD = self.bridge(x_BVD)
        if padded_BV is not None:
            x_BVD = torch.where(padded_BV.unsqueeze(-1), self.mask_token.to(x_BVD.dtype), x_BVD)
        batch, num_tokens = hidden_BN.shape
        full_BND = self.mask_token.to(x_BVD.dtype).expand(batch, num_tokens, -1)
        full_BND = full_BND.scatter(1, index_BV.unsqueeze(-1).expand_as(x_BVD), x_BVD) + self.positions_ND
        for block in self.decoder[:-1]:
            full_BND = block(full_BND)
        for block in self.decoder[-1:]:
            full_BND = block(full_BND, wanted_BH=wanted_BH)
        return self.predict(self.norm(full_BND))

    @staticmethod
    def statistics(target_BNT: Tensor, missing_BNT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each token's observed values, by which its target is normalised: `[B, N, 1]` both."""
        if missing_BNT is not None:
            observed_BNT = ~missing_BNT
            count_BN1 = observed_BNT.sum(dim=-1, keepdim=True)
            mean = (target_BNT * observed_BNT).sum(dim=-1, keepdim=True) / count_BN1.clamp(min=1)
            squares = ((target_BNT - mean).square() * observed_BNT).sum(dim=-1, keepdim=True)
            return mean, (squares / (count_BN1 - 1).clamp(min=1) + 1e-6).sqrt()
        mean = target_BNT.mean(dim=-1, keepdim=True)
        # torch's own var takes six times as long on a CPU
        variance = (target_BNT - mean).square().sum(dim=-1, keepdim=True) / max(target_BNT.shape[-1] - 1, 1)
        return mean, (variance + 1e-6).sqrt()

    def loss(
        self, tokens_BNP: Tensor, hidden_BN: Tensor, *, target_BNT: Tensor | None = None,
        missing_BNT: Tensor | None = None, num_visible: int | None = None,
    ) -> Tensor:
        """Mean squared error over the values of hidden tokens that were observed. A scalar.

        Args:
            tokens_BNP: Values of all tokens; hidden ones are never read by the encoder.
            hidden_BN: What the encoder does not see.
            target_BNT: What is predicted; the tokens themselves by default.
            missing_BNT: Which values of the target were never observed; no loss there.
            num_visible: See `visible_first`.
        """
        target_BNT = tokens_BNP if target_BNT is None else target_BNT
        counted_BN, wanted_BH = hidden_BN, None
        if num_visible is not None and len(self.decoder):  # what the loss does not count is not computed
            wanted_BH = visible_first(~hidden_BN, hidden_BN.shape[1] - num_visible)[0]
            target_BNT, counted_BN = take(target_BNT, wanted_BH), counted_BN.gather(1, wanted_BH)
            missing_BNT = None if missing_BNT is None else take(missing_BNT, wanted_BH)
        predicted_BNT = self(tokens_BNP, hidden_BN, num_visible, wanted_BH)
        if self.norm_target:
            mean, sd = self.statistics(target_BNT, missing_BNT)
            target_BNT = (target_BNT - mean) / sd
        error_BNT = F.mse_loss(predicted_BNT.float(), target_BNT.float(), reduction="none")
        if missing_BNT is not None:
            observed_BNT = counted_BN.unsqueeze(-1) & ~missing_BNT
            return error_BNT.where(observed_BNT, 0).sum() / observed_BNT.sum().clamp(min=1)
        return (error_BNT.mean(dim=-1) * counted_BN).sum() / counted_BN.sum().clamp(min=1)

    @torch.no_grad()
    def reconstruct(self, tokens_BNP: Tensor, hidden_BN: Tensor, target_BNT: Tensor | None = None,
                    missing_BNT: Tensor | None = None) -> Tensor:
        """The target with hidden tokens replaced by the prediction, in the data's own scale: `[B, N, T]`."""
        predicted_BNT = self(tokens_BNP, hidden_BN)
        target_BNT = tokens_BNP if target_BNT is None else target_BNT
        if self.norm_target:
            mean, sd = self.statistics(target_BNT, missing_BNT)
            predicted_BNT = predicted_BNT * sd + mean
        return torch.where(hidden_BN.unsqueeze(-1), predicted_BNT, target_BNT)
