"""MONAI's UNETR on the encoder that masked pretraining trains (Hatamizadeh et al. 2022, arXiv:2103.10504).

Shape suffixes: B batch, C channels, K classes, S... spatial axes, N tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.networks.blocks import UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets import UNETR
from torch import Tensor

from raymae.models.heads import encoder_layers
from raymae.models.mae import Encoder
from raymae.models.tokens import TokenGrid


class Unetr(UNETR):
    """`monai.networks.nets.UNETR` with our `encoder` in the place of its `vit`.

    MONAI's is made for patches of 16 and 12 blocks, with features of the blocks 4, 7 and 10 as skips. Here a patch of
    2^k has k levels, each with a skip from a block at an equal distance. For k = 4 the modules, their names and the
    result are MONAI's; for smaller patches the levels that would lie below the tokens are left out.

    Args:
        encoder: Pretrained or fresh.
        grid: Cuts the image into the encoder's tokens; one patch size along all axes, a power of two up to 16.
        num_classes: K.
        feature_size: Width of the finest level; doubles from level to level.
    """

    def __init__(self, encoder: Encoder, grid: TokenGrid, num_classes: int, *, feature_size: int = 16) -> None:
        patch, axes = grid.patch_size[0], len(grid.size)
        self.levels = num_levels(patch)
        # its own transformer is thrown away, so it is made as small as its width allows
        super().__init__(
            grid.in_channels, num_classes, tuple(16 * cells for cells in grid.shape), feature_size=feature_size,
            hidden_size=encoder.dim, num_heads=1, mlp_dim=1, spatial_dims=axes,
        )
        del self.vit
        if self.levels < 4:
            common: dict[str, Any] = {"spatial_dims": axes, "kernel_size": 3, "upsample_kernel_size": 2,
                                      "norm_name": "instance", "res_block": True}
            for level in range(1, self.levels):
                setattr(self, f"encoder{level + 1}", UnetrPrUpBlock(
                    in_channels=encoder.dim, out_channels=feature_size * 2**level, num_layer=self.levels - 1 - level,
                    stride=1, conv_block=True, **common,
                ))
            for level in range(self.levels, 4):
                delattr(self, f"encoder{level + 1}")
                delattr(self, f"decoder{level + 2}")
            setattr(self, f"decoder{self.levels + 1}", UnetrUpBlock(
                in_channels=encoder.dim, out_channels=feature_size * 2 ** (self.levels - 1), **common))
        self.grid = grid
        self.encoder = encoder
        self.skips = skip_blocks(len(encoder.blocks), self.levels)

    def features(self, image_BCS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The interface of MONAI's ViT: normed features `[B, N, D]`, and those after every block."""
        x_BND, hidden = self.encoder.embedding(self.grid.patchify(image_BCS)), []
        for block in self.encoder.blocks:
            x_BND = block(x_BND)
            hidden.append(x_BND)
        return self.encoder.norm(x_BND), hidden

    def forward(self, image_BCS: Tensor) -> Tensor:
        """`[B, C, S...]` → logits `[B, K, S...]`."""
        x_BND, hidden = self.features(image_BCS)
        skips = [self.encoder1(image_BCS)]
        for level, index in enumerate(self.skips, start=2):
            skips.append(self.get_submodule(f"encoder{level}")(self.proj_feat(hidden[index])))
        out = self.proj_feat(x_BND)
        for level in range(self.levels, 0, -1):
            out = self.get_submodule(f"decoder{level + 1}")(out, skips[level - 1])
        return self.out(out)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """See `encoder_layers`."""
        return encoder_layers(coarse)


def num_levels(patch_size: int) -> int:
    """k of a patch of 2^k."""
    levels = int(math.log2(patch_size)) if patch_size > 0 else 0
    if not 1 <= levels <= 4 or 2**levels != patch_size:
        raise ValueError(f"UNETR needs patches of 2, 4, 8 or 16, got {patch_size}")
    return levels


def skip_blocks(depth: int, levels: int) -> Sequence[int]:
    """Which blocks' features are skips, finest level first: 3, 6, 9 of MONAI's 12."""
    return [level * depth // levels for level in range(1, levels)]
