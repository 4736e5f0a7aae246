"""A bisected factor on a simulated clock: the bracket holds the change, with few cells. No Ray."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from raymae.errors import ResultsError
from raymae.results.report.figure import curves_figure
from raymae.results.store.store import Store
from raymae.results.verdict.bisection import found_already
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import conclude, verdict_now, verdict_of
from raymae.results.verdict.matrix import CHANGE, curves, matrix
from raymae.results.verdict.verdict import Verdict
from raymae.results.views import show
from raymae.results.views.compare import compared
from raymae.results.views.compare_text import table
from raymae.search.bisecting import is_through, open_cell
from raymae.search.decide.resume import restore
from raymae.search.live.display import Display
from raymae.search.plan import Plan
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plans
from raymae.tasks import schema_of

from .test_encoders import SCHEMA, World
from .test_factors import DATA, TEXT, Memory

BISECT = "factors={label_fraction: {bisect: [0.02, 1], cells: 6}}"
AT = "search.at={label_fraction: 0.02}"


class Bisected(World):
    """A sweep in which mae is better below a share of the labels, and worse above it."""

    def __init__(self, folder, *overrides, turn=0.2, kept=None, factor="label_fraction", **more):
        self.turn, self.factor = turn, factor
        overrides = overrides if any(one.startswith("factors") for one in overrides) else (BISECT, *overrides)
        asked = parse_sweep(TEXT, "b.yaml", overrides, schema_of=schema_of)
        store = kept or Memory(folder, asked)
        super().__init__(folder, *overrides, text=TEXT, store=store, opened=store.manifest.opened, **more)
        plans = arm_plans(self.spec, SCHEMA)
        self.plan = Plan(self.spec, SCHEMA, plans, None, 2, "")

    @property
    def store(self):
        return self.made.store

    @property
    def rows(self):
        return self.store.trials().to_dict("records")

    @property
    def values(self):
        return self.store.spec().factors[self.factor]

    def run(self, most=100_000):
        """Run all cells, each opened when those before are through; or no more than so many trials."""
        for _ in range(most):
            self.start()
            if not self.live:
                assert self.made.finished()
                wider = open_cell(self.made, self.plan, Display.silent())
                if wider is None:
                    return self
                self.plan = wider
                continue
            self.end()
        return self

    def message(self, trial, phase, **more):
        message = super().message(trial, phase, **more)
        if phase == "test":
            gain = 0.0
            if trial.config.arm == "mae":
                gain = 0.05 * (1 if trial.config.params[self.factor] < self.turn else -1)
            noise = 0.001 * (trial.config.seed * (7 if trial.config.arm == "mae" else 5) % 13)
            message.report.metrics["test_mse"] = 0.5 - gain + noise
        return message


@pytest.mark.parametrize("turn", [0.021, 0.1414, 0.37])
def test_the_bracket_holds_the_change(tmp_path, turn):
    world = Bisected(tmp_path, AT, turn=turn).run()
    verdict = verdict_of(world.store)
    low, high = verdict.place.bracket
    assert low < turn <= high
    assert len(verdict.cells) == verdict.place.opened == 6
    assert math.log(high / low) == pytest.approx(math.log(50) / 16, rel=0.05), "four halves of the logarithm"
    assert verdict.complete
    assert verdict.place.next is None
    assert [one.cell["label_fraction"] for one in verdict.cells] == sorted(world.values)
    assert {one.rule.comparisons for one in verdict.cells} == {sum(
        pair.p is not None for one in verdict.cells for pair in one.pairs)}, "adjusted for all cells that were opened"
    below, above = verdict.place.below, verdict.place.above
    assert (below.better, above.better) == (True, False)
    cells = {one.cell["label_fraction"]: one.pairs[0] for one in verdict.cells}
    assert [(cells[side.value].difference, cells[side.value].ci95) for side in (below, above)] == [
        (below.difference, below.ci95), (above.difference, above.ci95)]
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_every_new_cell_is_searched_by_itself_or_replicates_what_one_cell_found(tmp_path):
    anew, at = Bisected(tmp_path / "anew").run(), Bisected(tmp_path / "at", AT).run()
    for world, searched in ((anew, set(anew.values)), (at, {0.02})):
        counts = Counter((row["arm"], row["stage"], row["label_fraction"]) for row in world.rows
                         if row["arm"] in ("mae", "scratch") and row["stage"] != "pretrain")
        for arm in ("mae", "scratch"):
            assert {share: counts[arm, "search", share] for share in world.values} == {
                share: 3 if share in searched else 0 for share in world.values}
            assert {counts[arm, "replicate", share] for share in world.values} == {2}
        assert max(Counter(row["trial_id"] for row in world.rows).values()) == 1
    assert sum(row["arm"] == "persistence" for row in anew.rows) == 2, "it has no labels: it counts in every cell"


def test_ends_that_agree_are_all_that_is_run(tmp_path):
    for turn, word in ((2.0, "mae scores better than scratch at both ends"), (0.0, "mae scores no better than")):
        world = Bisected(tmp_path / word[:20].replace(" ", "-"), AT, turn=turn).run()
        verdict = verdict_of(world.store)
        assert world.values == [0.02, 1]
        assert verdict.complete
        assert verdict.place.bracket is None
        assert word in headline(verdict)
        assert "no change between them was looked for" in headline(verdict)
        assert not matrix(verdict).note


def test_a_change_is_of_the_sign_beyond_the_margin(tmp_path):
    world = Bisected(tmp_path, AT, "margin=0.2").run()
    place = verdict_of(world.store).place
    assert (place.changes, place.below.better) == (0, False), "0.05 better does not matter"
    assert "the margin of 0.2" in headline(verdict_of(world.store))
    assert "mae scores no better than scratch by more than 0.2 at both ends" in headline(verdict_of(world.store))


def test_whole_numbers_are_halved_to_whole_numbers(tmp_path):
    over = ("factors={epochs: {bisect: [4, 64], cells: 8, tolerance: 0.001}}", "search.at={epochs: 4}")
    world = Bisected(tmp_path / "wide", *over, turn=10, factor="epochs").run()
    assert all(isinstance(value, int) for value in world.values)
    assert world.values == [4, 8, 9, 10, 11, 16, 64] or world.values == [4, 8, 9, 10, 11, 12, 16, 64]
    assert verdict_of(world.store).place.bracket == (9, 10)
    narrow = Bisected(tmp_path / "narrow", "factors={epochs: {bisect: [30, 33]}}", "search.at={epochs: 30}", turn=32,
                      factor="epochs").run()
    assert narrow.values == [30, 31, 32, 33] or narrow.values == [30, 32, 33]
    assert verdict_of(narrow.store).place.bracket == (31, 32)


def test_a_narrow_bracket_is_not_halved(tmp_path):
    world = Bisected(tmp_path, "factors={label_fraction: {bisect: [0.02, 1], cells: 8, tolerance: 0.3}}", AT).run()
    low, high = verdict_of(world.store).place.bracket
    assert len(world.values) == 4
    assert math.log(high / low) <= 0.3 * math.log(50)


@pytest.mark.parametrize("at", [False, True])
@pytest.mark.parametrize("ends", [17, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, 26, 47))])
def test_a_kill_in_mid_bisection_loses_nothing_and_repeats_nothing(tmp_path, ends, at):
    overrides = (AT,) if at else ()
    whole = Bisected(tmp_path / "whole", *overrides).run()
    world = Bisected(tmp_path / "cut", *overrides).run(ends)
    kept = world.store
    again = Bisected(tmp_path / "cut", *overrides, kept=kept)  # nobody told the first that it was over
    restore(again.made)
    assert set(world.values) <= set(again.spec.factors["label_fraction"])
    again.run()
    assert again.values == whole.values
    assert again.store.manifest.opened == whole.store.manifest.opened
    rows = again.rows
    assert max(Counter(row["trial_id"] for row in rows).values()) == 1
    told = [Counter((row["arm"], row["stage"], row["label_fraction"]) for row in one if row["stage"] != "pretrain"
                    and row["arm"] != "persistence") for one in (rows, whole.rows)]
    assert told[0] == told[1]
    assert verdict_of(kept).complete
    third = Bisected(tmp_path / "cut", *overrides, kept=kept)
    restore(third.made)
    assert is_through(third.made)


def test_between_two_cells_the_sweep_is_not_finished(tmp_path):
    world = Bisected(tmp_path, AT)
    world.start()
    while world.live:
        world.end()
        world.start()
    verdict = verdict_of(world.store)
    assert all(one.complete for one in verdict.cells)
    assert not verdict.complete
    assert verdict.place.next == 0.141
    assert not is_through(world.made)
    assert "the next cell is 0.141" in headline(verdict)


def test_rounds_go_on_in_cells_that_are_opened(tmp_path):
    world = Bisected(tmp_path, AT, "replicates={min: 4, max: 12, until: decided}").run()
    verdict = verdict_of(world.store)
    assert verdict.complete
    assert len(verdict.cells) == 6
    assert {one.pairs[0].verdict for one in verdict.cells} == {"helps", "hurts"}


def test_a_cell_is_opened_only_where_its_replicates_fit(tmp_path):
    free = Bisected(tmp_path / "free", AT).run()
    budget = f"budget.wall_minutes={(free.clock.now - 40) / 60}"
    world = Bisected(tmp_path / "tight", AT, budget).run()
    assert 2 < len(world.values) < 6
    verdict = verdict_of(world.store)
    assert all(one.complete for one in verdict.cells)
    assert not verdict.complete
    assert any("no room for another cell" in text for text in world.notes.warnings)
    again = Bisected(tmp_path / "tight", AT, budget, kept=world.store)
    restore(again.made)
    assert len(again.run().values) == 6, "the same command goes on"


def test_a_budget_of_trials_is_for_all_cells(tmp_path):
    world = Bisected(tmp_path, "search.num_trials=20", "budget.num_trials=36").run()
    assert len(world.values) == 6
    searched = Counter(row["label_fraction"] for row in world.rows if row["stage"] == "search"
                       and row["arm"] != "persistence")
    assert max(searched.values()) <= 6
    assert sum(searched.values()) <= 36


def test_a_cell_without_a_comparison_ends_it(tmp_path):
    world = Bisected(tmp_path, AT)
    world.fails = lambda trial: "broken" if trial.stage == "replicate" and 0.1 < trial.config.params.get(
        "label_fraction", 0) < 0.9 and trial.config.arm == "mae" else None
    world.run()
    verdict = verdict_of(world.store)
    assert world.values == [0.02, 0.141, 1]
    assert verdict.place.bracket == (0.02, 1)
    assert verdict.place.next is None


def test_table_curve_terminal_and_json_show_the_bracket(tmp_path):
    world = Bisected(tmp_path, AT, "replicates=4").run()
    verdict = verdict_of(world.store)
    low, high = verdict.place.bracket
    found = matrix(verdict)
    assert [row.named()[0] for row in found.rows if row.beside] == [f"{CHANGE} {low:g}", f"{CHANGE} {high:g}"]
    assert sum(row.beside for row in found.rows) == 2
    [curve] = curves(verdict)
    assert curve.bracket == (low, high)
    drawn = curves_figure(verdict, list(SCHEMA.arms))
    ElementTree.fromstring(drawn)
    assert drawn.count('class="band"') == 2
    assert "it changes where it is shaded" in drawn
    said = headline(verdict)
    assert f"up to label_fraction {low:g} (" in said
    assert f"no longer at {high:g} (" in said
    assert "by the sign of the estimated difference" in said
    for word, doubted in (("undecided", True), ("helps", False)):
        cells = tuple(replace(one, pairs=tuple(replace(pair, verdict=word) for pair in one.pairs))
                      for one in verdict.cells)
        assert ("its sign may be chance" in headline(replace(verdict, cells=cells))) == doubted
    console = Console(width=160, record=True)
    console.print(show.cells(verdict))
    text = console.export_text()
    assert f"{CHANGE} {low:g}" in text
    assert "the answer changes between these two" in text
    plain = verdict.to_json()["place"]
    assert (plain["below"]["value"], plain["above"]["value"]) == (low, high)
    assert len(plain["below"]["ci95"]) == 2
    assert verdict.each()[0].place is None


def test_what_was_opened_lies_within_the_range(tmp_path):
    world = Bisected(tmp_path, AT)
    for opened in ((0.02,), (7.0,), (math.nan,)):
        with pytest.raises(ResultsError, match=r"sweep\.json: opened: holds values between the ends"):
            replace(world.store.manifest, opened=opened).sweep("sweep.json")
    assert replace(world.store.manifest, opened=(0.3,)).sweep("sweep.json").factors == {
        "label_fraction": [0.02, 0.3, 1]}
    assert DATA["name"] == world.store.manifest.data.name


PATCHED = ("factors={lookback: {bisect: [48, 384], cells: 6}}", "settings.patch_size=12", "settings.horizon=24")


@pytest.mark.parametrize("turn", [100, 300])
def test_a_half_that_breaks_a_rule_makes_way_for_the_nearest_value_that_does_not(tmp_path, turn):
    over = (*PATCHED, "search.at={lookback: 48}")
    whole = Bisected(tmp_path / "whole", *over, turn=turn, factor="lookback").run()
    low, high = verdict_of(whole.store).place.bracket
    assert whole.store.manifest.opened[0] == 216
    assert low < turn <= high
    assert len(whole.values) == 6
    assert all(value % 12 == 0 for value in whole.values)
    assert {row["status"] for row in whole.rows} == {"completed"}
    cut = Bisected(tmp_path / "cut", *over, turn=turn, factor="lookback").run(turn // 4)
    again = Bisected(tmp_path / "cut", *over, turn=turn, factor="lookback", kept=cut.store)
    restore(again.made)
    assert again.run().store.manifest.opened == whole.store.manifest.opened, "the same after a kill"


def test_where_no_value_is_left_the_bracket_is_the_answer_and_says_why(tmp_path):
    over = ("factors={lookback: {bisect: [48, 96], cells: 8}}", "settings.patch_size=24", "settings.horizon=24",
            "search.at={lookback: 48}")
    world = Bisected(tmp_path, *over, turn=60, factor="lookback").run()
    verdict = verdict_of(world.store)
    assert world.values == [48, 72, 96]
    assert (verdict.place.bracket, verdict.place.end) == ((48, 72), "no value")
    assert verdict.complete
    assert "the rules of the task and of the sweep allow no value there" in headline(verdict)
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert found_already(verdict, world.spec.bisected[1]) == (
        "no cell is opened between 48 and 72, since the rules of the task and of the sweep allow no value there")


def test_the_end_of_a_bisection_is_told(tmp_path):
    def end(name, *overrides, turn=0.2):
        world = Bisected(tmp_path / name, AT, *overrides, turn=turn).run()
        return verdict_of(world.store), world.spec.bisected[1]

    narrow, asked = end("narrow", "factors={label_fraction: {bisect: [0.02, 1], cells: 8, tolerance: 0.3}}")
    assert "no cell is opened between the two, which are as close together as is asked for" in headline(narrow)
    assert "as close together as is asked for" in found_already(narrow, asked)
    used, asked = end("used", "factors={label_fraction: {bisect: [0.02, 1], cells: 4}}")
    assert (used.place.end, found_already(used, asked)) == ("cells", "")
    alike, asked = end("alike", turn=2)
    assert found_already(alike, asked) == "the answer is the same at both ends of label_fraction, 0.02 and 1"


def test_the_same_two_arms_are_compared_in_every_cell(tmp_path):
    """Without a pretrained arm the better one would come first, and be better in every cell."""
    world = Bisected(tmp_path, "arms=[scratch, linear, persistence]", AT, "space={lr: {loguniform: [1e-4, 1e-2]}}")
    message = world.message

    def scored(trial, phase, **more):
        made = message(trial, phase, **more)
        if phase == "test":
            few = trial.config.params.get("label_fraction", 0) < 0.2
            noise = 0.001 * (trial.config.seed * (7 if trial.config.arm == "linear" else 5) % 13)
            value = {"scratch": 0.4 if few else 0.6, "linear": 0.5, "persistence": 0.9}[trial.config.arm] + noise
            made.report.metrics["test_mse"] = value
        return made

    world.message = scored
    verdict = verdict_of(world.run().store)
    assert (verdict.place.a, verdict.place.b) == ("scratch", "linear")
    low, high = verdict.place.bracket
    assert low < 0.2 <= high
    assert [row.difference[0] == "−" for row in matrix(verdict).rows] == [value < 0.2 for value in world.values]


SHARED, OWN = 1.25 * (2 * 2 * 11 / 2 + 10), 1.25 * ((2 * 41 + 2 * 11) / 2 + 40)  # of two replicates of each arm
TRIAL = 1.25 * (2 * 11 / 2 + 10)
NO_CHOICE = "space.mask_ratio=null"


@pytest.mark.parametrize(("overrides", "factor", "needed"), [
    ((AT,), "label_fraction", SHARED),
    ((*PATCHED, "search.at={lookback: 48}"), "lookback", OWN),
    (("factors={mask_ratio: {bisect: [0.3, 0.9]}}", "search.at={mask_ratio: 0.3}", NO_CHOICE), "mask_ratio",
     1.25 * (2 * 41 / 2 + 40)),
    ((), "label_fraction", TRIAL + OWN),
    ((NO_CHOICE,), "label_fraction", TRIAL + SHARED),
    ((*PATCHED, NO_CHOICE), "lookback", 1.25 * ((41 + 11) / 2 + 40) + OWN),
    ((NO_CHOICE, "search.finalists=2"), "label_fraction", SHARED + 1.25 * (8 * 11 / 2 + 10) + SHARED),
    (("search.finalists=2",), "label_fraction", SHARED + 1.25 * (4 * (41 + 11) / 2 + 40) + OWN),
    ((AT, "search.finalists=2"), "label_fraction", SHARED),
])
def test_a_cell_is_reckoned_with_its_own_encoders_and_finals(tmp_path, overrides, factor, needed):
    """A second for each handover; encoders take 30 s, and all else 10."""
    at = {"label_fraction": 0.2, "lookback": 100, "mask_ratio": 0.5}[factor]

    def ends(name):
        world = Bisected(tmp_path / name, *overrides, "budget.wall_minutes=1000", turn=at, factor=factor)
        world.start()
        while world.live:
            world.end()
            world.start()
        assert not is_through(world.made)
        return world

    for left, opens in ((needed - 1, False), (needed + 1, True)):
        world = ends(str(opens))
        world.clock.now = 60 * 1000 - left
        wider = open_cell(world.made, world.plan, Display.silent())
        assert (wider is not None) == opens
    world.plan = wider
    world.run()
    assert len(world.values) == 3
    assert all(one.complete for one in verdict_of(world.store).cells), "what was reckoned is enough"
    finals = Counter(row["arm"] for row in world.rows if row["stage"] == "final")
    searched = 1 if world.spec.search.at else 3
    assert set(finals.values()) <= {4 * searched}
    assert bool(finals) == (world.spec.search.finalists > 1)


@pytest.mark.parametrize("at", [False, True])
@pytest.mark.parametrize("ends", [20, 60])
def test_finals_in_cells_that_are_opened_survive_a_kill(tmp_path, ends, at):
    four = "factors={label_fraction: {bisect: [0.02, 1], cells: 4}}"
    overrides = ("search.finalists=2", four, *((AT,) if at else ()))
    whole = Bisected(tmp_path / "whole", *overrides).run()
    world = Bisected(tmp_path / "cut", *overrides).run(ends)
    again = Bisected(tmp_path / "cut", *overrides, kept=world.store)
    restore(again.made)
    again.run()
    told = [Counter((row["arm"], row["stage"], row["label_fraction"]) for row in one.rows if row["arm"] in (
        "mae", "scratch") and row["stage"] != "pretrain") for one in (again, whole)]
    assert told[0] == told[1]
    assert max(Counter(row["trial_id"] for row in again.rows).values()) == 1
    assert {told[1][arm, "final", 0.02] for arm in ("mae", "scratch")} == {4}
    assert {told[1][arm, "final", share] for arm in ("mae", "scratch") for share in whole.values} == (
        {0, 4} if at else {4})
    assert verdict_of(again.store).complete


# -- more cells, asked for after a verdict -----------------------------------------------------------------------------


def kept_in(folder, cells, *overrides, low=0.02, **more):
    """The folder of a sweep with so many cells, and the sweep on the clock."""
    asked = (f"factors={{label_fraction: {{bisect: [{low}, 1], cells: {cells}}}}}",
             f"search.at={{label_fraction: {low}}}", *overrides)
    spec = parse_sweep(TEXT, "b.yaml", asked, schema_of=schema_of)
    store = Store.create(folder / "sweep", spec, SCHEMA, environment={}, flush_s=0, data=DATA, **more)
    world = Bisected(folder, *asked, kept=store)
    restore(world.made)
    return world


@pytest.mark.parametrize("most", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_more_cells_go_on_from_the_bracket_and_are_looked_at_before(tmp_path, most):
    first = kept_in(tmp_path, 4).run()
    before, opened = conclude(first.store), first.store.manifest.opened
    assert (before.complete, before.place.end, len(opened)) == (True, "cells", 2)
    assert not before.rule.looked_before
    with pytest.raises(ResultsError, match=r"factors\.label_fraction\.cells: 4 -> 6"):
        kept_in(tmp_path, 6)
    with pytest.raises(ResultsError, match=r"factors\.label_fraction\.bisect"):
        kept_in(tmp_path, 6, low=0.03, extend=True)
    ids = set(first.store.trials()["trial_id"])
    longer = kept_in(tmp_path, 6, extend=True).run(most)
    assert not verdict_now(longer.store).complete, "an old answer is none to a new question"
    longer = kept_in(tmp_path, 6, extend=True).run()
    verdict = conclude(longer.store)
    assert verdict.complete
    assert verdict.rule.looked_before
    assert longer.store.manifest.opened[:2] == opened
    assert longer.values == kept_in(tmp_path / "at once", 6).run().values
    trials = longer.store.trials()
    assert ids < set(trials["trial_id"])
    assert not trials["trial_id"].duplicated().any()
    assert kept_in(tmp_path, 6).store.manifest.looked_before, "the same command goes on"
    console = Console(width=160, record=True)
    console.print(table([compared(str(longer.store.root))]))
    told = " ".join(console.export_text().split())
    assert "Bisected: 6 of at most 6 cells" in told
    assert all(f"label_fraction {value:g} mae − scratch" in told for value in longer.values)


def test_more_cells_in_rounds_are_not_looked_at_before(tmp_path):
    rounds = "replicates={min: 4, max: 8, until: decided}"
    conclude(kept_in(tmp_path, 3, rounds).run().store)
    verdict = conclude(kept_in(tmp_path, 4, rounds, extend=True).run().store)
    assert (len(verdict.cells), verdict.rule.looked_before) == (4, False)
