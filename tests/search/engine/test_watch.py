"""What looks after a trial inside its epochs, on a clock of the test's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from raymae.search.checkpoints import TrialFiles
from raymae.search.engine.mailbox import GO_ON, LEAVE, STOP, Reply
from raymae.search.engine.watch import LOOK_S, SOON, Reclaimed, Unwanted, Watch
from raymae.search.engine.workers import run_job
from raymae.search.messages import Job


class Scene:
    """Ranks that train the same batches, each with a clock of its own, and a mailbox that answers as it is told."""

    def __init__(self, world: int = 1, *, checkpoint_s: float = 60.0, left: Reply = LEAVE) -> None:
        self.now, self.reply = 0.0, GO_ON
        self.said: list[Any] = []
        self.asked: list[float] = []
        self.decided: list[Any] = []
        self.places = [0] * world

        def agree(rank: int, value: Any) -> Any:
            self.places[rank] += 1
            if rank == 0:
                self.decided.append(value)
            return self.decided[self.places[rank] - 1]

        def ask() -> Reply:
            self.asked.append(self.now)
            return self.reply

        def leave() -> Reply:
            self.said.append("leave")
            return left

        self.watches = [
            Watch((rank, world), partial(agree, rank), ask=ask, keep=self.said.append, leave=leave,
                  checkpoint_s=checkpoint_s, clock=partial(self.clock, rank))
            for rank in range(world)
        ]

    def state(self, rank: int, number: int) -> Any:
        """What stands for a trial's state."""
        return f"state of rank {rank} after {number}"

    def clock(self, rank: int) -> float:
        """Every rank's runs at a speed of its own."""
        return self.now * (1 + 0.5 * rank)

    def train(self, batches: range, seconds: float) -> None:
        """Train an epoch's batches of so many seconds."""
        for number in batches:
            self.batch(number, seconds)

    def batch(self, number: int, seconds: float) -> None:
        """Train one more batch on every rank."""
        self.now += seconds
        raised = []
        for rank, watch in enumerate(self.watches):
            try:
                watch(number, partial(self.state, rank, number))
            except (Reclaimed, Unwanted) as error:
                raised.append(type(error))
        assert len(raised) in (0, len(self.watches)), "all ranks decide alike"
        if raised:
            raise raised[0]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_checkpoint_is_written_whenever_it_is_due(world: int) -> None:
    scene = Scene(world)
    scene.train(range(1, 1501), 0.1)
    assert len(scene.said) == 2, "in 150 s"
    first, second = (int(state.rpartition(" ")[2]) for state in scene.said)
    assert all(state.startswith("state of rank 0") for state in scene.said)
    assert 600 <= first <= 600 + 2 * LOOK_S / 0.1
    assert 600 <= second - first <= 600 + 2 * LOOK_S / 0.1


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("per_batch", [0.001, 0.4, 7.0])
def test_the_mailbox_is_asked_every_few_seconds(per_batch: float, world: int) -> None:
    scene = Scene(world)
    scene.train(range(1, int(60 / per_batch)), per_batch)
    settled = [moment for moment in scene.asked if moment > 20]
    gaps = [later - earlier for earlier, later in itertools.pairwise(settled)]
    assert len(gaps) > 3
    assert all(0.8 * max(LOOK_S, per_batch) - per_batch <= gap <= max(LOOK_S, per_batch) + per_batch for gap in gaps)
    assert len(scene.asked) < 40


def test_ranks_whose_batches_become_slow_look_oftener() -> None:
    scene = Scene(2)
    scene.train(range(1, 20_001), 0.001)
    before, looks = scene.now, len(scene.asked)
    scene.train(range(1, 100), 2.0)
    assert scene.asked[looks] - before < 2.0 * SOON + 1
    assert max(later - earlier for earlier, later in itertools.pairwise(scene.asked[looks:])) <= 2 * LOOK_S


