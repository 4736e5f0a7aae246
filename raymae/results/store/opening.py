"""Begin a sweep's folder, continue the one that holds the same sweep, or open it to read; otherwise say why not."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raymae.errors import ResultsError, unknown
from raymae.results.store.columns import columns_of, is_metric
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import CHECKPOINTS, CONFIGS, ENVIRONMENT, LOGS, REPORTS, SCORES, SWEEP, TRIALS, VERDICT
from raymae.results.store.manifest import Manifest, SweepData, SweepTask, read
from raymae.spec import SweepSpec, TaskSchema
from raymae.spec.check import may_open
from raymae.spec.factors import factors_of
from raymae.spec.read import Tree

MACHINE_DEPENDENT = ("results", "encoders", "resources", "budget", "keep", "notify", "record")
"""Keys of a sweep file that may change from one start to the next.

They say where and for how long a machine works and what it leaves, not what is computed, and continuing on another
machine or with more time is what continuing is for. The latest values are kept.
"""


def begin(
    folder: Folder, manifest: Manifest, environment: Mapping[str, object], *, fresh: bool, extend: bool
) -> tuple[Manifest, bool]:
    """Make a sweep's folder, or make sure that the one that is there holds the same sweep.

    Args:
        folder: The sweep's own folder.
        manifest: What `sweep.json` would be now.
        environment: Versions, git commit, device: plain values.
        fresh: Move an existing folder aside first.
        extend: More trials per arm, replicates and cells of a bisected factor are no difference.

    Returns:
        The manifest that was written, and whether a sweep is continued.

    Raises:
        ResultsError: Another sweep lives there.
        OSError: The folder cannot be written.
    """
    if fresh:
        move_aside(folder)
    old = folder.read_json(SWEEP)
    if old is not None:
        check_same_sweep(folder, old, manifest, extend=extend)
        verdict = folder.read_json(VERDICT)
        longer = manifest.spec["search"]["num_trials"] > old["spec"]["search"]["num_trials"] or \
            _bisected(manifest.spec) != _bisected(old["spec"])
        tested = extend and verdict is not None and bool(verdict.get("pairs"))
        looked = old.get("looked_before", False) or (
            tested and verdict is not None and (verdict.get("complete", False) or longer))
        manifest = replace(manifest, created_at=old["created_at"], times_epochs=old.get("times_epochs"),
                           epoch_costs=old.get("epoch_costs", {}), precision=old.get("precision"),
                           looked_before=bool(looked), opened=tuple(old.get("opened", ())))
    for name in ("", TRIALS, REPORTS, SCORES, CONFIGS, CHECKPOINTS, LOGS):
        folder.make(name)
    folder.write(SWEEP, json_bytes(manifest.to_json()))
    folder.write(ENVIRONMENT, json_bytes(with_earlier(environment, folder.read_json(ENVIRONMENT))))
    return manifest, old is not None


def cannot_write(folder: Folder, error: OSError) -> ResultsError:
    """Say why a sweep cannot begin in a folder."""
    reason = "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else str(error)
    return ResultsError(f"{folder.root}: cannot write results here: {reason}. Set `results` to a folder you can write")


def read_manifest(folder: Folder) -> Manifest:
    """Read a folder's `sweep.json`.

    Raises:
        ResultsError: It holds no sweep; names sweeps nearby. Or it cannot be read.
    """
    try:
        plain = folder.read_json(SWEEP)
        if plain is None:
            raise ResultsError(not_a_sweep(folder))
    except OSError as error:
        raise ResultsError(f"{folder.root}: cannot read {SWEEP}: {error}") from None
    return read(plain, folder.uri(SWEEP))


def read_json(folder: Folder, name: str) -> Tree | None:
    """Read a JSON file of a sweep's folder; None where there is none.

    Raises:
        ResultsError: It cannot be read.
    """
    try:
        return folder.read_json(name)
    except OSError as error:
        raise ResultsError(f"{folder.uri(name)}: cannot read: {error}") from None


def read_configs(folder: Folder) -> dict[str, Tree]:
    """Read every trial's config, several at a time: an object store answers each of them late.

    Returns:
        By trial_id.

    Raises:
        ResultsError: They cannot be listed, or one cannot be read.
    """
    names = config_ids(folder)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda name: read_json(folder, f"{CONFIGS}/{name}.json"), names)
        return {name: config for name, config in zip(names, found, strict=True) if config is not None}


def config_ids(folder: Folder) -> list[str]:
    """The ids of the trials that have a config.

    Raises:
        ResultsError: They cannot be listed.
    """
    try:
        return [name.removesuffix(".json") for name in folder.names(CONFIGS)
                if name.endswith(".json") and name[0] != "."]
    except OSError as error:
        raise ResultsError(f"{folder.uri(CONFIGS)}: cannot list: {error}") from None


def written(folder: Folder, manifest: Manifest) -> Manifest:
    """Write a manifest of which more is known now, and return it.

    Raises:
        ResultsError: It could not be written.
    """
    try:
        folder.write(SWEEP, json_bytes(manifest.to_json()))
    except OSError as error:
        raise cannot_write(folder, error) from None
    return manifest


def described(spec: SweepSpec, schema: TaskSchema, data: Mapping[str, str]) -> Manifest:
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
        spec={**spec.to_json(), "notify": []},  # an address may hold a secret
        data=SweepData(data["name"], "real" if data["source"] == "real" else "synthetic", data["fingerprint"]),
        task=SweepTask(schema.name, schema.objective, schema.metrics, dict(schema.arms), schema.primary,
                       dict(schema.published)),
        columns=columns_of(schema),
        pretrains_on=data.get("pretrains_on", ""),
        factors={arm: factors_of(spec, schema, arm) for arm in spec.arms} if spec.factors else {},
        may_open=tuple(may_open(spec, schema)),
    )


def _version() -> str:
    try:
        return version("raymae")
    except PackageNotFoundError:
        return "unknown"


def with_earlier(environment: Mapping[str, object], old: Tree | None) -> dict[str, object]:
    """`environment.json` of this start, with those of earlier starts that differ under `earlier`."""
    if old is None:
        return dict(environment)
    last = {key: value for key, value in old.items() if key != "earlier"}
    earlier = list(old.get("earlier", []))
    if last != json.loads(json_bytes(environment)):
        earlier.append(last)
    return {**environment, "earlier": earlier} if earlier else dict(environment)


def check_same_sweep(folder: Folder, old: Tree, now: Manifest, *, extend: bool = False) -> None:
    """Compare what a folder holds with what is asked for now.

    Args:
        folder: The folder, for messages.
        old: Its `sweep.json`.
        now: What `sweep.json` would be now.
        extend: More trials per arm, replicates and cells of a bisected factor are no difference.

    Raises:
        ResultsError: They differ in the spec, the data or the columns; lists each key with both values.
    """
    new: Tree = now.to_json()
    try:
        changes = [
            *differences(_lasting(_today(old["spec"]), extend), _lasting(new["spec"], extend)),
            *differences(_identity(old["data"]), _identity(new["data"]), "data_found"),
        ]
        # a parameter or a fixed column that was added since is empty in the rows of before
        held = {name: {**{column: kind for column, kind in new["columns"].get(name, {}).items()
                          if not is_metric(column)}, **columns} for name, columns in old["columns"].items()}
        columns = list(differences(held, new["columns"], "columns"))
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


def _today(spec: Tree) -> Tree:
    """A spec with the keys that it gained since it was written, at their defaults."""
    try:
        return SweepSpec.model_validate(spec).to_json()
    except ValueError:  # of a version that knew other keys: then they are among the differences
        return spec


def _lasting(spec: Tree, extend: bool) -> dict[str, object]:
    """What makes a spec another sweep: not where its data lies or how many trials run at once."""
    dropped = {"data": {"root", "path"}, "search": {"max_concurrent"} | ({"num_trials"} if extend else set())}
    lasting: Tree = {key: value for key, value in spec.items() if key not in MACHINE_DEPENDENT}
    if extend:
        lasting.pop("replicates", None)
        lasting["factors"] = {name: {key: value for key, value in one.items() if key != "cells"}
                              if isinstance(one, Mapping) else one
                              for name, one in lasting.get("factors", {}).items()}
    for section, names in dropped.items():
        lasting[section] = {key: value for key, value in lasting[section].items() if key not in names}
    if pretraining := lasting.get("pretraining"):
        corpora = [{key: value for key, value in corpus.items() if key not in dropped["data"]}
                   for corpus in pretraining["data"]]
        lasting["pretraining"] = {**pretraining, "data": corpora}
    return lasting


def _bisected(spec: Mapping[str, Any]) -> list[int]:
    """The most cells of the factor that is bisected, as the one entry; empty where none is."""
    return [one["cells"] for one in spec.get("factors", {}).values() if isinstance(one, Mapping)]


def _identity(data: Mapping[str, object]) -> dict[str, object]:
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
