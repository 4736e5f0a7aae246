"""What a dry run says of a sweep, as values, as JSON and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raymae.results.verdict.numbers import duration
from raymae.spec.bisect import BisectSpec
from raymae.spec.factors import Cell, Factors, num_cells, said, told
from raymae.spec.sweep import SweepSpec

MOST_LISTED = 15  # values of a factor, in a line


@dataclass(frozen=True)
class DataUsed:
    """The data that was found, its splits in words, and what pretraining sees besides, a line each."""

    name: str
    source: str
    path: str
    fingerprint: str
    splits: str
    pretrains_on: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """The weights that an arm starts from, what was done to make them fit, and whether it pretrains on."""

    source: str
    sha256: str
    notes: tuple[str, ...]
    goes_on: bool


@dataclass(frozen=True)
class Tried:
    """An arm's network, built, and the shapes of one batch of two on its way through it."""

    num_parameters: int
    shapes: dict[str, list[int]]


@dataclass(frozen=True)
class ArmDescription:
    """What an arm is going to do: counts are over all cells."""

    arm: str
    kind: str
    num_trials: int
    finals: int
    replicates: int
    pretrainings: int
    searched: dict[str, str]
    tried: Tried
    encoder: Start | None = None

    def to_json(self) -> dict[str, object]:
        """As plain values; `encoder` only where there is one."""
        plain = asdict(self)
        plain |= plain.pop("tried")
        if (start := plain.pop("encoder")) is not None:
            plain["encoder"] = {**start, "continue": start.pop("goes_on")}
        return plain


@dataclass(frozen=True)
class TrialEstimate:
    """Seconds of one trial of an arm, its encoder apart, and how many times its epochs make it equal."""

    pretrain_s: float
    finetune_s: float
    times_epochs: float


@dataclass(frozen=True)
class Estimate:
    """How long a sweep would take here, and for how many dollars at the price of one node, if it is known."""

    device: str
    seconds: float
    trials: dict[str, TrialEstimate]
    cut_by_budget: bool
    dollars: float | None
    left_out: str


@dataclass(frozen=True)
class Description:
    """A planned sweep; `rule`, `search`, `resources` and `budget` are those of its file, and `may_open` the values of a
    bisected factor whose cells may come to be opened."""

    spec: SweepSpec = field(repr=False)
    data: DataUsed
    slots: int
    metric: str
    arms: tuple[ArmDescription, ...]
    may_open: tuple[int | float, ...] = ()
    estimate: Estimate | None = None

    @property
    def num_trials(self) -> int:
        """All trials: of searches, finals and replicates."""
        return sum(arm.num_trials + arm.finals + arm.replicates for arm in self.arms)

    def to_json(self) -> dict[str, object]:
        """As plain values: what `raymae sweep --dry-run --json` prints."""
        spec, res = self.spec, self.spec.resources
        return {
            "sweep": spec.name, "task": spec.task, "size": spec.size, "data": asdict(self.data),
            "rule": {"fair": spec.fair.by, "compare": spec.compare, "margin": spec.margin,
                     "replicates": spec.num_replicates, "most_replicates": spec.most_replicates},
            "search": {"algorithm": spec.search.algorithm, "scheduler": spec.search.scheduler,
                       "min_skill": spec.search.min_skill,
                       "finalists": spec.search.finalists, "finalist_seeds": spec.search.finalist_seeds},
            "resources": {"slots": self.slots, "workers": res.workers, "cpus_per_worker": res.cpus_per_worker,
                          "gpus_per_worker": res.gpus_per_worker},
            "budget": {"wall_minutes": spec.budget.wall_minutes, "num_trials": spec.budget.num_trials,
                       "target": spec.budget.target, "patience_trials": spec.budget.patience_trials,
                       "metric": self.metric},
            "factors": {name: list(values) for name, values in spec.factors.items()}, "at": dict(spec.search.at),
            "bisect": None if spec.bisected is None else {
                "factor": spec.bisected[0], "cells": spec.bisected[1].cells, "log": spec.bisected[1].by_log,
                "may_open": list(self.may_open)},
            "arms": [arm.to_json() for arm in self.arms], "num_trials": self.num_trials,
            **({} if self.estimate is None else {"estimate": asdict(self.estimate)}),
        }


def render(one: Description) -> RenderableType:
    """Draw a description for people."""
    data, spec = one.data, one.spec
    table = Table(box=None, pad_edge=False)
    texts, numbers = ("searched", "shapes of a batch of 2"), ("trials", "seeds", "pretrainings", "parameters")
    for name in ("arm", "kind", *numbers, *texts):
        table.add_column(name, justify="right" if name in numbers else "left")
    for arm in one.arms:
        searched = "\n".join(f"{key}: {value}" for key, value in arm.searched.items()) or "–"
        shapes = "\n".join(f"{key} {value}" for key, value in arm.tried.shapes.items())
        table.add_row(arm.arm, arm.kind, str(arm.num_trials), str(arm.replicates), str(arm.pretrainings or "–"),
                      f"{arm.tried.num_parameters:,}", Text(searched), Text(shapes))
    minutes, res = spec.budget.wall_minutes, spec.resources
    return Group(
        Text(f"{spec.name}: {one.num_trials} trials of {spec.task}, {one.slots} at once, each on {res.workers} "
             f"worker(s) with {res.cpus_per_worker:g} CPU and {res.gpus_per_worker:g} GPU; {spec.search.algorithm} "
             f"with {spec.search.scheduler}" + (f"; at most {minutes:g} minutes" if minutes else "")),
        Text(f"data: {data.name}, {data.source}, {data.path or 'generated'} ({data.fingerprint})\n      {data.splits}"
             + "".join(f"\n      pretraining sees {line}" for line in data.pretrains_on)),
        *([Text(_cells(spec, one.may_open))] if spec.factors else []),
        Text(_rule(spec)), *map(Text, _chosen(one)), *map(Text, _starts(one.arms)),
        *([Text(_estimated(one.estimate))] if one.estimate is not None else []),
        Text(), table,
        Text("\nnothing was started"),
    )


