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
    "search": {"train", "results", "tasks", "spec", "data", "errors"},
    "imputer": {"train", "results", "tasks", "data", "models", "spec", "errors"},
    "web": {"results", "spec", "errors"},
    "cli": {"web", "search", "train", "results", "tasks", "spec", "data", "errors", ""},
}
DRIVERS = {"ray", "optuna"}
TENSORS = {"torch", "timm", "monai"}
NAMES = {path: ".".join(("raymae", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
         for path in FILES}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def room_of(module: str) -> str:
    """`spec` of `raymae.spec.load`; "" of `raymae` itself."""
    return [*module.split("."), ""][1]


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
def test_only_search_imports_ray_or_optuna(path: Path) -> None:
    found = {name.split(".")[0] for name in imports_of(path)}
    if room_of(NAMES[path]) != "search":
        assert not found & DRIVERS
    if room_of(NAMES[path]) in ("errors", "spec", "data", "results", "web", "cli"):
        assert not found & TENSORS


@every_file
def test_files_are_small_and_named_for_what_they_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
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
