"""A sweep resolved and found possible, before anything is started. Imports neither Ray nor Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymae.data.find.locate import Located
from raymae.errors import ResourceError
from raymae.search.decide.algorithms import contains
from raymae.search.engine.connection import local_resources, slots
from raymae.spec.resolve import ArmPlan, arm_plan, trial_config
from raymae.spec.space import combinations
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import TaskSchema
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks import schema_of, task_class

_UNPRICED = (
    "budget.dollars={:g} counts the price of one node, and --address {} joins a cluster, which may have more: leave it "
    "out (--set budget.dollars=null) and limit the time, as dollars / price of all nodes for an hour x 60: --set "
    "budget.wall_minutes=MINUTES; `raymae cluster check FILE` says what a cluster costs for an hour"
)


@dataclass(frozen=True)
class Plan:
    """A sweep, resolved and found possible, before anything is started.

    Attributes:
        spec: The sweep.
        schema: Its task.
        arms: What each arm fixes and searches.
        data: Where the data is, and whether it is real.
        slots: Trials at once; on a cluster as many as the file asks for, or 1 until it has been joined.
        splits: One line on the data's splits.
        address: The running cluster to join; None for an embedded Ray on this machine.
        pretrains_on: What pretraining sees where that is more than training does, a line for each case there is.
    """

    spec: SweepSpec
    schema: TaskSchema
    arms: Mapping[str, ArmPlan]
    data: Located
    slots: int
    splits: str
    address: str | None = None
    pretrains_on: tuple[str, ...] = ()


def make_plan(spec: SweepSpec, address: str | None = None) -> Plan:
    """Resolve a checked spec: find the data, read it as the most demanding trial would, count slots.

    Args:
        spec: The sweep.
        address: A running cluster to join.

    Raises:
        DataError: The data cannot be had or is too small.
        ResourceError: Not even one trial fits on this machine, or a budget in dollars on a cluster.
    """
    if address is not None and spec.budget.dollars is not None:
        raise ResourceError(_UNPRICED.format(spec.budget.dollars, address))
    at_once = spec.search.max_concurrent or 1
    if address is None:
        cpus, gpus = local_resources()
        at_once = slots(spec.resources, cpus=cpus, gpus=gpus, max_concurrent=spec.search.max_concurrent)
    task, schema = task_class(spec.task), schema_of(spec.task)
    arms = {name: arm_plan(spec, schema, name) for name in spec.arms}
    located = task.locate(spec.data)
    data = TrialData(spec.data, located.source)
    splits, seen = "", dict[str, bool]()
    for plan in arms.values():
        for sampled in filter(plan.admits, combinations(plan.space, {"arm": plan.name}, limit=256)):
            params = plan.params(sampled)
            splits = task.validate(data, params)
            if plan.arm.kind == "pretrained":
                seen[task.pretrains_on(data, params)] = True
    return Plan(spec, schema, arms, located, at_once, splits, address, tuple(filter(None, seen)))


def example_config(plan: Plan, arm: str) -> TrialConfig:
    """What would be run without a search: searched parameters at their default where the space holds it, or else at
    its first value."""
    arm_plan_ = plan.arms[arm]
    sampled: dict[str, Any] = {}
    for name, distribution in arm_plan_.space.items():
        if distribution.active({"arm": arm, **sampled}):
            default = arm_plan_.fixed[name]
            sampled[name] = default if contains(distribution, default) else distribution.probes()[0]
    return trial_config(
        plan.spec, arm_plan_, sampled, seed=plan.spec.search.seed, stage="search", source=plan.data.source
    )
