"""The random streams of an epoch, and where within it training is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from raymae.train.device import rank_and_world, seed_all


class StreamStates(TypedDict):
    """The states of all ranks' streams, and the kind of device that they are of."""

    device: str
    ranks: list[dict[str, Tensor]]


class Within(TypedDict, total=False):
    """Where inside an epoch training is: batches done, the sum of their losses, the streams. Empty between epochs."""

    batches: int
    loss: Tensor
    streams: StreamStates


class Streams:
    """What an epoch draws from on this rank: torch's own generators (dropout), `augment` and `masks`.

    At an epoch's start each is a pure function of its seed, so only inside an epoch is there a state to keep.

    Args:
        device: Where is computed.
        seed: The epoch's seed for a purpose.
    """

    def __init__(self, device: torch.device, seed: Callable[[str], int]) -> None:
        rank, _ = rank_and_world()
        seed_all(seed(f"dropout-{rank}"))
        self.device = device
        self.augment = Generator(device).manual_seed(seed(f"augment-{rank}"))
        self.masks = Generator(device).manual_seed(seed(f"mask-{rank}"))

    def states(self) -> StreamStates:
        """Those of every rank, for any of them to keep. Every rank has to ask."""
        own = {"torch": torch.get_rng_state(), "augment": self.augment.get_state(), "masks": self.masks.get_state()}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.device)
        _, world = rank_and_world()
        ranks: list[dict[str, Tensor]] = [own] * world
        if world > 1:
            dist.all_gather_object(ranks, own)
        return {"device": self.device.type, "ranks": ranks}

    def restore(self, states: StreamStates) -> None:
        """Draw on where `states` was taken. On another number of ranks, or another kind of device, the epoch's draws
        are others anyway: there they begin anew."""
        rank, world = rank_and_world()
        if (states["device"], len(states["ranks"])) != (self.device.type, world):
            return
        own = states["ranks"][rank]
        torch.set_rng_state(own["torch"])
        self.augment.set_state(own["augment"])
        self.masks.set_state(own["masks"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda"], self.device)
