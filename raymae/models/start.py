"""Start a masked autoencoder from weights that exist: what fits is taken over, what can be resampled is, and what does
not fit is named with its shapes.

Shape suffixes: D width, C channels, p side of a patch, P = C·p·p, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raymae.errors import EncoderError
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import sincos_positions
from raymae.models.transfer import stretched
from raymae.models.vit import POSITIONS, PROJECT, Vit, Weights

SHOWN = 3  # names in a message


class Start(NamedTuple):
    """What was taken over.

    Attributes:
        with_decoder: The decoder, too; else it is as it was.
        notes: What was resampled or left out, for people.
    """

    with_decoder: bool
    notes: tuple[str, ...]


def start_from(vit: Vit, model: nn.Module) -> Start:
    """Give a masked autoencoder of images the weights of a vision transformer.

    Patches of another size and positions of another grid are resampled by timm's functions. A decoder is taken over
    where it fits as it is.

    Raises:
        EncoderError: It is of another width, depth, number of heads or channels; the message has those to set.
    """
    if not isinstance(model, MaskedAutoencoder) or not isinstance(model.encoder.embedding, PatchEmbedding) \
            or len(model.encoder.embedding.shape) != 2:
        raise EncoderError("a vision transformer fits networks on patches of images of two axes, and this arm's is "
                           "another")
    encoder, embedding = model.encoder, model.encoder.embedding
    _same_network(vit, encoder)
    side = math.isqrt(embedding.token_dim // vit.grid.in_channels)
    if side * side * vit.grid.in_channels != embedding.token_dim:
        raise EncoderError(f"its patches have {vit.grid.in_channels} channels, and the network's {embedding.token_dim} "
                           f"values are no square of them")
    notes, kernel = list(vit.notes), vit.kernel()
    if tuple(vit.grid.patch_size) != (side, side):
        notes.append(f"patches of {vit.grid.patch_size[0]} x {vit.grid.patch_size[1]} are resampled to {side} x {side}")
        kernel = _resampled(kernel, side)
    made = {name: value for name, value in vit.weights.items() if name.startswith("encoder.") and name != POSITIONS}
    made[f"{PROJECT}.weight"] = kernel.flatten(1)
    if POSITIONS in vit.weights or vit.grid.shape != embedding.shape:
        if vit.grid.shape != embedding.shape:
            notes.append("positions of {} x {} patches are resampled to {} x {}".format(
                *vit.grid.shape, *embedding.shape))
        positions_ND = stretched(vit.positions(), vit.grid.shape, embedding.shape)
        if not torch.equal(positions_ND, sincos_positions(embedding.shape, vit.dim)):
            made[POSITIONS] = positions_ND
    with_decoder = vit.decoder_heads > 0 and vit.grid.shape == embedding.shape and _decoder_fits(vit, model)
    if with_decoder:
        made |= {name: value for name, value in vit.weights.items() if not name.startswith("encoder.")}
    elif vit.decoder_heads:
        notes.append("its decoder is of another shape and is left out")
    model.load_state_dict({**model.state_dict(), **made})
    return Start(with_decoder, tuple(notes))


def _resampled(kernel_DCpp: Tensor, side: int) -> Tensor:
    """A patch embedding for patches of another side, by pseudo-inverse (Beyer et al. 2022, arXiv:2212.08013)."""
    from timm.layers import resample_patch_embed

    return resample_patch_embed(kernel_DCpp, [side, side])


def start_from_same(weights: Weights, model: nn.Module) -> Start:
    """Give a masked autoencoder the weights of another of the same task, whose encoder must fit as it is.

    Raises:
        EncoderError: It does not.
    """
    theirs = model.state_dict()
    encoder = {name: value for name, value in theirs.items() if name.startswith("encoder.")} or theirs
    _covered(weights, encoder)
    with_decoder = weights.keys() == theirs.keys() and all(weights[name].shape == theirs[name].shape for name in theirs)
    made = weights if with_decoder else {name: weights[name] for name in encoder}
    model.load_state_dict({**theirs, **made})
    return Start(with_decoder, () if with_decoder else ("its decoder is of another shape and is left out",))


def _covered(weights: Weights, wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights that lack some of what is wanted, or have it in another shape."""
    absent = sorted(wanted.keys() - weights.keys())
    if absent:
        raise EncoderError(f"{len(absent)} of the encoder's {len(wanted)} tensors are not among the weights: "
                           f"{', '.join(absent[:SHOWN])}{', …' if len(absent) > SHOWN else ''}")
    beside = [name for name in weights if name.startswith("encoder.") and name not in wanted]
    if beside:
        raise EncoderError(f"{len(beside)} tensors of the weights have no place in the network's encoder: "
                           f"{', '.join(sorted(beside)[:SHOWN])}{', …' if len(beside) > SHOWN else ''}")
    other = [f"{name} {list(weights[name].shape)}, not {list(value.shape)}" for name, value in wanted.items()
             if weights[name].shape != value.shape]
    if other:
        raise EncoderError(f"{len(other)} tensors of the encoder have another shape than the network's: "
                           f"{'; '.join(other[:SHOWN])}{'; …' if len(other) > SHOWN else ''}")


def _same_network(vit: Vit, encoder: Encoder) -> None:
    """Refuse a transformer of other sizes, and say all that have to be set."""
    block: Any = encoder.blocks[0]
    ours = {"encoder_dim": encoder.dim, "encoder_depth": len(encoder.blocks), "encoder_heads": block.attn.num_heads,
            "mlp_ratio": block.mlp.fc1.out_features / encoder.dim}
    theirs = {"encoder_dim": vit.dim, "encoder_depth": vit.depth, "encoder_heads": vit.heads,
              "mlp_ratio": vit.hidden_dim / vit.dim}
    differ = [name for name in ours if ours[name] != theirs[name]]
    if differ:
        got = ", ".join(f"{name}={theirs[name]:g}" for name in differ)
        wanted = ", ".join(f"{name}={ours[name]:g}" for name in differ)
        shape = list(vit.weights[f"{PROJECT}.weight"].shape)
        raise EncoderError(f"the weights are of a transformer with {got} (its patch embedding is {shape}), the network "
                           f"has {wanted} ([{encoder.dim}, {encoder.token_dim}]); set {got} in `settings` or in the "
                           "arm")


def _decoder_fits(vit: Vit, model: MaskedAutoencoder) -> bool:
    theirs = {name: value.shape for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    own = {name: value.shape for name, value in vit.weights.items()
           if not name.startswith("encoder.") and name != "positions_ND"}
    blocks: Any = model.decoder
    return own == theirs and vit.decoder_heads == (blocks[0].attn.num_heads if len(blocks) else 0)
