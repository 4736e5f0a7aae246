"""What a sweep would do: trials, resources, data, and each arm's networks, losses and prediction on one batch. Starts
nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Generator, Tensor, nn

from raymae.results.verdict.numbers import duration
from raymae.search.decide.algorithms import grid
from raymae.search.live.news import receivers
from raymae.search.plan import Plan, example_config
from raymae.spec.factors import num_cells, said, told
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Choice, IntRange, LogUniform, Uniform
from raymae.spec.sweep import SweepSpec
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Pretraining, Source, Task
from raymae.tasks.mistakes import check_loss, named, wrong


def describe(plan: Plan) -> dict[str, Any]:
    """Describe a planned sweep in plain values: everything `raymae sweep --dry-run` prints.

    Raises:
        DataError: A batch cannot be read.
        TaskError: A method of the task raises, or returns what the training loop cannot use.
        SpecError: Nobody can be told of it by the URLs under `notify`.
    """
    receivers(plan.spec.notify)
    spec = plan.spec
    arms = []
    for name in spec.arms:
        lanes = [arm for arm in plan.arms.values() if arm.name == name]
        arm, num_lanes = lanes[0], most_lanes(lanes, spec)
        searched = num_lanes if num_lanes > len(lanes) and not spec.search.at else \
            sum(lane.home == lane.lane for lane in lanes)
        trials = len(list(grid(arm))) if spec.search.algorithm == "grid" else arm.num_trials(spec.search.num_trials)
        each, finals = arm.arm.num_replicates(spec.num_replicates), spec.search.num_finals(trials)
        pretrainings = searched * _pretrainings(arm, trials, finals, spec) + num_lanes * _pretrainings(
            arm, 0, each, spec)
        arms.append({"arm": name, "kind": arm.arm.kind, "num_trials": searched * trials, "finals": searched * finals,
                     "replicates": num_lanes * each, "pretrainings": pretrainings, **_start(plan, name),
                     "searched": {key: _range(value) for key, value in arm.space.items()}, **_try(plan, name)})
    res = spec.resources
    return {
        "sweep": spec.name, "task": spec.task, "size": spec.size,
        "data": {"name": plan.data.name, "source": plan.data.source, "path": str(plan.data.path or ""),
                 "fingerprint": plan.data.fingerprint, "splits": plan.splits,
                 "pretrains_on": list(plan.pretrains_on)},
        "rule": {"fair": spec.fair.by, "compare": spec.compare, "margin": spec.margin,
                 "replicates": spec.num_replicates, "most_replicates": spec.most_replicates},
        "search": {"algorithm": spec.search.algorithm, "scheduler": spec.search.scheduler,
                   "finalists": spec.search.finalists, "finalist_seeds": spec.search.finalist_seeds},
        "resources": {"slots": plan.slots, "workers": res.workers, "cpus_per_worker": res.cpus_per_worker,
                      "gpus_per_worker": res.gpus_per_worker},
        "budget": {"wall_minutes": spec.budget.wall_minutes, "num_trials": spec.budget.num_trials,
                   "target": spec.budget.target, "patience_trials": spec.budget.patience_trials,
                   "metric": plan.schema.objective.val},
        "factors": {name: list(values) for name, values in spec.factors.items()}, "at": dict(spec.search.at),
        "bisect": None if spec.bisected is None else {
            "factor": spec.bisected[0], "cells": spec.bisected[1].cells, "log": spec.bisected[1].by_log},
        "arms": arms,
        "num_trials": sum(arm["num_trials"] + arm["finals"] + arm["replicates"] for arm in arms),
    }


def most_lanes(lanes: Sequence[ArmPlan], spec: SweepSpec) -> int:
    """How many lanes an arm has at most: of a factor that is bisected all cells may come to be opened."""
    return spec.bisected[1].cells if spec.bisected is not None and lanes[0].cell else len(lanes)


def _pretrainings(arm: ArmPlan, trials: int, replicates: int, spec: SweepSpec) -> int:
    """Encoders that are made, at most: several trials of the search may start from one, a replicate or a final from
    one of its own."""
    if arm.arm.kind != "pretrained" or arm.origin.adopts:
        return 0
    if spec.search.algorithm == "grid":
        points = {tuple(point.get(key) for key in arm.shared) for point in grid(arm)} if trials else ()
        return len(points) + replicates
    return math.ceil(trials / spec.search.finetunes_per_encoder) + replicates


def _start(plan: Plan, arm: str) -> dict[str, Any]:
    """From which weights an arm starts; nothing of most arms."""
    if arm not in plan.given:
        return {}
    given = plan.given[arm]
    return {"encoder": {"source": given.source, "sha256": given.sha256, "notes": list(plan.notes[arm]),
                        "continue": next(one.origin.goes_on for one in plan.arms.values() if one.name == arm)}}


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


def _try(plan: Plan, arm: str) -> dict[str, Any]:
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
    return {"num_parameters": sum(p.numel() for p in model.parameters()), "shapes": shapes}


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


def render(description: Mapping[str, Any]) -> RenderableType:
    """Draw a description for people."""
    data, resources = description["data"], description["resources"]
    table = Table(box=None, pad_edge=False)
    texts, numbers = ("searched", "shapes of a batch of 2"), ("trials", "seeds", "pretrainings", "parameters")
    for name in ("arm", "kind", *numbers, *texts):
        table.add_column(name, justify="right" if name in numbers else "left")
    for arm in description["arms"]:
        searched = "\n".join(f"{key}: {value}" for key, value in arm["searched"].items()) or "–"
        shapes = "\n".join(f"{key} {value}" for key, value in arm["shapes"].items())
        table.add_row(arm["arm"], arm["kind"], str(arm["num_trials"]), str(arm["replicates"]),
                      str(arm["pretrainings"] or "–"), f"{arm['num_parameters']:,}", Text(searched), Text(shapes))
    minutes = description["budget"]["wall_minutes"]
    return Group(
        Text(f"{description['sweep']}: {description['num_trials']} trials of {description['task']}, "
             f"{resources['slots']} at once, each on {resources['workers']} worker(s) with "
             f"{resources['cpus_per_worker']:g} CPU and {resources['gpus_per_worker']:g} GPU; "
             f"{description['search']['algorithm']} with {description['search']['scheduler']}"
             + (f"; at most {minutes:g} minutes" if minutes else "")),
        Text(f"data: {data['name']}, {data['source']}, {data['path'] or 'generated'} ({data['fingerprint']})\n"
             f"      {data['splits']}"
             + "".join(f"\n      pretraining sees {line}" for line in data["pretrains_on"])),
        *([Text(_factors(description))] if description["factors"] else []),
        Text(_rule(description["rule"])), *map(Text, _chosen(description)), *map(Text, _starts(description["arms"])),
        *([Text(_estimated(description["estimate"]))] if "estimate" in description else []),
        Text(), table,
        Text("\nnothing was started"),
    )


def _estimated(found: Mapping[str, Any]) -> str:
    """How long the sweep would take, and what that would cost, in a few lines."""
    trials = "; ".join(
        f"{name} {duration(one['finetune_s'])}" + (f" and {duration(one['pretrain_s'])} an encoder"
                                                   if one["pretrain_s"] else "") for name, one in
        found["trials"].items())
    dollars = "" if found["dollars"] is None else f", {found['dollars']:,.2f} $ at the price of one node"
    cut = ", which the budget cuts short" if found["cut_by_budget"] else ""
    return (f"estimate: {duration(found['seconds'])}{cut}{dollars}, by steps timed on this machine "
            f"({found['device']}): a trial takes {trials}; {found['left_out']}")


def _starts(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which arms start from weights that exist, a line each."""
    lines = []
    for arm in arms:
        if (start := arm.get("encoder")) is not None:
            then = "pretrains on from" if start["continue"] else "does not pretrain: it starts from"
            notes = "".join(f"\n      {note}" for note in start["notes"])
            lines.append(f"{arm['arm']} {then} the weights {start['sha256'][:16]} of {start['source']}{notes}")
    return lines


