"""Token grids: one patchify for signals, images and volumes, and fixed sin-cos positions for any number of axes.

Shape suffixes: B batch, C channels, S... spatial axes, N tokens, P values in a token, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """A regular grid of non-overlapping patches over 1, 2, 3 or more axes.

    Attributes:
        size: Extent of every axis, in elements.
        patch_size: Extent of a patch along every axis, in elements; divides `size`.
        in_channels: Channels of every element.
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    in_channels: int

    def __post_init__(self) -> None:
        if len(self.size) != len(self.patch_size):
            raise ValueError(f"size {self.size} and patch_size {self.patch_size} need one number per axis each")
        for axis, (extent, patch) in enumerate(zip(self.size, self.patch_size, strict=True)):
            if patch < 1 or extent % patch:
                raise ValueError(f"size {extent} of axis {axis} must be a multiple of its patch_size {patch}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Tokens along every axis."""
        return tuple(extent // patch for extent, patch in zip(self.size, self.patch_size, strict=True))

    @property
    def num_tokens(self) -> int:
        """N."""
        return math.prod(self.shape)

    @property
    def token_dim(self) -> int:
        """P: values in one token, channels first."""
        return self.in_channels * math.prod(self.patch_size)

    def patchify(self, x_BCS: Tensor) -> Tensor:
        """Cut `[B, C, *size]` into tokens `[B, N, P]`, P ordered channel first, then the patch's axes."""
        if tuple(x_BCS.shape[1:]) != (self.in_channels, *self.size):
            raise ValueError(f"expected [B, {self.in_channels}, {', '.join(map(str, self.size))}], "
                             f"got {list(x_BCS.shape)}")
        axes = len(self.size)
        split = [x_BCS.shape[0], self.in_channels]
        for cells, patch in zip(self.shape, self.patch_size, strict=True):
            split += [cells, patch]
        grid = [2 + 2 * axis for axis in range(axes)]
        inner = [3 + 2 * axis for axis in range(axes)]
        return x_BCS.reshape(split).permute(0, *grid, 1, *inner).reshape(-1, self.num_tokens, self.token_dim)

    def unpatchify(self, tokens_BNP: Tensor) -> Tensor:
        """The inverse of `patchify`."""
        if tuple(tokens_BNP.shape[1:]) != (self.num_tokens, self.token_dim):
            raise ValueError(f"expected [B, {self.num_tokens}, {self.token_dim}], got {list(tokens_BNP.shape)}")
        axes = len(self.size)
        split = tokens_BNP.reshape(-1, *self.shape, self.in_channels, *self.patch_size)
        order = [0, 1 + axes]
        for axis in range(axes):
            order += [1 + axis, 2 + axes + axis]
        return split.permute(order).reshape(-1, self.in_channels, *self.size)


def sincos_positions(shape: tuple[int, ...], dim: int, *, like: tuple[int, ...] | None = None) -> Tensor:
    """Fixed sin-cos positions for a token grid, `[N, D]`, float32.

    Every axis gets an equal, even share of the width (Vaswani et al. 2017, eq. in 3.5; He et al. 2022 for two axes);
    what is left over stays zero.

    Args:
        shape: Tokens along every axis.
        dim: D.
        like: Tokens along every axis of the grid that the network learned on, whose positions are stretched over this
            one; the same grid by default.

    Raises:
        ValueError: The width is too small for the number of axes.
    """
    share = dim // len(shape) // 2 * 2
    if share < 2:
        raise ValueError(f"width {dim} is too small for {len(shape)} axes; it needs at least {2 * len(shape)}")
    omega = torch.pow(10_000.0, -torch.arange(share // 2, dtype=torch.float64) / (share / 2))
    places = [(torch.arange(cells, dtype=torch.float64) + 0.5) * (learned / cells) - 0.5
              for cells, learned in zip(shape, like or shape, strict=True)]
    axes = torch.meshgrid(*places, indexing="ij")
    parts = []
    for axis in axes:
        angles = axis.reshape(-1, 1) * omega
        parts += [angles.sin(), angles.cos()]
    positions_ND = torch.zeros(math.prod(shape), dim)
    positions_ND[:, : share * len(shape)] = torch.cat(parts, dim=1).float()
    return positions_ND
