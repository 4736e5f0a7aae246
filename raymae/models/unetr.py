"""MONAI's UNETR on the encoder that masked pretraining trains (Hatamizadeh et al. 2022, arXiv:2103.10504).

Shape suffixes: B batch, C channels, K classes, S... spatial axes, N tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.networks.blocks import UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets import UNETR
from torch import Tensor, nn

from raymae.models.heads import Layers, encoder_layers
from raymae.models.mae import Encoder
from raymae.models.tokens import TokenGrid


class Unetr(nn.Module):
    """The blocks of `monai.networks.nets.UNETR`, with our `encoder` in the place of its `vit`.

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
        super().__init__()
        axes, self.levels = len(grid.size), num_levels(grid.patch_size[0])
        # all its blocks are drawn, also those not taken: a seed gives the weights it always gave
        stock = UNETR(
            grid.in_channels, num_classes, tuple(16 * cells for cells in grid.shape), feature_size=feature_size,
            hidden_size=encoder.dim, num_heads=1, mlp_dim=1, spatial_dims=axes,  # its transformer: as small as can be
        )
        skips: list[nn.Module] = [stock.encoder2, stock.encoder3, stock.encoder4]
        ups: list[nn.Module] = [stock.decoder2, stock.decoder3, stock.decoder4, stock.decoder5]
        if self.levels < 4:
            skips = [UnetrPrUpBlock(
                axes, encoder.dim, feature_size * 2**level, num_layer=self.levels - 1 - level, kernel_size=3, stride=1,
                upsample_kernel_size=2, norm_name="instance", conv_block=True, res_block=True,
            ) for level in range(1, self.levels)]
            ups[self.levels - 1] = UnetrUpBlock(
                axes, encoder.dim, feature_size * 2 ** (self.levels - 1), kernel_size=3, upsample_kernel_size=2,
                norm_name="instance", res_block=True,
            )
        self.encoder1 = stock.encoder1
        for level, block in enumerate(skips, start=2):
            self.add_module(f"encoder{level}", block)
        for level in range(self.levels, 0, -1):
            self.add_module(f"decoder{level + 1}", ups[level - 1])
        self.out = stock.out
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

    def to_map(self, x_BND: Tensor) -> Tensor:
        """Tokens as a map over their grid: `[B, N, D]` → `[B, D, *grid.shape]`."""
        return x_BND.transpose(1, 2).unflatten(2, self.grid.shape).contiguous()

    def forward(self, image_BCS: Tensor) -> Tensor:
        """`[B, C, S...]` → logits `[B, K, S...]`."""
        x_BND, hidden = self.features(image_BCS)
        skips = [self.encoder1(image_BCS)]
        for level, index in enumerate(self.skips, start=2):
            skips.append(self.get_submodule(f"encoder{level}")(self.to_map(hidden[index])))
        out = self.to_map(x_BND)
        for level in range(self.levels, 0, -1):
            out = self.get_submodule(f"decoder{level + 1}")(out, skips[level - 1])
        return self.out(out)

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return encoder_layers()


def num_levels(patch_size: int) -> int:
    """k of a patch of 2^k."""
    levels = int(math.log2(patch_size)) if patch_size > 0 else 0
    if not 1 <= levels <= 4 or 2**levels != patch_size:
        raise ValueError(f"UNETR needs patches of 2, 4, 8 or 16, got {patch_size}")
    return levels


def skip_blocks(depth: int, levels: int) -> Sequence[int]:
    """Which blocks' features are skips, finest level first: 3, 6, 9 of MONAI's 12."""
    return [level * depth // levels for level in range(1, levels)]
