"""Points of somebody's own in a space: those of `search.points`, and those that are added while a sweep runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raymae.errors import unknown
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Space, Uniform, combinations, contains
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import TaskSchema

Point = Mapping[str, Scalar]
GRID = "a grid tries every point"


def outside(point: Point, space: Space) -> Iterator[tuple[str, str]]:
    """Names of a point that are not searched, and values that no trial may have: each with what is wrong."""
    for name, value in point.items():
        if name not in space:
            yield name, unknown("searched parameter", name, space)
        elif not contains(space[name], value):
            yield name, f"is not within space.{name}, got {value!r}"


def problems_of(point: Point, arm: str | None, spec: SweepSpec) -> list[str]:
    """What a sweep file alone says against trying a point while its sweep runs.

    Args:
        point: Values of searched parameters.
        arm: The arm; None for every one that searches some of them.
        spec: The sweep.
    """
    if spec.search.algorithm == "grid":
        return [f"{GRID}: there is nothing to add to it"]
    if arm is not None and arm not in spec.arms:
        return [f"arm: {unknown('arm', arm, spec.arms)}"]
    return [f"{name}: {message}" for name, message in outside(point, spec.space)]


def told(point: Point) -> str:
    """A point in a few words."""
    return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in point.items())


def refusal(plan: ArmPlan, schema: TaskSchema, point: Point) -> str:
    """Why an arm cannot try a point, whatever its other parameters are; "" where it can.

    Args:
        plan: The arm.
        schema: Its task, with the sweep's own arms.
        point: Values of parameters that it searches.
    """
    for name, value in point.items():
        if not contains(plan.space[name], value):
            return f"{name}={value} breaks a constraint in the arm {plan.name}"
        for key, allowed in plan.space[name].when.items():
            if key != "arm" and point.get(key, _NOWHERE) not in allowed:
                listed = " or ".join(f"{key}={one}" for one in allowed)
                return f"{name} is searched only where {listed}: give that, too"
    space: dict[str, Uniform | LogUniform | IntRange | Choice] = {
        name: Choice(choice=[point[name]], when=kind.when) if name in point else kind
        for name, kind in plan.space.items()}
    reasons: dict[str, None] = {}
    for sampled in combinations(space, {"arm": plan.name}):
        broken = _broken(plan, schema, sampled)
        if not broken:
            return ""
        reasons |= dict.fromkeys(broken)
    return next(iter(reasons), f"the arm {plan.name} cannot have it")


_NOWHERE = object()


def _broken(plan: ArmPlan, schema: TaskSchema, sampled: Point) -> list[str]:
    """The constraints, or the task's rules, that a configuration breaks."""
    values = {"arm": plan.name, **plan.params(sampled)}
    try:
        broken = [constraint.text for constraint in plan.constraints if not constraint.holds(values)]
    except ValueError as error:
        return [str(error)]
    if broken:
        return [f"the arm {plan.name} breaks the constraint {text!r} with it" for text in broken]
    return [f"{name}: {message}" for name, message in schema.check(schema.method(plan.name), plan.params(sampled))]
