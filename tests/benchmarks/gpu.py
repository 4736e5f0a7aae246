"""Everything that wants a GPU, in one run: what it is worth, and whether it computes what a CPU does.

    python -m tests.benchmarks.gpu [--only step small …] [--device cpu]

| check | what is asked |
|---|---|
| step | one bfloat16 step of ViT-B/4 against Hugging Face's, and its share of the device's peak |
| small | a small network's step, which is bound by its launches: eager, and compiled to one CUDA graph |
| equal | losses of a float32 training here and on the CPU, apart by rounding |
| ddp | one step's gradients through DistributedDataParallel against our own sum, one rank of nccl |
| memory | what is allocated after each of 50 trials: flat |
| fractions | a sweep of two trials at once on one device, `gpus_per_worker: 0.5`, to its verdict |

Without a GPU each is skipped and says why; `--device cpu` tries their logic small, with gloo. The last line is one JSON
object. A check that fails is reported as such and the others go on; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from raymae.search.plan import example_config, make_plan
from raymae.spec.load import parse_sweep
from raymae.spec.trial import TrialConfig
from raymae.tasks import schema_of
from raymae.tasks.base import Loss
from raymae.train.gradients import OneMessage, Overlapped
from raymae.train.trial import run_trial
from tests.benchmarks.pretrain_throughput import PRESETS, known_peak, measure, ours, stepper, synchronise

SWEEP = """
name: fractions
task: forecasting
size: debug
data: {{name: ETTh1, if_unavailable: synthetic}}
arms: [mae, scratch, persistence]
space: {{lr: {{loguniform: [1e-3, 1e-2]}}}}
search: {{num_trials: 2, scheduler: none, max_concurrent: 2}}
replicates: 2
training: {{precision: float32, pretrain_precision: float32}}
resources: {{cpus_per_worker: 1, gpus_per_worker: {gpus}}}
results: {folder}
"""
NUM_TRIALS = 50
Row = dict[str, object]


def step(device: torch.device) -> Row:
    """ViT-B/4 on CUDA, a toy on a CPU."""
    small = device.type == "cpu"
    return measure(PRESETS["debug" if small else "base"], device, "bfloat16", repeats=3 if small else 7, steps=3,
                   compiled=False, peak=known_peak(device, "bfloat16"))


def small(device: torch.device) -> Row:
    """Seconds of a step, eager and as one graph; on a CPU eager alone."""
    shape = replace(PRESETS["lite"], batch=16)
    images = torch.randn(shape.batch, 3, shape.image_size, shape.image_size, device=device)
    steps: dict[str, Callable[[], None]] = {}
    for name in ("eager", "graph") if device.type == "cuda" else ("eager",):
        model, loss = ours(shape, device, True, False)
        if name == "graph":
            loss = torch.compile(loss, mode="reduce-overhead")
        steps[name] = stepper(model, loss, images)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in steps.values():
        for _ in range(4):
            run()  # compiles, records
    for _ in range(9):
        for name, run in steps.items():
            synchronise(device)
            began = time.perf_counter()
            for _ in range(10):
                run()
            synchronise(device)
            times[name].append((time.perf_counter() - began) / 10)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    return {"seconds": seconds, **({"ratio": seconds["eager"] / seconds["graph"]} if "graph" in seconds else {})}


def equal(device: torch.device) -> Row:
    """The largest relative difference of a report's losses and scores between this device and the CPU."""
    config = _config()
    here, there = ([report.metrics for report in run_trial(config, device=one)]
                   for one in (device, torch.device("cpu")))
    assert [row.keys() for row in here] == [row.keys() for row in there]
    apart = max(abs(row[key] - other[key]) / max(abs(other[key]), 1e-12)
                for row, other in zip(here, there, strict=True) for key in row)
    assert apart < 0.02, f"{apart:.3%} apart"
    return {"reports": len(here), "largest_relative_difference": apart}


def ddp(device: torch.device) -> Row:
    """One rank: DistributedDataParallel's gradients and ours."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 8)).to(device)
    x, y = torch.randn(32, 64, device=device), torch.randn(32, 8, device=device)

    def part() -> Loss:
        return Loss((model(x) - y).square().mean(), len(x))

    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.NamedTemporaryFile() as meeting:
        dist.init_process_group(backend, init_method=f"file://{meeting.name}.ranks", rank=0, world_size=1)
        try:
            found = []
            for way in (OneMessage(model), Overlapped(model)):
                model.zero_grad(set_to_none=True)
                way(part)
                found.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))
            total = torch.ones(4, device=device)
            dist.all_reduce(total)
            assert (total == 1).all()
        finally:
            dist.destroy_process_group()
    apart = float((found[0] - found[1]).abs().max() / found[0].abs().max())
    assert apart < 1e-6, f"{apart:.2e} apart"
    return {"backend": backend, "largest_relative_difference": apart}


def memory(device: torch.device) -> Row:
    """Bytes allocated on the device after the third trial and after the last."""
    if device.type != "cuda":
        raise NotImplementedError("a CPU's memory is the process's")
    config, held = _config(), []
    for seed in range(NUM_TRIALS):
        for _ in run_trial(replace(config, seed=seed), device=device):
            pass
        held.append(torch.cuda.memory_allocated(device))
    assert held[-1] <= held[2], f"grew from {held[2]:,} to {held[-1]:,} bytes"
    return {"trials": NUM_TRIALS, "bytes_after_3": held[2], "bytes_after_all": held[-1],
            "peak_bytes": torch.cuda.max_memory_allocated(device)}


def fractions(device: torch.device) -> Row:
    """Trials, and the devices that they say they ran on."""
    from raymae.results.store.store import Store
    from raymae.search.live.display import Display
    from raymae.search.run import run_sweep

    with tempfile.TemporaryDirectory() as folder:
        text = SWEEP.format(folder=folder, gpus=0.5 if device.type == "cuda" else 0)
        began = time.monotonic()
        run_sweep(make_plan(parse_sweep(text, "gpu", schema_of=schema_of)), display=Display.silent())
        store = Store.open(f"{folder}/fractions")
        trials, verdict = store.trials(), store.verdict()
    assert verdict is not None
    assert verdict["complete"]
    assert (trials["status"] == "completed").all(), trials[["trial_id", "status", "error"]]
    return {"trials": len(trials), "devices": sorted(trials["device"].unique()), "wall_s": time.monotonic() - began}


def _config() -> TrialConfig:
    text = SWEEP.format(folder="unused", gpus=0)
    return example_config(make_plan(parse_sweep(text, "gpu", schema_of=schema_of)), "mae")


CHECKS: dict[str, Callable[[torch.device], Row]] = {
    "step": step, "small": small, "equal": equal, "ddp": ddp, "memory": memory, "fractions": fractions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    rows: dict[str, Row] = {}
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))  # for the workers of the sweep
    for name in arguments.only:
        began = time.monotonic()
        if arguments.device == "cuda" and not torch.cuda.is_available():
            rows[name] = {"skipped": "no CUDA device on this machine"}
        else:
            try:
                rows[name] = {**CHECKS[name](torch.device(arguments.device)), "took_s": time.monotonic() - began}
            except NotImplementedError as reason:
                rows[name] = {"skipped": str(reason)}
            except Exception as error:
                traceback.print_exc()
                rows[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(name, rows[name], flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(json.dumps({"benchmark": "gpu", "device": device, "torch": torch.__version__, "rows": rows}))
    return int(any("failed" in row for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
