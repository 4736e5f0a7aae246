"""Pretraining as a stage, on a simulated clock: made once, waited for, shared, lost and made again. No Ray."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from raymae.inference.encoders import Card, EncoderShelf
from raymae.results.store import layout
from raymae.results.store.columns import alone_s
from raymae.results.store.opening import described
from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_of
from raymae.search.decide.claims import STALE_S
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.resume import restore
from raymae.search.messages import Message, Worker
from raymae.spec.encoder import encoder_id, pretraining_of
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plans
from raymae.spec.trial import ReportData
from raymae.tasks import schema_of

from .test_conductor import TEXT, Clock, Notes, Recorder

SCHEMA = schema_of("forecasting")


class Shelf(EncoderShelf):
    """A shelf whose encoders are cards alone."""

    def lay(self, ref, seconds):
        card = Card(ref.encoder_id, {}, ref.fingerprint, {"pretext_skill": 0.2}, 3, seconds, 1, "", 0)
        self._folder.make()
        self._folder.write(layout.card(ref.encoder_id), json.dumps(vars(card)).encode())


class World:
    """A sweep, the clock it runs by, and workers that need so many seconds for each stage."""

    def __init__(self, folder, *overrides, slots=2, text=TEXT, clock=None, shelf=None, shared=False, seconds=None,
                 store=None, opened=()):
        self.spec = parse_sweep(text, "simulated.yaml", overrides, schema_of=schema_of).with_opened(opened)
        plans = arm_plans(self.spec, SCHEMA)
        self.clock, self.shelf, self.notes = clock or Clock(), Shelf(str(shelf or folder / "encoders")), Notes()
        self.encoders = Encoders(SCHEMA, self.shelf, "sha256:1", clock=self.clock, shared=shared)
        store = store or Recorder(folder)
        if isinstance(store, Recorder):  # jobs say what is known of the data
            data = {"name": "ETTh1", "source": "real", "fingerprint": "sha256:1"}
            store.manifest = described(self.spec, SCHEMA, data)
        self.made = Conductor(self.spec, plans, SCHEMA.objective, store, source="real", slots=slots,
                              observers=[self.notes], clock=self.clock, encoders=self.encoders)
        self.seconds = seconds or {"pretrain": 30.0, "search": 10.0, "final": 10.0, "replicate": 10.0}
        self.order, self.live, self.idle_s, self.idle_by_search_s, self.fails = [], [], 0.0, 0.0, lambda trial: None

    @property
    def rows(self):
        return self.made.store.trials

    def start(self):
        while (trial := self.made.next()) is not None:
            self.order.append(trial)
            self.live.append([self.clock.now + self.seconds[trial.stage], trial])

    def end(self):
        """Let the trial that is through first end."""
        self.live.sort(key=lambda pair: pair[0])
        until, trial = self.live.pop(0)
        self.idle_s += (until - self.clock.now) * (self.made.slots - len(self.live) - 1)
        if self.made.trials.num_asked("mae") < self.made.searches.quota.get("mae", 0):
            self.idle_by_search_s = self.idle_s
        self.clock.now = max(self.clock.now, until)
        job = self.made.job(trial)
        failure = self.fails(trial)
        if failure is not None:
            self.made.on_report(trial, failure if isinstance(failure, Message) else Message.failed(job, failure))
        else:
            phases = {"pretrain": ["pretrain"], "replicate": ["finetune", "test"]}
            for phase in phases.get(trial.stage, ["finetune"]):
                self.made.on_report(trial, self.message(trial, phase))
            if trial.stage == "pretrain":
                self.shelf.lay(job.encoder, self.seconds["pretrain"])
        self.made.on_end(trial)

    def message(self, trial, phase, *, final=True):
        value = trial.config.params.get("lr", 0.5)
        best = {} if phase == "pretrain" else {"val_mse": value}
        metrics = {"pretrain": {"loss": 1.0}, "finetune": best, "test": {"test_mse": value}}[phase]
        last = final and phase == {"pretrain": "pretrain", "replicate": "test"}.get(trial.stage, "finetune")
        report = ReportData(phase, 1, 0, metrics, best, self.seconds[trial.stage], 1, last,
                            pretext={"pretext_skill": 0.2} if trial.encoder_id else {})
        return Message(trial.trial_id, trial.attempt, report, worker=Worker("h", 1, "cpu"))

    def run(self):
        for _ in range(100_000):
            self.start()
            if not self.live:
                assert self.made.finished()
                return self
            self.end()
        raise AssertionError("the sweep does not end")

    def of(self, stage, arm="mae"):
        return [row for row in self.rows if row["stage"] == stage and row["arm"] == arm]


def test_an_encoder_is_made_before_the_trial_that_starts_from_it(tmp_path):
    world = World(tmp_path).run()
    assert len(world.of("search")) == 6
    assert len(world.of("replicate")) == 3
    assert len(world.of("pretrain")) == 9, "six seeds of the search, and three of the replicates"
    assert not world.of("pretrain", "scratch")
    assert len(world.of("search", "scratch")) == 6
    ended = {row["trial_id"]: index for index, row in enumerate(world.rows)}
    maker = {row["encoder_id"]: row["trial_id"] for row in world.of("pretrain")}
    for row in [*world.of("search"), *world.of("replicate")]:
        assert ended[maker[row["encoder_id"]]] < ended[row["trial_id"]]
        assert (row["pretrain_s"], row["finetune_s"], row["wall_s"]) == (30.0, 10.0, 10.0)
        assert row["pretext_skill"] == 0.2
        assert row["attempt"] == 0
    assert {row["finetune_s"] for row in world.of("search", "scratch")} == {10.0}
    assert world.made.progress().num_planned == world.made.progress().num_ended == 20


def test_one_pretraining_serves_all_that_want_it_at_the_same_moment(tmp_path):
    text = TEXT.replace("  mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}\n", "")
    world = World(tmp_path, "search.num_trials=20", "search.finetunes_per_encoder=20", slots=20, text=text)
    world.start()
    assert sum(trial.stage == "pretrain" for trial in world.order) == 1
    world.run()
    assert len({row["encoder_id"] for row in world.of("search")}) == 1
    assert Counter(row["stage"] for row in world.rows if row["arm"] == "mae") == {
        "pretrain": 1 + 3, "search": 20, "replicate": 3}
    assert len({row["seed"] for row in world.of("search")}) == 20, "fine-tunings keep seeds of their own"


def test_several_fine_tunings_share_what_pretraining_reads_and_every_arm_has_as_many_trials(tmp_path):
    world = World(tmp_path, "search.num_trials=12", "search.finetunes_per_encoder=4").run()
    groups = {}
    for row in world.of("search"):
        groups.setdefault(row["encoder_id"], []).append(row)
    assert sorted(map(len, groups.values())) == [4, 4, 4]
    for rows in groups.values():
        assert len({row["mask_ratio"] for row in rows}) == 1
        assert len({row["lr"] for row in rows}) == 4
    assert len({row["mask_ratio"] for row in world.of("search")}) == 3
    assert len(world.of("search", "scratch")) == len(world.of("search")) == 12
    study = world.made.searches.studies["mae"].study
    assert len([trial for trial in study.trials if trial.state.name == "COMPLETE"]) == 12, "the study learns from all"
    assert len(world.of("pretrain")) == 3 + 3


def test_three_hundred_fine_tunings_over_forty_encoders_keep_all_slots_busy(tmp_path):
    world = World(tmp_path, "search.num_trials=300", "search.finetunes_per_encoder=8", "replicates=16", slots=16).run()
    assert len({row["encoder_id"] for row in world.of("search")}) == 38
    # the last pretraining's fine-tunings start together, and not all end together: then slots may be free
    assert world.idle_by_search_s < 0.01 * world.clock.now * world.made.slots


def test_a_grid_runs_the_points_that_share_an_encoder_together(tmp_path):
    text = TEXT.replace("{loguniform: [1e-4, 1e-2]}", "{choice: [1e-4, 1e-3, 1e-2]}").replace(
        "{uniform: [0.2, 0.8], when: {arm: mae}}", "{choice: [0.25, 0.5], when: {arm: mae}}")
    world = World(tmp_path, "search.algorithm=grid", "search.finetunes_per_encoder=3", text=text).run()
    assert Counter(row["encoder_id"] for row in world.of("search")).most_common() == [
        (row, 3) for row in dict.fromkeys(row["encoder_id"] for row in world.of("search"))]
    assert len({(row["lr"], row["mask_ratio"]) for row in world.of("search")}) == 6


def test_what_waits_for_a_pretraining_that_fails_fails_with_its_reason(tmp_path):
    world = World(tmp_path, "search.num_trials=2")
    bad = []

    def fails(trial):
        if trial.stage == "pretrain" and not bad:
            bad.append(trial)
        return "the loss is nan" if trial in bad else None

    world.fails = fails
    world.run()
    failed = [row for row in world.rows if row["status"] == "failed"]
    assert [row["stage"] for row in failed] == ["pretrain", "search"]
    assert failed[1]["encoder_id"] == failed[0]["encoder_id"]
    assert failed[1]["error"] == "its pretraining failed: the loss is nan"
    assert len(world.of("replicate")) == 3


def test_an_arm_whose_pretrainings_all_fail_alike_is_given_up(tmp_path):
    world = World(tmp_path)
    world.fails = lambda trial: "the loss is nan" if trial.stage == "pretrain" else None
    world.run()
    assert 3 <= len(world.of("search")) < 6
    assert not world.of("replicate")
    assert any("arm mae is given up" in warning for warning in world.notes.warnings)
    assert len(world.of("replicate", "scratch")) == 3


def test_a_damaged_encoder_is_made_again_and_the_trial_runs(tmp_path):
    world = World(tmp_path, "search.num_trials=2")
    lost = []

    def fails(trial):
        if trial.stage == "search" and trial.config.arm == "mae" and not lost:
            lost.append(trial)
            return Message.failed(world.made.job(trial), "x.safetensors: damaged", lost_encoder=True)
        return None

    world.fails = fails
    world.run()
    assert [row["status"] for row in world.of("search")] == ["completed"] * 2
    again = [row for row in world.of("pretrain") if row["encoder_id"] == lost[0].encoder_id]
    assert [row["attempt"] for row in again] == [0, 1]
    assert [warning for warning in world.notes.warnings if "made again" in warning] == [
        f"{lost[0].trial_id}: x.safetensors: damaged; the encoder is made again"]
    assert {row["error"] for row in world.rows} == {None}


def test_an_encoder_that_is_lost_again_and_again_fails_its_trial(tmp_path):
    world = World(tmp_path, "search.num_trials=2")
    world.fails = lambda trial: (
        Message.failed(world.made.job(trial), "x.safetensors: damaged", lost_encoder=True)
        if trial.trial_id == "mae-0000" else None)
    world.run()
    assert [row["status"] for row in world.of("search")].count("failed") == 1


def stopped_in_the_middle(folder, ended, *, written):
    """A sweep that was killed after so many ends; its rows and configs."""
    world = World(folder, "search.num_trials=8", "search.finetunes_per_encoder=4")
    for _ in range(ended):
        world.start()
        world.end()
    world.start()
    for _, trial in world.live:
        if trial.stage == "pretrain" and written:  # killed between the encoder's last byte and the row of its making
            world.shelf.lay(world.made.job(trial).encoder, 30.0)
    return world


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("ended", range(0, 24, 3))
def test_a_killed_sweep_goes_on_without_losing_or_repeating_anything(tmp_path, ended, written):
    before = stopped_in_the_middle(tmp_path, ended, written=written)
    after = World(tmp_path, "search.num_trials=8", "search.finetunes_per_encoder=4")
    rows = {row["trial_id"]: row for row in before.rows}
    taken, left = [], []
    for trial in before.made.trials:
        trial.status = rows[trial.trial_id]["status"] if trial.trial_id in rows else "pending"
        (taken if trial.trial_id in rows else left).append(trial)
        after.made.store.configs[trial.trial_id] = {}
    for trial in taken:
        if trial.is_asked:
            after.made.searches.studies[trial.config.arm].add(
                trial.trial_id, trial.sampled, trial.status, {}, trial.best.get("val_mse"))
    after.made.take_over(taken, left)
    after.run()
    both = [*before.rows, *after.rows]
    assert max(Counter(row["trial_id"] for row in both).values()) == 1, "no trial ends twice"
    assert max(Counter(row["encoder_id"] for row in both if row["stage"] == "pretrain").values()) == 1
    made = {row["encoder_id"] for row in both if row["stage"] == "pretrain"}
    assert made == {row["encoder_id"] for row in both if row["encoder_id"]}, "every encoder's making has its row"
    counts = Counter((row["arm"], row["stage"]) for row in both)
    assert counts["mae", "search"] == counts["scratch", "search"] == 8
    assert counts["mae", "replicate"] == counts["scratch", "replicate"] == 3
    assert sorted(Counter(row["encoder_id"] for row in both if row["stage"] == "search" and row["arm"] == "mae")
                  .values()) == [4, 4]


def stored(folder):
    spec = parse_sweep(TEXT, "simulated.yaml", ["search.num_trials=2"], schema_of=schema_of)
    return Store.create(folder / "sweep", spec, SCHEMA, environment={}, flush_s=0,
                        data={"name": "ETTh1", "source": "real", "fingerprint": "sha256:1"})


def test_what_a_folder_says_of_encoders_is_what_the_next_run_knows(tmp_path):
    world = World(tmp_path, "search.num_trials=2", store=stored(tmp_path))
    world.fails = lambda trial: "the loss is nan" if trial.trial_id == "scratch-0001" else None
    world.run()
    again = World(tmp_path, "search.num_trials=2", store=stored(tmp_path))
    assert restore(again.made) == (len(world.made.trials), 0)
    assert again.made.finished()
    for trial in world.made.trials:
        known = again.made.trials[trial.trial_id]
        assert (known.status, known.error, known.encoder_id, known.pretrain_s, known.wall_s) == (
            trial.status, trial.error, trial.encoder_id, trial.pretrain_s, trial.wall_s), trial.trial_id
    rows = again.made.store.trials()
    assert set(alone_s(rows[rows["stage"] == "pretrain"])) == {30.0}, "a pretraining starts from nothing"
    [mae] = [arm for arm in verdict_of(again.made.store).arms if arm.arm == "mae"]
    assert mae.compute_s == rows[rows["arm"] == "mae"]["wall_s"].sum() == 5 * (30 + 10)
    assert mae.replicate_s == 40.0


def test_encoders_that_are_there_are_not_made_again(tmp_path):
    first, second = (World(tmp_path / name, "search.algorithm=random", shelf=tmp_path / "shared").run()
                     for name in "ab")
    assert len(first.of("pretrain")) == 9
    assert not second.of("pretrain")
    assert {row["pretrain_s"] for row in second.of("search")} == {30.0}


def test_encoders_of_the_sweeps_it_learns_from_are_copied(tmp_path):
    first = World(tmp_path / "a", "search.algorithm=random").run()
    for name in first.shelf.ids():
        (tmp_path / "a" / "encoders" / f"{name}.safetensors").write_bytes(b"weights")
    second = World(tmp_path / "b", "search.algorithm=random")
    second.made._gate._encoders._borrowed = dict.fromkeys(first.shelf.ids(), first.shelf)
    second.run()
    assert not second.of("pretrain")
    assert second.shelf.ids() == first.shelf.ids()


def test_two_sweeps_that_share_a_shelf_make_each_encoder_once(tmp_path):
    clock = Clock()
    worlds = [World(tmp_path / name, "search.algorithm=random", shelf=tmp_path / "shared", shared=True, clock=clock)
              for name in "ab"]
    for _ in range(10_000):
        for world in worlds:
            world.start()
        live = [world for world in worlds if world.live]
        if not live and all(world.made.finished() for world in worlds):
            break
        if not live:
            clock.now += 1
            continue
        min(live, key=lambda world: min(until for until, _ in world.live)).end()
    made = [row["encoder_id"] for world in worlds for row in world.of("pretrain")]
    assert len(made) == len(set(made)) == 9
    assert all(len(world.of("search")) == 6 and len(world.of("replicate")) == 3 for world in worlds)


def test_what_a_sweep_that_is_gone_had_claimed_is_made_by_another(tmp_path, monkeypatch):
    clock, world_s = Clock(), SimpleNamespace(now=1e9)
    monkeypatch.setattr("raymae.search.decide.claims.time.time", lambda: world_s.now)
    gone = World(tmp_path / "a", shelf=tmp_path / "shared", shared=True, clock=clock)
    gone.start()
    other = World(tmp_path / "b", shelf=tmp_path / "shared", shared=True, clock=clock)
    other.start()
    claimed = {trial.encoder_id for trial in gone.order if trial.stage == "pretrain"}
    assert claimed
    assert not claimed & {trial.encoder_id for trial in other.order if trial.stage == "pretrain"}
    world_s.now += STALE_S + 1
    for _ in range(1000):
        other.start()
        if other.live:
            other.end()
        elif other.made.finished():
            break
        else:
            clock.now += 1
    assert len(other.of("search")) == 6
    assert claimed <= {row["encoder_id"] for row in other.of("pretrain")}


def test_the_budget_counts_pretraining(tmp_path):
    for minutes in (4, 8):
        world = World(tmp_path / str(minutes), "search.num_trials=1000", f"budget.wall_minutes={minutes}")
        world.run()
        assert world.clock.now <= 60 * minutes + 40
        assert len(world.of("replicate")) == len(world.of("replicate", "scratch")) == 3, minutes


def test_an_encoder_is_named_by_what_pretraining_reads_and_nothing_else(tmp_path):
    world = World(tmp_path, slots=1)
    world.start()
    config = next(trial for trial in world.order if trial.stage == "pretrain").config

    def name(**changes):
        params = {**config.params, **changes.pop("params", {})}
        changed = type(config)(**{**{key: getattr(config, key) for key in ("task", "arm", "data", "seed")}, **changes,
                                  "params": params})
        return encoder_id(pretraining_of(changed, SCHEMA), "sha256:1")

    assert name() == name(params={"lr": 0.7, "epochs": 99, "label_fraction": 0.1}) == name(stage="replicate")
    assert name(seed=5, pretrain_seed=config.seed) == name()
    others = [name(seed=5), name(params={"mask_ratio": 0.31}), name(params={"encoder_dim": 64})]
    assert len({name(), *others}) == 4
    assert encoder_id(pretraining_of(config, SCHEMA), "sha256:2") != name()
