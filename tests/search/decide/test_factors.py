"""Sweeps with factors on a simulated clock: every cell has its trials, replicates and answer. No Ray."""

from __future__ import annotations

import json
from collections import Counter
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from raymae.results.report.figure import figure
from raymae.results.store.columns import arrow_schema, checked_row
from raymae.results.store.opening import described
from raymae.results.store.scores import score_schema
from raymae.results.store.store import to_pandas
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_of
from raymae.results.verdict.matrix import curves, matrix
from raymae.results.verdict.verdict import Verdict
from raymae.search.decide.resume import restore, warm_start
from raymae.search.timing import Measured, lengthened
from raymae.spec.factors import cells
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of

from .test_encoders import SCHEMA, World

TEXT = """
name: matrix
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch, persistence]
factors: {label_fraction: [0.02, 0.1, 1], horizon: [96, 192]}
space:
  lr: {loguniform: [1e-4, 1e-2]}
  mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}
search: {num_trials: 3, algorithm: random}
replicates: 2
"""
ONE = "factors={label_fraction: [0.02, 0.1, 1]}"
DATA = {"name": "ETTh1", "source": "real", "fingerprint": "sha256:1"}


class Memory:
    """Stands in for the store: rows of its columns and kinds, in memory."""

    def __init__(self, folder, spec):
        self.location, self._spec, self.manifest = str(folder), spec, described(spec, SCHEMA, DATA)
        self._rows, self._configs = {"trials": [], "reports": []}, {}

    def _frame(self, name):
        table = pa.Table.from_pylist(self._rows[name], schema=arrow_schema(self.manifest.columns[name]))
        return to_pandas(table)

    def add_trial(self, row):
        self._rows["trials"].append(checked_row("trials", row, self.manifest.columns["trials"]))

    def add_report(self, row):
        self._rows["reports"].append(checked_row("reports", row, self.manifest.columns["reports"]))

    def write_config(self, trial_id, config):
        assert trial_id not in self._configs, "a trial is started once"
        self._configs[trial_id] = json.loads(json.dumps(config))

    def keep_found(self, manifest):
        self.manifest = manifest

    def trials(self):
        return self._frame("trials")

    def reports(self):
        return self._frame("reports")

    def configs(self):
        return self._configs

    def spec(self):
        return self._spec.with_opened(self.manifest.opened)

    def objective(self):
        return SCHEMA.objective

    def scores(self, trials=None):
        return score_schema().empty_table().to_pandas()

    def flush(self):
        return True


class Matrix(World):
    """A sweep with factors, in which mae is better with few labels."""

    def __init__(self, folder, *overrides, kept=None, **more):
        spec = parse_sweep(TEXT, "matrix.yaml", overrides, schema_of=schema_of)
        super().__init__(folder, *overrides, text=TEXT, store=kept or Memory(folder, spec), **more)

    @property
    def rows(self):
        return self.made.store.trials().to_dict("records")

    def message(self, trial, phase, **more):
        message = super().message(trial, phase, **more)
        if phase == "test":
            few = trial.config.arm == "mae" and trial.config.params["label_fraction"] < 0.5
            noise = 0.001 * (trial.config.seed * (7 if trial.config.arm == "mae" else 5) % 13)
            message.report.metrics["test_mse"] = 0.5 - 0.1 * few + noise
        return message


