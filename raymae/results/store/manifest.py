"""What `sweep.json` holds, whether a folder holds the sweep that is about to run, and what happens otherwise."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raymae.errors import ResultsError, unknown
from raymae.results.store.columns import columns_of
from raymae.results.store.folder import Place, json_bytes
from raymae.spec import SweepSpec, TaskSchema

SWEEP = "sweep.json"

MACHINE_DEPENDENT = ("results", "resources", "budget")
"""Keys of a sweep file that may change from one start to the next: they do not change what is computed."""


def described(spec: SweepSpec, schema: TaskSchema, data: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `sweep.json`: all that a reader needs without importing the task.

    Raises:
        ResultsError: `data` lacks its name, source or fingerprint, or the task's parameters cannot be columns.
    """
    for key in ("name", "source", "fingerprint"):
        if not data.get(key):
            raise ResultsError(f"data: `{key}` is required to tell results apart, got {dict(data)}")
    if data["source"] not in ("real", "synthetic"):
        raise ResultsError(f"data: {unknown('source', data['source'], ('real', 'synthetic'))}")
    objective = schema.objective
    return {
        "raymae_version": _version(),
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "spec": spec.to_json(),
        "data": dict(data),
        "task": {
            "name": schema.name,
            "objective": {"metric": objective.metric, "mode": objective.mode, "unit": objective.unit},
            "metrics": list(schema.metrics),
            "arms": {name: {"kind": arm.kind, "about": arm.about} for name, arm in schema.arms.items()},
        },
        "columns": columns_of(schema),
    }


def _version() -> str:
    try:
        return version("raymae")
    except PackageNotFoundError:
        return "unknown"


def with_earlier(environment: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """`environment.json` of this start, with those of earlier starts that differ under `earlier`."""
    if old is None:
        return dict(environment)
    last = {key: value for key, value in old.items() if key != "earlier"}
    earlier = list(old.get("earlier", []))
    if last != json.loads(json_bytes(environment)):
        earlier.append(last)
    return {**environment, "earlier": earlier} if earlier else dict(environment)


def check_same_sweep(place: Place, old: Mapping[str, Any], new: Mapping[str, Any], *, extend: bool = False) -> None:
    """Compare what a folder holds with what is asked for now.

    Args:
        place: The folder, for messages.
        old: Its `sweep.json`.
        new: What `sweep.json` would be now.
        extend: More trials per arm and more replicates are no difference.

    Raises:
        ResultsError: They differ in the spec, the data or the columns; lists each key with both values.
    """
    try:
        changes = [
            *differences(_lasting(old["spec"], extend), _lasting(new["spec"], extend)),
            *differences(_identity(old["data"]), _identity(new["data"]), "data_found"),
        ]
        columns = list(differences(old["columns"], new["columns"], "columns"))
        wrote = old["raymae_version"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{place.root}: sweep.json was not written by this version of raymae: {error!r}") from None
    if changes:
        lines = "\n".join(f"  {key}: {before} -> {after}" for key, before, after in changes)
        raise ResultsError(
            f"{place.root}: holds a different sweep, which cannot be continued with these changes:\n{lines}\n"
            f"Give the sweep another name, undo the changes, or start over with --fresh{_kept(place)}; "
            "`raymae extend` adds trials, `raymae fork` starts a changed sweep from this one's trials"
        )
    if columns:
        lines = "\n".join(f"  {key}: {before} -> {after}" for key, before, after in columns)
        raise ResultsError(
            f"{place.root}: the task has other parameters or metrics now than in raymae {wrote}, which wrote this "
            f"folder, so its rows would not fit:\n{lines}\nContinue with that version, or start over with --fresh"
        )


def _lasting(spec: Mapping[str, Any], extend: bool) -> dict[str, Any]:
    """What makes a spec another sweep: not where its data lies or how many trials run at once."""
    dropped = {"data": {"root", "path"}, "search": {"max_concurrent"} | ({"num_trials"} if extend else set())}
    lasting = {key: value for key, value in spec.items() if key not in MACHINE_DEPENDENT}
    if extend:
        lasting.pop("replicates", None)
    for section, names in dropped.items():
        lasting[section] = {key: value for key, value in lasting[section].items() if key not in names}
    return lasting


def _identity(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("name", "source", "fingerprint")}


def _kept(place: Place) -> str:
    return f" (keeps the old folder as {_free_name(place.local).name})" if place.local is not None else ""


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key path at which two trees of plain values differ, with both values as text."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and (old or new):
        for name in dict.fromkeys([*old, *new]):
            path = f"{key}.{name}" if key else str(name)
            if name not in new:
                yield path, repr(old[name]), "(absent)"
            elif name not in old:
                yield path, "(absent)", repr(new[name])
            else:
                yield from differences(old[name], new[name], path)
    elif _plain(old) != _plain(new) or isinstance(old, bool) != isinstance(new, bool):
        yield key, repr(old), repr(new)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def move_aside(place: Place) -> None:
    """Rename an existing folder to `<name>.old-<n>`, the first free n.

    Raises:
        ResultsError: It is on an object store, where folders cannot be renamed.
        OSError: The rename failed.
    """
    if place.local is None:
        if place.names():
            raise ResultsError(
                f"{place.root}: --fresh cannot rename a folder on an object store; "
                "give the sweep another name or delete the folder"
            )
        return
    if not place.local.exists():
        return
    place.local.rename(_free_name(place.local))


def _free_name(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}.old-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}.old-{number}")


def not_a_sweep(place: Place) -> str:
    """The message for a folder without `sweep.json`: what was looked for, and the sweeps in it or beside it."""
    message = f"{place.root}: no sweep here: looked for {place.uri(SWEEP)}"
    below = _sweeps_in(place)
    if below:
        return f"{message}. The folder holds these sweeps, name one: {', '.join(map(place.uri, below))}"
    parent = place.parent()
    beside = _sweeps_in(parent)
    return f"{message}. In {parent.root}: {unknown('sweep', place.name, beside)}" if beside else message


def _sweeps_in(place: Place) -> list[str]:
    try:
        return [name for name in place.folders()[:200] if SWEEP in place.names(name)]
    except OSError:
        return []
