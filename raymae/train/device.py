"""Where a trial computes, and how its randomness is derived."""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

LARGE_BYTES = 2 * 2**30  # a process that holds less is left alone: what is given back has to be asked for again


def pick_device() -> torch.device:
    """This process's CUDA device where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def own_clock(device: torch.device) -> Callable[[], float]:
    """A clock of what this process computes, in seconds: on a CPU its own time, since other work on the machine makes
    it take longer."""
    return time.perf_counter if device.type == "cuda" else time.process_time


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
    """Seed torch's global generators (initialisation, dropout, drop path), as `torch.manual_seed` does, which formats a
    stack for each kind of device that this machine lacks."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def give_back(device: torch.device) -> None:
    """Give back what a trial has freed: to the device, and to the system where the process has grown large.

    The C library keeps small pieces that other threads than the first have freed: forests left 4 GB to every worker.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # no Linux, or a C library without it
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        if pages * os.sysconf("SC_PAGE_SIZE") > LARGE_BYTES:
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def isolated() -> Iterator[None]:
    """Give torch's global switches back as they were: one trial's must not reach the next in the same process.

    Random state needs no care here: the loop seeds everything at the start of each phase and epoch.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), cudnn.benchmark,
              cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32, torch.are_deterministic_algorithms_enabled(),
              torch.is_anomaly_enabled())
    try:
        yield
    finally:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])
        torch.set_num_threads(before[2])
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before[3:7]
        torch.use_deterministic_algorithms(before[7])
        torch.autograd.set_detect_anomaly(before[8])
