"""From a sweep file and a task's description to what each arm fixes and searches.

Precedence, weakest first: the task's defaults, the size preset, `training` and `settings`, the arm's own fixed values,
`space`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from raymae.errors import unknown
from raymae.spec.constraints import Constraint
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Uniform, combinations, ordered
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Arm, TaskSchema, TrainingParams, applies, is_live
from raymae.spec.trial import DataSource, Stage, TrialConfig, TrialData

MAX_GRID = 10_000


@dataclass(frozen=True)
class ArmPlan:
    """What one arm fixes and what is searched for it.

    Attributes:
        name: The arm.
        arm: Its kind and description.
        fixed: Every parameter the arm has, at its fixed or default value.
        space: The distributions that apply to the arm, in an order in which conditions can be decided.
        constraints: What every configuration satisfies.
        live: The searched parameters that may change while a trial trains.
    """

    name: str
    arm: Arm
    fixed: Mapping[str, Scalar]
    space: Mapping[str, Uniform | LogUniform | IntRange | Choice]
    constraints: tuple[Constraint, ...] = ()
    live: tuple[str, ...] = ()

    def params(self, sampled: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The arm's complete parameters with the sampled ones laid over the fixed ones."""
        return {**self.fixed, **{name: _like(value, self.fixed[name]) for name, value in sampled.items()}}

    def admits(self, sampled: Mapping[str, Scalar]) -> bool:
        """Whether a configuration satisfies every constraint."""
        values = {"arm": self.name, **self.params(sampled)}
        return all(constraint.holds(values) for constraint in self.constraints)

    def num_trials(self, asked: int) -> int:
        """Search trials: one where there is nothing to search."""
        return asked if self.space else 1

    @property
    def longest(self) -> int:
        """Fine-tuning epochs of the longest trial."""
        epochs = self.space["epochs"].probes() if "epochs" in self.space else [self.fixed.get("epochs", 1)]
        return max(int(value) for value in epochs if value is not None)


def _like(value: Scalar, default: Scalar) -> Scalar:
    """A whole number as a real one where the parameter is real: 1 and 1.0 are the same configuration."""
    return float(value) if isinstance(default, float) and type(value) is int else value


def arm_plan(spec: SweepSpec, schema: TaskSchema, name: str) -> ArmPlan:
    """Resolve one arm. The spec must have been checked against the schema (`problems` found none)."""
    arm = schema.arms[name]
    defaults = schema.params.model_construct().model_dump()
    merged = {
        **defaults,
        **(schema.sizes[spec.size] if spec.size else {}),
        **spec.training.model_dump(exclude_unset=True),
        **spec.settings,
        **spec.arms[name],
    }
    fixed = {
        key: _like(value, defaults[key]) for key, value in merged.items() if applies(schema.params, key, name, arm.kind)
    }
    space = {
        key: spec.space[key]
        for key in ordered(spec.space)
        if applies(schema.params, key, name, arm.kind)
        and key not in spec.arms[name]
        and name in spec.space[key].when.get("arm", [name])
    }
    live = tuple(key for key in space if is_live(schema.params, key))
    return ArmPlan(name, arm, fixed, space, tuple(map(Constraint, spec.constraints)), live)


def trial_config(
    spec: SweepSpec, plan: ArmPlan, sampled: Mapping[str, Scalar], *, seed: int, stage: Stage,
    source: DataSource,
) -> TrialConfig:
    """One trial of an arm.

    Args:
        spec: The sweep.
        plan: The arm.
        sampled: What the search chose.
        seed: The trial's seed.
        stage: `search` or `replicate`.
        source: `real` or `synthetic`, decided once for the whole sweep.
    """
    return TrialConfig(spec.task, plan.name, plan.params(sampled), TrialData(spec.data, source), seed, stage)


