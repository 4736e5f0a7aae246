"""How many epochs make arms equal: as many steps, or as much computing, as the arm that pretrains.

Both are found before the search, on a worker's resources, with searched parameters at their defaults, and written to
`sweep.json`, so that a continued sweep, or the same file on another machine with `arms.scratch.epochs` set to what was
found, runs the same epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from raymae.errors import TrialError
from raymae.models.given import Given
from raymae.search.plan import Plan, example_config
from raymae.search.probes import ENOUGH_S, NUM_TIMED, Probe, shortest
from raymae.spec.factors import cells
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Scalar
from raymae.spec.task import encoder_params
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Source, Task
from raymae.train.device import own_clock, pick_device
from raymae.train.epoch import Steps

if TYPE_CHECKING:
    from raymae.train.phase import Phase

MOST_TIMES = 20.0  # a linear layer would get a thousand times its epochs, and has converged long before
FEW_STEPS = (4, 24)  # of an epoch that is timed in place of a long one

PhaseKind = Literal["pretrain", "finetune"]


class _Keys(NamedTuple):
    """The parameters that say how long a phase is and when it is looked at."""

    epochs: str
    every: str
    patience: str


_KEYS: Mapping[PhaseKind, _Keys] = {
    "pretrain": _Keys("pretrain_epochs", "pretrain_eval_every", "pretrain_patience"),
    "finetune": _Keys("epochs", "eval_every", "patience"),
}


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

    Args:
        plan: The sweep; Ray is connected.
        warn: Told of an arm that could not be measured: it keeps its epochs, and its trials will say what is wrong.
    """
    if not any(arm.arm.kind == "pretrained" for arm in plan.arms.values()):
        return Measured()
    probe = Probe(plan, epoch_seconds if plan.spec.fair.by == "compute" else epoch_steps)

    def cost(lane: str, pretrain: float | None) -> EpochCost | None:
        try:
            found: EpochCost = probe(lane, pretrain)
        except TrialError as error:
            warn(f"arm {lane} could not be measured and keeps its epochs: {error}")
            return None
        return found

    costs = costs_of(plan, cost)
    return Measured(equal(plan, costs), {lane: cost.finetune for lane, cost in costs.items()})


def costs_of(plan: Plan, cost: Callable[[str, float | None], EpochCost | None]) -> dict[str, EpochCost]:
    """What an epoch costs each lane that trains: an arm in the cells of the sweep's factors in which it is the same.

    Args:
        plan: The sweep.
        cost: Of a lane, and of an epoch of its pretraining where that is known: lanes that share an encoder share what
            it costs. None leaves a lane out.
    """
    costs: dict[str, EpochCost] = {}
    pretrains: dict[str, float] = {}
    for lane in (lane for lane, arm in plan.arms.items() if arm.arm.kind != "reference"):
        config = example_config(plan, lane)
        encoder = f"{config.arm} {sorted(encoder_params(plan.schema.params, config.params).items())}"
        found = cost(lane, pretrains.get(encoder))
        if found is not None:
            costs[lane], pretrains[encoder] = found, found.pretrain
    return costs


def equal(plan: Plan, costs: Mapping[str, EpochCost]) -> dict[str, float]:
    """How many times its epochs each trained lane gets, so that it is equal to what costs most in the cells that it is
    in."""
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


def lengthened(arms: Mapping[str, ArmPlan], found: Measured) -> dict[str, ArmPlan]:
    """The lanes with so many times their epochs of fine-tuning, and what one costs."""
    return {lane: replace(arm, times_epochs=found.times_epochs.get(lane, arm.times_epochs),
                          epoch_cost=found.epoch_costs.get(lane, arm.epoch_cost)) for lane, arm in arms.items()}


