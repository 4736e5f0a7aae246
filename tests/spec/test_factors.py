"""Factors in a sweep file: what may stand there, what is said of mistakes, and what each cell's arms then are."""

from __future__ import annotations

import time

import pytest

from raymae.errors import SpecError
from raymae.spec.factors import cells, lane, num_cells
from raymae.spec.load import json_schema, parse_sweep
from raymae.spec.resolve import arm_plans
from raymae.spec.sweep import SweepSpec
from raymae.tasks import schema_of

TEXT = """\
name: matrix
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch, persistence]
settings: {horizon: 24}
factors:
  label_fraction: [0.02, 0.1, 1]
  protocol: [report, field]
space:
  lr: {loguniform: [1e-4, 1e-2]}
training: {epochs: 2}
"""


def load(*overrides: str) -> SweepSpec:
    return parse_sweep(TEXT, "m.yaml", overrides, schema_of=schema_of)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(*overrides)
    return [f"{one.where}: {one.key}: {one.message}" for one in caught.value.problems]


def test_every_combination_is_a_cell_in_order() -> None:
    found = cells(load().factors)
    assert [tuple(cell.values()) for cell in found] == [
        (0.02, "report"), (0.02, "field"), (0.1, "report"), (0.1, "field"), (1, "report"), (1, "field")]
    assert len(cells(load("factors.label_fraction=[0.1]").factors)) == 2
    assert cells({}) == [{}]


def test_a_cell_s_values_are_laid_over_every_arm_that_has_them() -> None:
    spec, schema = load(), schema_of("forecasting")
    plans = arm_plans(spec, schema)
    assert plans["mae-lf0.1-pfield"].fixed["label_fraction"] == 0.1
    assert plans["scratch-lf1-preport"].fixed["label_fraction"] == 1.0
    assert type(plans["scratch-lf1-preport"].fixed["label_fraction"]) is float
    assert [name for name in plans if name.startswith("persistence")] == ["persistence-preport", "persistence-pfield"]
    assert {plan.home for plan in plans.values()} == set(plans)
    at = arm_plans(load("search.at={label_fraction: 1, protocol: field}"), schema)
    assert {plan.home for plan in at.values()} == {"mae-lf1-pfield", "scratch-lf1-pfield", "persistence-pfield"}
    again = SweepSpec.model_validate(spec.to_json())
    assert again == spec
    assert arm_plans(again, schema) == plans


def test_a_sweep_without_factors_has_its_arms() -> None:
    assert list(arm_plans(load("factors={}"), schema_of("forecasting"))) == ["mae", "scratch", "persistence"]


@pytest.mark.parametrize(("override", "said"), [
    ("factors.label_fracton=[1]", "--set: factors.label_fracton: unknown parameter 'label_fracton'; did you mean "
                                  "`label_fraction`?"),
    ("factors.lr=[0.1]", "--set: factors.lr: is also searched under space.lr; keep one of the two"),
    ("factors.horizon=[24]", "--set: factors.horizon: is also fixed under settings.horizon; keep one of the two"),
    ("factors.epochs=[2]", "--set: factors.epochs: is also fixed under training.epochs; keep one of the two"),
    ("arms.mae.label_fraction=0.1", "m.yaml:7: factors.label_fraction: is also fixed under arms.mae.label_fraction"),
    ("factors.label_fraction=[]", "m.yaml:6: factors: label_fraction lists no value"),
    ("factors.label_fraction=[1, 1.0]", "m.yaml:6: factors: label_fraction lists a value twice"),
    ("factors.label_fraction=0.1", "--set: factors.label_fraction: must be a list, got 0.1"),
    ("factors.label_fraction=[0.1, {a: 1}]", "--set: factors.label_fraction.1: must be text, a finite number"),
    ("factors.label_fraction=[0.1, 1.5]", "--set: factors.label_fraction: input should be less than or equal to 1"),
    ("factors.protocol=[report, shrt]", "--set: factors.protocol: input should be"),
    ("search.at={label_fraction: 0.1}", "--set: search.at: names a value of every factor; protocol is missing"),
    ("search.at={label_fraction: 0.2, protocol: field}", "--set: search.at.label_fraction: is no value of the factor, "
                                                        "got 0.2; allowed: 0.02, 0.1, 1"),
    ("search.points=[{lr: 1}]", "--set: search.points.0.lr: is not within space.lr, got 1"),
    ("search.points=[{lr: 1e-3}, {ls: 1e-3}]", "--set: search.points.1.ls: unknown searched parameter 'ls'"),
    ("search.points=[{lr: [1]}]", "--set: search.points.0.lr: must be text, a finite number"),
    ("search.at={label_fractin: 0.1}", "--set: search.at.label_fractin: unknown factor 'label_fractin'; did you mean"),
])
def test_mistakes_are_told_with_their_place(override: str, said: str) -> None:
    assert any(one.startswith(said) for one in problems(override)), problems(override)


def test_a_factor_that_no_arm_has_is_refused() -> None:
    assert "m.yaml:7: factors.label_fraction: no arm of this sweep has label_fraction; leave it out" in problems(
        "arms=[persistence]", "space={}")


def test_a_hostile_matrix_is_refused_with_its_count_and_its_cost_at_once() -> None:
    hundred = str([round(0.001 * (step + 1), 3) for step in range(100)])
    many = str(list(range(1, 101)))
    began = time.process_time()
    [found] = problems(f"factors.label_fraction={hundred}", f"factors.lookback={many}", "factors.protocol=[report]")
    assert time.process_time() - began < 5
    assert found.startswith("m.yaml:6: factors: make 10,000 cells (100 x 1 x 100), and a sweep has at most 64")
    assert "would take" in found
    assert num_cells({str(index): range(1000) for index in range(30)}) == 1000**30
    # mae and scratch in every cell, persistence in none that differ by what it lacks
    spec_trials = 2 * 10_000 * (16 + 5) + 1 + 1
    assert f"they would take {spec_trials:,} trials" in found


def test_lanes_have_names_that_are_files_and_differ() -> None:
    factors = {"label_fraction": [0.1, 1e-7], "lookback_factor": [True, 1], "missing_kind": ["a/b", "a b", "x" * 99],
               "other": [None, "none!"]}
    names = {lane("mae", cell, factors) for cell in cells(factors)}
    assert len(names) == 2 * 2 * 3 * 2
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in names)
    assert lane("scratch", {}, factors) == "scratch"


def test_the_published_schema_has_them() -> None:
    properties = json_schema()["properties"]
    assert "cell" in properties["factors"]["description"]