def test_every_cell_has_its_trials_its_replicates_and_its_answer(tmp_path):
    world = Matrix(tmp_path).run()
    rows = world.rows
    for arm, lanes in (("mae", 6), ("scratch", 6), ("persistence", 2)):
        stages = Counter(row["stage"] for row in rows if row["arm"] == arm)
        each = (1, 1) if arm == "persistence" else (3, 2)
        assert (stages["search"], stages["replicate"]) == (lanes * each[0], lanes * each[1]), arm
    counts = Counter((row["arm"], row["label_fraction"], row["horizon"]) for row in rows
                     if row["stage"] == "replicate" and row["arm"] != "persistence")
    assert set(counts.values()) == {2}
    assert len(counts) == 12
    assert {row["trial_id"] for row in rows if row["arm"] == "persistence" and row["stage"] == "search"} == {
        "persistence-h96-0000", "persistence-h192-0000"}, "it has no labels: it is the same whatever share there is"
    assert "mae-lf0.02-h96-0001" in {row["trial_id"] for row in rows}
    verdict = verdict_of(world.made.store)
    assert [dict(one.cell) for one in verdict.cells] == [dict(cell) for cell in cells(world.spec.factors)]
    assert verdict.complete
    for one in verdict.each():
        assert {arm.arm: arm.n for arm in one.arms} == {"mae": 2, "scratch": 2, "persistence": 1}
        assert one.pairs[0].primary
        best = {arm.arm: arm.best_params for arm in one.arms}
        assert all(params[name] == one.cell[name] for arm, params in best.items() for name in one.cell
                   if arm != "persistence" or name == "horizon")
    differences = {tuple(one.cell.values()): one.pairs[0].difference for one in verdict.each()}
    assert differences == {(fraction, steps): pytest.approx(-0.1 if fraction < 0.5 else 0.0, abs=0.02)
                           for fraction in (0.02, 0.1, 1) for steps in (96, 192)}
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert headline(verdict)


def test_what_is_said_of_a_cell_is_adjusted_for_all_cells(tmp_path):
    world = Matrix(tmp_path, ONE, "replicates=4").run()
    whole = verdict_of(world.made.store)
    pairs = [pair for one in whole.cells for pair in one.pairs]
    assert {one.rule.comparisons for one in whole.cells} == {sum(pair.p is not None for pair in pairs)}
    # Holm's procedure over all of them, written out
    ranked, least = sorted((pair for pair in pairs if pair.p is not None), key=lambda pair: pair.p), 0.0
    for place, pair in enumerate(ranked):
        least = max(least, min(1.0, (len(ranked) - place) * pair.p))
        assert pair.p_holm == pytest.approx(least)


def test_a_sweep_of_one_cell_says_what_one_without_factors_does(tmp_path):
    bare = ("factors={}", "training={label_fraction: 0.1}")
    narrow, plain = (Matrix(tmp_path / name, *changed, "replicates=4").run() for name, changed in (
        ("narrow", ("factors={label_fraction: [0.1]}",)), ("plain", bare)))
    [one], two = verdict_of(narrow.made.store).each(), verdict_of(plain.made.store)
    assert not two.cells
    for a, b in zip(one.pairs, two.pairs, strict=True):
        assert (a.a, a.b, a.difference, a.p_holm, a.verdict) == (b.a, b.b, b.difference, b.p_holm, b.verdict)
    assert [row["config_id"] for row in narrow.rows] == [row["config_id"] for row in plain.rows]
    assert {row["trial_id"].replace("-lf0.1", "") for row in narrow.rows} == {row["trial_id"] for row in plain.rows}


def test_cells_share_the_encoders_of_what_pretraining_does_not_read(tmp_path):
    labels = Matrix(tmp_path / "labels", ONE).run()
    made = [row["encoder_id"] for row in labels.rows if row["stage"] == "pretrain"]
    assert len(made) == len(set(made)) == 3 + 2, "three of the search and two of the replicates, whatever the cell"
    started = Counter(row["encoder_id"] for row in labels.rows if row["stage"] == "search" and row["arm"] == "mae")
    assert set(started.values()) == {3}, "every cell begins with the same configurations on the same seeds"
    spent = verdict_of(labels.made.store).spent["mae"]
    assert (spent.pretrainings, spent.starts) == (5, 15)
    assert spent.compute_s == 5 * 30 + 15 * 10
    assert spent.unshared_s == 15 * 40
    for one in verdict_of(labels.made.store).each():
        [mae] = [arm for arm in one.arms if arm.arm == "mae"]
        assert mae.compute_s == 5 * 30 + 5 * 10, "what this cell alone would have taken"
    lookbacks = Matrix(tmp_path / "lookbacks", "factors={lookback: [96, 192]}").run()
    assert sum(row["stage"] == "pretrain" for row in lookbacks.rows) == 2 * 5, "pretraining reads the lookback"


