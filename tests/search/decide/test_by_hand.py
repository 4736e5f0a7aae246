"""What people ask of a running sweep, on a simulated clock: a trial ends, a point is tried, and arms stay equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from raymae.search.decide.trials import Trial
from raymae.spec.trial import TrialConfig
from tests.search.decide.test_conductor import conductor, message, run
from tests.search.decide.test_encoders import World

BY = "ann@lab"


def rows_of(store, arm, stage="search"):
    return [row for row in store.trials if row["arm"] == arm and row["stage"] == stage]


# --- a trial ends


def test_a_trial_ends_at_its_next_report_and_counts_as_stopped():
    made, store, clock = conductor()
    trial = made.next()
    assert not made.must_stop(trial)
    answer = made.by_hand.stop(trial.trial_id, BY)
    assert answer == ("applied", f"{trial.trial_id} ends at its next report")
    assert made.must_stop(trial)
    made.on_report(trial, message(trial, 1, 0.01, final=False, seconds=1.0))
    made.on_end(trial)
    run(made, clock)
    row = next(row for row in store.trials if row["trial_id"] == trial.trial_id)
    assert (row["status"], row["stopped_by"], row["added_by"], row["error"]) == ("stopped", BY, None, None)
    for arm in ("mae", "scratch"):
        assert len(rows_of(store, arm)) == 6, "it counts as a trial of its arm"
        assert len(rows_of(store, arm, "replicate")) == 3
    assert [row["trial_id"] for row in store.trials if row["stopped_by"]] == [trial.trial_id]
    assert made.trials.best(trial.lane) is not trial, "a completed one is preferred"
    study = made.searches.studies[trial.lane].study
    assert Counter(one.state.name for one in study.trials)["PRUNED"] == 1


def test_one_that_ends_by_itself_before_its_end_comes_is_not_said_to_have_been_stopped():
    made, store, _ = conductor()
    trial = made.next()
    made.by_hand.stop(trial.trial_id, BY)
    made.on_report(trial, message(trial, 1, 0.5, final=True, seconds=1.0))
    made.on_end(trial)
    assert (store.trials[0]["status"], store.trials[0]["stopped_by"]) == ("completed", None)


def test_what_cannot_be_stopped_says_why():
    made, _, _ = conductor("search.num_trials=1", "arms=[scratch]", "space={lr: {loguniform: [1e-4, 1e-2]}}")
    trial = made.next()
    unknown = made.by_hand.stop("scratch-000", BY)
    assert unknown == ("refused", "unknown trial 'scratch-000'; did you mean `scratch-0000`? running now: scratch-0000")
    made.on_report(trial, message(trial, 1, 0.5, final=True, seconds=1.0))
    made.on_end(trial)
    assert made.by_hand.stop(trial.trial_id, BY) == ("refused", "scratch-0000 has ended: it is completed")
    replicate = made.next()
    assert replicate.stage == "replicate"
    status, text = made.by_hand.stop(replicate.trial_id, BY)
    assert status == "refused"
    assert "is one of the seeds that are compared: to end some of them by hand would select among them" in text
    assert not made.must_stop(replicate)


def test_a_final_is_not_stopped():
    made, _, _ = conductor("search.num_trials=2", "search.finalists=2", "arms=[scratch]",
                           "space={lr: {loguniform: [1e-4, 1e-2]}}")
    for value in (0.4, 0.5):
        trial = made.next()
        made.on_report(trial, message(trial, 1, value, final=True, seconds=1.0))
        made.on_end(trial)
    final = made.next()
    assert final.stage == "final"
    status, text = made.by_hand.stop(final.trial_id, BY)
    assert status == "refused"
    assert "a configuration is chosen by" in text


def test_an_end_that_was_asked_for_before_a_kill_still_comes():
    made, _, _ = conductor()
    left = [made.next(), made.next()]
    for trial in left:
        trial.status = "pending"
    again, store, _ = conductor()
    again.take_over([], left)
    again.by_hand.stops_still(left[0].trial_id, BY)
    again.by_hand.stops_still("nobody", BY)
    trial = again.next()
    assert trial is left[0]
    assert again.must_stop(trial)
    again.on_report(trial, message(trial, 1, 0.5, final=False, seconds=1.0))
    again.on_end(trial)
    assert store.trials[0]["stopped_by"] == BY


# --- pretrainings


@pytest.mark.parametrize("group", [1, 3])
def test_a_pretraining_ends_with_those_that_wait_for_it_and_the_search_goes_on(tmp_path, group):
    world = World(tmp_path, "arms=[mae]", "search.num_trials=4", f"search.finetunes_per_encoder={group}",
                  "replicates=0", slots=1)
    made, store = world.made, world.made.store
    pretraining = made.next()
    assert pretraining.stage == "pretrain"
    status, text = made.by_hand.stop("mae-0000", BY)
    assert (status, "it waits for" in text) == ("refused", True)
    answer = made.by_hand.stop(pretraining.trial_id, BY)
    assert answer.text.endswith("ends at its next report, and with it mae-0000, which wait for its encoder")
    assert made.must_stop(pretraining)
    made.on_report(pretraining, world.message(pretraining, "pretrain", final=False))
    made.on_end(pretraining)
    world.run()
    stopped = {row["trial_id"]: row["stopped_by"] for row in store.trials if row["status"] == "stopped"}
    assert stopped == {pretraining.trial_id: BY, "mae-0000": BY}
    assert Counter(row["status"] for row in rows_of(store, "mae")) == {"stopped": 1, "completed": 3}
    encoders = {row["encoder_id"] for row in rows_of(store, "mae") if row["status"] == "completed"}
    assert pretraining.encoder_id not in encoders, "nobody waits for what will never be there"


# --- a point is tried


def test_a_point_is_tried_next_by_every_arm_in_place_of_one_of_its_own():
    made, store, clock = conductor()
    answer = made.by_hand.add("c1", {"lr": 2e-3}, None, BY)
    assert answer == ("applied", "mae, scratch try lr=0.002 next, in place of what the search would have proposed")
    run(made, clock)
    for arm in ("mae", "scratch"):
        rows = rows_of(store, arm)
        assert len(rows) == 6
        assert (rows[0]["lr"], rows[0]["added_by"]) == (2e-3, BY)
        assert not any(row["added_by"] for row in rows[1:])
        assert rows[0]["seed"] == 0, "the seed that the trial in whose place it is would have had"
    assert len(rows_of(store, "persistence")) == 1
    assert made.by_hand.untried() == []
    assert store.configs["mae-0000"]["added"] == {"command": "c1", "by": BY, "point": {"lr": 2e-3}}
    assert not any(row["added_by"] for row in store.trials if row["stage"] == "replicate")


def test_a_named_arm_alone_tries_it_and_points_come_in_order_before_those_of_the_file():
    made, store, clock = conductor("search.points=[{lr: 5e-3}]", slots=1)
    assert made.by_hand.add("c1", {"lr": 2e-3, "mask_ratio": 0.4}, "mae", BY).status == "applied"
    assert made.by_hand.add("c2", {"mask_ratio": 0.6}, "mae", BY).status == "applied"
    run(made, clock)
    mae, scratch = rows_of(store, "mae"), rows_of(store, "scratch")
    assert [(row["lr"], row["mask_ratio"]) for row in mae[:1]] == [(2e-3, 0.4)]
    assert mae[1]["mask_ratio"] == 0.6
    assert mae[2]["lr"] == scratch[0]["lr"] == 5e-3
    assert (len(mae), len(scratch)) == (6, 6)


def test_what_a_point_leaves_open_satisfies_the_constraints():
    made, store, clock = conductor("constraints=['lr < 1e-3 * mask_ratio']", "arms=[mae]")
    made.by_hand.add("c1", {"mask_ratio": 0.25}, "mae", BY)
    run(made, clock)
    assert rows_of(store, "mae")[0]["mask_ratio"] == 0.25
    assert rows_of(store, "mae")[0]["lr"] < 2.5e-4


def test_a_point_that_no_draw_completes_is_left_out_and_the_sweep_goes_on():
    made, store, clock = conductor("constraints=['lr < 1e-9 or mask_ratio > 0.5']", "arms=[mae]")
    warnings = []
    made.warn = warnings.append
    made.by_hand.add("c1", {"mask_ratio": 0.25}, "mae", BY)
    run(made, clock)
    assert len(rows_of(store, "mae")) == 6
    assert "the point mask_ratio=0.25 of mae is left out: arm mae: 1000 draws in a row break" in warnings[0]


def test_no_more_points_than_trials_that_are_left():
    made, store, clock = conductor("search.num_trials=2", slots=3)
    order = [made.next() for _ in range(3)]
    assert Counter(trial.config.arm for trial in order) == {"mae": 1, "scratch": 1, "persistence": 1}
    assert made.by_hand.add("c1", {"lr": 2e-3}, "mae", BY).status == "applied"
    status, text = made.by_hand.add("c2", {"lr": 3e-3}, None, BY)
    assert status == "refused"
    assert "(mae has 2 of 2); name an arm that has some, arm=NAME" in text
    assert "`raymae extend DIR --num-trials N` asks for more" in text
    assert made.by_hand.add("c3", {"lr": 3e-3}, "scratch", BY).status == "applied"
    for trial in order:
        made.on_report(trial, message(trial, 1, 0.5, final=True, seconds=1.0))
        made.on_end(trial)
    run(made, clock)
    assert made.by_hand.add("c4", {"lr": 3e-3}, "scratch", BY).status == "refused"
    assert {row["arm"]: row["lr"] for row in store.trials if row["added_by"]} == {"mae": 2e-3, "scratch": 3e-3}


def test_a_point_that_was_taken_before_a_kill_is_tried_once():
    made, _, _ = conductor(slots=4)
    made.by_hand.add("c1", {"lr": 2e-3}, None, BY)
    first = made.next()
    assert first.added.command == "c1"
    first.status = "pending"
    again, store, clock = conductor()
    again.take_over([], [first])
    assert again.by_hand.is_tried("c1")
    again.by_hand.adds_still("c1", {"lr": 2e-3}, None, BY)
    other = "scratch" if first.lane == "mae" else "mae"
    assert again.by_hand.untried() == [f"lr=0.002 of {other}"]
    run(again, clock)
    assert Counter(row["arm"] for row in store.trials if row["added_by"]) == {"mae": 1, "scratch": 1}
    assert all(len(rows_of(store, arm)) == 6 for arm in ("mae", "scratch"))


def test_a_search_that_ends_early_leaves_a_point_untried():
    made, _, clock = conductor("search.num_trials=3", "budget.target=0.9", slots=1)
    order = []
    while len(order) < 2:
        order.append(made.next())
        made.on_report(order[-1], message(order[-1], 1, 0.5, final=True, seconds=1.0))
        if len(order) == 2:
            made.by_hand.add("c1", {"lr": 2e-3}, None, BY)
        made.on_end(order[-1])
    run(made, clock)
    assert made.by_hand.untried() == ["lr=0.002 of mae", "lr=0.002 of scratch"]


def test_a_point_with_other_values_for_pretraining_gets_an_encoder_of_its_own(tmp_path):
    made = World(tmp_path, "arms=[mae]", "search.num_trials=4", "search.finetunes_per_encoder=4", "replicates=0").made
    first = made.next()
    assert made.next() is None, "the others wait for its encoder"
    made.by_hand.add("c1", {"mask_ratio": 0.25}, None, BY)
    second = made.next()
    assert second.stage == "pretrain"
    assert second.encoder_id != first.encoder_id
    assert made.store.configs["mae-0001"]["params"]["mask_ratio"] == 0.25


def test_a_trial_is_made_again_from_its_file_with_what_was_asked():
    made, store, _ = conductor()
    made.by_hand.add("c1", {"lr": 2e-3}, "mae", BY)
    trial = made.next()
    plain = store.configs[trial.trial_id]
    config = TrialConfig.from_json(plain)
    again = Trial(trial.trial_id, config, plain["sampled"], 0.0, datetime.now(UTC), added=trial.added)
    assert again.to_json() == plain
    assert replace(config) == trial.config
