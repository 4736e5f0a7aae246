"""Vision transformers of others, and ours, in each other's names: timm's `VisionTransformer`, Hugging Face's `ViTModel`
and `ViTMAEForPreTraining`.

Ours has no class token, its patch embedding is a linear layer over patches flattened channel first, which is their
convolution, and its positions are fixed; what others have in their place comes along as `positions_ND`.

Shape suffixes: D width, C channels, p side of a patch, P = C·p·p, N tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raymae.errors import EncoderError, shorten
from raymae.models.tokens import TokenGrid, sincos_positions

POSITIONS = "encoder.embedding.positions_ND"
PROJECT = "encoder.embedding.project"
MAX_SIDE = 8192  # pixels
_BLOCK = re.compile(r"blocks\.(\d+)\.")
PARTS = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
ENDINGS = ("weight", "bias")

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Vit:
    """The weights of a vision transformer in the names of our `MaskedAutoencoder`, and what their shapes do not say.

    Attributes:
        weights: Of its `encoder` at least; with `positions_ND` where its positions are not ours.
        grid: How images are cut into its tokens.
        heads: Attention heads of a block.
        decoder_heads: Those of a block of its decoder; 0 where no decoder came along.
        notes: What was left out, for people.
    """

    weights: Weights
    grid: TokenGrid
    heads: int
    decoder_heads: int = 0
    notes: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """D."""
        return int(self.weights[f"{PROJECT}.weight"].shape[0])

    @property
    def depth(self) -> int:
        """Blocks of the encoder."""
        return depth_of(self.weights, "encoder.")

    @property
    def hidden_dim(self) -> int:
        """Width of a block's MLP."""
        return int(self.weights["encoder.blocks.0.mlp.fc1.weight"].shape[0])

    def positions(self) -> Tensor:
        """What is added to embedded patches: `[N, D]`."""
        given = self.weights.get(POSITIONS)
        return sincos_positions(self.grid.shape, self.dim) if given is None else given

    def kernel(self) -> Tensor:
        """The patch embedding as a convolution: `[D, C, p, p]`."""
        return self.weights[f"{PROJECT}.weight"].reshape(self.dim, self.grid.in_channels, *self.grid.patch_size)


def depth_of(weights: Iterable[str], prefix: str) -> int:
    """Blocks among names such as `encoder.blocks.3.norm1.weight`."""
    found = (_BLOCK.match(name.removeprefix(prefix)) for name in weights if name.startswith(prefix))
    return len({match[1] for match in found if match})


def assembled(
    made: dict[str, Tensor], kernel: Tensor, positions: Tensor, size: object, heads: object, notes: tuple[str, ...],
) -> Vit:
    """Put a transformer of somebody's together, and check that its parts fit each other.

    Args:
        made: Its blocks and last norm in our names.
        kernel: Of its patch embedding: `[D, C, p, p]`.
        positions: `[1, N, D]`, with one more for a class token or without.
        size: What its config says of the size of images, in pixels.
        heads: And of attention heads.
        notes: What was left out.

    Raises:
        EncoderError: They do not.
    """
    dim, channels, *patch = kernel.shape
    size = [size, size] if isinstance(size, int) else size
    sides = [int(side) for side in size if isinstance(side, int) and 0 < side <= MAX_SIDE] \
        if isinstance(size, (list, tuple)) else []
    if len(sides) != 2 or any(side % edge for side, edge in zip(sides, patch, strict=True)):
        raise EncoderError(f"an image size of {shorten(size)} is not cut by patches of {patch[0]} x {patch[1]}; the "
                           "config must say the size that the positions are of")
    grid = TokenGrid((sides[0], sides[1]), (patch[0], patch[1]), channels)
    if positions.shape[1] == grid.num_tokens + 1:
        positions = positions[:, 1:]
    if tuple(positions.shape) != (1, grid.num_tokens, dim):
        raise EncoderError(f"positions of shape {list(positions.shape)} do not fit {grid.num_tokens} patches and a "
                           f"width of {dim}, which need [1, {grid.num_tokens}, {dim}], or one more for a class token")
    made = {f"{PROJECT}.weight": kernel.flatten(1), **made}
    if dim < 4 or not torch.equal(positions[0], sincos_positions(grid.shape, dim)):
        made[POSITIONS] = positions[0]
    if not depth_of(made, "encoder."):
        raise EncoderError("there is no block of a transformer among the weights")
    vit = Vit(own(made), grid, whole(heads, "num_attention_heads", dim), notes=notes)
    expected = {"norm1": (dim,), "norm2": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim),
                "mlp.fc1": (vit.hidden_dim, dim), "mlp.fc2": (dim, vit.hidden_dim)}
    for index in range(vit.depth):
        for part, shape in expected.items():
            _fits(vit.weights, f"encoder.blocks.{index}.{part}", shape)
    _fits(vit.weights, "encoder.norm", (dim,))
    return vit


def _fits(weights: Weights, name: str, shape: tuple[int, ...]) -> None:
    for ending, wanted in zip(ENDINGS, (shape, shape[:1]), strict=True):
        if (got := tuple(weights[f"{name}.{ending}"].shape)) != wanted:
            raise EncoderError(f"{name}.{ending} has shape {list(got)}, and {list(wanted)} is what fits the rest")


def names_of(depth: int) -> list[str]:
    """Names of the weights of so many blocks, and of the norm after them."""
    names = [f"blocks.{index}.{part}" for index in range(depth) for part in PARTS]
    return [f"{name}.{ending}" for name in (*names, "norm") for ending in ENDINGS]


def take(left: dict[str, Tensor], name: str, axes: int | None = None) -> Tensor:
    """Take a tensor out of those that are left, as float32.

    Raises:
        EncoderError: It is not there, or has another number of axes.
    """
    if name not in left:
        raise EncoderError(f"there is no {name} among the weights: no plain vision transformer, or not all of it")
    value = left.pop(name)
    if axes is not None and value.ndim != axes:
        raise EncoderError(f"{name} has shape {list(value.shape)}; it must have {axes} axes")
    return value.float()


def without(left: dict[str, Tensor], name: str, note: str) -> tuple[str, ...]:
    """Leave a tensor out; returns the note on that, if it was there."""
    return () if left.pop(name, None) is None else (note,)


def nothing_else(left: Mapping[str, Tensor]) -> None:
    """Refuse tensors that nothing was made of."""
    if left:
        names = sorted(left)
        raise EncoderError(f"{len(names)} tensors have no place in a plain vision transformer: {', '.join(names[:3])}"
                           f"{', …' if len(names) > 3 else ''}")


def plain_activation(name: object) -> None:
    """Refuse networks whose activation is not ours."""
    if name not in (None, "gelu"):
        raise EncoderError(f"the activation {shorten(name)} is not ours, which is gelu")


def whole(value: object, name: str, dim: int) -> int:
    """A number of attention heads, which divides the width."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or dim % value:
        raise EncoderError(f"{name} must be a whole number that divides the width {dim}, got {shorten(value)}")
    return value


def own(weights: Weights) -> dict[str, Tensor]:
    """Tensors in memory of their own, as safetensors wants them."""
    return {name: value.detach().cpu().float().contiguous().clone() for name, value in weights.items()}
