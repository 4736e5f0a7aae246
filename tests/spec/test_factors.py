"""Factors in a sweep file: what may stand there, what is said of mistakes, and what each cell's arms then are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raymae.errors import SpecError
from raymae.spec.bisect import BisectSpec
from raymae.spec.check import may_open
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


BISECTED = "factors={label_fraction: {bisect: [0.02, 1], cells: 6}}"


def test_a_bisected_factor_has_its_ends_and_what_was_opened() -> None:
    spec = load(BISECTED)
    assert spec.factors == {"label_fraction": [0.02, 1]}
    assert spec.with_opened([0.5, 0.1]).factors == {"label_fraction": [0.02, 0.1, 0.5, 1]}
    assert spec.factors == {"label_fraction": [0.02, 1]}, "a spec does not change"
    assert SweepSpec.model_validate(spec.with_opened([0.5]).to_json()) == spec, "what was opened is no wish"
    assert list(arm_plans(spec.with_opened([0.5]), schema_of("forecasting"))) == [
        "mae-lf0.02", "scratch-lf0.02", "persistence", "mae-lf0.5", "scratch-lf0.5", "mae-lf1", "scratch-lf1"]


def test_halves_are_geometric_where_the_ends_are_far_apart_and_whole_where_the_parameter_is() -> None:
    def half(low: float, high: float, *, whole: bool = False, **more: object) -> float | None:
        return next(iter(BisectSpec(bisect=(low, high), **more).halves(whole=whole)), None)

    assert half(0.01, 1.0) == 0.1
    assert half(0.1, 1.0) == 0.55, "ten times is not more than ten times"
    assert half(0.01, 1.0, log=False) == 0.505
    assert half(-1, 1) == 0.0
    assert half(4, 64, whole=True) == 16
    assert half(4, 5, whole=True) is None
    assert half(0.5, 0.501) == 0.5005, "three digits would be an end"
    assert half(1, math.nextafter(1, 2)) is None
    assert len(BisectSpec(bisect=(0.01, 1.0), cells=6).halves(whole=False)) == 15
    assert len(BisectSpec(bisect=(4, 8), cells=8, tolerance=1e-6).halves(whole=True)) == 3


@pytest.mark.parametrize(("asked", "whole", "rule"), [
    ({"bisect": (48, 384), "cells": 8}, True, lambda value: value % 12 == 0),
    ({"bisect": (2, 2000), "cells": 6}, True, lambda value: value % 7 == 0),
    ({"bisect": (0.02, 1), "cells": 8}, False, lambda value: value in (0.03, 0.1, 0.7)),
    ({"bisect": (0, 0.5), "cells": 6}, False, lambda value: value < 0.1 or value > 0.4),
    ({"bisect": (-1, 1), "cells": 6, "tolerance": 0.001}, False, lambda value: round(1000 * value) % 3 == 0),
])
def test_where_rules_forbid_a_half_the_nearest_allowed_value_stands_in(
    asked: dict[str, Any], whole: bool, rule: Callable[[float], bool]
) -> None:
    bisect = BisectSpec(**asked)
    low, high = bisect.bisect
    may_open = bisect.halves(whole=whole, allowed=rule)
    assert may_open
    assert all(rule(value) and low < value < high and isinstance(value, int) == whole for value in may_open)

    def walk(low: float, high: float, left: int) -> Iterator[float]:
        found = bisect.half(low, high, sorted(may_open)) if left else None
        if found is None:
            assert not left or bisect.is_narrow(low, high) or not any(map(rule, bisect.between(low, high, whole=whole)))
            return
        away = [abs(math.log(value * value / low / high)) if bisect.by_log else abs(2 * value - low - high)
                for value in (found, *filter(rule, bisect.between(low, high, whole=whole)))]
        assert away[0] == pytest.approx(min(away)), "of all that are allowed the one nearest the middle"
        yield found
        yield from walk(low, found, left - 1)
        yield from walk(found, high, left - 1)

    assert list(walk(low, high, bisect.cells - 2)) == may_open, "a reader who has the values alone finds the same"


@pytest.mark.parametrize(("said", "found"), [
    ("{bisect: [1, 1]}", "bisect: needs [low, high], two finite numbers with low < high, got [1, 1]"),
    ("{bisect: [1, 0.02]}", "bisect: needs [low, high]"),
    ("{bisect: [a]}", "bisect: needs [low, high], two finite numbers with low < high, got ['a']"),
    ("{bisect: [0.1, b]}", "bisect: needs [low, high]"),
    ("{bisect: some}", "bisect: needs [low, high]"),
    ("{bisect: [0.1, .inf]}", "bisect: needs [low, high]"),
    ("{bisect: [true, 2]}", "bisect: needs [low, high]"),
    ("{bisect: [0.1, 0.5, 1]}", "bisect: needs [low, high]"),
    ("{bisect: [0.1, 1], cells: 10000}", "cells: must be at most 8, got 10000"),
    ("{bisect: [0.1, 1], cells: 2}", "cells: must be at least 3, got 2"),
    ("{bisect: [0.1, 1], cels: 4}", "cels: unknown key 'cels'; did you mean `cells`?"),
    ("{bisect: [0, 1], log: true}", " log needs ends above 0, got [0, 1]"),
    ("{cells: 4}", "bisect: is required"),
    ("{bisect: [0.02, 2]}", " input should be less than or equal to 1, got 2.0"),
])
def test_a_range_that_cannot_be_bisected_is_refused_with_the_rule(said: str, found: str) -> None:
    place = "--set: factors.label_fraction" + (":" if found[0] == " " else ".")
    assert any(one.startswith(place + found) for one in problems("factors={}", f"factors.label_fraction={said}"))


@pytest.mark.parametrize(("overrides", "found"), [
    (["factors.label_fraction={bisect: [0.02, 1]}"], "label_fraction is bisected, and a bisected factor stands alone"),
    ([BISECTED, "search.at={label_fraction: 0.5}"], "is no value of the factor, got 0.5; allowed: 0.02, 1"),
    ([BISECTED, "replicates=1"], "replicates is 1; set it to 2 or more"),
    ([BISECTED, "arms=[mae]"], "is bisected by the difference of two arms"),
    (["factors={protocol: {bisect: [0, 1]}}"], "is no number, which alone can be bisected"),
    (["factors={lookback: {bisect: [24.5, 96]}}"], "is a whole number, so that bisect needs two of them"),
    (["factors={lookback: {bisect: [96, 108]}}", "settings.patch_size=12"],
     "factors.lookback: has no value between 96 and 108 at which a cell could be opened: lookback=102 must be "
     "a multiple of patch_size=12"),
    (["factors={lookback: {bisect: [96, 97]}}", "settings.patch_size=1"],
     "has no value between 96 and 97 at which a cell could be opened; list the two instead"),
    (["factors={lookback: {bisect: [48, 96]}}", "settings.patch_size=12",
      'constraints=["lookback in (48, 96) or arm == \'persistence\'"]'],
     "has no value between 48 and 96 at which a cell could be opened: "),
    (["asked_factors={}"], "unknown key 'asked_factors'"),
])
def test_what_a_bisected_factor_needs_is_told(overrides: list[str], found: str) -> None:
    assert any(found in one for one in problems(*overrides)), problems(*overrides)


@pytest.mark.parametrize(("overrides", "found"), [
    (["factors={lookback: {bisect: [48, 384], cells: 4}}", "settings.patch_size=12"], [132, 216, 300]),
    (["factors={patch_size: {bisect: [4, 48], cells: 4}}", "settings.lookback=96"], [6, 12, 24]),
    (["factors={label_fraction: {bisect: [0.1, 1], cells: 4}}", 'constraints=["label_fraction != 0.55"]'],
     [0.324, 0.549, 0.774]),
    (["factors={lookback: [48, 96]}", "settings.patch_size=12"], []),
])
def test_what_may_be_opened_keeps_the_rules_of_task_and_sweep(overrides: list[str], found: list[float]) -> None:
    assert may_open(load(*overrides), schema_of("forecasting")) == found
