"""Whatever is killed or fails, every row that was acknowledged is there exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_task import report, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.store.folder import Folder
from raymae.results.store.outbox import Outbox
from raymae.results.verdict.judge import conclude

Make = Callable[..., Store]
WRITER = Path(__file__).with_name("write_until_killed.py")


def keys(frame: pd.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    return sorted(frame[list(names)].itertuples(index=False, name=None))


@pytest.mark.parametrize("lines", [1, 17, 44])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, lines: int) -> None:
    acknowledged: list[tuple[str, str, int]] = []
    paths = os.pathsep.join([str(WRITER.parents[1]), os.environ.get("PYTHONPATH", "")])  # where tiny_task lies
    for start in (0, 1000):
        process = subprocess.Popen([sys.executable, str(WRITER), str(tmp_path / "ett"), str(start)],
                                   stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
        assert process.stdout is not None
        for _ in range(lines):
            kind, name, step = process.stdout.readline().split()
            acknowledged.append((kind, name, int(step)))
        process.send_signal(signal.SIGKILL)
        acknowledged += [(kind, name, int(step)) for kind, name, step in map(str.split, process.stdout)]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    store = Store.open(tmp_path / "ett")
    reports = keys(store.reports(), "trial_id", "step")
    trials = [name for (name,) in keys(store.trials(), "trial_id")]
    assert len(set(reports)) == len(reports)
    assert len(set(trials)) == len(trials)
    assert {(name, step) for kind, name, step in acknowledged if kind == "report"} <= set(reports)
    assert {name for kind, name, _ in acknowledged if kind == "trial"} <= set(trials)
    # at most the one that was under way when each of the two was killed
    assert len(reports) + len(trials) <= len(acknowledged) + 2
    assert {name for _, name, _ in acknowledged} <= set(store.configs())


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` or `except OSError` sees it."""


def filled(make_store: Make) -> Store:
    store = make_store()
    for number in range(3):
        for step in range(2):
            store.add_report(report(f"t{number}", step))
        store.add_trial(trial(f"t{number}"))
    return store


EXPECTED = [(f"t{number}", step) for number in range(3) for step in range(2)]


def test_compaction_leaves_one_part(make_store: Make, tmp_path: Path) -> None:
    store = filled(make_store)
    store.compact()
    assert [len(list((tmp_path / "ett" / name).iterdir())) for name in ("trials", "reports")] == [1, 1]
    assert keys(store.reports(), "trial_id", "step") == EXPECTED
    store.add_trial(trial("t3"))
    store.compact()
    assert len(list((tmp_path / "ett/trials").iterdir())) == 1
    assert len(store.trials()) == 4


