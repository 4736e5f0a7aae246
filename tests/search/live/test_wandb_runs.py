"""A sweep's runs in Weights & Biases, offline, read back from the files that `wandb sync` sends."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymae.search.live import recording
from raymae.search.live.recorded import sweep_id
from raymae.search.live.wandb_runs import WandbRuns
from tests.search.live.simulated import Killed, digits, sweep

pytest.importorskip("wandb.proto", reason="needs wandb: pip install 'raymae[wandb]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
BLOCK = 32768  # a .wandb file is a LevelDB log: blocks of records, each behind checksum, length and kind


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 120.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DIR", raising=False)


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at:at + 7])
        part += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


def run_in(folder: Path) -> dict[str, Any]:
    """What a run's file holds: how it began, its points by step, its last summary, how it ended."""
    (file,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"points": [], "summary": {}, "exit": None}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "group": record.run.run_group, "job": record.run.job_type,
                      "name": record.run.display_name, "tags": [*record.run.tags],
                      "config": {one.key: json.loads(one.value_json) for one in record.run.config.update}}
        elif kind == "history":
            found["points"].append({"/".join(one.nested_key) or one.key: json.loads(one.value_json)
                                    for one in record.history.item})
        elif kind == "summary":
            found["summary"] |= {"/".join(one.nested_key) or one.key: json.loads(one.value_json)
                                 for one in record.summary.update}
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def runs_of(store: Any) -> dict[str, Any]:
    runs = [run_in(folder) for folder in Path(store.root, "wandb").glob("offline-run-*") if folder.is_dir()]
    names = [run["name"] for run in runs]
    assert len(names) == len(set(names)), "a trial has one run"
    return dict(zip(names, runs, strict=True))


def check_whole(store: Any) -> dict[str, Any]:
    runs = runs_of(store)
    assert set(runs) == {"simulated", *store.trials()["trial_id"]}
    for name, mine in store.reports().groupby("trial_id"):
        assert [point["_step"] for point in runs[name]["points"]] == sorted(mine["step"]), name
    assert {run["exit"] for run in runs.values()} == {0}
    return runs


def test_a_sweep_is_there_with_its_answer(tmp_path: Path) -> None:
    store, said = sweep(tmp_path / "r", [WandbRuns("forecasts", None, "offline")])
    assert said == []
    assert digits(store) == digits(sweep(tmp_path / "alone", [])[0])
    runs = check_whole(store)
    own = sweep_id(store.manifest)
    trial, row = runs["mae-0000"], store.trials().set_index("trial_id").loc["mae-0000"]
    assert (trial["id"], trial["group"], trial["job"]) == (f"{own}-mae-0000", own, "search")
    assert trial["tags"] == ["mae", "search"]
    assert [name for name in trial["config"] if name != "_wandb"][:2] == ["lr", "mask_ratio"]
    assert trial["config"]["lr"] == row["lr"]
    assert trial["points"][0]["val/mse"] == row["val_mse"]
    assert trial["summary"]["status"] == "completed"
    parent, (pair, *_) = runs["simulated"], store.verdict()["pairs"]
    assert (parent["id"], parent["job"]) == (own, "sweep")
    assert parent["summary"]["difference"] == pytest.approx(pair["difference"])
    assert parent["summary"]["verdict"] == "undecided"
    (copy,) = Path(store.root, "wandb").glob("*/files/verdict.json")
    assert json.loads(copy.read_text()) == store.verdict()


def test_a_sweep_that_goes_on_has_the_same_runs_and_no_point_twice(tmp_path: Path) -> None:
    def die(number: int) -> None:
        if number == 9:
            time.sleep(3)  # some of it is there by now
            raise Killed

    with pytest.raises(Killed):
        sweep(tmp_path / "r", [WandbRuns("p", None, "offline")], before_report=die)
    import wandb

    wandb.teardown()  # its service ends with the process
    store, said = sweep(tmp_path / "r", [WandbRuns("p", None, "offline")])
    assert said == []
    check_whole(store)


def test_without_its_service_runs_are_kept_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    import wandb

    wandb.teardown()  # it reads its variables once
    store, said = sweep(tmp_path / "r", [WandbRuns("p", None, "online")])
    wandb.teardown()
    assert len(said) == 1
    assert "`wandb sync` sends them" in said[0]
    assert "0123456789" not in said[0]
    check_whole(store)
