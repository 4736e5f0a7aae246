"""Whatever the text, `parse_sweep` gives a spec whose every configuration is valid, or a SpecError."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
from base_sweep import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from raymae.errors import MAX_LINE, MAX_LINES, SpecError
from raymae.spec import SweepSpec, arm_plan, parse_sweep, trial_config
from raymae.spec.arms import with_arms
from raymae.spec.space import combinations
from raymae.tasks import schema_of

QUICK = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SHIPPED = [YAML(typ="safe", pure=True).load(path.read_text()) for path in sorted((ROOT / "sweeps").rglob("*.yaml"))]
NAMES = ["name", "arms", "space", "lr", "when", "arm", "mae", "mask_ratio", "patch_size", "lookback", "uniform",
         "int", "choice", "loguniform", "step", "settings", "training", "epochs", "task", "forecasting", "grid"]
NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**64), 10**400, 0.0, -0.0, 0.5, 1e308, math.nan, math.inf, 1e-320]
HOSTILE = ["\x1b[2J", "/dev/zero", "'a' * 999999999 != arm", "raymae.tasks.base:Task", "a\nb", "x" * 5000, "\u202e"]
PARAMS = list(schema_of("forecasting").params.model_fields)
scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), st.sampled_from(NAMES),
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5),
                      inner, max_size=4),
    max_leaves=8,
)
distributions = st.one_of(*(
    st.fixed_dictionaries({kind: st.lists(scalars, min_size=2, max_size=3)},
        optional={"step": scalars, "when": st.dictionaries(st.sampled_from(NAMES), scalars, max_size=2)})
    for kind in ("uniform", "loguniform", "int", "choice")
))


def dump(tree: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, stream)
    return stream.getvalue()


def check(text: str, *overrides: str) -> SweepSpec | None:
    """Load it; what loads must survive everything that follows before a trial is started."""
    try:
        spec = parse_sweep(text, "f.yaml", overrides, schema_of=schema_of)
    except SpecError as error:
        lines = str(error).encode().decode().splitlines()  # can be printed
        assert len(lines) <= MAX_LINES
        assert all(line.isprintable() and len(line) <= MAX_LINE for line in lines)
        return None
    assert SweepSpec.model_validate(spec.to_json()) == spec
    schema = with_arms(spec, schema_of(spec.task))
    for arm in spec.arms:
        plan = arm_plan(spec, schema, arm)
        for sampled in combinations(plan.space, {"arm": arm}, limit=16):
            config = trial_config(spec, plan, sampled, seed=0, stage="search", source="real")
            schema.params.model_validate(dict(config.params))
            assert not schema.check(config.like or arm, config.params)
            assert all(math.isfinite(v) for v in config.params.values() if isinstance(v, float))
    return spec


@settings(max_examples=200, **QUICK)
@given(st.text(max_size=60) | st.text("{}[]&*!:,-?|>#%@`\"'\n\t abc01.", max_size=40))
def test_any_text(text: str) -> None:
    assert check(text) is None


@settings(max_examples=200, **QUICK)
@given(trees)
def test_any_tree(tree: Any) -> None:
    check(dump(tree))


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of nested mappings and every index of lists."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in pairs for found in [(*path, key), *places(value, (*path, key))]]


@st.composite
def mutants(draw: Any) -> Any:
    tree = copy.deepcopy(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree) or [()]))
        if not path:
            break
        node = tree
        for part in path[:-1]:
            node = node[part]
        what = draw(st.sampled_from(["delete", "replace", "replace", "rename", "distribution", "nest"]))
        if what == "delete":
            del node[path[-1]]
        elif what == "rename" and isinstance(node, dict):
            node[draw(st.sampled_from(NAMES) | st.just("ünknown"))] = node.pop(path[-1])
        elif what == "distribution":
            tree.setdefault("space", {})
            if isinstance(tree["space"], dict):
                tree["space"][draw(st.sampled_from(PARAMS))] = draw(distributions)
        elif what == "nest":
            node[path[-1]] = {draw(st.sampled_from(NAMES)): node[path[-1]]}
        else:
            node[path[-1]] = draw(trees)
    return tree


@settings(max_examples=200, **QUICK)
@given(mutants())
def test_mutations_of_shipped_sweeps(tree: Any) -> None:
    check(dump(tree))


@settings(max_examples=150, **QUICK)
@given(st.lists(st.sampled_from([".".join(map(str, p)) for p in places(SHIPPED[0])] + NAMES), min_size=1, max_size=2),
       st.text(max_size=12) | trees.map(repr))
def test_any_override(keys: list[str], value: str) -> None:
    check(dump(SHIPPED[0]), *(f"{key}={value}" for key in keys))


def test_the_check_can_pass() -> None:
    assert all(check(dump(tree)) is not None for tree in SHIPPED)
    with pytest.raises(AssertionError):
        test_any_text.hypothesis.inner_test("\n".join([dump(SHIPPED[0])]))  # type: ignore[attr-defined]
