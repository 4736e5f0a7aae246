"""Which tokens are hidden from the encoder. Every draw takes an explicit generator; True means hidden.

Shape suffixes: B batch, N tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

MaskKind = Literal["random", "suffix", "mixed"]


def num_hidden(num_tokens: int, mask_ratio: float) -> int:
    """How many of N tokens a ratio hides: rounded, and always at least one hidden and one visible."""
    if num_tokens < 2:
        raise ValueError(f"masking needs at least 2 tokens, got {num_tokens}; use a smaller patch_size")
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio must lie strictly between 0 and 1, got {mask_ratio}")
    return min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1)


def num_visible(num_tokens: int, mask_ratio: float) -> int:
    """How many of N tokens a ratio leaves visible."""
    return num_tokens - num_hidden(num_tokens, mask_ratio)


def random_mask(
    batch: int, num_tokens: int, mask_ratio: float, generator: Generator, *, keep_last: bool = False
) -> Tensor:
    """Hide the same number of tokens in every row, uniformly at random: bool `[B, N]` on the generator's device.

    Args:
        batch: B.
        num_tokens: N.
        mask_ratio: Share of tokens hidden.
        generator: Source of randomness; the mask lives on its device.
        keep_last: Never hide the last token (a forecaster's anchor).
    """
    # float32 noise: half precision has ties, which would bias towards low indices
    noise_BN = torch.rand(batch, num_tokens, generator=generator, device=generator.device)
    hidden = num_hidden(num_tokens, mask_ratio)
    if keep_last:
        noise_BN[:, -1] = 2.0
        hidden = min(hidden, num_tokens - 1)
    index_BH = noise_BN.argsort(dim=1)[:, :hidden]
    mask_BN = torch.zeros(batch, num_tokens, dtype=torch.bool, device=generator.device)
    return mask_BN.scatter_(1, index_BH, True)


def suffix_mask(batch: int, num_tokens: int, mask_ratio: float, generator: Generator) -> Tensor:
    """Hide the last tokens of every row, as forecasting does: bool `[B, N]` on the generator's device."""
    hidden = num_hidden(num_tokens, mask_ratio)
    mask_BN = torch.zeros(batch, num_tokens, dtype=torch.bool, device=generator.device)
    mask_BN[:, num_tokens - hidden :] = True
    return mask_BN


def draw_mask(
    kind: MaskKind, batch: int, num_tokens: int, mask_ratio: float, generator: Generator, *, keep_last: bool = False
) -> Tensor:
    """A mask by name. `mixed` draws each row as random or suffix with equal chance."""
    if kind == "suffix":
        return suffix_mask(batch, num_tokens, mask_ratio, generator)
    random_BN = random_mask(batch, num_tokens, mask_ratio, generator, keep_last=keep_last)
    if kind == "random":
        return random_BN
    coin_B1 = torch.rand(batch, 1, generator=generator, device=generator.device) < 0.5
    return torch.where(coin_B1, random_BN, suffix_mask(batch, num_tokens, mask_ratio, generator))
