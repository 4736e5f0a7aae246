"""What sits on an encoder when it is fine-tuned.

Shape suffixes: B batch, N tokens, P values in a token, D width, H horizon,
K classes.
"""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor, nn

from raymae.models.mae import NORM_EPS, Encoder

WITH_LAST_BLOCK = (99999,)  # timm's MATCH_PREV_GROUP: no layer of its own


class Layers(TypedDict):
    """timm's description of a network's layers; parameters that nothing matches are the head's.

    Attributes:
        stem: Pattern of the parameters of the lowest layer.
        blocks: Patterns of the layers above, each with its layer, or None where the pattern captures its number.
    """

    stem: str
    blocks: list[tuple[str, tuple[int, ...] | None]]


def encoder_layers() -> Layers:
    """Describe the layers of a model that holds an `encoder` to timm, for layer-wise learning-rate decay."""
    return {"stem": r"^encoder\.embedding",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.norm", WITH_LAST_BLOCK)]}


class FlattenHead(nn.Module):
    """An encoder, and one linear layer on all its tokens side by side (PatchTST, Nie et al. 2023).

    Args:
        encoder: Pretrained or fresh.
        outputs: H.
        dropout: Dropout before the linear layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.num_tokens * encoder.dim, outputs)
        nn.init.zeros_(self.head.weight)  # starts at the base it corrects: the last value, or the mean
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens_BNP: Tensor) -> Tensor:
        """`[B, N, P]` → `[B, H]`."""
        return self.head(self.dropout(self.encoder(tokens_BNP).flatten(1)))

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return encoder_layers()


class LinearHead(nn.Module):
    """One linear layer on a whole window, flattened.

    Args:
        inputs: Values in a window.
        outputs: H.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BFL: Tensor) -> Tensor:
        """`[B, F, L]` → `[B, H]`."""
        return self.head(x_BFL.flatten(1))


class PooledHead(nn.Module):
    """An encoder, the mean of its tokens, a norm and one linear layer: MAE's fine-tuning without a class token.

    Args:
        encoder: Pretrained or fresh.
        outputs: K.
    """

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.dim, eps=NORM_EPS)
        self.head = nn.Linear(encoder.dim, outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens_BNP: Tensor) -> Tensor:
        """`[B, N, P]` → `[B, K]`."""
        return self.head(self.norm(self.encoder(tokens_BNP).mean(dim=1)))

    def group_matcher(self, coarse: bool = False) -> Layers:
        """Describe the layers to timm, for layer-wise learning-rate decay."""
        return encoder_layers()
