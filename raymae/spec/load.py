"""YAML 1.2 in, a SweepSpec or exact errors out: file and line, key path, value, what is allowed, the nearest name."""

from __future__ import annotations

import io
import itertools
import os
import re
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from raymae.errors import Problem, SpecError, unknown
from raymae.spec.resolve import problems
from raymae.spec.space import KINDS
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import TaskSchema
from raymae.spec.uri import is_uri

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 50_000  # aliases of aliases multiply
PLAIN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null"}
MAX_INT = 2**63 - 1  # what a Parquet column of integers holds


def load_sweep(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    schema_of: Callable[[str], TaskSchema] | None = None,
) -> SweepSpec:
    """Read a sweep file.

    Args:
        path: The YAML file.
        overrides: `key.path=value` strings laid over the file; values are YAML. `space.lr=null` ends the search of lr.
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
    if spec.data.path is None or is_uri(spec.data.path):
        return spec
    try:
        own = (path.parent / Path(spec.data.path).expanduser()).resolve()
    except (OSError, RuntimeError) as error:  # ~ of a user that does not exist, links in a circle
        message = f"is not a path on this machine: {error}, got {spec.data.path!r}"
        raise SpecError([Problem(str(path), "data.path", message)]) from None
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
        spec = SweepSpec.model_validate(tree)
    except ValidationError as error:
        found = [problem(*_explain(item)) for item in error.errors(include_url=False)]
        for item in error.errors(include_url=False):
            _remove(tree, item["loc"])
        try:  # what is left may hold errors of the second kind: show them now, not on the next try
            spec = SweepSpec.model_validate(tree)
        except ValidationError:
            raise SpecError(_in_order(found)) from None
    if schema_of is not None:
        try:
            schema = schema_of(spec.task)
        except KeyError as error:
            found.append(problem("task", unknown("task", spec.task, error.args[0])))
        else:
            found += [problem(key, message) for key, message in problems(spec, schema)]
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
    other = re.search(r"^%YAML(?!\s+1\.2\s*$).*", text, re.MULTILINE)
    if other is not None:  # 1.1 would read `on` as true and 010 as 8
        line = text.count("\n", 0, other.start()) + 1
        raise SpecError([Problem(f"{origin}:{line}", "", f"must be YAML 1.2, got {other[0].strip()!r}")])
    yaml = YAML(typ="rt", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor may be defined anew
            tree = yaml.load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = mark.line + 1 if mark is not None else text.count("\n", 0, position) + 1 if position is not None else 0
        where = f"{origin}:{line}" if line else origin
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError([Problem(where, "", f"not valid YAML 1.2: {reason}")]) from None
    except RecursionError:
        raise SpecError([Problem(origin, "", f"nested deeper than {MAX_DEPTH} levels")]) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        # ruamel lets these out for malformed tags, dates and anchors
        digits = re.search(r"\d{4300,}", text)
        if digits is not None:
            line = text.count("\n", 0, digits.start()) + 1
            message = f"whole numbers go up to {MAX_INT}, got one of {len(digits[0])} digits"
            raise SpecError([Problem(f"{origin}:{line}", "", message)]) from None
        raise SpecError([Problem(origin, "", f"not valid YAML 1.2: {error or type(error).__name__}")]) from None
    return _plain(tree, "", lines, origin, itertools.count(1), 0)


def _plain(node: Any, key: str, lines: dict[str, int], origin: str, count: Iterator[int], depth: int) -> Any:
    """ruamel's round-trip types as plain values, noting each key's line on the way."""

    def refuse(message: str) -> NoReturn:
        at = key
        while at and at not in lines:
            at = at.rpartition(".")[0]
        raise SpecError([Problem(f"{origin}:{lines[at]}" if at else origin, key, message)])

    if depth > MAX_DEPTH:
        refuse(f"nested deeper than {MAX_DEPTH} levels (does an anchor refer to itself?)")
    if next(count) > MAX_VALUES:
        refuse(f"a sweep file holds at most {MAX_VALUES} values (do aliases multiply?)")
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag is not None and str(tag).removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
        refuse(f"has the tag {tag}; use text, numbers, lists and mappings")
    if isinstance(node, CommentedMap):
        result = {}
        for name, value in node.items():
            if not isinstance(name, str):
                refuse(f"keys are text, got {name!r}")
            if not name.isprintable():
                refuse(f"keys are printable text, got {name!r}")
            path = f"{key}.{name}" if key else str(name)
            position = node.lc.data.get(name) if node.lc.data else None
            if position:
                lines[path] = position[0] + 1
            result[str(name)] = _plain(value, path, lines, origin, count, depth + 1)
        return result
    if isinstance(node, (CommentedSeq, list)):
        return [_plain(item, key, lines, origin, count, depth + 1) for item in node]
    if isinstance(node, int) and not -MAX_INT <= node <= MAX_INT:
        refuse(f"whole numbers go up to {MAX_INT}, got one of {node.bit_length()} bits")
    if isinstance(node, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node):
        refuse(f"text must not hold zero bytes or halves of characters, got {_shorten(str(node))}")
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    refuse(f"holds a {type(node).__name__}; use text, numbers, lists and mappings")


def _apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    done: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpecError([Problem("--set", text, "must have the form key.path=value, such as search.num_trials=4")])
        node = tree
        for depth, part in enumerate(parts[:-1]):
            names = node.get(part)
            if depth == 0 and part == "arms" and isinstance(names, list):
                if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                    message = f"goes into a list of distinct names of arms, got {_shorten(names)}"
                    raise SpecError([Problem("--set", key.strip(), message)])
                node[part] = {name: {} for name in names}
            if not isinstance(node.get(part), dict):
                if node.get(part) is not None:  # what stood there is gone: an error here is no longer the file's
                    done.append(".".join(parts[: depth + 1]))
                node[part] = {}
            node = node[part]
        try:
            node[parts[-1]] = _parse_yaml(value, "--set", {}) if value.strip() else None
        except SpecError as error:
            first = error.problems[0]
            inside = f"{key.strip()}.{first.key}" if first.key else key.strip()
            raise SpecError([Problem("--set", inside, first.message)]) from None
        if node[parts[-1]] is None and len(parts) == 2 and parts[0] == "space":
            del node[parts[-1]]  # searched no longer
        done.append(".".join(parts))
    return done


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


def _explain(item: Any) -> tuple[str, str]:
    """A pydantic error as (key path, message)."""
    location = [str(part) for part in item["loc"]]
    # pydantic puts the union's tag into the path of an error inside a distribution
    if len(location) > 2 and location[0] == "space" and location[2] in KINDS:
        del location[2]
    kind, context = item["type"], item.get("ctx", {})
    got = _shorten(item["input"])
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
        case ("settings", _, _) | ("arms", _, _, _) | ("space", _, "choice", _, _) | ("space", _, "when", _, _, _):
            return True
    return False


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
    fixed = arms["additionalProperties"]
    arms["additionalProperties"] = {"anyOf": [fixed, {"type": "null"}]}
    for definition in schema["$defs"].values():
        when = definition["properties"].get("when")
        if when is not None:  # one value stands for a list of one
            several = when["additionalProperties"]
            when["additionalProperties"] = {"anyOf": [several, *several["items"]["anyOf"]]}
    schema["properties"]["arms"] = {"anyOf": [names, {k: v for k, v in arms.items() if k != "description"}],
                                    "description": arms["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "RayMAE sweep file"}
