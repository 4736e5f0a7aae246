"""Recorders in threads of their own: whatever they do, a sweep is what it would have been, and people are told."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymae.errors import BudgetSpentError, InterruptedSweepError, SpecError
from raymae.search import run
from raymae.search.dry_run import describe
from raymae.search.live import recording
from raymae.search.live.recorders import recorders
from raymae.search.live.recording import Recordings
from raymae.spec.record import RecordSpec
from tests.search.live.simulated import Killed, digits, sweep


class Book:
    """A recorder that keeps everything, as a service does: across the runs of a sweep."""

    title = "Book"

    def __init__(self) -> None:
        self.sweep: Any = None
        self.trials: dict[str, Any] = {}
        self.steps: dict[str, list[int]] = {}
        self.ended: dict[str, str] = {}
        self.closed: list[Any] = []

    def open(self, sweep: Any, say: Any) -> Any:
        assert self.sweep is None or self.sweep.sweep_id == sweep.sweep_id
        self.sweep = sweep
        return list(self.ended)

    def begin(self, trial: Any) -> Any:
        self.trials[trial.trial_id] = trial
        return list(self.steps.setdefault(trial.trial_id, []))

    def report(self, trial_id: str, rows: Any) -> None:
        self.steps[trial_id] += [row["step"] for row in rows]

    def end(self, trial_id: str, row: Any, pictures: Any) -> None:
        self.ended[trial_id] = row["status"]

    def close(self, how: Any, text: str, verdict: Any) -> None:
        self.closed.append((how, text, verdict))

    def may_pass(self, failure: Exception) -> bool:
        return isinstance(failure, OSError)


class Faulty(Book):
    """One that fails as told: `refuses` from the start, `dies` after some reports, `hangs`, or `rejects` what it gets.

    Args:
        fault: Which.
        heals: After so many failures it works again.
    """

    def __init__(self, fault: str, heals: int = 10**9) -> None:
        super().__init__()
        self.fault, self.left, self.reports = fault, heals, 0
        self.released = threading.Event()

    def fail(self, fault: str, error: Exception) -> None:
        if self.fault == fault and self.left > 0:
            self.left -= 1
            if fault == "hangs":
                self.released.wait(60)
            raise error

    def open(self, sweep: Any, say: Any) -> Any:
        self.fail("refuses", ConnectionRefusedError("http://me:secret@host:5000/api?token=abc: refused"))
        return super().open(sweep, say)

    def report(self, trial_id: str, rows: Any) -> None:
        self.reports += 1
        self.fail("rejects", ValueError("no such experiment"))
        self.fail("hangs", TimeoutError("nothing came"))
        if self.reports > 3:
            self.fail("dies", ConnectionResetError("it is gone"))
        super().report(trial_id, rows)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 3.0)
    monkeypatch.setattr(recording, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The digits of the sweep without a recorder."""
    return digits(sweep(tmp_path_factory.mktemp("alone") / "r", [])[0])


def test_a_sweep_is_recorded_whole(tmp_path: Path, alone: Any) -> None:
    book = Book()
    store, said = sweep(tmp_path / "r", [book])
    assert said == []
    assert digits(store) == alone
    reports = store.reports()
    assert book.steps == {name: sorted(mine["step"]) for name, mine in reports.groupby("trial_id")}
    assert book.ended == dict(zip(store.trials()["trial_id"], store.trials()["status"], strict=True))
    ((how, text, verdict),) = book.closed
    assert (how, verdict.to_json()) == ("finished", store.verdict())
    assert text.startswith("Undecided whether")
    trial = book.trials["mae-0000"]
    assert [*trial.params][:2] == ["lr", "mask_ratio"], "the searched ones first"
    assert {"arm": "mae", "stage": "search", "seed": "0", "sweep": "simulated"}.items() <= trial.tags.items()
    assert book.sweep.commit == trial.tags["commit"] == "0123456789abcdef"


