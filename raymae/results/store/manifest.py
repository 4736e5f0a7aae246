"""What `sweep.json` holds, whether a folder holds the sweep that is about to run, and what happens otherwise."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from raymae.errors import ResultsError, unknown
from raymae.results.store.columns import columns_of
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import SWEEP
from raymae.spec import Arm, Objective, SweepSpec, TaskSchema
from raymae.spec.task import Published

MACHINE_DEPENDENT = ("results", "resources", "budget")
"""Keys of a sweep file that may change from one start to the next: they do not change what is computed."""


_OLD_PRIMARY = ("mae", "scratch")
"""The comparison that every task was about before a task could say so itself."""


@dataclass(frozen=True)
class SweepData:
    """The data set of a sweep.

    Attributes:
        name: Its name.
        source: `real`, or `synthetic` for a generated stand-in.
        fingerprint: Differs where the data differs.
    """

    name: str
    source: Literal["real", "synthetic"]
    fingerprint: str


@dataclass(frozen=True)
class SweepTask:
    """What a reader of results has to know about their task, so that it need not import it.

    Attributes:
        name: Its name.
        objective: What is selected on.
        metrics: Names of all its metrics, without prefix.
        arms: All its arms by name, in its order.
        primary: The two arms whose difference the task is about, or None.
        published: By arm, what others have published for it.
    """

    name: str
    objective: Objective
    metrics: tuple[str, ...]
    arms: Mapping[str, Arm]
    primary: tuple[str, str] | None
    published: Mapping[str, tuple[Published, ...]]

    def published_for(self, arm: str, settings: Mapping[str, Any]) -> Published | None:
        """The number published for an arm, of the objective where there is one.

        Args:
            arm: The arm.
            settings: The sweep's own settings: other settings make it another problem.
        """
        numbers = [number for number in self.published.get(arm, ())
                   if all(settings.get(name, value) == value for name, value in number.settings.items())]
        return min(numbers, key=lambda number: number.metric != self.objective.metric, default=None)


@dataclass(frozen=True)
class Manifest:
    """The contents of `sweep.json`: all that a reader needs without importing the task.

    Attributes:
        raymae_version: The version that wrote it last.
        created_at: When the sweep was started first, ISO, UTC.
        spec: The resolved sweep file, as plain values.
        data: The data that was found.
        task: The task.
        columns: From dataset to column to its type.
    """

    raymae_version: str
    created_at: str
    spec: Mapping[str, Any]
    data: SweepData
    task: SweepTask
    columns: Mapping[str, Mapping[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Manifest:
        """The manifest that this version or an earlier one wrote.

        Version 0.1.0 said neither what a task is about nor what was published for it: then the comparison is the one
        that all its tasks were about, and nothing is published.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another form.
        """
        task, data = plain["task"], plain["data"]
        primary = task.get("primary", _OLD_PRIMARY if set(_OLD_PRIMARY) <= set(task["arms"]) else None)
        return cls(
            raymae_version=plain["raymae_version"], created_at=plain["created_at"], spec=plain["spec"],
            data=SweepData(data["name"], data["source"], data["fingerprint"]),
            task=SweepTask(
                name=task["name"], objective=Objective(**task["objective"]), metrics=tuple(task["metrics"]),
                arms={name: Arm(**arm) for name, arm in task["arms"].items()},
                primary=None if primary is None else (primary[0], primary[1]),
                published={arm: tuple(Published(**number) for number in numbers)
                           for arm, numbers in task.get("published", {}).items()},
            ),
            columns=plain["columns"],
        )


def described(spec: SweepSpec, schema: TaskSchema, data: Mapping[str, Any]) -> Manifest:
    """The manifest of a sweep that begins now.

    Raises:
        ResultsError: `data` lacks its name, source or fingerprint, or the task's parameters cannot be columns.
    """
    for key in ("name", "source", "fingerprint"):
        if not data.get(key):
            raise ResultsError(f"data: `{key}` is required to tell results apart, got {dict(data)}")
    if data["source"] not in ("real", "synthetic"):
        raise ResultsError(f"data: {unknown('source', data['source'], ('real', 'synthetic'))}")
    return Manifest(
        raymae_version=_version(),
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        spec=spec.to_json(),
        data=SweepData(data["name"], data["source"], data["fingerprint"]),
        task=SweepTask(schema.name, schema.objective, schema.metrics, dict(schema.arms), schema.primary,
                       dict(schema.published)),
        columns=columns_of(schema),
    )


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


def check_same_sweep(folder: Folder, old: Mapping[str, Any], new: Mapping[str, Any], *, extend: bool = False) -> None:
    """Compare what a folder holds with what is asked for now.

    Args:
        folder: The folder, for messages.
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
        raise ResultsError(f"{folder.root}: sweep.json was not written by this version of raymae: {error!r}") from None
    if changes:
        lines = "\n".join(f"  {key}: {before} -> {after}" for key, before, after in changes)
        raise ResultsError(
            f"{folder.root}: holds a different sweep, which cannot be continued with these changes:\n{lines}\n"
            f"Give the sweep another name, undo the changes, or start over with --fresh{_kept(folder)}; "
            "`raymae extend` adds trials, `raymae fork` starts a changed sweep from this one's trials"
        )
    if columns:
        lines = "\n".join(f"  {key}: {before} -> {after}" for key, before, after in columns)
        raise ResultsError(
            f"{folder.root}: the task has other parameters or metrics now than in raymae {wrote}, which wrote this "
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


def _kept(folder: Folder) -> str:
    return f" (keeps the old folder as {_free_name(folder.local).name})" if folder.local is not None else ""


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


def move_aside(folder: Folder) -> None:
    """Rename an existing folder to `<name>.old-<n>`, the first free n.

    Raises:
        ResultsError: It is on an object store, where folders cannot be renamed.
        OSError: The rename failed.
    """
    if folder.local is None:
        if folder.names():
            raise ResultsError(
                f"{folder.root}: --fresh cannot rename a folder on an object store; "
                "give the sweep another name or delete the folder"
            )
        return
    if not folder.local.exists():
        return
    folder.local.rename(_free_name(folder.local))


def _free_name(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}.old-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}.old-{number}")


def not_a_sweep(folder: Folder) -> str:
    """The message for a folder without `sweep.json`: what was looked for, and the sweeps in it or beside it."""
    message = f"{folder.root}: no sweep here: looked for {folder.uri(SWEEP)}"
    below = _sweeps_in(folder)
    if below:
        return f"{message}. The folder holds these sweeps, name one: {', '.join(map(folder.uri, below))}"
    parent = folder.parent()
    beside = _sweeps_in(parent)
    return f"{message}. In {parent.root}: {unknown('sweep', folder.name, beside)}" if beside else message


def _sweeps_in(folder: Folder) -> list[str]:
    try:
        return [name for name in folder.folders()[:200] if SWEEP in folder.names(name)]
    except OSError:
        return []
