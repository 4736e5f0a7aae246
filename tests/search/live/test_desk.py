"""Commands in a sweep's folder, taken while it runs: each once, with a receipt, also after a kill."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from raymae.results.store.commands import AddPoint, CommandFolder, StopTrial, now
from raymae.search.live.desk import Desk, obeying
from raymae.tasks import schema_of
from tests.search.decide.test_conductor import Notes, conductor, message, run

BY = "ann@lab"
SCHEMA = schema_of("forecasting")


def stop(trial_id: str) -> StopTrial:
    return StopTrial(trial_id=trial_id, by=BY, at=now())


def add(arm: str | None = None, **point) -> AddPoint:
    return AddPoint(arm=arm, point=point, by=BY, at=now())


class World:
    """A conductor, its folder of commands, and a desk between them."""

    def __init__(self, folder: Path, *overrides: str, slots: int = 2) -> None:
        self.made, self.store, self.clock = conductor(*overrides, location=folder, slots=slots)
        self.notes, self.folder = Notes(), CommandFolder(str(folder))
        self.made.add_observer(self.notes)
        self.desk = Desk(self.made, SCHEMA, self.folder)

    def ask(self, command) -> tuple[str, str]:
        name = self.folder.give(command)
        self.desk.look()
        receipt = self.folder.receipt(name)
        assert receipt is not None
        return receipt.status, receipt.text


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_trial_is_stopped_once_and_everybody_is_told(world: World) -> None:
    trial = world.made.next()
    assert world.ask(stop(trial.trial_id)) == ("applied", f"{trial.trial_id} ends at its next report")
    assert world.made.must_stop(trial)
    assert world.notes.warnings == [f"by hand ({BY}): {trial.trial_id} ends at its next report"]
    line, = world.made.progress().commands
    assert line.startswith(f"{BY}, ")
    assert line.endswith(f" UTC: {trial.trial_id} ends at its next report")
    world.desk.look()
    assert len(world.notes.warnings) == 1, "a command is taken once"


def test_points_are_checked_as_those_of_a_sweep_file(tmp_path: Path) -> None:
    world = World(tmp_path, "space.patch_size={choice: [4, 8], when: {arm: [mae, scratch]}}",
                  "space.lookback={int: [16, 48], step: 8, when: {patch_size: 8}}", "constraints=['lookback < 48']")
    for command, said in [
        (add(lr=1.0), "lr: is not within space.lr, got 1.0"),
        (add(lrr=1e-3), "lrr: unknown searched parameter 'lrr'; did you mean `lr`?"),
        (add("mea", lr=1e-3), "arm: unknown arm 'mea'; did you mean `mae`?"),
        (add("scratch", lr=1e-3, mask_ratio=0.5), "the arm scratch does not search mask_ratio; leave it out"),
        (add(lookback=24), "lookback is searched only where patch_size=8: give that, too"),
        (add(lookback=48, patch_size=8), "breaks the constraint 'lookback < 48' with it"),
        (add(lr="1e-3"), "lr: is not within space.lr, got '1e-3'"),
    ]:
        status, text = world.ask(command)
        assert (status, said in text) == ("refused", True), text
    assert world.ask(add(lookback=24, patch_size=8)) == (
        "applied", "mae, scratch try lookback=24, patch_size=8 next, in place of what the search would have proposed")
    run(world.made, world.clock)
    assert Counter(row["arm"] for row in world.store.trials if row["added_by"]) == {"mae": 1, "scratch": 1}
    assert all((row["lookback"], row["patch_size"]) == (24, 8) for row in world.store.trials if row["added_by"])


def test_a_grid_has_nothing_to_add_to(tmp_path: Path) -> None:
    world = World(tmp_path, "search.algorithm=grid", "space={lr: {choice: [1e-3, 1e-2]}}")
    assert world.ask(add(lr=1e-3)) == ("refused", "a grid tries every point: there is nothing to add to it")


def test_damaged_and_foreign_files_are_said_once_and_set_aside(world: World, tmp_path: Path) -> None:
    name = world.folder.give(stop("mae-0000"))
    (tmp_path / "commands" / f"{name}.json").write_text("{")
    (tmp_path / "commands" / "notes.txt").write_text("hello")
    for _ in range(3):
        world.desk.look()
    assert len(world.notes.warnings) == 2
    assert "notes.txt is no command, and is left alone" in world.notes.warnings[0]
    assert f"{name}.json: not valid JSON" in world.notes.warnings[1]
    receipt = world.folder.receipt(name)
    assert receipt is not None
    assert (receipt.status, "not valid JSON" in receipt.text) == ("refused", True)
    assert (tmp_path / "commands" / "notes.txt").read_text() == "hello"
    again = World(tmp_path)
    again.desk.open()
    assert [text for text in again.notes.warnings if "notes.txt" not in text] == [], "nor after a resume"


def test_storage_that_fails_loses_no_command_and_takes_none_twice(world: World, monkeypatch) -> None:
    trial = world.made.next()
    name = world.folder.give(stop(trial.trial_id))
    broken = {"look": True, "answer": True, "read": True}
    for method in broken:
        real = getattr(world.folder, method)

        def call(*args, method=method, real=real):
            if broken[method]:
                raise OSError("the disk is away")
            return real(*args)

        monkeypatch.setattr(world.folder, method, call)
    world.desk.look()
    world.desk.look()
    assert world.notes.warnings == ["commands cannot be listed, and are looked for again: the disk is away"]
    broken["look"] = False
    world.desk.look()
    assert not world.made.must_stop(trial)
    broken["read"] = False
    world.desk.look()
    assert world.made.must_stop(trial)
    assert world.folder.receipt(name) is None
    broken["answer"] = False
    world.desk.look()
    assert world.folder.receipt(name) is not None
    assert len(world.notes.warnings) == 2


def test_a_resumed_sweep_goes_on_with_what_was_taken_and_refuses_what_was_not(world: World, tmp_path: Path) -> None:
    trial = world.made.next()
    assert world.ask(stop(trial.trial_id))[0] == "applied"
    assert world.ask(add(lr=2e-3))[0] == "applied"
    second = world.made.next()
    assert second.added is not None
    late = world.folder.give(add(lr=3e-3))  # and then it is killed
    again = World(tmp_path)
    for left in (trial, second):
        left.status, left.stopped_by = "pending", ""
    again.made.take_over([], [trial, second])
    again.desk.open()
    assert again.folder.receipt(late).status == "refused"
    assert "give it again" in again.folder.receipt(late).text
    other = "scratch" if second.lane == "mae" else "mae"
    assert again.made.by_hand.untried() == [f"lr=0.002 of {other}"]
    again.desk.look()
    assert again.made.by_hand.untried() == [f"lr=0.002 of {other}"], "nothing is taken twice"
    first = again.made.next()
    assert first is trial
    assert again.made.must_stop(first)


def test_a_command_whose_receipt_a_kill_has_swallowed_is_known_by_its_trial(world: World, tmp_path: Path) -> None:
    name = world.folder.give(add("mae", lr=2e-3))
    world.desk.look()
    (tmp_path / "commands" / f"{name}.receipt.json").unlink()
    trial = world.made.next()
    trial.status = "pending"
    again = World(tmp_path)
    again.made.take_over([], [trial])
    again.desk.open()
    assert again.folder.receipt(name).status == "applied"
    assert again.made.by_hand.untried() == []


def test_what_comes_too_late_is_refused(tmp_path: Path) -> None:
    made, _, clock = conductor(location=tmp_path, slots=1)
    folder, notes = CommandFolder(str(tmp_path)), Notes()
    made.add_observer(notes)
    with obeying(made, SCHEMA, every_s=60):
        made.by_hand.add("c", {"lr": 2e-3}, "mae", BY)
        made.searches.quota.update(dict.fromkeys(made.searches.quota, 0))
        name = folder.give(stop("mae-0000"))
    receipt = folder.receipt(name)
    assert (receipt.status, receipt.text) == ("refused", "the sweep had ended")
    assert notes.warnings == ["added and not tried, since the search ended before: lr=0.002 of mae. `raymae extend` "
                              "would begin with it"]
    assert clock.now == 0
    made.interrupt()
    desk = Desk(made, SCHEMA, folder)
    name = folder.give(add(lr=2e-3))
    desk.look()
    assert "the sweep is ending" in folder.receipt(name).text


def test_it_looks_by_itself(tmp_path: Path) -> None:
    made, store, _ = conductor(location=tmp_path)
    folder = CommandFolder(str(tmp_path))
    trial = made.next()
    with obeying(made, SCHEMA, every_s=0.01):
        name = folder.give(stop(trial.trial_id))
        deadline = time.monotonic() + 60
        while folder.receipt(name) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert made.must_stop(trial)
    made.on_report(trial, message(trial, 1, 0.5, final=False, seconds=1.0))
    made.on_end(trial)
    assert store.trials[0]["stopped_by"] == BY
    assert json.loads((tmp_path / "commands" / f"{name}.json").read_text())["by"] == BY