@pytest.mark.parametrize(("fault", "reason", "missing"), [
    ("refuses", "://…@host:5000/api?… refused", "15 reports, the verdict"), ("hangs", "", "15 reports"),
    ("dies", "it is gone", "report"), ("rejects", "no such experiment", "15 reports"),
])
def test_a_recorder_never_hurts_a_sweep(tmp_path: Path, alone: Any, fault: str, reason: str, missing: str) -> None:
    faulty = Faulty(fault)
    started = time.monotonic()
    store, said = sweep(tmp_path / "r", [faulty, book := Book()])
    assert time.monotonic() - started < 20
    faulty.released.set()
    assert digits(store) == alone
    assert len(book.closed) == 1, "nor does it hurt another"
    assert len(said) == 1 + (fault != "hangs")
    assert reason in said[0]
    assert missing in said[-1]
    assert "secret" not in said[0]
    assert "abc" not in said[0]


@pytest.mark.parametrize("fault", ["refuses", "dies"])
def test_one_that_comes_back_gets_all_that_it_missed(tmp_path: Path, fault: str) -> None:
    store, said = sweep(tmp_path / "r", [book := Faulty(fault, heals=3)])
    assert len(said) == 1
    assert book.steps == {name: sorted(mine["step"]) for name, mine in store.reports().groupby("trial_id")}
    assert len(book.ended) == len(store.trials())


def test_a_sweep_that_goes_on_is_recorded_once(tmp_path: Path, alone: Any) -> None:
    def die(number: int) -> None:
        if number == 9:
            raise Killed

    book = Book()
    with pytest.raises(Killed):
        sweep(tmp_path / "r", [book], before_report=die)
    assert book.closed == []
    sweep_id = book.sweep.sweep_id
    store, said = sweep(tmp_path / "r", [book])
    assert said == []
    assert book.sweep.sweep_id == sweep_id
    assert all(len(steps) == len(set(steps)) for steps in book.steps.values()), "no point twice"
    assert {name: sorted(steps) for name, steps in book.steps.items()} == {
        name: sorted(mine["step"]) for name, mine in store.reports().groupby("trial_id")}
    assert set(book.ended) == set(store.trials()["trial_id"])


def test_a_trial_that_ends_before_its_recorder_is_there_is_recorded_once(tmp_path: Path) -> None:
    """The recorder then finds the end in the store and is told of it as well."""
    def die(number: int) -> None:
        if number == 9:
            raise Killed

    class Slow(Book):
        def open(self, sweep: Any, say: Any) -> Any:
            time.sleep(2)  # the simulated sweep is through by then
            return super().open(sweep, say)

        def begin(self, trial: Any) -> Any:
            assert trial.trial_id not in self.ended, "what has ended is not begun again"
            return super().begin(trial)

    book = Slow()
    with pytest.raises(Killed):
        sweep(tmp_path / "r", [book], before_report=die)
    store, said = sweep(tmp_path / "r", [book])
    assert said == []
    assert set(book.ended) == set(store.trials()["trial_id"])
    assert {name: sorted(steps) for name, steps in book.steps.items()} == {
        name: sorted(mine["step"]) for name, mine in store.reports().groupby("trial_id")}


def test_what_was_missing_is_recorded_by_the_next_run_of_the_same_sweep(tmp_path: Path) -> None:
    store, said = sweep(tmp_path / "r", [Faulty("refuses")])
    assert len(said) == 2
    before = digits(store)
    store, said = sweep(tmp_path / "r", [book := Book()])
    assert said == []
    assert digits(store) == before
    assert book.steps == {name: sorted(mine["step"]) for name, mine in store.reports().groupby("trial_id")}
    assert len(book.ended) == len(store.trials())


