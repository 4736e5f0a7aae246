"""YAML 1.2 in, a SweepSpec or exact errors out: file and line, key path, value, what is allowed, the nearest name."""

from __future__ import annotations

import io
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from raymae.errors import Problem, SpecError, unknown
from raymae.spec.resolve import problems
from raymae.spec.space import KINDS
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import TaskSchema

MAX_BYTES = 1_000_000
MAX_DEPTH = 32


def load_sweep(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    schema_of: Callable[[str], TaskSchema] | None = None,
) -> SweepSpec:
    """Read a sweep file.

    Args:
        path: The YAML file.
        overrides: `key.path=value` strings laid over the file; values are YAML.
        schema_of: From a task's name to its description (`raymae.tasks.schema_of`); raises KeyError listing what
            exists. Without it only the form of the file is checked, which needs no torch.

    Raises:
        SpecError: With every problem found, not only the first.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise SpecError([Problem(str(path), "", f"cannot read the sweep file: {reason}")]) from None
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem(str(path), "", f"a sweep file holds at most {MAX_BYTES} bytes, this has {len(raw)}")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(str(path), "", f"must be UTF-8 text: {error.reason} at byte {error.start}")]) from None
    spec = parse_sweep(text, str(path), overrides, schema_of=schema_of)
    if spec.data.path is None:
        return spec
    own = (path.parent / Path(spec.data.path).expanduser()).resolve()
    return spec.model_copy(update={"data": spec.data.model_copy(update={"path": str(own)})})


def parse_sweep(
    text: str,
    origin: str,
    overrides: Sequence[str] = (),
    *,
    schema_of: Callable[[str], TaskSchema] | None = None,
) -> SweepSpec:
    """Like `load_sweep`, from text. `origin` names the text in errors."""
    lines: dict[str, int] = {}
    tree = _parse_yaml(text, origin, lines)
    if not isinstance(tree, dict):
        raise SpecError([Problem(origin, "", f"a sweep file is a mapping of keys, got {type(tree).__name__}")])
    set_keys = _apply_overrides(tree, overrides)

    def problem(key: str, message: str) -> Problem:
        if any(key == done or key.startswith(done + ".") for done in set_keys):
            return Problem("--set", key, message)
        at = key
        while at and at not in lines:
            at = at.rpartition(".")[0]
        return Problem(f"{origin}:{lines[at]}" if at else origin, key, message)

    found: list[Problem] = []
    try:
        spec = SweepSpec.model_validate(tree, strict=False)
    except ValidationError as error:
        found = [problem(*_explain(item)) for item in error.errors(include_url=False)]
        for item in error.errors(include_url=False):
            _remove(tree, item["loc"])
        try:  # what is left may hold errors of the second kind: show them now, not on the next try
            spec = SweepSpec.model_validate(tree, strict=False)
        except ValidationError:
            raise SpecError(_in_order(found)) from None
    if schema_of is not None:
        try:
            found += [problem(key, message) for key, message in problems(spec, schema_of(spec.task))]
        except KeyError as error:
            found.append(problem("task", unknown("task", spec.task, error.args[0])))
    if found:
        raise SpecError(_in_order(found))
    return spec


def _remove(tree: Any, location: Sequence[str | int]) -> None:
    """Take a value out of nested mappings; a whole list goes where one of its items is wrong."""
    for depth, part in enumerate(location):
        if not isinstance(tree, dict) or part not in tree:
            return
        if depth == len(location) - 1 or not isinstance(tree[part], dict) or (depth == 1 and location[0] == "space"):
            del tree[part]
            return
        tree = tree[part]


def _in_order(found: Iterable[Problem]) -> list[Problem]:
    def line(p: Problem) -> int:
        tail = p.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    return sorted(dict.fromkeys(found), key=line)


def _parse_yaml(text: str, origin: str, lines: dict[str, int]) -> Any:
    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark is not None else origin
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError([Problem(where, "", f"not valid YAML 1.2: {reason}")]) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, AssertionError) as error:
        # ruamel lets these out for malformed tags, dates and anchors
        raise SpecError([Problem(origin, "", f"not valid YAML 1.2: {error or type(error).__name__}")]) from None
    return _plain(tree, "", lines, origin, 0)


def _plain(node: Any, key: str, lines: dict[str, int], origin: str, depth: int) -> Any:
    """ruamel's round-trip types as plain values, noting each key's line on the way."""
    if depth > MAX_DEPTH:
        message = f"nested deeper than {MAX_DEPTH} levels (does an anchor refer to itself?)"
        raise SpecError([Problem(origin, "", message)])
    if isinstance(node, CommentedMap):
        result = {}
        for name, value in node.items():
            if not isinstance(name, str):
                raise SpecError([Problem(origin, key, f"keys are text, got {name!r}")])
            path = f"{key}.{name}" if key else str(name)
            position = node.lc.data.get(name) if node.lc.data else None
            if position:
                lines[path] = position[0] + 1
            result[str(name)] = _plain(value, path, lines, origin, depth + 1)
        return result
    if isinstance(node, (CommentedSeq, list)):
        return [_plain(item, key, lines, origin, depth + 1) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    raise SpecError([Problem(origin, key, f"holds a {type(node).__name__}; use text, numbers, lists and mappings")])


def _apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    done: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpecError([Problem("--set", text, "must have the form key.path=value, such as search.num_trials=4")])
        node = tree
        for part in parts[:-1]:
            if part == "arms" and isinstance(node.get(part), list):
                node[part] = {name: {} for name in node[part]}
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[parts[-1]] = _parse_yaml(value, "--set", {}) if value.strip() else None
        done.append(".".join(parts))
    return done


_ALLOWED = {
    "greater_than": "must be above {gt}", "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}", "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}", "missing": "is required",
    "int_parsing": "must be a whole number", "int_type": "must be a whole number",
    "int_from_float": "must be a whole number", "float_parsing": "must be a number", "float_type": "must be a number",
    "finite_number": "must be a finite number", "string_type": "must be text",
    "dict_type": "must be a mapping", "model_type": "must be a mapping", "list_type": "must be a list",
    "tuple_type": "must be a list of two numbers", "too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}", "bool_parsing": "must be true or false",
}


def _explain(item: Any) -> tuple[str, str]:
    """A pydantic error as (key path, message)."""
    location = [str(part) for part in item["loc"]]
    # pydantic puts the union's tag into the path of an error inside a distribution
    if len(location) > 2 and location[0] == "space" and location[2] in KINDS:
        del location[2]
    path = ".".join(part for part in location if not part.startswith("function-"))
    kind, context = item["type"], item.get("ctx", {})
    got = _shorten(item["input"])
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


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _fields_at(location: Sequence[str]) -> list[str]:
    """Field names of the model at a key path, for the nearest-name hint."""
    if location and location[0] == "space":
        return [*KINDS, "when", "step"]
    model: type[BaseModel] = SweepSpec
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *typing.get_args(annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        model = models[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema of a sweep file, for editors."""
    schema = SweepSpec.model_json_schema(by_alias=True)
    arms = schema["properties"]["arms"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    schema["properties"]["arms"] = {"anyOf": [names, {k: v for k, v in arms.items() if k != "description"}],
                                    "description": arms["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "RayMAE sweep file", **schema}
