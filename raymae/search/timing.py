"""How many epochs make arms equal: as many steps, or as much computing, as the arm that pretrains.

Both are found before the search, on a worker's resources, with searched parameters at their defaults, and written to
`sweep.json`, so that a continued sweep, or the same file on another machine with `arms.scratch.epochs` set to what was
found, runs the same epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from raymae.errors import TrialError
from raymae.models.given import Given
from raymae.search.plan import Plan, example_config
from raymae.search.probes import Probe
from raymae.spec.factors import cells
from raymae.spec.resolve import ArmPlan
from raymae.spec.task import encoder_params
from raymae.spec.trial import TrialConfig

if TYPE_CHECKING:
    from raymae.tasks.base import Task
    from raymae.train.phase import Phase

MOST_TIMES = 20.0  # a linear layer would get a thousand times its epochs, and has converged long before
NUM_TIMED = 4  # evaluations of a phase; the shortest time of one counts, since other work can only add to it
ENOUGH_S = 20.0  # a phase that has been timed for so long is timed no more


@dataclass(frozen=True)
class EpochCost:
    """What an epoch of an arm costs, in seconds of a worker or in optimiser steps.

    Attributes:
        pretrain: An epoch of pretraining; 0 for an arm that does not.
        finetune: An epoch of fine-tuning, with its share of an evaluation.
    """

    pretrain: float
    finetune: float


@dataclass(frozen=True)
class Measured:
    """What was found about the lanes of a sweep.

    Attributes:
        times_epochs: How many times its epochs of fine-tuning each trained lane gets; of the same length, none.
        epoch_costs: What one of those epochs costs each, in seconds of a worker or in optimiser steps.
    """

    times_epochs: Mapping[str, float] = field(default_factory=dict)
    epoch_costs: Mapping[str, float] = field(default_factory=dict)


def measured(plan: Plan, warn: Callable[[str], None]) -> Measured:
    """What epochs cost, and how many times as many of fine-tuning each trained lane gets for it.

    A lane is an arm in the cells of the sweep's factors in which it is the same. It is made equal to what costs most
    there; what it costs itself is measured once.

    Args:
        plan: The sweep; Ray is connected.
        warn: Told of an arm that could not be measured: it keeps its epochs, and its trials will say what is wrong.
    """
    trained = [name for name, arm in plan.arms.items() if arm.arm.kind != "reference"]
    if not any(plan.arms[name].arm.kind == "pretrained" for name in trained):
        return Measured()
    probe = Probe(plan, _seconds if plan.spec.fair.by == "compute" else _steps)
    costs: dict[str, EpochCost] = {}
    pretrains: dict[str, float] = {}  # cells that share an encoder share what it costs
    for name in trained:
        config = example_config(plan, name)
        encoder = f"{config.arm} {sorted(encoder_params(plan.schema.params, config.params).items())}"
        try:
            costs[name] = probe(name, pretrains.get(encoder))
            pretrains[encoder] = costs[name].pretrain
        except TrialError as error:
            warn(f"arm {name} could not be measured and keeps its epochs: {error}")
    times: dict[str, float] = {}
    for cell in cells(plan.spec.factors):
        lanes = {name: arm for name, arm in plan.arms.items() if all(cell[key] == at for key, at in arm.cell.items())}
        here = times_epochs(lanes, {name: cost for name, cost in costs.items() if name in lanes})
        times |= {name: max(value, times.get(name, 1.0)) for name, value in here.items()}
    return Measured(times, {name: cost.finetune for name, cost in costs.items()})


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


def lengthened(arms: Mapping[str, ArmPlan], found: Measured) -> dict[str, ArmPlan]:
    """The lanes with so many times their epochs of fine-tuning, and what one costs."""
    return {lane: replace(arm, times_epochs=found.times_epochs.get(lane, arm.times_epochs),
                          epoch_cost=found.epoch_costs.get(lane, arm.epoch_cost)) for lane, arm in arms.items()}


def _seconds(
    config: TrialConfig, threads: int, given: Given | None = None, pretrain: float | None = None
) -> EpochCost:
    """Time an epoch of each phase.

    Args:
        config: A trial.
        threads: Of torch.
        given: The weights that its arm starts from.
        pretrain: What an epoch of pretraining is known to cost.
    """
    import torch

    from raymae.tasks import task_class
    from raymae.train.device import pick_device
    from raymae.train.phases import Finetune, Pretrain

    torch.set_num_threads(threads)
    every = {"finetune": int(config.params["eval_every"] or 1),
             "pretrain": int(config.params.get("pretrain_eval_every") or 1)}
    params = {**config.params, "epochs": NUM_TIMED * every["finetune"], "patience": 0}
    if "pretrain_epochs" in params:
        params |= {"pretrain_epochs": NUM_TIMED * every["pretrain"], "pretrain_patience": 0}
    task = task_class(config.task)(replace(config, params=params), pick_device())
    if pretrain is None:
        pretrains = task.pretraining() is not None and not config.adopts
        pretrain = _evaluated(task, Pretrain(task, given)) / every["pretrain"] if pretrains else 0.0
    # from random weights: what is trained costs the same
    return EpochCost(pretrain, _evaluated(task, Finetune(task)) / every["finetune"])


def _evaluated(task: Task, phase: Phase) -> float:
    """Seconds from one evaluation of a phase to the next: the shortest of a few."""
    from raymae.train.device import own_clock

    for split in ("pretrain", "pretext") if phase.name == "pretrain" else ("train", "val"):
        task.load(split)  # what is read for the first time is none of an epoch's
    clock = own_clock(task.device)
    at = [clock()]
    for _ in phase.run():
        at.append(clock())
        if at[-1] - at[0] > ENOUGH_S:
            break
    return min(b - a for a, b in pairwise(at))


def _steps(
    config: TrialConfig, threads: int, given: Given | None = None, pretrain: float | None = None
) -> EpochCost:
    from raymae.tasks import task_class
    from raymae.train.device import pick_device
    from raymae.train.epoch import Steps

    task = task_class(config.task)(config, pick_device())

    def steps(split: str, phase: Literal["pretrain", "finetune"]) -> int:
        return Steps.of(task.params, phase).of_an_epoch(len(task.load(split)))

    pretrains = task.pretraining() is not None and not config.adopts
    return EpochCost(steps("pretrain", "pretrain") if pretrains else 0, steps("train", "finetune"))
