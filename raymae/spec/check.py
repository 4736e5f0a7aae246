"""Check a well-formed spec against its task: names, doubles, conditions, bounds, combinations.

A check yields (key path, message) for what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

from pydantic import ValidationError

from raymae.errors import unknown
from raymae.spec.arms import fixed_in, origin_of, problems_of_origins, with_arms
from raymae.spec.constraints import Constraint
from raymae.spec.factors import factor_problems, factors_of, is_whole, said
from raymae.spec.points import GRID, outside
from raymae.spec.resolve import UNADOPTED, ArmPlan, arm_plan, arm_plans
from raymae.spec.space import LogUniform, Scalar, Uniform, combinations, ordered
from raymae.spec.sweep import SERIES_KEYS, SweepSpec
from raymae.spec.task import AUTO, PRECISIONS, TaskSchema, TrainingParams, is_live

Finding = tuple[str, str]

MAX_GRID = 10_000
TRAINING = set(TrainingParams.model_fields)


def problems(spec: SweepSpec, schema: TaskSchema) -> list[Finding]:
    """List everything wrong with a spec; impossible values only where every name and condition is right."""
    own, schema = schema, with_arms(spec, schema)
    checks = (_size, _reading, _corpora, _settings, _fixed_in_arms, _fixed_and_searched, factor_problems, _space,
              _points, _enough, _constraints, _order)
    found = [*problems_of_origins(spec, own), *(finding for check in checks for finding in check(spec, schema))]
    if found:
        return found
    plans = arm_plans(spec, schema)
    found = list(dict.fromkeys(finding for plan in plans.values() for finding in _impossible(spec, schema, plan)))
    return found or list(_nothing_between(spec, schema))


def may_open(spec: SweepSpec, schema: TaskSchema) -> list[int | float]:
    """Every value of a bisected factor whose cell may come to be opened, lowest first: those nearest the halves that no
    arm's rules forbid. None of a sweep that bisects nothing.

    Args:
        spec: The sweep; it has no problems.
        schema: Its task, with the sweep's own arms.
    """
    if spec.bisected is None:
        return []
    name, bisect = spec.bisected

    @cache
    def allowed(value: int | float) -> bool:
        return _refusal(spec, schema, name, value) is None

    return sorted(bisect.halves(whole=bool(is_whole(schema, name)), allowed=allowed))


def _nothing_between(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    """Why no cell can ever be opened between the ends of a bisected factor, if so."""
    if spec.bisected is None:
        return
    name, bisect = spec.bisected
    (low, high), whole = bisect.bisect, bool(is_whole(schema, name))
    first = bisect.model_copy(update={"cells": 3})
    if not first.halves(whole=whole, allowed=lambda value: _refusal(spec, schema, name, value) is None):
        half = next(bisect.between(low, high, whole=whole), None)
        refused = None if half is None else _refusal(spec, schema, name, half)
        why = "" if half is None or refused is None else f": {refused[1]} (at {name} {said(half)})"
        yield f"factors.{name}", (f"has no value between {said(low)} and {said(high)} at which a cell could be "
                                  f"opened{why}; list the two instead")


def _refusal(spec: SweepSpec, schema: TaskSchema, name: str, value: int | float) -> Finding | None:
    """What an arm finds wrong with a value of a factor that it has; None where nothing is."""
    wider = spec.with_opened([value])
    plans = (arm_plan(wider, schema, arm, {name: value}) for arm in spec.arms
             if name in factors_of(spec, schema, arm))
    return next((finding for plan in plans for check in _IN_TURN for finding in check(spec, schema, plan)), None)


def _own(schema: TaskSchema) -> set[str]:
    """The parameters that a task adds to those of training."""
    return set(schema.params.model_fields) - TRAINING


def _size(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    if spec.size is not None and spec.size not in schema.sizes:
        yield "size", unknown("size", spec.size, schema.sizes)


def _reading(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    """Keys that say how files are read, of files that the task does not read."""
    sections = {"data": spec.data, **{f"pretraining.data.{at}": one for at, one in enumerate(spec.pretraining.data)}}
    for place, section in sections.items():
        for key in section.given():
            if key not in schema.reads:
                told = "forecasting how to read a series" if key in SERIES_KEYS else \
                    "forecasting, imputation and prediction how to read a series or a table"
                yield f"{place}.{key}", f"tells {told}, and the task {schema.name} does not read it; leave it out"


def _corpora(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    """Corpora for a task that takes none, or that nobody pretrains on."""
    if not spec.pretraining.data:
        return
    if not schema.corpora:
        yield "pretraining.data", f"the task {schema.name} pretrains on its own data alone; leave it out"
    elif not any(schema.arms[name].kind == "pretrained" for name in spec.arms if name in schema.arms):
        others = ", ".join(name for name, arm in schema.arms.items() if arm.kind == "pretrained")
        yield "pretraining.data", f"no arm of {', '.join(spec.arms)} pretrains; leave it out, or add {others}"


def _settings(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    own = _own(schema)
    for name in spec.settings:
        if name in TRAINING:
            yield f"settings.{name}", f"belongs under `training` (training.{name}={spec.settings[name]})"
        elif name not in own:
            yield f"settings.{name}", unknown("setting", name, own)


def _fixed_in_arms(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    known = TRAINING | _own(schema)
    for arm in spec.arms:
        adopts = arm in schema.arms and origin_of(spec, schema, arm).adopts
        for name in fixed_in(spec, arm):
            key = f"arms.{arm}.{name}"
            if name not in known:
                yield key, unknown("parameter", name, known)
            elif arm in schema.arms and not schema.has(arm, name):
                yield key, f"the arm {arm} has no {name}; leave it out"
            elif adopts and name in UNADOPTED:
                yield key, f"the arm {arm} starts from weights and does not pretrain; leave it out, or say " \
                           "`continue: true`"
            elif name in spec.space and arm in spec.space[name].when.get("arm", [arm]):
                yield key, (f"is also searched under space.{name}; keep one of the two, or search it `when` the arm is "
                            "another")


def _fixed_and_searched(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    for where, names in (("settings", spec.settings.keys()), ("training", spec.training.model_fields_set)):
        for name in names & spec.space.keys():
            yield f"space.{name}", f"is also fixed under {where}.{name}; keep one of the two"


_ONE_PRECISION = f"{AUTO} is one value for a whole sweep; put it under `training`, or list float32 and bfloat16"


def _space(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    known = TRAINING | _own(schema)
    for name in PRECISIONS:
        if AUTO in (spec.space[name].values() or () if name in spec.space else ()):
            yield f"space.{name}", _ONE_PRECISION
        if AUTO in spec.factors.get(name, ()):
            yield f"factors.{name}", _ONE_PRECISION
    for name, distribution in spec.space.items():
        if name not in known:
            yield f"space.{name}", unknown("parameter", name, known)
        for key, allowed in distribution.when.items():
            where = f"space.{name}.when.{key}"
            messages = _arms_met(name, allowed, schema) if key == "arm" else _values_met(key, allowed, spec)
            yield from ((where, message) for message in messages)
        if spec.search.algorithm == "grid" and distribution.values() is None:
            yield f"space.{name}", "a grid needs `choice` or `int`; list the values to try"


def _points(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    """Points that are none of the space."""
    if spec.search.points and spec.search.algorithm == "grid":
        yield "search.points", f"{GRID}; leave them out, or use another algorithm"
    for index, point in enumerate(spec.search.points):
        for name, message in outside(point, spec.space):
            yield f"search.points.{index}.{name}", message


def _enough(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    """What ends a search early, of a search that has no end of its own before its last trial."""
    if spec.search.scheduler != "pbt":
        return
    for name in ("target", "patience_trials"):
        if getattr(spec.budget, name) is not None:
            yield f"budget.{name}", ("with search.scheduler pbt the trials of an arm are one population that trains "
                                     "together; leave it out, or use another scheduler")


def _arms_met(name: str, arms: Sequence[Scalar], schema: TaskSchema) -> Iterator[str]:
    """What is wrong with searching a parameter `when` the arm is one of these."""
    known = name in TRAINING | _own(schema)
    for arm in arms:
        if arm not in schema.arms:  # one that this sweep leaves out does no harm
            yield unknown("arm", arm, schema.arms)
        elif known and not schema.has(str(arm), name):
            yield f"the arm {arm} has no {name}; leave it out"


def _values_met(key: str, allowed: Sequence[Scalar], spec: SweepSpec) -> Iterator[str]:
    """What is wrong with a condition on the values of another parameter."""
    if key not in spec.space:
        yield unknown("searched parameter", key, {*spec.space, "arm"})
    elif (values := spec.space[key].values()) is None:
        yield (f"{key} is drawn from a range of real numbers, which never equals {allowed[0]!r}; a condition needs a "
               "`choice` or an `int`")
    else:
        listed = ", ".join(map(str, values)) if len(values) <= 20 else f"{values[0]} to {values[-1]}"
        yield from (f"{key} is never {value!r}; allowed: {listed}" for value in allowed if value not in values)


def _constraints(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    known = TRAINING | _own(schema) | {"arm"}
    for index, text in enumerate(spec.constraints):
        try:
            names = Constraint(text).names
        except ValueError as error:
            yield f"constraints.{index}", str(error)
            continue
        for name in sorted(names - known):
            yield f"constraints.{index}", unknown("parameter", name, known)


def _order(spec: SweepSpec, schema: TaskSchema) -> Iterator[Finding]:
    try:
        ordered(spec.space)
    except ValueError as error:
        yield "space", str(error)


def _impossible(spec: SweepSpec, schema: TaskSchema, plan: ArmPlan) -> list[Finding]:
    """Findings of the first check of an arm's values that has any: the later ones take the earlier for granted."""
    for check in _IN_TURN:
        found = list(check(spec, schema, plan))
        if found:
            return found
    return []


