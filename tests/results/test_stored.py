"""Folders that version 0.1.0 wrote: they open, have the same numbers, and are shown in every form."""

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


def test_its_numbers_are_the_same_and_its_words_are_today_s():
    folder = STORED / "complete"
    now, then = verdict_of(Store.open(folder)).to_json(), json.loads((folder / "verdict.json").read_bytes())
    now = json.loads(json_bytes(now))
    assert now.pop("rule")["note"] == "there are no test scores by example"
    for arm, was in zip(now["arms"], then["arms"], strict=True):
        assert arm.pop("replicate_s") > 0
        for column, score in arm["metrics"].items():
            assert score.pop("ci95_seeds", None) == score["ci95"] or was["metrics"][column]["sd"] is None
    for pair, was in zip(now["pairs"], then["pairs"], strict=True):
        for name in set(pair) - set(was):
            del pair[name]
        assert pair["verdict"] == "undecided" or pair["p_holm"] < 0.05
        was["verdict"] = pair["verdict"]
    assert approximately(now) == approximately(then)


def approximately(value):
    """The same with numbers to twelve digits: a variance is computed otherwise now."""
    if isinstance(value, dict):
        return {key: approximately(part) for key, part in value.items()}
    if isinstance(value, list):
        return [approximately(part) for part in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


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


def test_its_trials_are_too_few_to_explain(stored: Path):
    told = json.loads(shown("explain", str(stored / "complete"), "--json"))
    assert (told["a"], told["b"], told["mode"]) == ("mae", "scratch", "min")
    assert "mae has 3 of 10, scratch has 3 of 10" in told["problem"]
    assert [one["used"] for one in told["trials"]] == [3, 3]
    assert "Nothing can be said: too few completed search trials" in shown("explain", str(stored / "complete"))
