"""`raymae stop-trial` and `raymae add`: what they ask, what they refuse at once, and what they say of a receipt."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from raymae.cli import main
from raymae.results.report.report import write_report
from raymae.results.store.commands import CommandFolder, Receipt, now
from raymae.results.store.store import Store
from raymae.results.views import control
from raymae.results.views.watch import watch
from raymae.spec import load_sweep
from raymae.tasks import schema_of

ROOT = Path(__file__).parents[1]
RUNNING = {"trial_id": "mae-0001", "arm": "mae", "stage": "search", "attempt": 0, "phase": "finetune", "epoch": 1,
           "epochs": 4, "wall_s": 3.0, "best": 0.5}


def sign(word: str = "running", age_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    at = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)).isoformat()
    return {"state": word, "time": at, "started_at": at, "host": "elsewhere", "pid": 1, "every_s": 5.0,
            "dashboard": "", "slots": 2, "elapsed_s": 10.0, "left_s": 20.0,
            "planned": {"mae": {"search": 3, "replicates": 2}}, "running": [RUNNING], "error": None, **changes}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A sweep that runs: one trial has ended, one is under way."""
    spec = load_sweep(ROOT / "sweeps" / "debug.yaml", schema_of=schema_of)
    store = Store.create(str(tmp_path / "debug"), spec, schema_of(spec.task), environment={"python": "3"},
                         data={"name": "ETTh1", "source": "synthetic", "fingerprint": "synthetic:0"})
    for trial_id in ("mae-0000", "mae-0001"):
        store.write_config(trial_id, {"arm": "mae", "stage": "search"})
    store.add_trial({"trial_id": "mae-0000", "config_id": "c", "arm": "mae", "stage": "search", "attempt": 0,
                     "status": "completed", "seed": 0, "val_mse": 0.25, "lr": 1e-3, "wall_s": 1.0})
    store.write_state(sign())
    return store


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def fails(*arguments: str, code: int = 1) -> str:
    return " ".join(run(*arguments, code=code).stderr.split())


def given(store: Store) -> list[dict[str, Any]]:
    folder = CommandFolder(store.root)
    return [folder.read(name).model_dump() for name in folder.look().waiting]


def test_a_command_is_a_file_that_says_who_and_when(store: Store) -> None:
    said = run("stop-trial", store.root, "mae-0001").stdout
    assert said.startswith("asked the sweep to end mae-0001; it looks every few seconds")
    asked = json.loads(run("add", store.root, "arm=mae", "lr=1e-3", "--json").stdout)
    assert (asked["kind"], asked["status"]) == ("add", "asked")
    first, second = given(store)
    assert (first["kind"], first["trial_id"]) == ("stop-trial", "mae-0001")
    assert (second["arm"], second["point"]) == ("mae", {"lr": 1e-3}), "numbers are as YAML 1.2 has them"
    assert asked["id"] == CommandFolder(store.root).look().waiting[1]
    assert second["by"].endswith(f"@{socket.gethostname()}")
    assert dt.datetime.fromisoformat(second["at"]).tzinfo is not None


