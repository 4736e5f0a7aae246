"""A sweep file in, a SweepSpec or exact errors out: file and line, key, value, what is allowed, nearest name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from raymae.errors import Problem, SpecError, unknown
from raymae.spec.arms import ENCODER
from raymae.spec.check import problems
from raymae.spec.explain import explain
from raymae.spec.read import MAX_BYTES, Tree, apply_overrides, parse_yaml, place, too_long
from raymae.spec.record import RecordSpec
from raymae.spec.sweep import DataSpec, SweepSpec
from raymae.spec.task import TaskSchema
from raymae.spec.uri import is_uri

Data = TypeVar("Data", bound=DataSpec)
MAX_EXPLAINED = 100  # of many thousand unknown keys: a screen shows fewer


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
        with path.open("rb") as file:  # a pipe is fine; a device that never ends is not
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise SpecError([Problem(str(path), "", f"cannot read the sweep file: {reason}")]) from None
    if len(raw) > MAX_BYTES:
        raise SpecError([too_long(str(path))])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(str(path), "", f"must be UTF-8 text: {error.reason} at byte {error.start}")]) from None
    spec = _with_encoders(parse_sweep(text, str(path), overrides, schema_of=schema_of), path)
    data = _placed(spec.data, path, "data")
    corpora = [_placed(corpus, path, f"pretraining.data.{at}") for at, corpus in enumerate(spec.pretraining.data)]
    return spec.model_copy(update={"data": data, "pretraining": spec.pretraining.model_copy(update={"data": corpora})})


def _placed(data: Data, path: Path, key: str) -> Data:
    """A section with its path as the sweep file at `path` means it."""
    if data.path is None or is_uri(data.path):
        return data
    try:
        own = (path.parent / Path(data.path).expanduser()).resolve()
        special = own.exists() and not (own.is_file() or own.is_dir())
    except (OSError, RuntimeError) as error:  # ~ of a user that does not exist, links in a circle
        message = f"is not a path on this machine: {error}, got {data.path!r}"
        raise SpecError([Problem(str(path), f"{key}.path", message)]) from None
    if special:
        message = f"must be a file or a folder, got {str(own)!r}, which is a device, a pipe or a socket"
        raise SpecError([Problem(str(path), f"{key}.path", message)])
    return data.model_copy(update={"path": str(own)})


def _with_encoders(spec: SweepSpec, file: Path) -> SweepSpec:
    """Take relative paths of weights from the sweep file, as those of data are."""
    arms = {}
    for name, said in spec.arms.items():
        where = said.get(ENCODER)
        if isinstance(where, str) and not is_uri(where):
            try:
                said = {**said, ENCODER: str((file.parent / Path(where).expanduser()).resolve())}
            except (OSError, RuntimeError) as error:
                message = f"is not a path on this machine: {error}, got {where!r}"
                raise SpecError([Problem(str(file), f"arms.{name}.{ENCODER}", message)]) from None
        arms[name] = said
    return spec.model_copy(update={"arms": arms})


def parse_sweep(
    text: str,
    origin: str,
    overrides: Sequence[str] = (),
    *,
    schema_of: Callable[[str], TaskSchema] | None = None,
) -> SweepSpec:
    """Like `load_sweep`, from text. `origin` names the text in errors."""
    lines: dict[str, int] = {}
    tree = parse_yaml(text, origin, lines)
    if not isinstance(tree, dict):
        raise SpecError([Problem(origin, "", f"a sweep file is a mapping of keys, got {type(tree).__name__}")])
    set_keys = apply_overrides(tree, overrides)

    def problem(key: str, message: str) -> Problem:
        if any(key == done or key.startswith(done + ".") for done in set_keys):
            return Problem("--set", key, message)
        return Problem(place(origin, key, lines), key, message)

    found: list[Problem] = []
    try:
        spec = SweepSpec.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        found = [problem(*explain(item)) for item in errors[:MAX_EXPLAINED]]
        for item in errors:
            _remove(tree, item["loc"])
        try:  # what is left may hold errors of the second kind: show them now, not on the next try
            spec = SweepSpec.model_validate(tree)
        except ValidationError:
            raise SpecError(_in_order(found)) from None
    if schema_of is not None:
        try:
            schema = schema_of(spec.task)
        except KeyError as error:
            names, *cause = error.args
            found.append(problem("task", cause[0] if cause else unknown("task", spec.task, names)))
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


def json_schema() -> Tree:
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
    settings = schema["properties"]["settings"]["additionalProperties"]
    settings["anyOf"].append(names)  # of columns, in place of a text that names them
    record = schema["properties"]["record"]
    recorders = {"type": "array", "items": {"enum": [*RecordSpec.model_fields]}}
    schema["properties"]["record"] = {
        "anyOf": [recorders, {"$ref": record["$ref"]}], **{k: v for k, v in record.items() if k != "$ref"}}
    schema["properties"]["arms"] = {"anyOf": [names, {k: v for k, v in arms.items() if k != "description"}],
                                    "description": arms["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "RayMAE sweep file"}