def test_one_cell_is_searched_for_all(tmp_path):
    world = Matrix(tmp_path, ONE, "search.at={label_fraction: 0.1}").run()
    search = [row for row in world.rows if row["stage"] == "search"]
    assert {row["label_fraction"] for row in search if row["arm"] != "persistence"} == {0.1}
    assert Counter(row["arm"] for row in search) == {"mae": 3, "scratch": 3, "persistence": 1}
    best = {arm: min((row for row in search if row["arm"] == arm), key=lambda row: row["val_mse"])
            for arm in ("mae", "scratch")}
    again = [row for row in world.rows if row["stage"] == "replicate" and row["arm"] != "persistence"]
    assert Counter((row["arm"], row["label_fraction"]) for row in again) == {
        (arm, share): 2 for arm in ("mae", "scratch") for share in (0.02, 0.1, 1.0)}
    for row in again:
        assert row["lr"] == best[row["arm"]]["lr"]
        elsewhere = row["label_fraction"] != 0.1
        assert (row["parent"] == best[row["arm"]]["trial_id"]) == elsewhere
        assert (row["config_id"] != best[row["arm"]]["config_id"]) == elsewhere
    assert len({row["trial_id"] for row in again}) == len(again)
    assert sum(row["stage"] == "pretrain" for row in world.rows) == 3 + 2
    verdict = verdict_of(world.made.store)
    assert verdict.complete
    assert verdict.cell == {"label_fraction": 0.1}, "what is shown first is the cell that was searched"
    for one in verdict.each():
        assert {arm.arm: arm.val.trial_id for arm in one.arms}["mae"] == best["mae"]["trial_id"]
        assert {arm.arm: arm.n for arm in one.arms} == {"mae": 2, "scratch": 2, "persistence": 1}


def test_the_replicates_elsewhere_of_what_is_no_longer_best_count_nowhere(tmp_path):
    at = (ONE, "search.at={label_fraction: 0.1}")
    first = Matrix(tmp_path, *at).run()
    longer = first.made.store
    longer._spec = parse_sweep(TEXT, "matrix.yaml", [*at, "search.num_trials=40"], schema_of=schema_of)
    world = Matrix(tmp_path, *at, "search.num_trials=40", kept=longer)
    world.made._stages._reopened = True
    restore(world.made)
    world.run()
    rows = world.rows
    verdict = verdict_of(longer)
    for one in verdict.each():
        for arm in one.arms:
            assert arm.n == (1 if arm.arm == "persistence" else 2), (one.cell, arm.arm)
    for arm in ("mae", "scratch"):
        repeated = {row["lr"] for row in rows if row["stage"] == "replicate" and row["arm"] == arm}
        assert len(repeated) == 2, "the search has found better ones meanwhile, or this proves nothing"


@pytest.mark.parametrize("at", [False, True])
@pytest.mark.parametrize("ends", [1, 4, 9, 14, 19])
def test_a_kill_in_mid_matrix_loses_nothing_and_repeats_nothing(tmp_path, ends, at):
    overrides = (ONE, *(["search.at={label_fraction: 0.02}"] if at else []))
    whole = Matrix(tmp_path / "whole", *overrides).run()
    world = Matrix(tmp_path / "cut", *overrides)
    for _ in range(ends):
        world.start()
        world.end()
    world.start()
    kept = world.made.store
    again = Matrix(tmp_path / "cut", *overrides, kept=kept)  # nobody told the first that it was over
    restore(again.made)
    again.run()
    rows = again.rows
    assert max(Counter(row["trial_id"] for row in rows).values()) == 1
    made = [row["encoder_id"] for row in rows if row["stage"] == "pretrain"]
    assert len(made) == len(set(made))
    told = [Counter((row["arm"], row["stage"], row["label_fraction"]) for row in one if row["stage"] != "pretrain"
                    and row["arm"] != "persistence") for one in (rows, whole.rows)]
    assert told[0] == told[1]
    assert set(again.made.store.configs()) == {row["trial_id"] for row in rows}
    assert verdict_of(again.made.store).complete
    third = Matrix(tmp_path / "cut", *overrides, kept=kept)
    restore(third.made)
    assert third.made.finished()
    assert {trial.trial_id: trial.lane for trial in third.made.trials if trial.stage != "pretrain"} == {
        trial.trial_id: trial.lane for trial in again.made.trials if trial.stage != "pretrain"}


