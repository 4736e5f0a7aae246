"""Rooms import downwards only, and what needs no torch or ray imports none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import raymae

ROOT = Path(raymae.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LOWER = {  # what each room may import besides itself
    "errors": set(),
    "spec": {"errors"},
    "data": {"spec", "errors"},
    "models": {"spec", "errors"},
    "results": {"spec", "errors"},
    "tasks": {"data", "models", "spec", "errors"},
    "train": {"tasks", "models", "spec", "errors"},
    "contract": {"train", "tasks", "models", "data", "spec", "errors"},
    "inference": {"train", "results", "tasks", "models", "data", "spec", "errors"},
    "search": {"inference", "models", "train", "results", "tasks", "spec", "data", "errors"},
    "launch": {"search", "spec", "errors"},
    "imputer": {"inference", "train", "results", "tasks", "data", "models", "spec", "errors"},
    "web": {"results", "spec", "errors"},
    "cli": {"web", "launch", "search", "contract", "inference", "train", "results", "tasks", "spec", "data",
            "errors", ""},
}
INSIDE = {  # the same one level down: what each part of a room may import of its own room, besides itself
    "search": [{"messages", "checkpoints", "environment", "background"}, {"decide"}, {"engine"}, {"live"},
               {"plan", "description", "counts"}, {"probes"}, {"precision", "timing"}, {"bisecting", "estimate"},
               {"run", "dry_run", "single", "spot"}],
    "results": [{"store"}, {"verdict"}, {"views"}, {"report"}],
    "data": [{"delimited", "frames", "series", "images", "class_folders", "split_names", "file_trees", "pixels",
              "twins", "scenes", "scene_labels", "scene_splits", "volumes", "volume_files", "volume_lists", "tables",
              "splits", "subsets", "groups", "scaling", "missing", "kept", "shelf", "find", "synthetic", "dates",
              "steps", "several_series", "inputs", "filled"}, {"pictures", "series_corpora"}, {"leaks"}],
}
WITHOUT = {  # what a part must do without, although its room may have it
    "search.messages": {"ray", "optuna", "torch"},
    "search.decide": {"ray"},
    "search.engine": {"optuna"},
    "search.live": {"optuna"},
}
DRIVERS = {"ray", "optuna"}
TENSORS = {"torch", "timm", "monai"}
NAMES = {path: ".".join(("raymae", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
         for path in FILES}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def room_of(module: str, level: int = 1) -> str:
    """`spec` of `raymae.spec.load`, and at level 2 `load`; "" where the name ends before."""
    return [*module.split("."), "", ""][level]


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions and under TYPE_CHECKING, as absolute dotted names."""
    package = NAMES[path].split(".") if path.name == "__init__.py" else NAMES[path].split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"raymae.{alias.name}" for alias in node.names) if module == "raymae" else (module,)


def test_the_table_names_every_room() -> None:
    assert {room_of(name) for name in NAMES.values()} == {*LOWER, ""}


@every_file
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(NAMES[path])
    if not room:
        return  # raymae/__init__.py resolves its names on use
    ours = {name for name in imports_of(path) if name.split(".")[0] == "raymae"}
    allowed = LOWER[room] | {room}
    upwards = {name for name in ours if room_of(name) not in allowed and name != "raymae.__version__"}
    assert not upwards, f"{room} may import {sorted(allowed)}"


@every_file
def test_imports_point_downwards_inside_a_room(path: Path) -> None:
    room, part = room_of(NAMES[path]), room_of(NAMES[path], 2)
    floors = INSIDE.get(room, [])
    if not floors or not part:
        return
    floor_of = {name: floor for floor, names in enumerate(floors) for name in names}
    assert part in floor_of, f"give {room}.{part} a floor in INSIDE"
    ours = {name for name in imports_of(path) if name.startswith(f"raymae.{room}.")}
    upwards = {name for name in ours if floor_of[room_of(name, 2)] > floor_of[part]}
    assert not upwards, f"{room}.{part} is below"


@every_file
def test_walls_keep_out_ray_optuna_and_torch(path: Path) -> None:
    found = {name.split(".")[0] for name in imports_of(path)}
    room = room_of(NAMES[path])
    if room not in ("search", "launch"):
        assert not found & DRIVERS
    if room == "launch":
        assert "optuna" not in found
    assert not found & WITHOUT.get(f"{room}.{room_of(NAMES[path], 2)}", set())
    if room in ("errors", "spec", "data", "results", "launch", "web", "cli"):
        assert not found & TENSORS


def test_only_tasks_know_the_names_of_tasks() -> None:
    from raymae.tasks import TASKS

    for path in FILES:
        if room_of(NAMES[path]) not in ("tasks", "imputer"):  # an imputer is one task's network
            texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            kinds_of_data = {"volumes"} if room_of(NAMES[path]) in ("data", "launch") else set()  # of disks, too
            assert not texts & ({*TASKS} - kinds_of_data - {"prediction"}), path  # what any network says is one


def test_results_know_no_arm() -> None:
    arms = {"mae", "scratch", "autoencoder", "persistence"}
    for path in FILES:
        if room_of(NAMES[path]) == "results" and NAMES[path] != "raymae.results.store.manifest":  # reads old folders
            texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not texts & arms, path


def test_no_circle_of_modules() -> None:
    """Imports at module level, by file; rooms of several files are their own front doors."""
    edges = {NAMES[path]: set() for path in FILES}
    for path in FILES:
        tree = ast.parse(path.read_text())
        typing_only = {id(child) for node in ast.walk(tree) if isinstance(node, ast.If)
                       and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
                       for child in ast.walk(node)}
        inside = {id(child) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                  for child in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in typing_only | inside and node.module in edges:
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                edges[NAMES[path]] |= named & edges.keys() or {node.module}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join([*above[above.index(name):], name])}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@every_file
def test_files_are_small_and_named_for_what_they_hold(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    assert {node.name: lines for node in classes if (lines := (node.end_lineno or 0) - node.lineno + 1) > 200} == {}
    assert not {"utils", "util", "helpers", "common", "misc"} & set(NAMES[path].split("."))


@pytest.mark.parametrize("room", ["", ".cli", ".spec", ".data", ".results", ".web", ".tasks"])
def test_importing_it_loads_nothing_heavy(room: str) -> None:
    heavy = ("torch", "ray", "optuna", "pandas", "timm", "monai", "pyarrow", "duckdb", "scipy", "sklearn")
    code = f"import sys, raymae{room}; print(*[name for name in {heavy!r} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert child.stdout.split() == []


def test_public_names_are_complete() -> None:
    assert sorted(raymae.__all__) == sorted(raymae._HOMES)
    assert {*raymae.__all__, "__version__"} == set(dir(raymae))
    for name in raymae.__all__:
        home = raymae._HOMES[name]
        assert getattr(raymae, name) is getattr(sys.modules[home], name)
        assert getattr(raymae, name).__module__.startswith("raymae"), name
        assert getattr(raymae, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = raymae.nothing
    typed = {alias.name for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
             if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raymae") for alias in node.names}
    assert typed == set(raymae.__all__)  # type checkers see the same names


def test_the_error_tree_is_drawn_in_full() -> None:
    from raymae import errors

    drawn = [line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    classes = [name for name, value in vars(errors).items()
               if isinstance(value, type) and issubclass(value, errors.RayMAEError) and value is not errors.RayMAEError]
    assert drawn == classes
