"""Finals after a search, and searches that end because they have found enough, on a simulated clock. No Ray."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from raymae.errors import SpecError
from raymae.results.verdict.cells import rows_by_cell
from raymae.results.verdict.finals import Finalist, choose
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_of
from raymae.results.verdict.verdict import Verdict
from raymae.search.decide.resume import restore
from raymae.spec.load import parse_sweep
from raymae.spec.task import Objective
from raymae.tasks import schema_of

from .test_conductor import TEXT
from .test_encoders import SCHEMA, World
from .test_factors import Memory

ONE_CELL = TEXT.replace("search: {num_trials: 6}", "search: {num_trials: 6, algorithm: random, scheduler: none}")
FINALS = ("search.finalists=3",)
GRID = "space={lr: {choice: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]}}"
ARMS = ("mae", "scratch")


def truth(config):
    """How good a configuration is, without chance."""
    return 0.4 + 10 * abs(float(config.params["lr"]) - 0.004)


def noisy(trial, spread=0.05):
    """Its score on a seed: chance is the seed's and the configuration's."""
    config = trial.config
    return truth(config) + random.Random(f"{config.arm} {config.params['lr']:.6g} {config.seed}").gauss(0, spread)


class Luck(World):
    """A sweep whose scores are of chance, too."""

    def __init__(self, folder, *overrides, text=ONE_CELL, kept=None, value=noisy, **more):
        spec = parse_sweep(text, "finals.yaml", overrides, schema_of=schema_of)
        super().__init__(folder, *overrides, text=text, store=kept or Memory(folder, spec), **more)
        self.value = value

    @property
    def rows(self):
        return self.made.store.trials().to_dict("records")

    def message(self, trial, phase, **more):
        message = super().message(trial, phase, **more)
        if phase != "pretrain" and trial.config.arm != "persistence":
            message.report.metrics["test_mse" if phase == "test" else "val_mse"] = self.value(trial)
            if phase == "finetune":
                message.report.best["val_mse"] = self.value(trial)
        return message

    def counts(self, stage):
        return Counter(row["arm"] for row in self.rows if row["stage"] == stage)


def again(world, *overrides, **more):
    """The same sweep, run once more on what the last run left."""
    found = type(world)(world.folder, *overrides, kept=world.made.store, value=world.value, **more)
    found.folder = world.folder
    restore(found.made)
    return found


def luck(folder, *overrides, **more):
    world = Luck(folder, *overrides, **more)
    world.folder = folder
    return world


class Learning(Luck):
    """Whose pretrainings learn by chance, which is that of their encoder."""

    def message(self, trial, phase, **more):
        message = super().message(trial, phase, **more)
        if message.report is not None and message.report.pretext:
            message.report.pretext["pretext_skill"] = round(random.Random(trial.encoder_id).uniform(-0.5, 0.4), 2)
        return message


def run_choosing_alike(world):
    """Run a sweep; whenever a trial has ended, what runs and what the rows say must choose the same."""
    for _ in range(10_000):
        world.start()
        if not world.live:
            break
        world.end()
        store = world.made.store
        [rows] = rows_by_cell(store.trials(), store.spec(), store.manifest)
        assert {arm: None if best is None else best["trial_id"] for arm, best in rows.best.items()} == {
            arm: None if (best := world.made.trials.best(arm)) is None else best.trial_id for arm in world.made.plans}


@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_that_goes_on_knows_which_pretrainings_learned(tmp_path, seed):
    skilled = (f"search.seed={seed}", "search.min_skill=0", GRID)
    world = Learning(tmp_path, *skilled)
    world.folder = tmp_path
    run_choosing_alike(world)
    assert {arm: best and best.trial_id for arm in ARMS if (best := again(world, *skilled).made.trials.best(arm))} == {
        arm: world.made.trials.best(arm).trial_id for arm in ARMS}


# -- finals ------------------------------------------------------------------------------------------------------------


def test_the_best_three_are_run_on_the_same_two_seeds_and_the_best_mean_is_replicated(tmp_path):
    world = luck(tmp_path, *FINALS).run()
    assert world.counts("final") == {"mae": 6, "scratch": 6}
    finals = [row for row in world.rows if row["stage"] == "final"]
    taken = {row["seed"] for row in world.rows if row["stage"] in ("search", "replicate")}
    assert {row["seed"] for row in finals} == {20_000, 20_001}
    assert not taken & {20_000, 20_001}
    for arm in ARMS:
        ranked = sorted(world.of("search", arm), key=lambda row: row["val_mse"])
        scores = defaultdict(list)
        for row in [*ranked, *(one for one in finals if one["arm"] == arm)]:
            scores[row["config_id"]].append(row["val_mse"])
        means = {name: sum(values) / 3 for name, values in scores.items() if len(values) == 3}
        assert set(means) == {row["config_id"] for row in ranked[:3]}
        best = min(means, key=means.get)
        assert {row["config_id"] for row in world.of("replicate", arm)} == {best}
        assert all(row["parent"] in {one["trial_id"] for one in ranked[:3]} for row in finals if row["arm"] == arm)
    assert all(row["test_mse"] != row["test_mse"] for row in finals), "finals never see the test split"


def test_one_seed_would_have_chosen_others_somewhere(tmp_path):
    """Otherwise nothing here shows that finals matter."""
    def differs(seed):
        world = luck(tmp_path / str(seed), *FINALS, f"search.seed={seed}").run()
        return any(min(world.of("search", arm), key=lambda row: row["val_mse"])["config_id"]
                   != world.of("replicate", arm)[0]["config_id"] for arm in ARMS)

    assert any(map(differs, range(10)))


def test_finals_choose_better_configurations_on_average_than_one_seed(tmp_path):
    """The winner's curse, over many searches of the rule alone: 12 configurations, chance as large as what they differ
    by."""
    objective, draw, gained, shown = Objective("mse", "min", ""), random.Random(0), 0.0, 0.0
    for _ in range(400):
        true = [draw.gauss(0, 1) for _ in range(12)]
        seen = [value + draw.gauss(0, 1) for value in true]
        best = sorted(range(12), key=lambda index: seen[index])[:3]
        one, how = choose([Finalist(str(index), str(index), seen[index],
                                    {20_000 + seed: true[index] + draw.gauss(0, 1) for seed in range(2)})
                           for index in best], objective, 3)
        gained += (true[best[0]] - true[int(one.trial_id)]) / 400
        shown += (abs(seen[best[0]] - true[best[0]]) - abs(how.mean - true[int(one.trial_id)])) / 400
    assert gained > 0.1, "what is chosen is better"
    assert shown > 0.3, "and what is said of it is nearer the truth"


def test_what_runs_and_what_the_rows_say_choose_the_same(tmp_path):
    world = luck(tmp_path, *FINALS, value=lambda trial: round(noisy(trial), 2))  # with ties
    run_choosing_alike(world)
    assert verdict_of(world.made.store).complete


@pytest.mark.parametrize("finals", [(), FINALS])
@pytest.mark.parametrize(("least", "learned"), [(0, True), (-0.2, True), (0.39, False)])
def test_of_pretrainings_that_learned_the_best_is_chosen_and_rows_say_the_same(tmp_path, least, learned, finals):
    text = ONE_CELL.replace("num_trials: 6", "num_trials: 12")
    world = Learning(tmp_path, *finals, f"search.min_skill={least}", text=text)
    run_choosing_alike(world)
    of_mae = sorted(world.of("search", "mae"), key=lambda row: row["val_mse"])
    eligible = [row for row in of_mae if row["pretext_skill"] > least]
    assert bool(eligible) == learned
    assert 0 < len(eligible or of_mae) < 12 or not learned
    if not finals:
        best = (eligible or of_mae)[0]
        assert best is not of_mae[0] or not learned, "another would have been chosen"
        assert {row["config_id"] for row in world.of("replicate", "mae")} == {best["config_id"]}
    scratch = sorted(world.of("search", "scratch"), key=lambda row: row["val_mse"])
    if not finals:
        assert world.of("replicate", "scratch")[0]["config_id"] == scratch[0]["config_id"], "it has no pretraining"
    verdict = verdict_of(world.made.store)
    shown = {0: "0", -0.2: "−0.2", 0.39: "0.39"}[least]
    assert f"of pretrainings those of a skill above {shown} first" in headline(verdict)
    assert Verdict.from_json(verdict.to_json()).rule == verdict.rule


def test_the_verdict_says_how_configurations_were_chosen_and_reads_it_back(tmp_path):
    verdict = verdict_of(luck(tmp_path, *FINALS).run().made.store)
    assert "Configurations were chosen of 3 finalists over 3 validation seeds." in headline(verdict)
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert {arm.arm: arm.chosen is not None for arm in verdict.arms} == {
        "mae": True, "scratch": True, "persistence": False}
    assert "search trials are unequal" not in headline(verdict)
    plain = headline(verdict_of(luck(tmp_path / "without").run().made.store))
    assert "finalists" not in plain


@pytest.mark.parametrize("ends", range(0, 60, 4))
def test_a_kill_anywhere_and_in_mid_finals_loses_nothing_and_repeats_nothing(tmp_path, ends):
    overrides = (*FINALS, GRID, "search.algorithm=grid")  # a sampler proposes others after a kill
    whole = luck(tmp_path / "whole", *overrides).run()
    world = luck(tmp_path / "cut", *overrides)
    for _ in range(min(ends, len(whole.rows) - 1)):
        world.start()
        world.end()
    world.start()
    after = again(world, *overrides).run()
    rows = after.rows
    assert max(Counter(row["trial_id"] for row in rows).values()) == 1
    told = [{(row["trial_id"], row["config_id"], row["seed"]) for row in one if row["stage"] in ("final", "replicate")}
            for one in (rows, whole.rows)]
    assert told[0] == told[1]
    assert set(after.made.store.configs()) == {row["trial_id"] for row in rows}
    third = again(after, *overrides)
    assert third.made.finished()
    assert verdict_of(third.made.store) == verdict_of(after.made.store)


def test_progress_counts_finals(tmp_path):
    world = luck(tmp_path, *FINALS)
    assert world.made.progress().num_planned == 6 + 6 + 1 + 2 * 6 + 3 + 3 + 1
    progress = world.run().made.progress()
    assert progress.num_ended == progress.num_planned
    assert {arm.arm: (arm.search.done, arm.search.planned) for arm in progress.arms} == {
        "mae": (12, 12), "scratch": (12, 12), "persistence": (1, 1)}


def test_a_finalist_pretrains_anew_on_its_own_seed_where_trials_share_encoders(tmp_path):
    world = luck(tmp_path, *FINALS, "search.finetunes_per_encoder=3", "search.num_trials=6").run()
    rows = world.rows
    encoders = {row["encoder_id"]: row["seed"] for row in rows if row["stage"] == "pretrain"}
    finals = [row for row in rows if row["stage"] == "final" and row["arm"] == "mae"]
    assert {(row["seed"], encoders[row["encoder_id"]]) for row in finals} == {(20_000, 20_000), (20_001, 20_001)}
    search = {row["encoder_id"] for row in rows if row["stage"] == "search" and row["arm"] == "mae"}
    assert len(search) == 2
    assert not search & {row["encoder_id"] for row in finals}
    shared = {(row["config_id"], row["encoder_id"]) for row in finals}
    made = {row["encoder_id"] for row in finals}
    assert len(made) < len(shared), "finalists that pretrain alike share the encoder of a seed"


def test_a_final_that_fails_puts_its_configuration_out(tmp_path):
    world = luck(tmp_path, *FINALS)
    first = None

    def fails(trial):
        nonlocal first
        if trial.stage != "final" or trial.config.arm != "scratch":
            return None
        first = first or trial.config.config_id
        return "the loss is nan" if trial.config.config_id == first and trial.config.seed == 20_001 else None

    world.fails = fails
    world.run()
    assert first is not None
    assert first not in {row["config_id"] for row in world.of("replicate", "scratch")}
    assert "1 of them out by a failed final" in headline(verdict_of(world.made.store))


def test_where_all_fail_the_search_decides(tmp_path):
    world = luck(tmp_path, *FINALS)
    world.fails = lambda trial: "the loss is nan" if trial.stage == "final" else None
    world.run()
    for arm in ARMS:
        best = min(world.of("search", arm), key=lambda row: row["val_mse"])
        assert {row["config_id"] for row in world.of("replicate", arm)} == {best["config_id"]}
        assert len(world.of("replicate", arm)) == 3


def test_nothing_is_chosen_where_there_is_one_configuration(tmp_path):
    space = "space={mask_ratio: {choice: [0.25, 0.5], when: {arm: mae}}}"
    world = luck(tmp_path, "search.finalists=5", space, "search.num_trials=4",
                 value=lambda trial: 0.5 + 0.01 * (trial.config.seed % 7)).run()
    assert world.counts("final") == {"mae": 4}, "two configurations, two seeds each; scratch has nothing to search"
    assert world.counts("replicate") == {"mae": 3, "scratch": 3, "persistence": 1}


@pytest.mark.parametrize("minutes", [6, 8, 10, 12, 14])
def test_the_budget_keeps_time_for_finals_and_replicates(tmp_path, minutes):
    world = luck(tmp_path, *FINALS, "search.num_trials=500", f"budget.wall_minutes={minutes}").run()
    assert world.clock.now <= 60 * minutes
    verdict = verdict_of(world.made.store)
    assert verdict.complete
    assert world.counts("replicate") == {"mae": 3, "scratch": 3, "persistence": 1}
    if minutes >= 10:  # with less there are not three configurations to choose from
        assert world.counts("final") == {"mae": 6, "scratch": 6}
    assert any("cuts the search short" in text for text in world.notes.warnings)


def test_a_budget_that_ends_in_the_finals_compares_what_all_finalists_have_and_still_replicates(tmp_path):
    """Finals take longer than they were thought to: the budget is left to the replicates."""
    world = luck(tmp_path, *FINALS, "search.num_trials=500", "budget.wall_minutes=10")
    world.seconds["final"] = 40.0
    world.run()
    counts = world.counts("final")
    assert 0 < sum(counts.values()) < 12
    assert world.counts("replicate") == {"mae": 3, "scratch": 3, "persistence": 1}
    assert any("cuts the finals" in text for text in world.notes.warnings)
    verdict = verdict_of(world.made.store)
    assert "finals are incomplete" in headline(verdict)
    for arm in verdict.arms:
        if arm.chosen is not None and arm.chosen.seeds == 1:
            best = min((row for row in world.of("search", arm.arm)), key=lambda row: row["val_mse"])
            assert arm.val.trial_id == best["trial_id"]
    assert not again(world, *FINALS, "search.num_trials=500").made.next(), "nothing is chosen after replicates"


def test_longer_searches_have_finals_of_their_own(tmp_path):
    before = luck(tmp_path, *FINALS, "search.num_trials=4").run()
    kept = before.made.store
    kept._spec = parse_sweep(ONE_CELL, "finals.yaml", (*FINALS, "search.num_trials=16"), schema_of=schema_of)
    after = again(before, *FINALS, "search.num_trials=16")
    after.made._stages._reopened = True  # as `raymae extend` does
    after.run()
    ranked = sorted(after.of("search", "mae"), key=lambda row: row["val_mse"])[:3]
    assert {row["trial_id"] for row in ranked} - {f"mae-000{index}" for index in range(4)}
    for row in ranked:
        assert sum(one["config_id"] == row["config_id"] and one["stage"] == "final" for one in after.rows) == 2
    verdict = verdict_of(kept)
    assert verdict.complete
    assert {arm.arm: arm.val.trial_id for arm in verdict.arms if arm.chosen} == {
        arm: after.made.trials.best(arm).trial_id for arm in ARMS}


@pytest.mark.parametrize(("at", "finals"), [((), 4), (("search.at={label_fraction: 0.1}",), 2)])
def test_finals_are_of_the_cells_that_are_searched(tmp_path, at, finals):
    overrides = (*FINALS, "factors={label_fraction: [0.1, 1]}", *at)
    world = luck(tmp_path, *overrides).run()
    assert sum(world.counts("final").values()) == finals * 6
    answer = verdict_of(world.made.store)
    assert answer.complete
    assert "Configurations were chosen of 3 finalists over 3 validation seeds." in headline(answer)
    for cell in answer.cells:
        for arm in cell.arms:
            if arm.chosen is not None:
                lane = f"{arm.arm}-lf{0.1 if at else cell.cell['label_fraction']}"
                assert arm.val.trial_id == world.made.trials.best(lane).trial_id
                assert arm.n == 3


@pytest.mark.parametrize("minutes", [4, 10, 1000])
def test_the_verdict_says_where_the_budget_has_cut_the_search(tmp_path, minutes):
    world = luck(tmp_path, "search.num_trials=40", f"budget.wall_minutes={minutes}").run()
    counts, said = world.counts("search"), headline(verdict_of(world.made.store))
    cut = f"the budget cut the search short: mae {counts['mae']} of 40, scratch {counts['scratch']} of 40."
    assert (cut in said) == (minutes < 1000), said
    under_way = luck(tmp_path / "under_way", "search.num_trials=40", "budget.wall_minutes=1000", slots=4)
    while not under_way.counts("replicate"):
        under_way.start()
        under_way.end()
        assert "cut the search" not in headline(verdict_of(under_way.made.store)), "it may go on yet"
    assert ("cut the search" in said) == (minutes < 1000)
    free = luck(tmp_path / "free", "search.num_trials=40", "budget.num_trials=30").run()
    assert "cut the search" not in headline(verdict_of(free.made.store)), "the file asks for fewer"


def test_an_arm_whose_search_was_cut_to_one_trial_is_no_arm_without_a_search(tmp_path):
    slow_search = {"search": 400.0, "replicate": 5.0, "pretrain": 1.0, "final": 5.0}
    world = luck(tmp_path, "search.num_trials=40", "budget.wall_minutes=15", seconds=slow_search).run()
    assert min(world.counts("search")[arm] for arm in ARMS) == 1
    assert "scratch 1 of 40" in headline(verdict_of(world.made.store))


def test_a_population_s_schedules_are_finalists_like_any(tmp_path):
    world = luck(tmp_path, *FINALS, "search.scheduler=pbt").run()
    assert world.counts("final") == {"mae": 6, "scratch": 6}


# -- enough ------------------------------------------------------------------------------------------------------------


def first_good(trial, seconds=(3, 7)):
    """The trial from which on an arm is good: mae is quicker."""
    good = seconds[0] if trial.config.arm == "mae" else seconds[1]
    return 0.4 if trial.config.seed >= good else 0.6


def test_the_search_ends_for_all_once_every_arm_has_reached_the_target(tmp_path):
    overrides = ("search.num_trials=30", "budget.target=0.5")
    world = luck(tmp_path, *overrides, value=first_good).run()
    searched = world.counts("search")
    assert searched["mae"] == searched["scratch"]
    assert 8 <= searched["scratch"] <= 10
    assert world.counts("replicate") == {"mae": 3, "scratch": 3, "persistence": 1}
    [told] = world.notes.warnings
    assert told.startswith("the search ends after ")
    assert "mae: val_mse 0.4 reaches the target 0.5" in told
    assert "search trials are unequal" not in headline(verdict_of(world.made.store))
    assert world.made.progress().num_ended == world.made.progress().num_planned


def test_the_search_goes_on_while_one_arm_has_not_reached_it(tmp_path):
    world = luck(tmp_path, "search.num_trials=12", "budget.target=0.5",
                 value=lambda trial: first_good(trial, (0, 100))).run()
    assert world.counts("search") == {"mae": 12, "scratch": 12, "persistence": 1}
    assert world.notes.warnings == []


def test_the_search_ends_for_all_after_so_many_trials_without_a_better_score(tmp_path):
    world = luck(tmp_path, "search.num_trials=60", "budget.patience_trials=5", value=first_good).run()
    searched = world.counts("search")
    assert searched["mae"] == searched["scratch"]
    assert 8 + 5 <= searched["scratch"] <= 8 + 5 + 2
    assert "5 trials without a better score" in world.notes.warnings[0]


@pytest.mark.parametrize("slots", [1, 3, 5])
@pytest.mark.parametrize("later", [0, 1, 2, 3])
def test_a_kill_does_not_open_an_ended_search_again(tmp_path, slots, later):
    """A trial that was under way when the search ended may be better: it counts, and the search stays over."""
    overrides = ("search.num_trials=60", "budget.patience_trials=3")
    world = luck(tmp_path, *overrides, value=lambda trial: 0.6, slots=slots)
    world.start()
    while not world.made._stages.news:
        world.end()
        if not world.made._stages.news:
            world.start()
    world.value = lambda trial: 0.5 - trial.config.seed / 1000  # better and better, too late
    world.start()
    for _ in range(later):
        world.end()
        world.start()
    quota = dict(world.made.searches.quota)
    assert max(quota.values()) < 10
    after = again(world, *overrides, slots=slots)
    assert after.made.searches.quota == quota
    assert after.run().counts("search") == quota


def test_cells_end_by_themselves_and_what_they_share_with_the_last(tmp_path):
    """Only mae and scratch have label_fraction here; each cell reaches its target by itself."""
    overrides = ("factors={label_fraction: [0.1, 1]}", "search.num_trials=20", "budget.target=0.5")
    world = luck(tmp_path, *overrides, value=lambda trial: 0.4 if trial.config.params["label_fraction"] == 1 or
                 trial.config.seed > 9 else 0.6).run()
    counts = Counter((row["arm"], row["label_fraction"]) for row in world.rows if row["stage"] == "search")
    assert counts["mae", 1.0] == counts["scratch", 1.0] <= 3
    assert counts["mae", 0.1] == counts["scratch", 0.1] >= 11


@pytest.mark.parametrize("key", ["target=0.5", "patience_trials=5"])
def test_a_population_has_no_early_end(key):
    with pytest.raises(SpecError, match=f"budget.{key.partition('=')[0]}: with search.scheduler pbt"):
        parse_sweep(TEXT, "f.yaml", ["search.scheduler=pbt", f"budget.{key}"], schema_of=schema_of)


@pytest.mark.parametrize(("override", "said"), [
    ("search.finalists=0", "search.finalists: must be"), ("search.finalist_seeds=0", "search.finalist_seeds: must be"),
    ("budget.patience_trials=0", "budget.patience_trials: must be"), ("budget.target=.nan", "budget.target: must be"),
    ("budget.patience_trials=1.5", "budget.patience_trials: must be"), ("search.finalist=3", "did you mean"),
])
def test_impossible_values_are_refused_with_their_place(override, said):
    with pytest.raises(SpecError, match=said):
        parse_sweep(TEXT, "f.yaml", [override], schema_of=schema_of)


def test_the_rule_leaves_out_what_only_some_have():
    objective = Objective("top1", "max", "")
    lucky, steady = Finalist("a", "a", 0.9, {1: 0.5}), Finalist("b", "b", 0.8, {1: 0.8, 2: 0.1})
    one, how = choose([lucky, steady], objective, 3)
    assert (one.trial_id, how.seeds, how.asked) == ("b", 2, 3)
    assert how.mean == pytest.approx(0.8)
    one, how = choose([Finalist("a", "a", 0.9, {}), steady], objective, 3)
    assert (one.trial_id, how.seeds) == ("a", 1)
    assert SCHEMA.objective.mode == "min", "the others here are of the other direction"