@pytest.mark.parametrize("operation", ["write", "remove"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("count", range(3))
def test_compaction_killed_anywhere(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, moment: str, count: int
) -> None:
    store = filled(make_store)
    real, calls = getattr(Folder, operation), iter(range(100))

    def deadly(place: Folder, *arguments: Any) -> None:
        dies = next(calls) == count
        if dies and moment == "before":
            raise Killed
        real(place, *arguments)
        if dies:
            raise Killed

    monkeypatch.setattr(Folder, operation, deadly)
    if operation == "write" and count == 2:
        store.compact()  # it writes twice: one part of each dataset
    else:
        with pytest.raises(Killed):
            store.compact()
    monkeypatch.undo()

    def check() -> None:
        found = Store.open(tmp_path / "ett")
        assert keys(found.reports(), "trial_id", "step") == EXPECTED
        assert [name for (name,) in keys(found.trials(), "trial_id")] == ["t0", "t1", "t2"]
        # a plain reader loses nothing either
        plain = pd.concat(map(pd.read_parquet, sorted((tmp_path / "ett/reports").glob("*.parquet"))))
        assert set(keys(plain, "trial_id", "step")) == set(EXPECTED)

    check()
    continued = make_store()
    check()
    plain = pd.concat(map(pd.read_parquet, sorted((tmp_path / "ett/trials").glob("*.parquet"))))
    assert sorted(plain["trial_id"]) == ["t0", "t1", "t2"]
    continued.compact()
    check()
    assert len(list((tmp_path / "ett/reports").glob("*.parquet"))) == 1


def test_a_rename_that_fails_leaves_no_litter(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(on_warning=lambda message: None)

    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    store.add_trial(trial("t1"))
    assert list((tmp_path / "ett/trials").iterdir()) == []


def test_readers_and_compaction_at_once(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    done = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        seen = 0
        while not done.is_set():
            found = [step for (_, step) in keys(Store.open(tmp_path / "ett").reports(), "trial_id", "step")]
            if found != list(range(len(found))) or len(found) < seen:
                wrong.append(found)
            seen = len(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for step in range(60):
            store.add_report(report("t1", step))
            if step % 5 == 4:
                store.compact()
    finally:
        done.set()
        reader.join()
    assert wrong == []
    assert len(store.reports()) == 60


def flaky(monkeypatch: pytest.MonkeyPatch, failures: int, *, landed: bool = False) -> list[str]:
    """Make the next writes fail; `landed`: they fail although the bytes arrived."""
    real, names = Folder.write, []

    def write(place: Folder, name: str, data: bytes) -> None:
        names.append(name)
        if len(names) <= failures:
            if landed:
                real(place, name, data)
            raise OSError(5, "Input/output error")
        real(place, name, data)

    monkeypatch.setattr(Folder, "write", write)
    return names


@pytest.mark.parametrize("landed", [False, True])
def test_a_transient_failure_is_retried_without_duplicates(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    warnings: list[str] = []
    store = make_store(on_warning=warnings.append, flush_s=10.0)
    store.add_report(report("t1", 0))
    names = flaky(monkeypatch, 2, landed=landed)
    store.add_trial(trial("t1"))
    assert store._writing().num_waiting == 2
    assert "2 rows and files wait" in warnings[0]
    assert "Input/output error" in warnings[0]
    store.add_report(report("t2", 0))
    assert store._writing().num_waiting == 3
    assert store.flush()
    assert store._writing().num_waiting == 0
    assert len(warnings) == 2
    assert names[0] == names[1] == names[2]
    plain = pd.concat(map(pd.read_parquet, sorted((tmp_path / "ett/reports").glob("*.parquet"))))
    assert sorted(plain["trial_id"]) == ["t1", "t2"]
    assert list(store.trials()["trial_id"]) == ["t1"]


def test_the_last_verdict_counts_what_the_storage_refused_until_then(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(on_warning=lambda message: None)
    monkeypatch.setattr(Outbox, "backoff_s", (0.0, 0.0))
    flaky(monkeypatch, 3)
    store.add_trial(trial("t1", stage="replicate", test_mse=0.5))
    store.add_trial(trial("t2", stage="replicate", test_mse=0.6))
    assert store.trials().empty
    answer = conclude(store)
    assert {arm.arm: arm.n for arm in answer.arms}["mae"] == 2
    assert store.verdict() == answer.to_json()


def test_a_trial_is_never_seen_before_its_reports(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(on_warning=lambda message: None, flush_s=10.0)
    store.add_report(report("t1", 0))
    real, failures = Folder.write, [OSError(5, "Input/output error")]

    def write(place: Folder, name: str, data: bytes) -> None:
        if name.startswith("reports/") and failures:
            raise failures.pop()
        real(place, name, data)

    monkeypatch.setattr(Folder, "write", write)
    store.add_trial(trial("t1"))
    assert failures == []
    assert store.trials().empty
    store.flush()
    assert len(store.trials()) == len(store.reports()) == 1


def test_a_config_is_retried_with_the_next_row(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(on_warning=lambda message: None, flush_s=1e9)
    flaky(monkeypatch, 1)
    store.write_config("t1", {"arm": "mae"})
    assert store.configs() == {}
    store.add_report(report("t1", 0))
    assert store.configs() == {"t1": {"arm": "mae"}}


def test_close_tries_several_times(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "backoff_s", (0.0, 0.0))
    store = make_store(on_warning=lambda message: None, flush_s=1e9)
    store.add_report(report("t1", 0))
    flaky(monkeypatch, 2)
    store.close()
    assert len(store.reports()) == 1
    store.add_report(report("t1", 1))
    flaky(monkeypatch, 3)
    with pytest.raises(ResultsError, match="after 3 tries, 1 rows and files are not on storage"):
        store.close()
