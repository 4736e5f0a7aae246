"""Constraints: what may be written, what it means, and that nothing is executed."""

from __future__ import annotations

import pytest

from raymae.errors import SpecError
from raymae.spec.constraints import Constraint
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan
from raymae.tasks import schema_of


@pytest.mark.parametrize(("text", "values", "holds"), [
    ("lookback >= 8 * patch_size", {"lookback": 96, "patch_size": 12}, True),
    ("lookback >= 8 * patch_size", {"lookback": 95, "patch_size": 12}, False),
    ("1 < a <= 3 and not b == 2", {"a": 3, "b": 1}, True),
    ("1 < a <= 3 and not b == 2", {"a": 3, "b": 2}, False),
    ("1 < a <= 3", {"a": 1}, False),
    ("arm in ['mae', 'scratch'] or a % 2 == 0", {"arm": "gru", "a": 3}, False),
    ("a // 2 + -1 != 0", {"a": 2}, False),
    ("missing > 1", {"a": 1}, True),
])
def test_meaning(text, values, holds):
    assert Constraint(text).holds(values) is holds


@pytest.mark.parametrize("text", [
    "__import__('os').system('true')", "a.b", "a[0]", "lambda: 1", "(a := 2)", "f'{a}'", "[x for x in a]",
    "a ** 9 ** 9", "a <", "", "a; b", "a if b else c", "x" * 301,
])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"is not|holds|at most"):
        Constraint(text)


def test_what_cannot_be_computed_says_so():
    with pytest.raises(ValueError, match="division"):
        Constraint("1 / a > 0").holds({"a": 0})


TEXT = """
name: x
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch, gru]
space:
  lookback: {choice: [60, 96, 168]}
  patch_size: {choice: [6, 12, 24, 60], when: {arm: [mae, scratch]}}
constraints: [CONSTRAINT]
"""


def load(constraint: str):
    return parse_sweep(TEXT.replace("CONSTRAINT", constraint), "x.yaml", schema_of=schema_of)


def test_it_rules_out_what_the_task_would_refuse():
    with pytest.raises(SpecError, match="must be a multiple"):
        load("lookback > 0")
    spec = load("lookback % patch_size == 0 and lookback > patch_size")
    plan = arm_plan(spec, schema_of("forecasting"), "mae")
    assert plan.admits({"lookback": 96, "patch_size": 12})
    assert not plan.admits({"lookback": 60, "patch_size": 24})
    assert arm_plan(spec, schema_of("forecasting"), "gru").admits({"lookback": 60})


@pytest.mark.parametrize(("constraint", "message"), [
    ("lookbak > 3", "did you mean `lookback`"), ("lookback >", "is not an expression"), ("lookback > 999", "none of"),
    ("1 / (lookback - 96) > 0", "cannot be computed"),
])
def test_errors_name_the_key(constraint, message):
    with pytest.raises(SpecError, match=message) as raised:
        load(constraint)
    assert all(problem.key.startswith("constraints") for problem in raised.value.problems)
