"""How long a sweep would take, and what it would cost: from a few timed steps of each arm, before anything is started.

An upper estimate of what can be told so early: no trial is stopped early. What it leaves out is said with it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import perf_counter

import torch

from raymae.search.counts import counts_of
from raymae.search.description import Estimate, TrialEstimate
from raymae.search.plan import Plan, example_config
from raymae.search.precision import computing_in
from raymae.search.timing import EpochCost, costs_of, epoch_seconds, epoch_steps, equal
from raymae.train.device import describe_device, pick_device

START_S = 30.0  # until the first workers train
PATIENCE_S = 8.0  # of timing a phase of an arm: somebody waits, and there may be many
LEFT_OUT = ("without early stopping; left out are references, reading the data, the test split, and how much trials at "
            "once slow each other down")


def estimate(plan: Plan) -> Estimate:
    """Estimate a planned sweep: what `raymae sweep --dry-run --estimate` adds.

    Raises:
        TrialError: A step of an arm fails.
    """
    spec, threads = plan.spec, torch.get_num_threads()
    plan = replace(plan, arms=computing_in(plan.arms, "float32"))
    device = pick_device() if spec.resources.gpus_per_worker else torch.device("cpu")
    try:
        seconds = costs_of(plan, partial(_seconds, plan, device))
    finally:
        torch.set_num_threads(threads)
    costs = seconds if spec.fair.by == "compute" else costs_of(
        plan, lambda lane, known: epoch_steps(example_config(plan, lane)))
    times = {} if spec.fair.by == "epochs" else equal(plan, costs)
    trials: dict[str, TrialEstimate] = {}
    total = 0.0
    for lane, cost in seconds.items():
        arm = plan.arms[lane]
        made = int(arm.fixed.get("pretrain_epochs") or 0) * cost.pretrain
        tuned = times.get(lane, 1.0) * int(arm.fixed["epochs"] or 1) * cost.finetune
        counts = counts_of(lane, plan.arms, spec)
        total += (counts.trials + counts.finals + counts.replicates) * tuned + counts.pretrainings * made
        trials[lane] = TrialEstimate(round(made, 2), round(tuned, 2), times.get(lane, 1.0))
    whole, limit, price = START_S + total / plan.slots, spec.budget.wall_minutes, spec.budget.price_per_node_hour
    dollars = round(price * whole / 3600, 4) if isinstance(price, float) else None
    return Estimate(describe_device(device), round(whole, 1), trials, limit is not None and whole > 60 * limit,
                    dollars, LEFT_OUT)


def _seconds(plan: Plan, device: torch.device, lane: str, pretrain: float | None) -> EpochCost:
    config, threads = example_config(plan, lane), max(1, int(plan.spec.resources.cpus_per_worker))
    return epoch_seconds(config, threads, plan.given.get(config.arm), pretrain, device, perf_counter, PATIENCE_S)
