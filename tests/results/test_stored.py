"""Folders that version 0.1.0 wrote: they open, say the same to the byte, and are shown in every form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.results import Store, verdict_of
from raymae.results.store.folder import json_bytes
from raymae.results.store.manifest import Manifest

STORED = Path(__file__).with_name("stored")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    shutil.copytree(STORED, tmp_path / "stored")
    return tmp_path / "stored"


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_its_verdict_is_the_same_to_the_byte():
    folder = STORED / "complete"
    answer = verdict_of(Store.open(folder))
    assert json_bytes(answer.to_json()) == (folder / "verdict.json").read_bytes()


def test_what_it_is_about_is_known_although_it_does_not_say_so():
    plain = json.loads((STORED / "complete" / "sweep.json").read_text())
    assert not {"primary", "published"} & set(plain["task"])
    manifest = Store.open(STORED / "complete").manifest
    assert manifest.task.primary == ("mae", "scratch")
    assert manifest.task.published == {}
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json({**manifest.to_json(), "task": {**plain["task"], "primary": None}}).task.primary is None


def test_an_unfinished_one_has_a_verdict_so_far(stored: Path):
    found = json.loads(shown("results", str(stored / "cut"), "--json"))
    assert found["verdict"]["complete"] is False
    assert {arm["arm"]: arm["val"]["score"] for arm in found["verdict"]["arms"]} == pytest.approx(
        {"scratch": 0.0005301201737101157, "mae": 0.0005426986142993, "persistence": 0.0018094209954142}, rel=1e-3)


def test_it_is_shown_in_every_form(stored: Path):
    folder = str(stored / "complete")
    assert "mae − scratch" in shown("results", folder)
    told = json.loads(shown("report", folder, "--json"))
    assert "mae-0002-seed0" in Path(told["html"]).read_text()
    assert json.loads(shown("compare", folder, "--json"))[0]["task"] == "forecasting"
    assert json.loads(shown("query", folder, "SELECT count(*) AS n FROM trials", "--json")) == [{"n": 14}]
    assert json.loads(shown("watch", folder, "--once", "--json"))["state"] == "ended"
