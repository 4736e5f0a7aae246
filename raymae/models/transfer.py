"""Moving pretrained encoder weights into a fine-tuned network, checked key by key.

A silent `load_state_dict(strict=False)` is the classic reason why "MAE did not help": nothing was loaded. Here every
encoder tensor must arrive, with its shape, or the trial fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raymae.errors import TransferError
from raymae.models.mae import Placed


@dataclass(frozen=True)
class Coverage:
    """What a transfer did.

    Attributes:
        loaded: Keys of the target that received pretrained weights.
        fresh: Parameters of the target that did not (heads, decoders).
        share: Fraction of the target's parameter values that were loaded.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    share: float


@torch.no_grad()
def transfer(
    source: nn.Module, target: nn.Module, rename: Callable[[str], str] = lambda key: f"encoder.{key}"
) -> Coverage:
    """Copy every parameter and buffer of `source` into `target`.

    Args:
        source: The pretrained encoder.
        target: The network to fine-tune.
        rename: From a key of `source` to the key of `target` that must receive it.

    Raises:
        TransferError: A key has no counterpart, a shape differs, or nothing was there to load.
    """
    _place(source, target, rename)
    ours, theirs = source.state_dict(), target.state_dict()
    kept = {rename(name) for name in _others(source)}  # placed above, on a grid that may be another
    ours = {name: value for name, value in ours.items() if rename(name) not in kept}
    if not ours:
        raise TransferError("the pretrained encoder has no weights to transfer")
    pairs = {key: rename(key) for key in ours}
    absent = [f"{key} → {pairs[key]}" for key in ours if pairs[key] not in theirs]
    if absent:
        raise TransferError(f"{len(absent)} of {len(ours)} encoder keys have no counterpart in the network: "
                            f"{', '.join(absent[:3])}{', …' if len(absent) > 3 else ''}")
    for key, value in ours.items():
        if value.shape != theirs[pairs[key]].shape:
            raise TransferError(f"encoder key {key} has shape {list(value.shape)}, the network expects "
                                f"{list(theirs[pairs[key]].shape)}; pretrain and fine-tune with the same sizes")
    for key, value in ours.items():
        theirs[pairs[key]].copy_(value)
    loaded = set(pairs.values())
    counts = {name: p.numel() for name, p in target.named_parameters()}
    return Coverage(
        loaded=tuple(sorted(loaded)),
        fresh=tuple(name for name in counts if name not in loaded),
        share=sum(n for name, n in counts.items() if name in loaded) / max(sum(counts.values()), 1),
    )


def _others(source: nn.Module) -> list[str]:
    """Names of the positions that are of somebody's weights."""
    return [f"{name}.positions_ND".lstrip(".") for name, part in source.named_modules()
            if isinstance(part, Placed) and part.has_others]


def _place(source: nn.Module, target: nn.Module, rename: Callable[[str], str]) -> None:
    """Give the target the positions that the source has of somebody's weights, stretched over its own grid."""
    for name in _others(source):
        part = source.get_submodule(name.rpartition(".")[0])
        other = target.get_submodule(rename(name).rpartition(".")[0])
        assert isinstance(part, Placed)
        if not isinstance(other, Placed):
            raise TransferError(f"the positions of {name} have no counterpart in the network")
        other.place(stretched(part.positions_ND, part.shape, other.shape))


def stretched(positions_ND: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Positions of one grid of two axes over another, by timm's bicubic resampling; the same grid changes nothing.

    Raises:
        TransferError: Grids differ, and have other than two axes.
    """
    if old == new:
        return positions_ND
    if len(old) != 2 or len(new) != 2:
        raise TransferError(f"positions of a grid {old} cannot be stretched over {new}: only those of images can")
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(positions_ND[None], list(new), list(old), num_prefix_tokens=0)[0]
