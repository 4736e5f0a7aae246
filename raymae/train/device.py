"""Where a trial computes, and how its randomness is derived."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist


def pick_device() -> torch.device:
    """This process's CUDA device where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) without torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def derive_seed(seed: int, *labels: object) -> int:
    """A seed for one purpose, e.g. `derive_seed(7, "finetune", epoch, "order")`.

    Every random stream of a trial is a pure function of (seed, phase, epoch, purpose): a trial resumed at an epoch
    boundary continues bit for bit without storing any generator's state, on any number of ranks.
    """
    text = "/".join(map(str, (seed, *labels)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def seed_all(seed: int) -> None:
    """Seed torch's global generators (initialisation, dropout, drop path)."""
    torch.manual_seed(seed)