@pytest.mark.parametrize(("words", "code", "said"), [
    (("stop-trial", "mae-001"), 1, "unknown trial 'mae-001'; did you mean `mae-0001`? running now: mae-0001"),
    (("stop-trial", "mae-0000"), 1, "mae-0000 has ended: it is completed; running now: mae-0001"),
    (("add", "lrr=1e-3"), 1, "lrr: unknown searched parameter 'lrr'; did you mean `lr`? allowed: lr"),
    (("add", "lr=1"), 1, "lr: is not within space.lr, got 1"),
    (("add", "arm=gru", "lr=1e-3"), 1, "arm: unknown arm 'gru'"),
    (("add", "lr"), 2, "'lr': say NAME=VALUE, such as lr=1e-3"),
    (("add", "lr="), 2, "say NAME=VALUE"),
    (("add", "=1"), 2, "say NAME=VALUE"),
    (("add", "lr=[1, 2]"), 2, "say NAME=VALUE"),
    (("add", "lr={"), 2, "not valid YAML 1.2"),
    (("add", "lr=1e-3", "lr=1e-2"), 2, "lr is given twice"),
    (("add", "arm=mae"), 2, "say a value of a searched parameter"),
])
def test_what_is_wrong_is_said_at_once(store: Store, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in fails(words[0], store.root, *words[1:], code=code)
    assert given(store) == []


@pytest.mark.parametrize(("state", "why"), [
    (sign("ended"), "it is ended"), (sign("interrupted"), "interrupted; the same command goes on"),
    (sign("failed", error="boom"), "failed: boom"), (sign(host=socket.gethostname(), pid=2**22 + 7), "is gone"),
])
def test_where_no_sweep_runs_it_says_what_to_do_instead(store: Store, state: dict[str, Any], why: str) -> None:
    store.write_state(state)
    said = fails("stop-trial", store.root, "mae-0001")
    assert f"{store.root}: no sweep runs here" in said
    assert why in said
    assert "there is nothing to stop" in said
    said = fails("add", store.root, "lr=1e-3")
    assert f"`raymae extend {store.root} --num-trials N` runs it on" in said
    assert "--set 'search.points=[{lr: 0.001}]'` starts a new one with it" in said
    assert given(store) == []


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    assert "no sweep here" in fails("stop-trial", str(tmp_path), "mae-0001")


def test_an_old_sign_of_life_is_waited_for_once(store: Store) -> None:
    """The clocks of two machines may differ by more than a sign of life is good for."""
    slept: list[float] = []
    store.write_state(sign(age_s=500))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        store.write_state(sign(age_s=495))

    assert control.stop_trial(store.root, "mae-0001", sleep=sleep).status == "asked"
    assert slept == [11.0]
    folder = CommandFolder(store.root)

    def answer(seconds: float) -> None:
        slept.append(seconds)
        store.write_state(sign(age_s=490 - len(slept)))
        if len(slept) == 5:
            folder.answer(folder.look().waiting[-1], Receipt(status="applied", text="as you wish", at=now()))

    slept.clear()
    store.write_state(sign(age_s=500))
    assert control.stop_trial(store.root, "mae-0001", wait=True, sleep=answer).text == "as you wish"
    assert slept == [11.0, 1.0, 1.0, 1.0, 1.0]
    with pytest.raises(Exception, match="no sign of life for"):
        control.stop_trial(store.root, "mae-0001", sleep=slept.append)


@pytest.mark.parametrize(("status", "code"), [("applied", 0), ("refused", 1)])
def test_waiting_says_what_became_of_it(store: Store, status: Any, code: int) -> None:
    folder = CommandFolder(store.root)

    def sweep(wanted: int) -> None:
        deadline = time.monotonic() + 60
        while len(folder.look().waiting) + len(folder.look().answered) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        folder.answer(folder.look().waiting[-1], Receipt(status=status, text="as you wish", at=now()))

    for wanted, as_json in ((1, ()), (2, ("--json",))):
        thread = threading.Thread(target=sweep, args=(wanted,))
        thread.start()
        result = run("stop-trial", store.root, "mae-0001", "--wait", *as_json, code=code)
        thread.join()
        if as_json:
            assert json.loads(result.stdout)["status"] == status
        else:
            assert "as you wish" in (result.stdout if not code else result.stderr)


def test_waiting_ends_with_the_sweep(store: Store) -> None:
    with pytest.raises(Exception, match="the sweep has ended before it took the command"):
        control.add(store.root, {"lr": 1e-3}, wait=True, sleep=lambda _: bool(store.write_state(sign("ended"))))


# --- the record


def test_a_comparison_says_that_people_had_a_hand_in_it(store: Store, tmp_path: Path) -> None:
    row = {"config_id": "c", "arm": "mae", "stage": "search", "attempt": 0, "seed": 0, "lr": 1e-3, "wall_s": 1.0}
    store.add_trial({**row, "trial_id": "mae-0001", "status": "stopped", "stopped_by": "ann@lab"})
    for number in (2, 3):
        store.add_trial({**row, "trial_id": f"mae-000{number}", "status": "completed", "added_by": "ann@lab",
                         "val_mse": 0.2})
    store.add_trial({**row, "trial_id": "scratch-0000", "arm": "scratch", "status": "completed", "val_mse": 0.3})
    for arm in ("mae", "scratch"):
        for seed in range(2):
            store.add_trial({**row, "trial_id": f"{arm}{seed}", "arm": arm, "stage": "replicate", "seed": seed,
                             "status": "completed", "test_mse": 0.2 + seed / 10})
    said = "by hand, points were added (mae 2) and trials were stopped (mae 1)"
    assert said in json.loads(run("results", store.root, "--json").stdout)["headline"]
    page, markdown = write_report(store)
    assert said in Path(page).read_text()
    assert said in Path(markdown).read_text().replace("\\", "")
    rows = json.loads(run("query", store.root, "SELECT trial_id, stopped_by FROM trials WHERE stopped_by IS NOT NULL",
                          "--json").stdout)
    assert rows == [{"trial_id": "mae-0001", "stopped_by": "ann@lab"}]


def test_who_watches_sees_what_was_asked(store: Store) -> None:
    import io

    from rich.console import Console

    text = "ann@lab, 12:00 UTC: mae-0001 ends at its next report"
    store.write_state({**sign(), "commands": [text]})
    console = Console(file=io.StringIO(), width=200)
    seen = watch(store.root, console, once=True)
    assert seen.commands == (text,)
    assert f"by hand, {text}" in console.file.getvalue()  # type: ignore[attr-defined]
    assert seen.from_json(seen.to_json()) == seen


# --- completion


def complete(*words: str) -> list[str]:
    found = ShellComplete(main, {}, "raymae", "_RAYMAE_COMPLETE").get_completions([*words[:-1]], words[-1])
    return [item.value for item in found]


def test_shells_complete_what_runs_and_what_is_searched(store: Store, tmp_path: Path) -> None:
    assert complete("stop-trial", store.root, "") == ["mae-0001"]
    assert complete("stop-trial", str(tmp_path / "none"), "") == []
    (Path(store.root) / "state.json").write_text("[")
    assert complete("stop-trial", store.root, "m") == []
    assert complete("add", store.root, "") == ["arm=", "lr="]
    assert complete("add", store.root, "arm=s") == ["arm=scratch"]
    assert complete("add", store.root, "arm=mae", "l") == ["lr="]
    assert complete("add", store.root, "lr=") == []
    assert os.listdir(store.root)
