"""A sweep resolved and found possible, before anything is started. Imports neither Ray nor Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raymae.data.find.corpora import together
from raymae.data.find.locate import Located
from raymae.errors import EncoderError, ResourceError
from raymae.inference.encoders import EncoderShelf
from raymae.models.given import Given
from raymae.results.store.folder import Folder
from raymae.results.store.layout import ENCODERS
from raymae.results.store.store import Store
from raymae.search.engine.connection import local_resources, slots
from raymae.spec.arms import Origin, with_arms
from raymae.spec.resolve import ArmPlan, arm_plans, data_of, trial_config
from raymae.spec.space import combinations, contains
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import TaskSchema, encoder_params
from raymae.spec.trial import DataSource, TrialConfig
from raymae.tasks import schema_of, task_class

MOST_FITTED = 16  # configurations that the weights of an arm are tried with before a sweep starts
_UNPRICED = (
    "budget.dollars={:g} needs budget.price_per_node_hour, one number: what this machine costs for an hour, in "
    "dollars. By type of node, and from the list of prices, it is known on a cluster (--address) alone"
)


@dataclass(frozen=True)
class Plan:
    """A sweep, resolved and found possible, before anything is started.

    Attributes:
        spec: The sweep.
        schema: Its task.
        arms: What each arm fixes and searches, in every cell of the factors: by lane (see `raymae.spec.factors`), by
            arm where the sweep has no factors.
        data: Where the data is, and whether it is real; its fingerprint is of the corpora of pretraining too.
        slots: Trials at once; on a cluster as many as the file asks for, or 1 until it has been joined.
        splits: One line on the data's splits.
        address: The running cluster to join; None for an embedded Ray on this machine.
        pretrains_on: What pretraining sees where that is more than training does, a line for each case there is.
        given: By arm, the weights that it starts from.
        notes: By such an arm, what of them is resampled or left out.
    """

    spec: SweepSpec
    schema: TaskSchema
    arms: Mapping[str, ArmPlan]
    data: Located
    slots: int
    splits: str
    address: str | None = None
    pretrains_on: tuple[str, ...] = ()
    given: Mapping[str, Given] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def make_plan(spec: SweepSpec, address: str | None = None) -> Plan:
    """Resolve a checked spec: find the data, read it as the most demanding trial would, count slots.

    Args:
        spec: The sweep.
        address: A running cluster to join.

    Raises:
        DataError: The data cannot be had or is too small.
        EncoderError: The weights that an arm starts from cannot be had, or do not fit its networks.
        ResourceError: Not even one trial fits on this machine, or nobody says what it costs.
    """
    budget = spec.budget
    if address is None and budget.dollars is not None and not isinstance(budget.price_per_node_hour, float):
        raise ResourceError(_UNPRICED.format(budget.dollars))
    at_once = spec.search.max_concurrent or 1
    if address is None:
        cpus, gpus = local_resources()
        at_once = slots(spec.resources, cpus=cpus, gpus=gpus, max_concurrent=spec.search.max_concurrent)
    task, schema = task_class(spec.task), with_arms(spec, schema_of(spec.task))
    origins = {plan.name: plan.origin for plan in arm_plans(spec, schema).values() if plan.origin.encoder}
    given = {name: _given(spec, name, origin) for name, origin in origins.items()}
    arms = _arms(spec, schema, given)
    located = task.locate(spec.data)
    corpora = task.locate_corpora(spec.pretraining)
    splits, seen = "", dict[str, bool]()
    for plan in arms.values():
        for sampled in filter(plan.admits, combinations(plan.space, {"arm": plan.name}, limit=256)):
            params, data = plan.params(sampled), data_of(spec, plan, located.source)
            splits = task.validate(data, params)
            if plan.arm.kind == "pretrained" and not plan.origin.adopts:
                seen[task.pretrains_on(data, params)] = True
    notes = {plan.name: _fitted(spec, plan, given[plan.name], located.source)
             for plan in reversed(arms.values()) if plan.name in given}
    return Plan(spec, schema, arms, together(located, corpora), at_once, splits, address, tuple(filter(None, seen)),
                given, notes)


def with_cells(plan: Plan, opened: Sequence[float]) -> Plan:
    """A plan with the cells that were opened between the ends of the factor that is bisected."""
    spec = plan.spec.with_opened(opened)
    return replace(plan, spec=spec, arms=_arms(spec, plan.schema, plan.given))


def _arms(spec: SweepSpec, schema: TaskSchema, given: Mapping[str, Given]) -> dict[str, ArmPlan]:
    """Every lane, with the hash of the weights that its arm starts from."""
    return {lane: replace(plan, weights=given[plan.name].sha256) if plan.name in given else plan
            for lane, plan in arm_plans(spec, schema).items()}


def shelf_of(spec: SweepSpec) -> EncoderShelf:
    """Where a sweep keeps its encoders: in its results folder, or one that several sweeps share."""
    return EncoderShelf(spec.encoders or Folder(Store.root_of(spec)).uri(ENCODERS))


def _given(spec: SweepSpec, arm: str, origin: Origin) -> Given:
    """The weights that an arm starts from: where the sweep file says, or on the shelf of a sweep that has begun.

    Raises:
        EncoderError: They are in neither place, or damaged.
    """
    from raymae.inference.source import read_given

    try:
        return read_given(origin.encoder)
    except EncoderError as error:
        shelf = shelf_of(spec)
        known = shelf.given_of(origin.encoder)
        if known is None:
            raise EncoderError(f"arms.{arm}.encoder: {error}") from None
        return shelf.given(known)


def _fitted(spec: SweepSpec, plan: ArmPlan, given: Given, source: DataSource) -> tuple[str, ...]:
    """Start every network that an arm may build from its weights, and list what is resampled or left out.

    Raises:
        EncoderError: They do not fit one of them.
    """
    import torch

    kind, notes, seen = task_class(spec.task), dict[str, None](), set[str]()
    for sampled in filter(plan.admits, combinations(plan.space, {"arm": plan.name}, limit=MOST_FITTED)):
        config = trial_config(spec, plan, sampled, seed=0, stage="search", source=source)
        shape = str(sorted(encoder_params(kind.schema.params, config.params).items()))
        if shape in seen:
            continue
        seen.add(shape)
        pretraining = kind(config, torch.device("cpu")).pretraining()
        assert pretraining is not None, f"the arm {plan.name} is of kind pretrained"
        try:
            notes |= dict.fromkeys(given.start(pretraining.build()).notes)
        except EncoderError as error:
            at = ", ".join(f"{key}={value}" for key, value in sampled.items() if key in plan.shared)
            raise EncoderError(f"arms.{plan.name}.encoder: {error}{f' (at {at})' if at else ''}") from None
    return tuple(notes)


def example_config(plan: Plan, arm: str) -> TrialConfig:
    """What would be run without a search: searched parameters at their default where the space holds it, or else at
    its first value.

    Args:
        plan: The sweep.
        arm: One of its lanes; an arm stands for its first.
    """
    arm_plan_ = plan.arms[arm] if arm in plan.arms else next(one for one in plan.arms.values() if one.name == arm)
    sampled: dict[str, Any] = {}
    for name, distribution in arm_plan_.space.items():
        if distribution.active({"arm": arm_plan_.name, **sampled}):
            default = arm_plan_.fixed[name]
            sampled[name] = default if contains(distribution, default) else distribution.probes()[0]
    return trial_config(
        plan.spec, arm_plan_, sampled, seed=plan.spec.search.seed, stage="search", source=plan.data.source
    )
