"""How long a sweep would take, from timed steps: the sums are right, and what is timed is what trials do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.search import estimate as estimates
from raymae.search.estimate import START_S, estimate
from raymae.search.plan import Plan, make_plan
from raymae.search.timing import EpochCost
from raymae.spec import parse_sweep
from raymae.tasks import schema_of

TEXT = """
name: priced
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [mae, scratch, persistence]
space: {lr: {loguniform: [1e-3, 1e-2]}}
search: {num_trials: 6, finetunes_per_encoder: 2, max_concurrent: 1}
training: {epochs: 4, pretrain_epochs: 8}
replicates: 3
"""
SECONDS = {"mae": EpochCost(2.0, 1.0), "scratch": EpochCost(0.0, 1.0)}
STEPS = {"mae": EpochCost(20, 10), "scratch": EpochCost(0, 10)}


@pytest.fixture(autouse=True)
def no_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))


def planned(*overrides: str) -> Plan:
    return make_plan(parse_sweep(TEXT, "priced.yaml", overrides, schema_of=schema_of))


@pytest.mark.parametrize(("overrides", "scratch_s", "seconds"), [
    ((), 4.0, 9 * 4 + (3 + 3) * 16 + 9 * 4),
    (("fair.by=compute",), 20.0, 9 * 4 + (3 + 3) * 16 + 9 * 20),
    (("fair.by=steps",), 20.0, 9 * 4 + (3 + 3) * 16 + 9 * 20),
    (("search.finalists=2", "search.finalist_seeds=1"), 4.0, (9 + 2) * 4 + (3 + 2 + 3) * 16 + (9 + 2) * 4),
    (("factors={label_fraction: [0.5, 1]}", "search.at={label_fraction: 1}"), 4.0,
     12 * 4 + (3 + 3) * 16 + 12 * 4),  # replicates of both cells start from the same encoders
])
def test_trials_encoders_and_replicates_are_summed(
    monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], scratch_s: float, seconds: float
) -> None:
    monkeypatch.setattr(estimates, "_seconds", lambda plan, device, lane, known: SECONDS[plan.arms[lane].name])
    monkeypatch.setattr(estimates, "epoch_steps", lambda config: STEPS[config.arm])
    found = estimate(planned(*overrides, "budget.price_per_node_hour=360"))
    assert {one.finetune_s for lane, one in found.trials.items() if lane.startswith("scratch")} == {scratch_s}
    assert found.seconds == START_S + seconds
    assert found.dollars == pytest.approx((START_S + seconds) / 10)
    assert not found.cut_by_budget
    cut = estimate(planned(*overrides, "budget.wall_minutes=1"))
    assert cut.cut_by_budget
    assert cut.dollars is None


def test_a_dry_run_says_it(tmp_path: Path) -> None:
    file = tmp_path / "priced.yaml"
    file.write_text(TEXT)
    arguments = ["sweep", str(file), "--dry-run", "--estimate", "--set", "budget.price_per_node_hour=2"]
    found: dict[str, Any] = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["estimate"]
    assert set(found["trials"]) == {"mae", "scratch"}, "a reference is not timed"
    assert found["trials"]["mae"]["pretrain_s"] > 0
    assert found["trials"]["scratch"]["pretrain_s"] == 0
    assert found["seconds"] > START_S
    text = " ".join(CliRunner().invoke(main, arguments).stdout.split())
    assert "estimate: " in text
    assert "at the price of one node, by steps timed on this machine (cpu): a trial takes mae " in text
    assert "an encoder; scratch " in text
    assert "left out are references" in text
    alone = CliRunner().invoke(main, ["sweep", str(file), "--estimate"])
    assert (alone.exit_code, "add --dry-run" in alone.stderr) == (2, True)