def _estimated(found: Estimate) -> str:
    """How long the sweep would take, and what that would cost, in a few lines."""
    trials = "; ".join(
        f"{name} {duration(one.finetune_s)}" + (f" and {duration(one.pretrain_s)} an encoder" if one.pretrain_s else "")
        for name, one in found.trials.items())
    dollars = "" if found.dollars is None else f", {found.dollars:,.2f} $ at the price of one node"
    cut = ", which the budget cuts short" if found.cut_by_budget else ""
    return (f"estimate: {duration(found.seconds)}{cut}{dollars}, by steps timed on this machine ({found.device}): "
            f"a trial takes {trials}; {found.left_out}")


def _starts(arms: Sequence[ArmDescription]) -> list[str]:
    """Which arms start from weights that exist, a line each."""
    lines = []
    for arm in arms:
        if (start := arm.encoder) is not None:
            then = "pretrains on from" if start.goes_on else "does not pretrain: it starts from"
            notes = "".join(f"\n      {note}" for note in start.notes)
            lines.append(f"{arm.arm} {then} the weights {start.sha256[:16]} of {start.source}{notes}")
    return lines


def _cells(spec: SweepSpec, may_open: Sequence[int | float]) -> str:
    """The cells that the arms are compared in, in one line."""
    factors, at = spec.factors, spec.search.at
    if spec.bisected is not None:
        return _bisected(*spec.bisected, factors, at, may_open)
    listed = " x ".join(f"{name} {', '.join(map(said, values))}" for name, values in factors.items())
    number = num_cells(factors)
    searched = f"searched at {told(at)}, replicated in every cell" if at else "each is searched by itself"
    return f"cells: {number} ({listed}), {searched}"


def _bisected(name: str, bisect: BisectSpec, factors: Factors, at: Cell, may_open: Sequence[int | float]) -> str:
    low, *_, high = map(said, factors[name])
    each = f"searched at {told(at)}, replicated in every cell" if at else \
        "each is searched by itself (search.at searches one for all)"
    return (f"cells: at most {bisect.cells}, {num_cells(factors)} of them at first ({name} {low} to {high}, bisected"
            f"{' by its logarithm' if bisect.by_log else ''}; between them {_listed(may_open)} may be opened), {each}; "
            "trials are counted as if all were opened")


def _listed(values: Sequence[int | float]) -> str:
    """Values in words, or how many of them there are where they are many."""
    if len(values) > MOST_LISTED:
        return f"{len(values)} values from {said(values[0])} to {said(values[-1])}"
    return ", ".join(map(said, values))


def _chosen(one: Description) -> list[str]:
    """When the search ends before its last trial, and what comes before one configuration is chosen, a line each."""
    budget, search, lines = one.spec.budget, one.spec.search, []
    ends = [f"{one.metric} {budget.target:g} or better"] if budget.target is not None else []
    if budget.patience_trials is not None:
        ends.append(f"{budget.patience_trials} trials without a better score")
    if ends:
        lines.append(f"the search ends early once every arm that trains has {' or '.join(ends)}; arms keep equal "
                     "numbers of trials")
    if search.min_skill is not None:
        lines.append(f"of an arm that pretrains a configuration is chosen only if its pretraining's skill is above "
                     f"{search.min_skill:g}, while there is such a one")
    if finals := sum(arm.finals for arm in one.arms):
        lines.append(f"finals: the best {search.finalists} configurations of each search are run on "
                     f"{search.finalist_seeds} more validation seed(s) before one is chosen, {finals} trials")
    return lines


def _rule(spec: SweepSpec) -> str:
    """The rule that the verdict will be reached under, in one line."""
    parts = [f"arms are equal in {spec.fair.by}"]
    if spec.fair.by != "epochs":
        parts[0] += " (measured before the search)"
    more = spec.most_replicates > spec.num_replicates
    parts.append(f"{spec.num_replicates}{' to ' + str(spec.most_replicates) if more else ''} replicates"
                 + (" in rounds until the comparison is decided" if more else ", fixed before the first test score"))
    parts.append("paired by seed" if spec.compare == "paired" else "compared as independent")
    if spec.margin is not None:
        parts.append(f"a difference of up to {spec.margin:g} does not matter")
    return f"rule: {'; '.join(parts)}"