def test_a_queue_that_is_full_drops_and_counts(tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_WAITING", 2)
    store, said = sweep(tmp_path / "r", [Faulty("refuses")])
    assert digits(store) == alone
    assert "the ends of 10 trials, 15 reports, the verdict" in said[-1]


def test_without_recorders_no_thread_is_started(tmp_path: Path) -> None:
    before = threading.active_count()
    sweep(tmp_path / "r", [])
    Recordings([]).over("failed", "no disk")
    assert threading.active_count() == before


@pytest.mark.parametrize(("asked", "environment", "said"), [
    (["mlflow"], {}, "record.mlflow.uri: is required where MLFLOW_TRACKING_URI is not set"),
    ({"mlflow": {"uri": "${MY_URI}"}}, {}, "record.mlflow.uri: ${MY_URI} is not set in the environment"),
    (["wandb"], {}, "record.wandb: Weights & Biases has no key of yours"),
    ({"wandb": {"mode": "online"}}, {"WANDB_MODE": "offline"}, "no key of yours"),
])
def test_what_cannot_be_recorded_is_refused(
    asked: Any, environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymae.search.live.recorders.find_spec", lambda name: SpecWithOrigin)
    clean(monkeypatch, tmp_path, environment)
    with pytest.raises(SpecError) as refused:
        recorders(RecordSpec.model_validate(asked))
    assert said in str(refused.value)


@pytest.mark.parametrize(("asked", "environment", "number"), [
    ([], {}, 0), (["mlflow"], {"MLFLOW_TRACKING_URI": "http://u:p@h"}, 1), (["wandb"], {"WANDB_MODE": "disabled"}, 0),
    (["wandb"], {"WANDB_MODE": "offline"}, 1), (["wandb"], {"WANDB_API_KEY": "k" * 40}, 1),
    ({"mlflow": {"uri": "${MY_URI}"}, "wandb": {"mode": "offline"}}, {"MY_URI": "http://h"}, 2),
])
def test_the_tools_own_variables_are_enough(
    asked: Any, environment: dict[str, str], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymae.search.live.recorders.find_spec", lambda name: SpecWithOrigin)
    clean(monkeypatch, tmp_path, environment)
    assert len(recorders(RecordSpec.model_validate(asked))) == number


def test_a_package_that_is_not_installed_is_named_with_its_line_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb leaves it where it has run: no package
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("raymae.search.live.recorders.find_spec", lambda name: None)
    with pytest.raises(SpecError) as refused:
        recorders(RecordSpec.model_validate(["mlflow", "wandb"]))
    assert "record.mlflow: mlflow is not installed: pip install 'raymae[mlflow]'" in str(refused.value)
    assert "pip install 'raymae[wandb]'" in str(refused.value)


def test_a_dry_run_refuses_it_before_it_reads_any_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymae.search.live.recorders.find_spec", lambda name: None)
    plan: Any = SimpleNamespace(spec=SimpleNamespace(notify=[], record=RecordSpec.model_validate(["mlflow"])))
    with pytest.raises(SpecError, match="pip install 'raymae\\[mlflow\\]'"):
        describe(plan)


def test_the_end_of_a_sweep_is_recorded_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(run, "recorders", lambda spec: [])
    monkeypatch.setattr(Recordings, "over", lambda self, *how: told.append(how))
    plan: Any = SimpleNamespace(spec=SimpleNamespace(name="ett", notify=[], record=RecordSpec()))
    for failure, how in ((BudgetSpentError("spent"), "budget spent"), (RuntimeError("boom"), "failed"),
                         (InterruptedSweepError("ctrl-c"), "interrupted"), (KeyboardInterrupt("x"), "interrupted")):
        def broken(*_: Any, failure: BaseException = failure, **__: Any) -> None:
            raise failure

        monkeypatch.setattr(run, "_run", broken)
        with pytest.raises(type(failure)):
            run.run_sweep(plan)
        assert told.pop() == (how, str(failure))


class SpecWithOrigin:
    origin = "somewhere"


def clean(monkeypatch: pytest.MonkeyPatch, home: Path, environment: dict[str, str]) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "MY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
