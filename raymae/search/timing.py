"""How many epochs make arms equal: as many steps, or as much computing, as the arm that pretrains.

Both are found before the search, on a worker's resources, with searched parameters at their defaults, and written to
`sweep.json`, so that a continued sweep, or the same file on another machine with `arms.scratch.epochs` set to what was
found, runs the same epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from raymae.errors import one_line
from raymae.models.given import Given
from raymae.search.plan import Plan, example_config
from raymae.spec.factors import cells
from raymae.spec.resolve import ArmPlan
from raymae.spec.trial import TrialConfig

MOST_TIMES = 20.0  # a linear layer would get a thousand times its epochs, and has converged long before
NUM_TIMED = 4  # evaluations of a phase; the shortest time between two counts, since other work can only add to it


@dataclass(frozen=True)
class EpochCost:
    """What an epoch of an arm costs, in seconds of a worker or in optimiser steps.

    Attributes:
        pretrain: An epoch of pretraining; 0 for an arm that does not.
        finetune: An epoch of fine-tuning, with its share of an evaluation.
    """

    pretrain: float
    finetune: float


def measured(plan: Plan, warn: Callable[[str], None]) -> dict[str, float]:
    """How many times the fine-tuning epochs each trained lane gets; those of the same length are left out.

    A lane is an arm in the cells of the sweep's factors in which it is the same. It is made equal to what costs most
    there; what it costs itself is measured once.

    Args:
        plan: The sweep; Ray is connected.
        warn: Told of an arm that could not be measured: it keeps its epochs, and its trials will say what is wrong.
    """
    import ray

    cost = _seconds if plan.spec.fair.by == "compute" else _steps
    resources = plan.spec.resources
    remote = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(cost)
    trained = [name for name, arm in plan.arms.items() if arm.arm.kind != "reference"]
    if not any(plan.arms[name].arm.kind == "pretrained" for name in trained):
        return {}
    threads = max(1, int(resources.cpus_per_worker))
    costs: dict[str, EpochCost] = {}
    for name in trained:  # one at a time, or they would slow each other down
        try:
            costs[name] = ray.get(remote.remote(example_config(plan, name), threads, plan.given.get(name)))
        except ray.exceptions.RayTaskError as error:
            warn(f"arm {name} could not be measured and keeps its epochs: {one_line(error.cause or error, 0)}")
    times: dict[str, float] = {}
    for cell in cells(plan.spec.factors):
        lanes = {name: arm for name, arm in plan.arms.items() if all(cell[key] == at for key, at in arm.cell.items())}
        here = times_epochs(lanes, {name: cost for name, cost in costs.items() if name in lanes})
        times |= {name: max(value, times.get(name, 1.0)) for name, value in here.items()}
    return times


def times_epochs(arms: Mapping[str, ArmPlan], costs: Mapping[str, EpochCost]) -> dict[str, float]:
    """How many times its epochs each trained arm gets, so that it costs what the dearest pretrained arm does.

    No arm gets fewer epochs than the sweep file says: a recurrent network's are dear, and it needs them.

    Args:
        arms: The arms.
        costs: Of an epoch of each that trains.
    """
    def whole(name: str) -> float:
        fixed, cost = arms[name].fixed, costs[name]
        return int(fixed.get("pretrain_epochs") or 0) * cost.pretrain + int(fixed["epochs"] or 1) * cost.finetune

    budget = max((whole(name) for name in costs if arms[name].arm.kind == "pretrained"), default=0.0)
    times = {name: budget / whole(name) for name in costs if arms[name].arm.kind == "trained" and whole(name)}
    return {name: round(min(value, MOST_TIMES), 3) for name, value in times.items() if value > 1}


def lengthened(arms: Mapping[str, ArmPlan], times_epochs: Mapping[str, float]) -> dict[str, ArmPlan]:
    """The lanes with so many times their epochs of fine-tuning."""
    return {lane: replace(arm, times_epochs=times_epochs.get(lane, arm.times_epochs)) for lane, arm in arms.items()}


def _seconds(config: TrialConfig, threads: int, given: Given | None = None) -> EpochCost:
    import torch

    from raymae.train.trial import run_trial

    torch.set_num_threads(threads)
    # on a CPU the process's own time: other work on the machine makes a phase last longer, and not the other one
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    every = {"finetune": int(config.params["eval_every"] or 1),
             "pretrain": int(config.params.get("pretrain_eval_every") or 1)}
    params = {**config.params, "epochs": NUM_TIMED * every["finetune"], "patience": 0}
    if "pretrain_epochs" in params:
        params |= {"pretrain_epochs": NUM_TIMED * every["pretrain"], "pretrain_patience": 0}
    at: dict[str, list[float]] = {"pretrain": [], "finetune": []}
    for report in run_trial(replace(config, params=params), given=given):
        at[report.phase].append(clock())
    shortest = {phase: min((b - a for a, b in pairwise(seconds)), default=0.0)
                for phase, seconds in at.items()}
    return EpochCost(*(shortest[phase] / every[phase] for phase in ("pretrain", "finetune")))


def _steps(config: TrialConfig, threads: int, given: Given | None = None) -> EpochCost:
    from raymae.tasks import task_class
    from raymae.train.device import pick_device

    task = task_class(config.task)(config, pick_device())

    def steps(split: str, batch_size: int) -> int:
        return math.ceil(len(task.load(split)) / batch_size)

    pretrains = task.pretraining() is not None and not config.adopts
    before = steps("pretrain", task.params.pretrain_batch_size) if pretrains else 0
    return EpochCost(before, steps("train", task.params.batch_size))
