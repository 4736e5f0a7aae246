"""How many epochs make arms equal: as many steps, or as much computing, as the arm that pretrains.

Both are found before the search, on a worker's resources, with searched parameters at their defaults, and written to
`sweep.json`, so that a continued sweep, or the same file on another machine with `arms.scratch.epochs` set to what was
found, runs the same epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from raymae.errors import TrialError
from raymae.models.given import Given
from raymae.search.plan import Plan, example_config
from raymae.search.probes import Probe
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
NUM_TIMED = 4  # epochs of a phase, the first to warm up
FEW_STEPS = (4, 12)  # of an epoch that is timed in place of a long one
ENOUGH_S = 20.0  # a phase that has been timed for so long is timed no more

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
    from raymae.train.phases import Finetune, Pretrain

    torch.set_num_threads(threads)
    device, task_type = pick_device(), task_class(config.task)
    asked = task_type(config, device)
    if pretrain is None:
        pretrains = asked.pretraining() is not None and not config.adopts
        pretrain = _epoch_s(asked, "pretrain", lambda task: Pretrain(task, given)) if pretrains else 0.0
    # from random weights: what is trained costs the same
    return EpochCost(pretrain, _epoch_s(asked, "finetune", Finetune))


def _epoch_s(asked: Task, phase: PhaseKind, start: Callable[[Task], Phase]) -> float:
    """Seconds of an epoch of a phase, with its share of an evaluation.

    Epochs of a few steps and of more are timed in turns, and of each the shortest counts: other work on the machine can
    only add to a time, and a whole epoch is long enough for it to add to all.

    Args:
        asked: The task as it will be trained.
        phase: Of which an epoch is timed.
        start: Makes the phase of a task.
    """
    clock, settings, keys = own_clock(asked.device), Steps.of(asked.params, phase), _KEYS[phase]
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
        return _shortest([epochs()], clock)[0] / every
    one, other = _shortest([epochs(few), epochs(more)], clock)
    step = max(other - one, 0.0) / (more - few)
    return steps * step + max(one - few * step, 0.0) / every


def _shortest(runs: Sequence[Iterator[object]], clock: Callable[[], float]) -> list[float]:
    """Seconds from one evaluation to the next, the shortest of a few of each run, taken in turns. The first of each
    warms up, and counts only where there is time for no other."""
    began, times = clock(), [[math.inf, math.inf] for _ in runs]  # warming up, and after it
    for index in range(NUM_TIMED):
        if index and clock() - began > ENOUGH_S:
            break
        for run, shortest in zip(runs, times, strict=True):
            at = clock()
            next(run)
            shortest[min(index, 1)] = min(shortest[min(index, 1)], clock() - at)
    return [warm if warm < math.inf else cold for cold, warm in times]


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


def _steps(
    config: TrialConfig, threads: int, given: Given | None = None, pretrain: float | None = None
) -> EpochCost:
    task = task_class(config.task)(config, pick_device())

    def steps(split: str, phase: PhaseKind) -> int:
        return Steps.of(task.params, phase).of_an_epoch(len(task.load(split)))

    pretrains = task.pretraining() is not None and not config.adopts
    return EpochCost(steps("pretrain", "pretrain") if pretrains else 0, steps("train", "finetune"))