def test_ranks_of_many_short_epochs_look_as_well() -> None:
    scene = Scene(2)
    for _ in range(10):
        scene.train(range(1, 4), 1.0)
    assert len(scene.asked) >= 5


@pytest.mark.parametrize("world", [1, 2])
def test_a_trial_whose_machine_goes_is_kept_and_left(world: int) -> None:
    scene = Scene(world)
    scene.batch(1, 0.1)
    scene.reply = LEAVE
    with pytest.raises(Reclaimed):
        scene.train(range(2, 200), 0.1)
    assert scene.now < 0.1 + 2 * LOOK_S
    assert scene.said == [f"state of rank 0 after {round(scene.now / 0.1)}", "leave"], "written before it is given back"


@pytest.mark.parametrize(("reply", "left", "said"), [(STOP, LEAVE, 0), (LEAVE, STOP, 2)])
def test_a_trial_that_nobody_waits_for_ends(reply: Reply, left: Reply, said: int) -> None:
    scene = Scene(left=left)
    scene.reply = reply
    with pytest.raises(Unwanted):
        scene.batch(1, LOOK_S)
    assert len(scene.said) == said


def test_a_trial_goes_on_where_another_has_given_its_place_meanwhile() -> None:
    scene = Scene(2, left=GO_ON)
    scene.reply = LEAVE
    scene.batch(1, LOOK_S)
    assert scene.said == ["state of rank 0 after 1", "leave"]
    scene.reply = GO_ON
    scene.train(range(2, 20), LOOK_S)
    assert len(scene.said) == 2


def test_a_report_s_checkpoint_counts() -> None:
    scene = Scene(checkpoint_s=10.0)
    for number in range(1, 500):
        if number % 80 == 0:
            scene.watches[0].kept()
        scene.batch(number, 0.1)
    assert scene.said == []


@pytest.fixture
def job(tmp_path: Any, make_config: Callable[..., Any]) -> Job:
    (tmp_path / "checkpoints").mkdir()
    config = make_config("forecasting", "scratch", epochs=3, batch_size=256, label_fraction=0.05, dropout=0.2)
    return Job("t", 0, config, "val_mse", str(tmp_path))


def plain(messages: Any) -> list[Any]:
    return [(m.report.step, m.report.epoch, m.report.metrics, m.final) for m in messages]


@pytest.mark.parametrize("large", [0, 2**30])
def test_a_job_goes_on_where_it_was_left_inside_an_epoch(large: int, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymae.train.gradients import OneMessage

    computed = OneMessage.__call__
    batches: list[int] = []
    monkeypatch.setattr(OneMessage, "__call__", lambda self, part: (batches.append(1), computed(self, part))[1])
    whole = plain(run_job(replace(job, trial_id="whole")))
    in_all, now = len(batches), iter(range(0, 10**6, 10))
    assert in_all == 9
    files = TrialFiles(job.root, job.trial_id, large)

    def ask() -> Reply:
        return LEAVE if len(batches) == in_all + 5 else GO_ON  # in the second epoch

    def leave() -> Reply:
        files.settle()
        return LEAVE

    watch = Watch((0, 1), lambda value: value, ask=ask, keep=files.keep_state, leave=leave, checkpoint_s=1e9,
                  clock=lambda: float(next(now)))
    got: list[Any] = []
    with pytest.raises(Reclaimed, match="from inside its epoch"):
        got += run_job(job, 0, files, watch)
    again = list(run_job(replace(job, attempt=1, next_step=1)))
    assert plain([*got, *again]) == whole
    assert len(batches) == 2 * in_all, "no batch is trained twice"


def test_a_job_that_nobody_waits_for_says_nothing(job: Job) -> None:
    watch = Watch((0, 1), lambda value: value, ask=lambda: STOP, keep=lambda state: None, leave=lambda: STOP,
                  checkpoint_s=1e9, clock=iter(range(0, 10**6, 10)).__next__)
    assert list(run_job(job, 0, None, watch)) == []
