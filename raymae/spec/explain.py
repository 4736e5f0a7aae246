"""Say in the words of a sweep file what pydantic found wrong with it."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from raymae.errors import shorten, unknown
from raymae.spec.bisect import BisectSpec
from raymae.spec.space import KINDS
from raymae.spec.sweep import SweepSpec

_ALLOWED = {
    "greater_than": "must be above {gt}", "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}", "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}", "missing": "is required",
    "int_parsing": "must be a whole number", "int_type": "must be a whole number, without point or exponent",
    "int_from_float": "must be a whole number", "float_parsing": "must be a number", "float_type": "must be a number",
    "finite_number": "must be a finite number", "string_type": "must be text",
    "dict_type": "must be a mapping", "model_type": "must be a mapping", "list_type": "must be a list",
    "tuple_type": "must be a list of two numbers", "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "string_pattern_mismatch": "must match {pattern}", "bool_parsing": "must be true or false",
}


def explain(item: ErrorDetails) -> tuple[str, str]:
    """A pydantic error as (key path, message)."""
    location = [str(part) for part in item["loc"]]
    # pydantic puts a union's tag into the path of an error
    if len(location) > 2 and location[0] == "space" and location[2] in KINDS:
        del location[2]
    if location[0] == "factors" and len(location) > 2:
        del location[2]
    if location[:2] == ["budget", "price_per_node_hour"] and len(location) > 2:
        del location[2]
    if location[0] == "replicates" and len(location) > 1:
        del location[1]
    kind, context = item["type"], item.get("ctx", {})
    got = shorten(item["input"])
    if kind.endswith(("_type", "finite_number")) and _is_scalar(location):  # one error per member of the union
        return ".".join(location[:-1]), f"must be text, a finite number, true, false or null, got {got}"
    path = ".".join(location)
    if kind in ("missing", "too_long") and location[0] == "space" and len(location) > 2:
        return ".".join(location[:3]), f"must be a list of two numbers, got {got}"
    if kind == "extra_forbidden":
        *parents, name = location
        return path, unknown("key", name, _fields_at(parents))
    if kind == "value_error":
        return path, str(context["error"])
    if kind == "missing":
        return path, "is required"
    if kind in _ALLOWED:
        return path, f"{_ALLOWED[kind].format(**context)}, got {got}"
    if kind == "distribution":
        return path, f"{item['msg']}, got {got}"
    return path, f"{item['msg'][0].lower()}{item['msg'][1:]}, got {got}"


def _is_scalar(location: Sequence[str]) -> bool:
    """Whether a key path ends in a member of the union `Scalar`."""
    if location[-1] not in ("bool", "int", "float", "str"):
        return False
    match location:
        case ("settings", _, _) | ("arms", _, _, _) | ("factors", _, _, _) | ("search", "at", _, _):
            return True
        case ("search", "points", _, _, _):
            return True
        case ("space", _, "choice", _, _) | ("space", _, "when", _, _, _):
            return True
    return False


def _fields_at(location: Sequence[str]) -> list[str]:
    """Field names of the model at a key path, for the nearest-name hint."""
    if location and location[0] == "space":
        return [*KINDS, "when", "step"]
    if location and location[0] == "factors":
        return [*BisectSpec.model_fields]
    model: type[BaseModel] = SweepSpec
    for part in location:
        if part.isdigit():  # of a list
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *typing.get_args(annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        model = models[0]
    return [field.alias or name for name, field in model.model_fields.items()]
