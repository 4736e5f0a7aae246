"""One of several ranks: trains trials, and takes one step each of others.

Reads both from standard input, by name; prints the metrics of the trials. Rank 0 saves each one's last checkpoint, and
the steps in `steps.pt`. Arguments: rank, number of ranks, file in which they meet, folder to save in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from one_step import step

from raymae.spec import TrialConfig
from raymae.train import run_trial

if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    folder, asked, trials = Path(sys.argv[4]), json.load(sys.stdin), {}
    for name, plain in asked["trials"].items():
        trials[name] = []
        for report in run_trial(TrialConfig.from_json(plain), device=torch.device("cpu")):
            trials[name].append(report.metrics)
            if rank == 0:
                report.save(folder / f"{name}.pt")
    steps = {name: step(TrialConfig.from_json(plain), name.rpartition(" ")[2])
             for name, plain in asked["steps"].items()}
    dist.destroy_process_group()
    if rank == 0:
        torch.save(steps, folder / "steps.pt")
    print(json.dumps(trials))
