"""A transformer's block, with the names of timm's, written for two cores as much as for a GPU.

It computes what timm's `Block` computes (a test holds it to that) and differs in two things. Where bfloat16 is asked
for on a CPU, attention is two matrix products and a softmax: torch's flash attention there does not use the processor's
bfloat16 units in its backward pass, which then is two fifths of a step. And dropout draws bytes, not floats:
`bernoulli_` is a third of a small network's step. timm itself takes two seconds to import, in every process.

Shape suffixes: B batch, N tokens, D width, h heads, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6  # timm's in a block, and He et al.'s in all of MAE; torch's own default is ten times it
MANY_TOKENS = 1024  # above, scores of all pairs take more time to write and read than flash attention loses


def plain_attention(q_BhNK: Tensor, k_BhNK: Tensor, v_BhNK: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as two matrix products and a softmax, in the precision of its arguments: `[B, h, N, K]`.

    Args:
        q_BhNK: Queries.
        k_BhNK: Keys.
        v_BhNK: Values.
        mask: Bool, broadcast to `[B, h, N, N]`; False is not attended to.
    """
    with torch.autocast(q_BhNK.device.type, enabled=False):
        scores = (q_BhNK * q_BhNK.shape[-1] ** -0.5) @ k_BhNK.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1) @ v_BhNK


def prefers_plain(q_BhNK: Tensor) -> bool:
    """Whether `plain_attention` is the faster one: on a CPU in bfloat16, but for very many tokens."""
    return q_BhNK.device.type == "cpu" and q_BhNK.dtype == torch.bfloat16 and q_BhNK.shape[2] <= MANY_TOKENS


class Dropout(nn.Module):
    """Dropout whose mask is drawn as bytes on a CPU, from torch's global generator.

    Args:
        rate: Share of values that are set to 0; on a CPU rounded to a 256th, and what stays is scaled accordingly.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The shape of `x`."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped = min(max(round(self.rate * 256), 1), 255)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * (kept.to(x.dtype) * (256 / (256 - dropped)))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"rate={self.rate:g}"


class DropPath(Dropout):
    """Stochastic depth: drops a branch for whole examples (Huang et al. 2016, arXiv:1603.09382), at the exact rate."""

    def forward(self, x_BND: Tensor) -> Tensor:
        """`[B, N, D]` → `[B, N, D]`."""
        if not self.training or self.rate == 0:
            return x_BND
        keep = 1 - self.rate
        return x_BND * x_BND.new_empty(len(x_BND), 1, 1).bernoulli_(keep).div_(keep)


class Attention(nn.Module):
    """Self-attention.

    Args:
        dim: D.
        heads: h; divides D.
        dropout: After the projection.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = Dropout(dropout)

    def forward(self, x_BND: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`[B, N, D]` → `[B, N, D]`."""
        batch, tokens, dim = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attend = plain_attention if prefers_plain(q) else F.scaled_dot_product_attention
        x_BND = attend(q, k, v, attn_mask).transpose(1, 2).reshape(batch, tokens, dim)
        return self.proj_drop(self.proj(x_BND))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: D.
        hidden_dim: Width between the layers.
        dropout: After each.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.drop1 = Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop2 = Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        """`[B, N, D]` → `[B, N, D]`."""
        return self.drop2(self.fc2(self.drop1(F.gelu(self.fc1(x_BND)))))


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to what came in (Dosovitskiy et al. 2020, arXiv:2010.11929).

    Args:
        dim: D.
        heads: Attention heads; divides D.
        mlp_ratio: Width of the MLP, in widths of the block.
        dropout: After attention and each layer of the MLP.
        drop_path: Stochastic depth.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float = 4.0, *, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads, dropout)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x_BND: Tensor, attn_mask: Tensor | None = None, wanted_BH: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x_BND: Tokens.
            attn_mask: Bool, broadcast to `[B, h, N, N]`; False is not attended to.
            wanted_BH: Indices of the tokens whose output is read: they attend to all, the MLP sees them alone.

        Returns:
            `[B, N, D]`, or `[B, H, D]` for the wanted tokens.
        """
        x_BND = x_BND + self.drop_path1(self.attn(self.norm1(x_BND), attn_mask))
        if wanted_BH is not None:
            x_BND = take(x_BND, wanted_BH)
        return x_BND + self.drop_path2(self.mlp(self.norm2(x_BND)))


def take(x_BND: Tensor, index_BV: Tensor) -> Tensor:
    """Tokens at indices: `[B, N, D]` → `[B, V, D]`."""
    return x_BND.gather(1, index_BV.unsqueeze(-1).expand(-1, -1, x_BND.shape[-1]))