def test_a_budget_that_ends_the_search_leaves_every_cell_its_replicates(tmp_path):
    world = Matrix(tmp_path, ONE, "search.num_trials=1000", "budget.wall_minutes=20").run()
    assert world.clock.now <= 60 * 20 + 40
    verdict = verdict_of(world.made.store)
    assert verdict.complete
    searched = Counter((row["arm"], row["label_fraction"]) for row in world.rows
                       if row["stage"] == "search" and row["arm"] != "persistence")
    assert max(searched.values()) - min(searched.values()) <= 2, "cells are searched in turns"
    assert min(searched.values()) > 3


def test_rounds_go_on_only_in_cells_that_are_not_decided(tmp_path):
    world = Matrix(tmp_path, ONE, "replicates={min: 4, max: 12, until: decided}").run()
    verdict = verdict_of(world.made.store)
    words = {one.cell["label_fraction"]: one.pairs[0].verdict for one in verdict.cells}
    assert words == {0.02: "helps", 0.1: "helps", 1: "undecided"}
    counts = Counter((row["arm"], row["label_fraction"]) for row in world.rows if row["stage"] == "replicate")
    assert counts["mae", 1.0] == counts["scratch", 1.0] == 12
    assert counts["mae", 0.02] == counts["scratch", 0.02] < 12
    assert verdict.complete


def test_an_arm_that_lacks_a_factor_is_run_once_for_all_cells(tmp_path):
    world = Matrix(tmp_path, "factors={mask_ratio: [0.3, 0.6]}", "space.mask_ratio=null").run()
    counts = Counter((row["arm"], row["stage"]) for row in world.rows)
    assert counts["scratch", "search"] == 3
    assert counts["scratch", "replicate"] == 2
    assert counts["mae", "search"] == 6
    for one in verdict_of(world.made.store).each():
        assert {arm.arm: arm.n for arm in one.arms} == {"mae": 2, "scratch": 2, "persistence": 1}


def test_progress_counts_an_arm_s_trials_in_all_cells(tmp_path):
    world = Matrix(tmp_path, ONE)
    planned = {arm.arm: (arm.search.planned, arm.replicates.planned) for arm in world.made.progress().arms}
    assert planned == {"mae": (9, 6), "scratch": (9, 6), "persistence": (1, 1)}
    world.run()
    last = world.made.progress()
    assert last.num_ended == last.num_planned
    assert {arm.arm: (arm.search.done, arm.replicates.done) for arm in last.arms} == planned


def test_a_search_learns_from_trials_of_the_same_cell(tmp_path):
    before = Matrix(tmp_path / "before", "factors={label_fraction: [0.1]}").run()
    world = Matrix(tmp_path / "after", ONE)
    assert warm_start(world.made, before.made.store) == 3 + 3 + 1
    studies = {lane: len(study.study.trials) for lane, study in world.made.searches.studies.items()}
    assert studies == {"mae-lf0.02": 0, "mae-lf0.1": 3, "mae-lf1": 0, "scratch-lf0.02": 0, "scratch-lf0.1": 3,
                       "scratch-lf1": 0, "persistence": 1}