def _factors(description: Mapping[str, Any]) -> str:
    """The cells that the arms are compared in, in one line."""
    factors, at = description["factors"], description["at"]
    listed = " x ".join(f"{name} {', '.join(map(said, values))}" for name, values in factors.items())
    number, bisect = num_cells(factors), description["bisect"]
    if bisect is not None:
        (low, *_, high), at_most = map(said, factors[bisect["factor"]]), bisect["cells"]
        each = f"searched at {told(at)}, replicated in every cell" if at else \
            "each is searched by itself (search.at searches one for all)"
        return (f"cells: at most {at_most}, {number} of them at first ({bisect['factor']} {low} to {high}, bisected"
                f"{' by its logarithm' if bisect['log'] else ''}), {each}; trials are counted as if all were opened, "
                "pretrainings as if cells shared none, which they do where they can")
    searched = f"searched at {told(at)}, replicated in every cell" if at else "each is searched by itself"
    shared = "" if number == 1 else "; pretrainings are counted as if cells shared none, which they do where they can"
    return f"cells: {number} ({listed}), {searched}{shared}"


def _chosen(description: Mapping[str, Any]) -> list[str]:
    """When the search ends before its last trial, and what comes before one configuration is chosen, a line each."""
    budget, search, lines = description["budget"], description["search"], []
    if budget["target"] is not None or budget["patience_trials"] is not None:
        ends = [f"{budget['metric']} {budget['target']:g} or better"] if budget["target"] is not None else []
        if budget["patience_trials"] is not None:
            ends.append(f"{budget['patience_trials']} trials without a better score")
        lines.append(f"the search ends early once every arm that trains has {' or '.join(ends)}; arms keep equal "
                     "numbers of trials")
    finals = sum(arm["finals"] for arm in description["arms"])
    if finals:
        lines.append(f"finals: the best {search['finalists']} configurations of each search are run on "
                     f"{search['finalist_seeds']} more validation seed(s) before one is chosen, {finals} trials")
    return lines


def _rule(rule: Mapping[str, Any]) -> str:
    """The rule that the verdict will be reached under, in one line."""
    parts = [f"arms are equal in {rule['fair']}"]
    if rule["fair"] != "epochs":
        parts[0] += " (measured before the search)"
    more = rule["most_replicates"] > rule["replicates"]
    parts.append(f"{rule['replicates']}{' to ' + str(rule['most_replicates']) if more else ''} replicates"
                 + (" in rounds until the comparison is decided" if more else ", fixed before the first test score"))
    parts.append("paired by seed" if rule["compare"] == "paired" else "compared as independent")
    if rule["margin"] is not None:
        parts.append(f"a difference of up to {rule['margin']:g} does not matter")
    return f"rule: {'; '.join(parts)}"