def problems(spec: SweepSpec, schema: TaskSchema) -> Iterator[tuple[str, str]]:
    """What is wrong with a well-formed spec given its task, as (key path, message) pairs."""
    training = set(TrainingParams.model_fields)
    own = set(schema.params.model_fields) - training
    found = False

    def report(key: str, message: str) -> tuple[str, str]:
        nonlocal found
        found = True
        return key, message

    if spec.size is not None and spec.size not in schema.sizes:
        yield report("size", unknown("size", spec.size, schema.sizes))
    for name in spec.arms:
        if name not in schema.arms:
            yield report(f"arms.{name}", unknown("arm", name, schema.arms))
    for name in spec.settings:
        if name in training:
            yield report(f"settings.{name}", f"belongs under `training` (training.{name}={spec.settings[name]})")
        elif name not in own:
            yield report(f"settings.{name}", unknown("setting", name, own))
    for arm, fixed in spec.arms.items():
        for name in fixed:
            if name not in training | own:
                yield report(f"arms.{arm}.{name}", unknown("parameter", name, training | own))
            elif arm in schema.arms and not applies(schema.params, name, arm, schema.arms[arm].kind):
                yield report(f"arms.{arm}.{name}", f"the arm {arm} has no {name}; leave it out")
            elif name in spec.space and arm in spec.space[name].when.get("arm", [arm]):
                yield report(
                    f"arms.{arm}.{name}",
                    f"is also searched under space.{name}; keep one of the two, or search it `when` the arm is another",
                )
    for name in spec.settings.keys() & spec.space.keys():
        yield report(f"space.{name}", f"is also fixed under settings.{name}; keep one of the two")
    for name in spec.training.model_fields_set & spec.space.keys():
        yield report(f"space.{name}", f"is also fixed under training.{name}; keep one of the two")
    for name, distribution in spec.space.items():
        if name not in training | own:
            yield report(f"space.{name}", unknown("parameter", name, training | own))
        for key, allowed in distribution.when.items():
            if key == "arm":
                for other in allowed:
                    if other not in schema.arms:  # one that this sweep leaves out does no harm
                        yield report(f"space.{name}.when.arm", unknown("arm", other, schema.arms))
                    elif name in training | own and not applies(
                            schema.params, name, str(other), schema.arms[str(other)].kind):
                        yield report(f"space.{name}.when.arm", f"the arm {other} has no {name}; leave it out")
            elif key not in spec.space:
                yield report(f"space.{name}.when.{key}", unknown("searched parameter", key, {*spec.space, "arm"}))
            elif (values := spec.space[key].values()) is None:
                yield report(f"space.{name}.when.{key}", f"{key} is drawn from a range of real numbers, which never "
                             f"equals {allowed[0]!r}; a condition needs a `choice` or an `int`")
            else:
                for other in allowed:
                    if other not in values:
                        message = f"{key} is never {other!r}; allowed: {_listed(values)}"
                        yield report(f"space.{name}.when.{key}", message)
        if spec.search.algorithm == "grid" and distribution.values() is None:
            yield report(f"space.{name}", "a grid needs `choice` or `int`; list the values to try")
    for index, text in enumerate(spec.constraints):
        try:
            names = Constraint(text).names
        except ValueError as error:
            yield report(f"constraints.{index}", str(error))
            continue
        for name in sorted(names - training - own - {"arm"}):
            yield report(f"constraints.{index}", unknown("parameter", name, training | own | {"arm"}))
    try:
        ordered(spec.space)
    except ValueError as error:
        yield report("space", str(error))
    if found:
        return
    seen: set[tuple[str, str]] = set()
    for arm in spec.arms:
        for key, message in _impossible(spec, schema, arm):
            if (key, message) not in seen:
                seen.add((key, message))
                yield key, message


def _listed(values: Sequence[Scalar]) -> str:
    return ", ".join(map(str, values)) if len(values) <= 20 else f"{values[0]} to {values[-1]}"


def _impossible(spec: SweepSpec, schema: TaskSchema, arm: str) -> Iterator[tuple[str, str]]:
    """Values outside a parameter's bounds, and combinations the task refuses."""
    plan = arm_plan(spec, schema, arm)

    def where(name: str) -> str:
        if name in spec.arms[arm]:
            return f"arms.{arm}.{name}"
        if name in plan.space:
            return f"space.{name}"
        return f"{'training' if name in TrainingParams.model_fields else 'settings'}.{name}"

    broken: set[str] = set()
    for candidate in ({}, *({name: value} for name in plan.space for value in plan.space[name].probes())):
        try:
            schema.params.model_validate(plan.params(candidate))
        except ValidationError as error:
            for item in error.errors(include_url=False):
                name = str(item["loc"][0])
                if name in broken or (name in plan.space and name not in candidate):
                    continue
                broken.add(name)
                advice = ""
                if item["type"] == "int_type" and isinstance(plan.space.get(name), (Uniform, LogUniform)):
                    advice = "; search it with `int` or `choice`"
                yield where(name), f"{item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}{advice}"
    if broken:
        return
    if spec.search.algorithm == "grid":
        points = math.prod(len(distribution.values() or ()) for distribution in plan.space.values())
        if points > MAX_GRID:
            yield "search.algorithm", (f"a grid of {points} combinations for the arm {arm} is more than {MAX_GRID}; "
                                       "list fewer values, or use another algorithm")
            return
    if spec.search.scheduler == "pbt" and plan.space and not plan.live:
        live = sorted(name for name in plan.fixed if is_live(schema.params, name))
        yield "search.scheduler", (f"pbt changes parameters while a trial trains, and none that the arm {arm} searches "
                                   f"can change; search one of {', '.join(live)}, or use asha")
        return
    admitted = False
    for sampled in combinations(plan.space, {"arm": arm}):
        try:
            if not plan.admits(sampled):
                continue
        except ValueError as error:
            yield "constraints", str(error)
            return
        admitted = True
        for name, message in schema.check(arm, plan.params(sampled)):
            yield where(name), message
    if not admitted:
        yield "constraints", f"arm {arm}: none of the values at the ends of the space satisfies all of them"
