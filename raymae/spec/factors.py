"""Factors: parameters whose values a sweep compares its arms at, each combination a cell with an answer of its own.

A factor that an arm does not have changes nothing about it, and what differs in such factors alone is one **lane**: an
arm in all the cells in which it is the same. Its trials are run once and count in each of them.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product

from raymae.errors import unknown
from raymae.spec.arms import origin_of
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Uniform
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import TaskSchema, TrainingParams, phase_of

Cell = Mapping[str, Scalar]
"""A value of each factor."""

Factors = Mapping[str, Sequence[Scalar]]

MAX_CELLS = 64  # each is a sweep of its own: more of them are a mistake, or several sweeps
_LONGEST = 24  # characters of a value in a trial's name


def num_cells(factors: Factors) -> int:
    """How many cells there are, without making them; 1 where there are no factors."""
    return math.prod(len(values) for values in factors.values())


def cells(factors: Factors) -> list[Cell]:
    """Every combination of the factors' values, the last factor's fastest; one empty cell where there are none."""
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


def held(cell: Cell, own: Collection[str]) -> dict[str, Scalar]:
    """The part of a cell that an arm has."""
    return {name: value for name, value in cell.items() if name in own}


def factors_of(spec: SweepSpec, schema: TaskSchema, arm: str) -> tuple[str, ...]:
    """The factors that an arm has."""
    known, adopts = schema.params.model_fields, origin_of(spec, schema, arm).adopts
    return tuple(name for name in spec.factors if name in known and schema.has(arm, name)
                 and not (adopts and phase_of(schema.params, name) == "pretrain"))


def home_cell(spec: SweepSpec, cell: Cell) -> Cell:
    """The cell whose search serves a cell: itself, or the one of `search.at`."""
    return spec.search.at or cell


def searched(spec: SweepSpec) -> dict[str, Uniform | LogUniform | IntRange | Choice]:
    """The space with every factor as a choice: what differs between the trials of an arm."""
    return {**spec.space, **{name: Choice(choice=values) for name, values in spec.factors.items()}}


def lane(arm: str, own: Cell, factors: Factors) -> str:
    """The name of an arm in the cells where it has these values, such as `mae-lf0.1`; the arm's where it has none.

    Trials are named after it: letters, digits, dot, dash and underscore.

    Args:
        arm: The arm.
        own: Its part of a cell.
        factors: All the sweep's.
    """
    short = _short(list(factors))
    parts = [short[name] + _tokens(factors[name])[_place(factors[name], own[name])] for name in factors if name in own]
    return "-".join([arm, *parts])


def _short(names: Sequence[str]) -> dict[str, str]:
    """Initials of the factors, or whole names where two have the same ones."""
    initials = {name: "".join(part[0] for part in name.split("_") if part) for name in names}
    return initials if len(set(initials.values())) == len(names) else {name: name for name in names}


def _tokens(values: Sequence[Scalar]) -> list[str]:
    """Each value as a piece of a name; its number where values would become the same."""
    found = [re.sub(r"[^A-Za-z0-9._]+", "_", str(value).lower() if isinstance(value, bool) else
                    str(value).replace("e+", "e") if isinstance(value, float) else str(value)) for value in values]
    if len({text.casefold() for text in found}) < len(found) or any(len(text) > _LONGEST for text in found):
        return [f".{index}" for index in range(len(found))]
    return found


def _place(values: Sequence[Scalar], value: Scalar) -> int:
    """Which of the values it is: true is not 1."""
    return next(index for index, one in enumerate(values)
                if one == value and isinstance(one, bool) == isinstance(value, bool))


def told(cell: Cell) -> str:
    """A cell in words, such as `label_fraction 0.1, missing_kind mnar`."""
    return ", ".join(f"{name} {said(value)}" for name, value in cell.items())


def stranger(cell: Cell, factors: Factors) -> str:
    """What is wrong with a cell that names what is no factor of a sweep; "" where nothing is."""
    for name in cell:
        if name not in factors:
            return unknown("factor", name, factors) if factors else f"{name}: the sweep has no factors; leave it out"
    return ""


def said(value: Scalar) -> str:
    """A factor's value as a person writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else \
        f"{value:g}" if isinstance(value, float) else str(value)


