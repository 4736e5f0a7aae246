"""What a sweep computes in where its file leaves that open (`precision: auto`): bfloat16 where a timed step is faster.

Decided once, before the search, on a worker's resources, and written to `sweep.json`: a sweep never mixes the two, and
a continued one computes in what it began with. A processor without bfloat16 units emulates them, and loses; so does a
network too small to fill them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor

from raymae.errors import TrialError
from raymae.models.given import Given
from raymae.results.store.manifest import Precision
from raymae.search.plan import Plan
from raymae.search.probes import Probe, shortest
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Scalar
from raymae.spec.task import AUTO, PRECISIONS
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Task
from raymae.train.device import own_clock, pick_device, seed_all

WORTH_IT = 1.1  # times as fast; below, chance would decide, and float32 is the more exact


def is_open(arms: Mapping[str, ArmPlan]) -> bool:
    """Whether any arm leaves open what is computed in."""
    return any(arm.fixed.get(key) == AUTO for arm in arms.values() for key in PRECISIONS)


def settled(params: Mapping[str, Scalar], precision: Precision) -> dict[str, Scalar]:
    """An arm's parameters with the precision that was found in the place of `auto`."""
    return {key: precision if key in PRECISIONS and value == AUTO else value for key, value in params.items()}


def computing_in(arms: Mapping[str, ArmPlan], precision: Precision) -> dict[str, ArmPlan]:
    """The arms, likewise."""
    return {lane: replace(arm, fixed=settled(arm.fixed, precision)) for lane, arm in arms.items()}


def fastest(plan: Plan, warn: Callable[[str], None]) -> tuple[Precision, float]:
    """The precision in which a step of every arm that leaves it open takes less time, all together.

    Args:
        plan: The sweep; Ray is connected.
        warn: Told of an arm that could not be timed.

    Returns:
        The precision, and how many times as fast bfloat16 is; 1 where nothing could be timed.
    """
    probe, total = Probe(plan, step_seconds), {"float32": 0.0, "bfloat16": 0.0}
    names = {arm.name for arm in plan.arms.values() if is_open({"": arm}) and arm.arm.kind != "reference"}
    for name in sorted(names):
        try:
            seconds = probe(name)
        except TrialError as error:
            warn(f"arm {name} could not be timed in bfloat16: {error}")
            continue
        total = {precision: total[precision] + seconds[precision] for precision in total}
    return chosen(total)


def chosen(seconds: Mapping[str, float]) -> tuple[Precision, float]:
    """bfloat16 where it is faster by a tenth at least, and how many times as fast it is."""
    if not seconds["float32"] or not seconds["bfloat16"]:
        return "float32", 1.0
    times = seconds["float32"] / seconds["bfloat16"]
    return ("bfloat16" if times >= WORTH_IT else "float32"), times


def step_seconds(config: TrialConfig, threads: int, given: Given | None = None) -> dict[str, float]:
    """Seconds that a step of each phase takes, all phases of the arm together, by precision.

    Args:
        config: A trial.
        threads: Of torch.
        given: The weights that its arm starts from, which take no step to take over.
    """
    torch.set_num_threads(threads)
    seed_all(config.seed)
    device = pick_device()
    task = task_class(config.task)(config, device)
    steps = [_finetune_step(task)]
    if task.pretraining() is not None and not config.adopts:
        steps.append(_pretrain_step(task))
    total = {"float32": 0.0, "bfloat16": 0.0}
    for step in steps:
        for precision, seconds in _in_turns(step, device).items():
            total[precision] += seconds
    return total


def _finetune_step(task: Task) -> Callable[[], Tensor]:
    model = task.build().to(task.device).train()
    batch = _batch(task, "train", task.params.batch_size)
    return lambda: task.finetune_loss(model, batch).mean


def _pretrain_step(task: Task) -> Callable[[], Tensor]:
    pretraining = task.pretraining()
    assert pretraining is not None, f"the arm {task.config.arm} pretrains"
    model = pretraining.build().to(task.device).train()
    batch = _batch(task, "pretrain", task.params.pretrain_batch_size)
    mask = pretraining.draw_mask(batch, Generator(task.device).manual_seed(0))
    return lambda: pretraining.loss(model, batch, mask).mean


def _batch(task: Task, split: str, size: int) -> Batch:
    source = task.load(split)
    return source.batch(torch.arange(min(size, len(source))), Generator(task.device).manual_seed(0))


def _in_turns(step: Callable[[], Tensor], device: torch.device) -> dict[str, float]:
    """Seconds of a step forward and backward, by precision."""
    def steps(precision: Precision) -> Iterator[None]:
        while True:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                loss = step()
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            yield

    float32, bfloat16 = shortest([steps("float32"), steps("bfloat16")], own_clock(device))
    return {"float32": float32, "bfloat16": bfloat16}
