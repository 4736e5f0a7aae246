"""Moving pretrained encoder weights into a fine-tuned network, checked key by key.

A silent `load_state_dict(strict=False)` is the classic reason why "MAE did not help": nothing was loaded. Here every
encoder tensor must arrive, with its shape, or the trial fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from raymae.errors import TransferError


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
    ours, theirs = source.state_dict(), target.state_dict()
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