def test_the_answer_is_a_table_and_a_curve(tmp_path):
    world = Matrix(tmp_path, "replicates=3").run()
    verdict = verdict_of(world.made.store)
    table = matrix(verdict)
    assert table.factors == ("label_fraction", "horizon")
    assert (table.a, table.b) == ("mae", "scratch")
    assert [row.values for row in table.rows] == [
        (share, steps) for share in ("0.02", "0.1", "1") for steps in ("96", "192")]
    assert [row.shown for row in table.rows] == [True] + [False] * 5
    assert {row.plain for row in table.rows[:4]} == {"helps"}
    found = curves(verdict)
    assert [(curve.factor, curve.at, curve.log) for curve in found] == [
        ("label_fraction", "horizon 96", True), ("label_fraction", "horizon 192", True)]
    for curve in found:
        [mae] = [line for line in curve.scores if line.arm == "mae"]
        assert [point.x for point in mae.points] == [0.02, 0.1, 1.0]
        assert curve.differences[0].arm == "scratch"
        means = {one.cell["label_fraction"]: one.test(arm).mean for one in verdict.each() for arm in one.arms
                 if arm.arm == "mae" and f"horizon {one.cell['horizon']}" == curve.at}
        assert {point.x: point.value for point in mae.points} == means
    drawn = figure(verdict, list(SCHEMA.arms))
    ElementTree.fromstring(drawn)
    assert "label_fraction 0.02, horizon 96" in drawn
    said = headline(verdict)
    assert "helps in 4 of 6 cells" in said
    assert "Trials share pretrained encoders" in said
    assert not curves(next(iter(verdict.each())))
    assert matrix(next(iter(verdict.each()))) is None


def test_the_reserve_counts_once_what_cells_share_and_labels_by_fine_tuning_alone(tmp_path):
    """40 s a trial of mae, 30 of them for its encoder: ten times the labels do not make ten times 40 s."""
    world = Matrix(tmp_path, ONE, "search.at={label_fraction: 0.1}", "budget.wall_minutes=10").run()
    assert Counter(row["arm"] for row in world.rows if row["stage"] == "search") == {
        "mae": 3, "scratch": 3, "persistence": 1}
    assert sum(row["stage"] == "replicate" for row in world.rows) == 2 * 3 + 2 * 3 + 1


class Particular(Matrix):
    """In which every cell has a mask ratio of its own that is best: the more labels, the higher."""

    def message(self, trial, phase, **more):
        message = super().message(trial, phase, **more)
        if phase == "finetune" and trial.config.arm == "mae":
            params = trial.config.params
            message.report.metrics["val_mse"] = message.report.best["val_mse"] = 0.4 + abs(
                params["mask_ratio"] - 0.2 - 0.6 * params["label_fraction"])
        return message


@pytest.mark.parametrize("minutes", [20, 30, 60])
def test_the_reserve_counts_once_what_searches_find_alike(tmp_path, minutes):
    """Where every cell's best pretrains alike, one encoder a seed serves all; where they do not, each has its own."""
    asked = ("search.num_trials=1000", f"budget.wall_minutes={minutes}", "replicates=12")
    searched, made = {}, {}
    for world in (Matrix(tmp_path / "alike", ONE, *asked).run(), Particular(tmp_path / "apart", ONE, *asked).run()):
        name = type(world).__name__
        assert verdict_of(world.made.store).complete
        assert world.clock.now <= 60 * minutes, name
        searched[name] = sum(row["stage"] == "search" for row in world.rows)
        made[name] = sum(row["stage"] == "pretrain" and row["seed"] >= 10_000 for row in world.rows)
    assert made["Matrix"] == 12 < made["Particular"]
    assert searched["Matrix"] > searched["Particular"], "what is not spent on encoders is there for the search"


@pytest.mark.parametrize(("known", "searched"), [({}, 1), ({"mae": 2.0, "scratch": 2.0}, 3)])
def test_the_reserve_goes_by_what_an_epoch_was_measured_to_cost(tmp_path, known, searched):
    """Few labels may be passed over several times an epoch: ten times as many then take as long."""
    world = Matrix(tmp_path, ONE, "search.at={label_fraction: 0.1}", "budget.wall_minutes=5")
    plans = world.made.plans
    costs = {lane: known[plan.name] for lane, plan in plans.items() if plan.name in known}
    world.made.use_plans(lengthened(plans, Measured({}, costs)))
    counts = Counter(row["arm"] for row in world.run().rows if row["stage"] == "search")
    assert counts == {"mae": searched, "scratch": searched, "persistence": 1}
