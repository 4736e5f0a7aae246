"""One of several ranks: trains the trials on standard input, prints their metrics; rank 0 saves each last checkpoint.

Arguments: rank, number of ranks, file in which they meet, folder of the checkpoints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from raymae.spec import TrialConfig
from raymae.train import run_trial

if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    trials = {}
    for name, plain in json.load(sys.stdin).items():
        trials[name] = []
        for report in run_trial(TrialConfig.from_json(plain), device=torch.device("cpu")):
            trials[name].append(report.metrics)
            if rank == 0:
                report.save(Path(sys.argv[4]) / f"{name}.pt")
    dist.destroy_process_group()
    print(json.dumps(trials))
