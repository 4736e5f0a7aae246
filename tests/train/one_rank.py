"""One of several ranks: trains trials, and takes one step each of others.

Reads both from standard input, by name; prints the metrics of the trials. Rank 0 saves each one's last checkpoint, and
the steps in `steps.pt`. Trials under `overlapped` are trained, and all steps taken once more, as on GPUs; those under
`left` are left after every batch. Arguments: rank, number of ranks, file in which they meet, folder to save in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from one_step import step

from raymae.spec import TrialConfig
from raymae.train import epoch, gradients, run_trial
from raymae.train.checkpoint import save_checkpoint
from raymae.train.trial import TrialState


class Left(Exception):  # noqa: N818
    """Training was left."""


def train(config: TrialConfig, path: Path, *, leave: bool = False) -> list[dict[str, float]]:
    """Train a trial, saving after every report and, where it is left, after the first batch of each run."""
    metrics: list[dict[str, float]] = []

    def save(state: TrialState) -> None:
        if dist.get_rank() == 0:
            save_checkpoint(path, state.to_plain())
        dist.barrier()

    def watch(batches: int, state: Callable[[], TrialState]) -> None:
        if leave:
            save(state())
            raise Left

    while True:
        torch.manual_seed(len(metrics) + dist.get_rank())
        try:
            for report in run_trial(config, device=torch.device("cpu"), resume=path if path.exists() else None,
                                    watch=watch):
                metrics.append(report.metrics)
                save(report.state())
        except Left:
            continue
        return metrics


def steps(asked: dict[str, TrialConfig]) -> dict[str, dict[str, torch.Tensor]]:
    """Take one step of every trial."""
    return {name: step(config, name.rpartition(" ")[2]) for name, config in asked.items()}


@contextmanager
def by_torch() -> Iterator[None]:
    """Have gradients averaged as on GPUs, and by nothing else."""
    with patch.object(epoch, "overlaps", lambda device: True), patch.object(gradients.OneMessage, "__call__", None):
        yield


if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    folder = Path(sys.argv[4])
    asked = {kind: {name: TrialConfig.from_json(plain) for name, plain in named.items()}
             for kind, named in json.load(sys.stdin).items()}
    trials = {name: train(config, folder / f"{name}.pt") for name, config in asked["trials"].items()}
    for name, config in asked["left"].items():
        trials[f"{name} left"] = train(config, folder / f"{name} left.pt", leave=True)
    taken = {"steps": steps(asked["steps"])}
    with by_torch():
        for name, config in asked["overlapped"].items():
            trials[f"{name} overlapped"] = train(config, folder / f"{name} overlapped.pt")
        taken["overlapped"] = steps(asked["steps"])
    dist.destroy_process_group()
    if rank == 0:
        for way, made in taken.items():
            torch.save(made, folder / f"{way}.pt")
    print(json.dumps(trials))