def epoch_seconds(
    config: TrialConfig, threads: int, given: Given | None = None, pretrain: float | None = None,
    device: torch.device | None = None, clock: Callable[[], float] | None = None, enough_s: float = ENOUGH_S,
) -> EpochCost:
    """Time an epoch of each phase.

    Args:
        config: A trial.
        threads: Of torch.
        given: The weights that its arm starts from.
        pretrain: What an epoch of pretraining is known to cost.
        device: Where it is trained; by default the best there is.
        clock: In seconds; by default what this process computes.
        enough_s: Of timing a phase.
    """
    from raymae.train.phases import Finetune, Pretrain

    torch.set_num_threads(threads)
    device = device or pick_device()
    asked, clock = task_class(config.task)(config, device), clock or own_clock(device)
    if pretrain is None:
        pretrains = asked.pretraining() is not None and not config.adopts
        pretrain = (_epoch_s(asked, "pretrain", lambda task: Pretrain(task, given), clock, enough_s) if pretrains
                    else 0.0)
    # from random weights: what is trained costs the same
    return EpochCost(pretrain, _epoch_s(asked, "finetune", Finetune, clock, enough_s))


def _epoch_s(asked: Task, phase: PhaseKind, start: Callable[[Task], Phase], clock: Callable[[], float],
             enough_s: float = ENOUGH_S) -> float:
    """Seconds of an epoch of a phase, with its share of an evaluation.

    Epochs of a few steps and of more are timed in turns: a whole epoch may be long enough for other work on the machine
    to add to every one.

    Args:
        asked: The task as it will be trained.
        phase: Of which an epoch is timed.
        start: Makes the phase of a task.
        clock: In seconds.
        enough_s: Of timing.
    """
    settings, keys = Steps.of(asked.params, phase), _KEYS[phase]
    steps = settings.of_an_epoch(len(asked.load("pretrain" if phase == "pretrain" else "train")))
    every = int(asked.config.params.get(keys.every) or 1)

    def epochs(length: int | None = None) -> Iterator[object]:
        """Evaluations after epochs of so many steps each; None for epochs, and as many, as they will be."""
        each = every if length is None else 1
        timed: dict[str, Scalar] = {keys.epochs: each * NUM_TIMED, keys.every: each, keys.patience: 0}
        # a frozen encoder is cheap, and few epochs have it; short epochs are one pass
        timed |= {"freeze_epochs": 0, **({} if length is None else {"epoch_steps": 0})}
        known = asked.config.params
        config = replace(asked.config, params={**known, **{key: timed[key] for key in timed if key in known}})
        task = type(asked)(config, asked.device)
        if length is not None:
            task.load = _First(asked, length * settings.batch_size).load  # type: ignore[method-assign]
        return start(task).run()

    few, more = FEW_STEPS
    if steps <= more:
        return shortest([epochs()], clock, enough_s)[0] / every
    one, other = shortest([epochs(few), epochs(more)], clock, enough_s)
    step = max(other - one, 0.0) / (more - few)
    return steps * step + max(one - few * step, 0.0) / every


class _First:
    """The splits of a task with no more than so many examples of what is learned from.

    Args:
        task: The task.
        most: Examples of the splits `pretrain` and `train`; a split that has fewer is passed over again.
    """

    def __init__(self, task: Task, most: int) -> None:
        self._task, self._most = task, most

    def load(self, split: str) -> Source:
        """As the task's."""
        source = self._task.load(split)
        return _Short(source, self._most) if split in ("pretrain", "train") else source


class _Short:
    """So many examples of a split, over and over where it has fewer."""

    def __init__(self, source: Source, length: int) -> None:
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """As the split's."""
        return self._source.batch(index_B % len(self._source), generator)


def epoch_steps(
    config: TrialConfig, threads: int = 1, given: Given | None = None, pretrain: float | None = None
) -> EpochCost:
    """Count the steps of an epoch of each phase; takes what `epoch_seconds` does."""
    task = task_class(config.task)(config, pick_device())

    def steps(split: str, phase: PhaseKind) -> int:
        return Steps.of(task.params, phase).of_an_epoch(len(task.load(split)))

    pretrains = task.pretraining() is not None and not config.adopts
    return EpochCost(steps("pretrain", "pretrain") if pretrains else 0, steps("train", "finetune"))
