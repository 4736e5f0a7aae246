"""A results folder from somebody else: whatever its files hold, a reader shows it or raises a `ResultsError`."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_task import DATA, ENVIRONMENT, report, tiny_schema, tiny_spec, trial

from raymae.errors import RayMAEError, ResultsError
from raymae.results import Store
from raymae.results.verdict.judge import conclude
from raymae.results.views.follower import Follower
from raymae.results.views.query import query
from raymae.results.views.show import summary

ODD: list[Any] = [None, 7, 10**30, -1.5, True, "x", "", "int64", [], {}, [1, "a"], {"10": 3}, "\x1b[2J", "9" * 30]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, which nobody changes."""
    root = tmp_path_factory.mktemp("finished") / "ett"
    with Store.create(root, tiny_spec(), tiny_schema(), environment=ENVIRONMENT, data=DATA, flush_s=0.0) as store:
        store.write_config("t1", {"arm": "mae"})
        store.add_report(report("t1", 0))
        store.add_trial(trial("t1", val_mse=0.25))
        for seed in range(2):
            for arm in ("mae", "scratch"):
                store.add_trial(trial(f"{arm}{seed}", arm, stage="replicate", seed=seed, test_mse=0.2 + seed / 10))
        conclude(store)
        store.write_state({"state": "ended", "time": "2026-01-01T00:00:00+00:00", "host": "h", "pid": 7,
                           "started_at": "2026-01-01T00:00:00+00:00", "every_s": 2.0, "dashboard": "", "slots": 2,
                           "elapsed_s": 1.0, "left_s": None, "planned": {"mae": {"search": 1, "replicates": 2}},
                           "running": [], "error": None})
    return root


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "ett"))


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def look(folder: Path) -> None:
    """Every reader; each shows the folder or says in a message why not."""
    readers: list[Callable[[], object]] = [
        lambda: json.dumps(summary(Store.open(folder)).to_json()), lambda: Follower(str(folder)).look().to_json(),
        lambda: query(folder, "SELECT * FROM trials, arms"),
    ]
    said: list[str] = []
    for reader in readers:
        try:
            reader()
        except RayMAEError as error:
            said.append(str(error))
    assert all(0 < len(text.strip().splitlines()) <= 40 for text in said)


@pytest.mark.parametrize(("name", "tries"), [("sweep.json", 30), ("verdict.json", 6), ("state.json", 6)])
def test_a_value_of_another_kind_anywhere_in_a_file_is_shown_or_named(folder: Path, name: str, tries: int) -> None:
    whole = json.loads((folder / name).read_text())
    rng, paths = random.Random(name), list(places(whole))
    for path in rng.sample(paths, min(tries, len(paths))):
        tree = copy.deepcopy(whole)
        node = tree
        for part in path[:-1]:
            node = node[part]
        if rng.random() < 0.2 and isinstance(node, dict):
            del node[path[-1]]
        elif rng.random() < 0.2 and isinstance(node, dict):
            node["9" * 30] = node.pop(path[-1])
        else:
            node[path[-1]] = rng.choice(ODD)
        (folder / name).write_text(json.dumps(tree))
        try:
            look(folder)
        except Exception as error:
            raise AssertionError(f"{name}: {path}") from error


@pytest.mark.parametrize(("key", "value", "said"), [
    (("columns", "trials", "attempt"), "string", "columns.trials.attempt: must be int64, got 'string'"),
    (("columns", "trials", "lr"), "text", "columns.trials.lr: unknown kind 'text'"),
    (("data", "name"), int("9" * 30), "data.name: input should be a valid string"),
    (("task", "arms", "mae", "kind"), "x", "task.arms.mae.kind: input should be 'pretrained'"),
])
def test_the_message_names_file_and_key(folder: Path, key: tuple[str, ...], value: object, said: str) -> None:
    tree = json.loads((folder / "sweep.json").read_text())
    node = tree
    for part in key[:-1]:
        node = node[part]
    node[key[-1]] = value
    (folder / "sweep.json").write_text(json.dumps(tree))
    with pytest.raises(ResultsError) as caught:
        Store.open(folder)
    assert f"{folder / 'sweep.json'}: {said}" in str(caught.value)


@pytest.mark.parametrize(("dataset", "column"), [
    ("trials", "sweep"), ("trials", "wall_s"), ("trials", "error"), ("reports", "time"), ("reports", "epoch"),
    ("reports", "val_mse"),
])
def test_a_column_that_every_reader_expects_is_missed_by_name(folder: Path, dataset: str, column: str) -> None:
    tree = json.loads((folder / "sweep.json").read_text())
    del tree["columns"][dataset][column]
    (folder / "sweep.json").write_text(json.dumps(tree))
    with pytest.raises(ResultsError, match=rf"columns\.{dataset}\.{column}: must be"):
        Store.open(folder)


@pytest.mark.parametrize("name", ["sweep.json", "verdict.json", "state.json", "trials", "scores", "configs/t2.json"])
@pytest.mark.parametrize("kind", ["pipe", "circle", "deep"])
def test_something_else_in_a_file_s_place(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    if path.exists():
        path.rename(folder / "moved")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        path.write_bytes(b'{"a":' * 100_000)
    look(folder)
    if name == "sweep.json":
        with pytest.raises(ResultsError):
            Store.open(folder)


def test_a_part_of_another_schema_is_named(folder: Path) -> None:
    path = folder / "trials" / "part-20300101T000000000000Z-1-000001.parquet"
    for table in (pa.table({"a": [1]}), pa.table({"trial_id": ["x"], "attempt": ["no number"]}),
                  pa.table({"trial_id": [["x"]]})):
        pq.write_table(table, path)
        with pytest.raises(ResultsError, match=r"trials: cannot read the .* \(.*part-20300101"):
            Store.open(folder).trials()
        look(folder)