def _where(spec: SweepSpec, plan: ArmPlan, name: str) -> str:
    """The key under which an arm got its value of a parameter."""
    if name in plan.cell:
        return f"factors.{name}"
    if name in fixed_in(spec, plan.name):
        return f"arms.{plan.name}.{name}"
    if name in plan.space:
        return f"space.{name}"
    return f"{'training' if name in TRAINING else 'settings'}.{name}"


def _out_of_bounds(spec: SweepSpec, schema: TaskSchema, plan: ArmPlan) -> Iterator[Finding]:
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
                message = f"{item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}{advice}"
                yield _where(spec, plan, name), message


def _endless_grid(spec: SweepSpec, schema: TaskSchema, plan: ArmPlan) -> Iterator[Finding]:
    if spec.search.algorithm == "grid":
        points = math.prod(len(distribution.values() or ()) for distribution in plan.space.values())
        if points > MAX_GRID:
            yield "search.algorithm", (f"a grid of {points} combinations for the arm {plan.name} is more than "
                                       f"{MAX_GRID}; list fewer values, or use another algorithm")


def _nothing_live(spec: SweepSpec, schema: TaskSchema, plan: ArmPlan) -> Iterator[Finding]:
    if spec.search.scheduler == "pbt" and plan.arm.kind != "reference" and plan.space and not plan.live:
        live = sorted(name for name in plan.fixed if is_live(schema.params, name))
        yield "search.scheduler", (f"pbt changes parameters while a trial trains, and none that the arm {plan.name} "
                                   f"searches can change; search one of {', '.join(live)}, or use asha")


def _refused(spec: SweepSpec, schema: TaskSchema, plan: ArmPlan) -> Iterator[Finding]:
    """Combinations that the constraints or the task refuse."""
    admitted = False
    for sampled in combinations(plan.space, {"arm": plan.name}):
        try:
            if not plan.admits(sampled):
                continue
        except ValueError as error:
            yield "constraints", str(error)
            return
        admitted = True
        for name, message in schema.check(schema.method(plan.name), plan.params(sampled)):
            yield _where(spec, plan, name), message
    if not admitted:
        yield "constraints", f"arm {plan.name}: none of the values at the ends of the space satisfies all of them"


_IN_TURN = (_out_of_bounds, _endless_grid, _nothing_live, _refused)