# -- what a sweep file may say ----------------------------------------------------------------------------------------


def factor_problems(spec: SweepSpec, schema: TaskSchema) -> Iterator[tuple[str, str]]:
    """What is wrong with a sweep's factors, as (key path, message)."""
    known = set(schema.params.model_fields)
    arms = [arm for arm in spec.arms if arm in schema.arms]
    for name in spec.factors:
        key = f"factors.{name}"
        if name not in known:
            yield key, unknown("parameter", name, known)
            continue
        if arms and not any(name in factors_of(spec, schema, arm) for arm in arms):
            yield key, f"no arm of this sweep has {name}; leave it out"
        yield from ((key, message) for message in (*_twicesaid(spec, name), *_no_range(spec, schema, name)))
    yield from _wrong_place(spec)
    number = num_cells(spec.factors)
    if number > MAX_CELLS:
        sizes = " x ".join(f"{len(values)}" for values in spec.factors.values())
        yield "factors", (f"make {number:,} cells ({sizes}), and a sweep has at most {MAX_CELLS}; they would take "
                          f"{_cost(spec, schema, arms):,} trials. List fewer values, or make several sweeps of them")


def is_whole(schema: TaskSchema, name: str) -> bool | None:
    """Whether a parameter is a whole number; None where it is no number."""
    annotation = schema.params.model_fields[name].annotation
    kinds = {*(typing.get_args(annotation) or (annotation,))} - {type(None)}
    return kinds == {int} if kinds and kinds <= {int, float} else None


def _no_range(spec: SweepSpec, schema: TaskSchema, name: str) -> Iterator[str]:
    """Why a factor has no range that can be bisected; nothing of one that is listed."""
    if spec.bisected is None or spec.bisected[0] != name:
        return
    ends, whole = spec.bisected[1].bisect, is_whole(schema, name)
    if whole is None:
        yield "is no number, which alone can be bisected; list the values to compare at"
    elif whole and not all(isinstance(end, int) for end in ends):
        yield f"is a whole number, so that bisect needs two of them, got {list(ends)}"
    elif spec.num_replicates < 2:
        yield (f"is bisected by the replicates' test scores, and replicates is {spec.num_replicates}; set it to 2 or "
               "more, or list the values")
    elif len(spec.arms) < 2:
        yield "is bisected by the difference of two arms; name two, or list the values"


def _twicesaid(spec: SweepSpec, name: str) -> Iterator[str]:
    """Where a factor's value is said once more."""
    own = set(TrainingParams.model_fields)
    if name in spec.space:
        yield f"is also searched under space.{name}; keep one of the two"
    if name in spec.settings or (name in own and name in spec.training.model_fields_set):
        yield f"is also fixed under {'training' if name in own else 'settings'}.{name}; keep one of the two"
    for arm, fixed in spec.arms.items():
        if name in fixed:
            yield f"is also fixed under arms.{arm}.{name}; keep one of the two"


def _wrong_place(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the cell that is searched."""
    for name, value in spec.search.at.items():
        if name not in spec.factors:
            yield f"search.at.{name}", unknown("factor", name, spec.factors)
        elif not any(one == value and isinstance(one, bool) == isinstance(value, bool) for one in spec.factors[name]):
            listed = ", ".join(map(said, spec.factors[name]))
            yield f"search.at.{name}", f"is no value of the factor, got {value!r}; allowed: {listed}"
    missing = [name for name in spec.factors if name not in spec.search.at]
    if spec.search.at and missing:
        yield "search.at", f"names a value of every factor; {', '.join(missing)} is missing"


def _cost(spec: SweepSpec, schema: TaskSchema, arms: Sequence[str]) -> int:
    """Trials of all cells together, at the least."""
    total = 0
    for arm in arms:
        lanes = num_cells({name: spec.factors[name] for name in factors_of(spec, schema, arm)})
        searched = spec.search.num_trials if schema.arms[arm].kind != "reference" and spec.space else 1
        total += searched * (1 if spec.search.at else lanes)
        total += lanes * schema.arms[arm].num_replicates(spec.num_replicates)
    return total
