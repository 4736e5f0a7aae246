"""How long a sweep would take, and what it would cost: from a few timed steps of each arm, before anything is started.

An upper estimate of what can be told so early: no trial is stopped early, and cells of factors share no encoders. What
it leaves out is said with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor

from raymae.search.decide.algorithms import grid
from raymae.search.plan import Plan, example_config
from raymae.search.precision import computing_in
from raymae.search.timing import EpochCost, times_epochs
from raymae.spec.factors import cells
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Source, Task
from raymae.train.device import describe_device, pick_device
from raymae.train.epoch import Steps, evaluate
from raymae.train.phases import Finetune, Pretrain
from raymae.train.pretext import AT_ONCE, MOST_EXAMPLES

ROUNDS = 3  # timed, after one to warm up; the shortest counts
START_S = 30.0  # until the first workers train
LEFT_OUT = ("without early stopping; left out are references, reading the data, the test split, and how much trials at "
            "once slow each other down")


@dataclass(frozen=True)
class Timed:
    """What the trials of a lane take, in seconds; what an epoch does in steps.

    Attributes:
        seconds: Of an epoch of each phase, with its share of an evaluation.
        steps: Of an epoch of each phase.
        pretrain_epochs: Of a pretraining; 0 where there is none.
        epochs: Of fine-tuning.
    """

    seconds: EpochCost
    steps: EpochCost
    pretrain_epochs: int
    epochs: int


class First:
    """The first examples of a split, as a split: one batch of them.

    Args:
        source: The split.
        size: How many, at most.
    """

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size = source, min(size, len(source))

    def __len__(self) -> int:
        return self._size

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """Some of them."""
        return self._source.batch(index_B, generator)


def estimate(plan: Plan) -> dict[str, Any]:
    """Estimate a planned sweep in plain values: what `raymae sweep --dry-run --estimate` adds.

    Raises:
        TrialError: A step of an arm fails.
    """
    spec, threads = plan.spec, torch.get_num_threads()
    plan = replace(plan, arms=computing_in(plan.arms, "float32"))
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    try:
        timed = {name: _timed(plan, name) for name, arm in plan.arms.items() if arm.arm.kind != "reference"}
    finally:
        torch.set_num_threads(threads)
    times = _times(plan, timed)
    trials = {name: one.epochs * times.get(name, 1.0) * one.seconds.finetune for name, one in timed.items()}
    made = {name: one.pretrain_epochs * one.seconds.pretrain for name, one in timed.items()}
    total = 0.0
    for name in timed:
        searched, replicates = _num(spec, plan.arms[name])
        encoders = math.ceil(searched / spec.search.finetunes_per_encoder) + replicates
        total += (searched + replicates) * trials[name] + encoders * made[name]
    seconds, limit = START_S + total / plan.slots, spec.budget.wall_minutes
    price = spec.budget.price_per_node_hour
    return {
        "device": describe_device(_device(spec)), "seconds": round(seconds, 1),
        "cut_by_budget": limit is not None and seconds > 60 * limit,
        "trials": {name: {"pretrain_s": round(made[name], 2), "finetune_s": round(trials[name], 2),
                          "times_epochs": times.get(name, 1.0)} for name in timed},
        "dollars": round(price * seconds / 3600, 4) if isinstance(price, float) else None, "left_out": LEFT_OUT,
    }


def _num(spec: SweepSpec, lane: ArmPlan) -> tuple[int, int]:
    """Trials of a lane's search with its finals, and its replicates."""
    trials = len(list(grid(lane))) if spec.search.algorithm == "grid" else lane.num_trials(spec.search.num_trials)
    searched = trials + spec.search.num_finals(trials) if lane.home == lane.lane else 0
    return searched, lane.arm.num_replicates(spec.num_replicates)


def _times(plan: Plan, timed: Mapping[str, Timed]) -> dict[str, float]:
    """How many times its epochs each trained lane gets, so that arms are equal."""
    if plan.spec.fair.by == "epochs":
        return {}
    costs = {name: one.seconds if plan.spec.fair.by == "compute" else one.steps for name, one in timed.items()}
    times: dict[str, float] = {}
    for cell in cells(plan.spec.factors):
        here = {name: arm for name, arm in plan.arms.items()
                if name in timed and all(cell[key] == at for key, at in arm.cell.items())}
        found = times_epochs(here, {name: costs[name] for name in here})
        times |= {name: max(value, times.get(name, 1.0)) for name, value in found.items()}
    return times


def _device(spec: SweepSpec) -> torch.device:
    return pick_device() if spec.resources.gpus_per_worker else torch.device("cpu")


def _timed(plan: Plan, lane: str) -> Timed:
    """Time a step and an evaluation's batch of each phase of a lane."""
    config = example_config(plan, lane)
    task = task_class(config.task)(config, _device(plan.spec))
    seconds, steps, epochs = _finetuning(task, config)
    before, before_steps, before_epochs = 0.0, 0, 0
    if task.pretraining() is not None and not config.adopts:
        before, before_steps, before_epochs = _pretraining(task, config)
    return Timed(EpochCost(before, seconds), EpochCost(before_steps, steps), before_epochs, epochs)


def _finetuning(task: Task, config: TrialConfig) -> tuple[float, int, int]:
    """Seconds of an epoch, its steps, and how many epochs there are."""
    phase, source, val = Finetune(task), task.load("train"), task.load("val")
    steps = Steps.of(task.params, "finetune")
    one = First(source, steps.batch_size)
    step_s = _shortest(task, lambda: phase.learner.train(one, 0, 1, steps=replace(steps, epoch_steps=0)))
    some = First(val, task.eval_batch)
    score_s = _shortest(task, lambda: evaluate(task, phase.model, some)) * math.ceil(len(val) / max(len(some), 1))
    number = steps.of_an_epoch(len(source))
    every = int(config.params.get("eval_every") or 1)
    return number * step_s + score_s / every, number, int(config.params.get("epochs") or 1)


def _pretraining(task: Task, config: TrialConfig) -> tuple[float, int, int]:
    """The same of pretraining."""
    phase, source, held = Pretrain(task), task.load("pretrain"), task.load("pretext")
    steps = Steps.of(task.params, "pretrain")
    one = First(source, steps.batch_size)
    step_s = _shortest(task, lambda: phase.learner.train(one, 0, 1, steps=steps))
    some = torch.arange(min(AT_ONCE, len(held)))

    @torch.no_grad()
    def score() -> None:
        phase.pretraining.errors(phase.model.eval(), held.batch(some, None), Generator(task.device).manual_seed(0))

    score_s = _shortest(task, score) * math.ceil(min(len(held), MOST_EXAMPLES) / AT_ONCE)
    number = steps.of_an_epoch(len(source))
    every = int(config.params.get("pretrain_eval_every") or 1)
    return number * step_s + score_s / every, number, int(config.params.get("pretrain_epochs") or 0)


def _shortest(task: Task, act: Callable[[], object]) -> float:
    """Seconds that something takes: the shortest of a few times."""
    shortest = math.inf
    for index in range(ROUNDS + 1):
        began = perf_counter()
        act()
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        if index:
            shortest = min(shortest, perf_counter() - began)
    return shortest
