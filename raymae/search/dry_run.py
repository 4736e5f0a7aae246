"""What a sweep would do: trials, resources, data, and each arm's networks, losses and prediction on one batch. Starts
nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from raymae.search.counts import counts_of_arm
from raymae.search.description import ArmDescription, DataUsed, Description, Start, Tried
from raymae.search.live.news import receivers
from raymae.search.live.recorders import recorders
from raymae.search.plan import Plan, example_config
from raymae.spec.check import may_open
from raymae.spec.space import Choice, IntRange, LogUniform, Uniform
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Pretraining, Source, Task
from raymae.tasks.mistakes import check_loss, named, wrong


def describe(plan: Plan) -> Description:
    """Describe a planned sweep: everything `raymae sweep --dry-run` prints.

    Raises:
        DataError: A batch cannot be read.
        TaskError: A method of the task raises, or returns what the training loop cannot use.
        SpecError: Nobody can be told of it by the URLs under `notify`, or by what `record` names.
    """
    receivers(plan.spec.notify)
    recorders(plan.spec.record)
    data = DataUsed(plan.data.name, plan.data.source, str(plan.data.path or ""), plan.data.fingerprint, plan.splits,
                    tuple(plan.pretrains_on))
    return Description(plan.spec, data, plan.slots, plan.schema.objective.val,
                       tuple(_describe(plan, name) for name in plan.spec.arms), tuple(may_open(plan.spec, plan.schema)))


def _describe(plan: Plan, name: str) -> ArmDescription:
    """Count an arm's trials over its lanes, and try it."""
    arm = next(arm for arm in plan.arms.values() if arm.name == name)
    counts = counts_of_arm(name, plan.arms, plan.spec)
    return ArmDescription(
        name, arm.arm.kind, counts.trials, counts.finals, counts.replicates, counts.pretrainings,
        {key: _range(value) for key, value in arm.space.items()}, _try(plan, name), _start(plan, name))


def _start(plan: Plan, arm: str) -> Start | None:
    """From which weights an arm starts; None of most arms."""
    if arm not in plan.given:
        return None
    given = plan.given[arm]
    return Start(given.source, given.sha256, tuple(plan.notes[arm]),
                 next(one.origin.goes_on for one in plan.arms.values() if one.name == arm))


def _range(distribution: Uniform | LogUniform | IntRange | Choice) -> str:
    match distribution:
        case Uniform(uniform=(low, high)):
            return f"{low:g} … {high:g}"
        case LogUniform(loguniform=(low, high)):
            return f"{low:g} … {high:g} (log)"
        case IntRange(range_=(low, high), step=step):
            return f"{low} … {high}" + (f" by {step}" if step > 1 else "")
        case Choice(choice=values):
            return ", ".join(map(str, values))


def _try(plan: Plan, arm: str) -> Tried:
    """Build the arm's networks, compute each loss and the prediction once on a batch of two, and note the shapes."""
    config = example_config(plan, arm)
    task = task_class(plan.spec.task)(config, torch.device("cpu"))
    with named(task, "build"):
        model = task.build()
    shapes: dict[str, list[int]] = {}
    with named(task, 'load("val")'):
        batch = _first(task.load("val"), None)
    shapes |= {key: list(value.shape) for key, value in batch.items()}
    if task.arm.kind != "reference":  # its prediction may be a whole trial's work, such as growing a forest
        shapes["prediction"] = list(_predict(task, model, batch).shape)
        _learn(task, model)
    with named(task, "pretraining"):
        pretraining = task.pretraining()
    if pretraining is not None:
        shapes["mask"] = list(_pretrain(task, pretraining).shape)
    return Tried(sum(p.numel() for p in model.parameters()), shapes)


def _first(source: Source, generator: Generator | None) -> Batch:
    """The first two examples of a split."""
    return source.batch(torch.arange(min(2, len(source))), generator)


@torch.no_grad()
def _predict(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """Predict a batch, and hand it to the metrics."""
    model.eval()
    with named(task, "predict"):
        prediction = task.predict(model, batch)
    if not isinstance(prediction, Tensor):
        raise wrong(task, "predict", f"returns a {type(prediction).__name__}; it must return a tensor")
    with named(task, "metrics"):
        metrics = task.metrics()
        metrics.update(prediction, batch)
        metrics.unit_scores(prediction, batch)
    return prediction


def _learn(task: Task, model: nn.Module) -> None:
    """Compute the loss of fine-tuning, which is checked."""
    with named(task, 'load("train")'):
        batch = _first(task.load("train"), Generator().manual_seed(0))
    model.train()
    with named(task, "finetune_loss"):
        loss = task.finetune_loss(model, batch)
    check_loss(task, "finetune_loss", loss)


@torch.no_grad()
def _pretrain(task: Task, pretraining: Pretraining[Any]) -> Tensor:
    """Draw a mask, and compute the loss of pretraining, which is checked."""
    generator = Generator().manual_seed(0)
    with named(task, 'load("pretrain")'):
        batch = _first(task.load("pretrain"), generator)
    with named(task, "pretraining().draw_mask"):
        mask = pretraining.draw_mask(batch, generator)
    with named(task, "pretraining().build"):
        model = pretraining.build()
    with named(task, "pretraining().loss"):
        loss = pretraining.loss(model, batch, mask)
    check_loss(task, "pretraining().loss", loss, learns=False)
    with named(task, 'load("pretext")'):
        batch = _first(task.load("pretext"), None)
    with named(task, "pretraining().errors"):
        pretraining.errors(model.eval(), batch, generator)
    return mask
