"""A pyramid from one ViT's features, and UperNet on it (Xiao et al. 2018, arXiv:1807.10221; ViT as in 2111.11429).

Shape suffixes: B batch, C image channels, N tokens, D width of the encoder, W width of the head, H and X rows and
columns of a feature map, K classes.
"""

from __future__ import annotations

import math

from torch import Tensor, cat, nn
from torch.nn import functional as F

from raymae.models.heads import Layers, encoder_layers
from raymae.models.mae import Encoder
from raymae.models.tokens import TokenGrid

POOL_SCALES = (1, 2, 3, 6)


def taps(depth: int) -> tuple[int, int, int, int]:
    """The blocks whose features are used: 3, 5, 7 and 11 of 12, and so in proportion."""
    return (max(depth * 4 // 12 - 1, 0), max(depth * 6 // 12 - 1, 0), max(depth * 8 // 12 - 1, 0), depth - 1)


def norm(width: int) -> nn.GroupNorm:
    """Group norm, as batches are small; 8 channels and more to a group, since a map may be a single cell."""
    return nn.GroupNorm(math.gcd(32, max(width // 8, 1), width), width)


def conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution at the same resolution, norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), norm(outputs), nn.ReLU())


def resize(x_BWHX: Tensor, like: Tensor | tuple[int, int]) -> Tensor:
    """Bilinear, to the resolution of another map."""
    size = like if isinstance(like, tuple) else (like.shape[-2], like.shape[-1])
    return F.interpolate(x_BWHX, size, mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Four maps at 4, 2, 1 and 1/2 of the token grid's resolution, from four maps at 1.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList([
            nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, 2), norm(dim), nn.GELU(), nn.ConvTranspose2d(dim, dim, 2, 2)),
            nn.ConvTranspose2d(dim, dim, 2, 2),
            nn.Identity(),
            nn.AvgPool2d(2, ceil_mode=True),
        ])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """`[B, D, H, X]` four times → `[B, D, 4H, 4X]`, `[B, D, 2H, 2X]`, `[B, D, H, X]`, `[B, D, H/2, X/2]`."""
        return [level(x_BDHX) for level, x_BDHX in zip(self.levels, maps, strict=True)]


class PyramidPooling(nn.Module):
    """The coarsest map beside its averages over 1, 2 x 2, 3 x 3 and 6 x 6 cells (Zhao et al. 2017).

    Args:
        dim: D.
        width: W.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), conv(dim, width, 1)) for n in POOL_SCALES)
        self.join = conv(dim + len(POOL_SCALES) * width, width, 3)

    def forward(self, x_BDHX: Tensor) -> Tensor:
        """`[B, D, H, X]` → `[B, W, H, X]`."""
        return self.join(cat([x_BDHX, *(resize(part(x_BDHX), x_BDHX) for part in self.pooled)], dim=1))


class UperNet(nn.Module):
    """An encoder, its feature pyramid, UperNet's decoder, and an auxiliary FCN head for training.

    Args:
        encoder: Pretrained or fresh.
        grid: How an image is cut into the encoder's tokens.
        num_classes: K.
        width: W.
        dropout: Dropout before the classifiers.
    """

    def __init__(
        self, encoder: Encoder, grid: TokenGrid, num_classes: int, *, width: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.encoder, self.grid = encoder, grid
        self.at = taps(len(encoder.blocks))
        self.pyramid = Pyramid(encoder.dim)
        self.pooling = PyramidPooling(encoder.dim, width)
        self.lateral = nn.ModuleList(conv(encoder.dim, width, 1) for _ in range(3))
        self.smooth = nn.ModuleList(conv(width, width, 3) for _ in range(3))
        self.fuse = conv(4 * width, width, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
        self.auxiliary = nn.Sequential(
            conv(encoder.dim, width, 3), nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, image_BCHX: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of a crop of the grid's size, at its resolution: the decoder's and the auxiliary head's.

        Args:
            image_BCHX: `[B, C, *grid.size]`.

        Returns:
            `[B, K, *grid.size]` twice.
        """
        features = self.encoder.intermediate(self.grid.patchify(image_BCHX), self.at)
        maps = [x_BND.transpose(1, 2).unflatten(2, self.grid.shape) for x_BND in features]
        size = (image_BCHX.shape[-2], image_BCHX.shape[-1])
        *finer, coarsest = self.pyramid(maps)
        top_BWHX = self.pooling(coarsest)
        joined = [top_BWHX]
        for level in (2, 1, 0):
            top_BWHX = self.lateral[level](finer[level]) + resize(top_BWHX, finer[level])
            joined.insert(0, self.smooth[level](top_BWHX))
        fused_BWHX = self.fuse(cat([resize(x, joined[0]) for x in joined], dim=1))
        return resize(self.classify(fused_BWHX), size), resize(self.auxiliary(maps[2]), size)

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return encoder_layers()
