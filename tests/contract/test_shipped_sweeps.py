"""Every sweep in `sweeps/`, at the size for trying it: what the size replaces, and that a verdict comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raymae.spec.arms import with_arms
from raymae.spec.load import load_sweep
from raymae.spec.resolve import arm_plan
from raymae.tasks import schema_of

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
MOST_S = 180  # on two cores that nobody else uses
# what is asked and how often it is looked at, whatever the size
QUESTION = {"covariates", "eval_every", "pretrain_eval_every"}
# which corpus is better in as many steps: the passes over each are the question, not a matter of size
ASKED = {"label_efficiency": {"pretrain_epochs", "pretrain_classes"}}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_no_file_fixes_what_a_size_determines(path: Path) -> None:
    """Neither what its own size says, which would then say it for nobody, nor what `debug` makes small."""
    spec = load_sweep(path, schema_of=schema_of)
    schema = with_arms(spec, schema_of(spec.task))
    asked = QUESTION | ASKED.get(path.stem, set())
    for arm, own in spec.arms.items():
        determined = {*schema.preset(spec.size, arm), *schema.preset("debug", arm)} - asked
        assert not determined & {*own, *spec.settings, *spec.training.model_fields_set}, arm


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_debug_is_a_smaller_sweep(path: Path) -> None:
    """Everything that its preset names is as it says in every arm, but for what is searched."""
    spec = load_sweep(path, ["size=debug"], schema_of=schema_of)
    schema = with_arms(spec, schema_of(spec.task))
    asked = QUESTION | ASKED.get(path.stem, set())
    for arm in spec.arms:
        fixed = arm_plan(spec, schema, arm).fixed
        small = {name: value for name, value in schema.preset("debug", arm).items() if name not in asked}
        assert {name: fixed[name] for name in small if name in fixed} == {
            name: value for name, value in small.items() if name in fixed}, arm


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_debug_ends_with_a_verdict_in_minutes(path: Path, tmp_path: Path) -> None:
    """With what its header asks for beside the size, where it says how it is tried."""
    said = re.search(r"\((--set .*) for a try", path.read_text(encoding="utf-8"))
    tried = re.findall(r"--set (\S+)", said[1] if said else "--set size=debug")
    assert "size=debug" in tried
    (tmp_path / "nothing").mkdir()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "raymae.cli", "sweep", str(path), *(part for one in tried for part in ("--set", one)),
         "--set", f"results={tmp_path}", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
        env={**os.environ, "RAYMAE_DATA": str(tmp_path / "nothing"), "RAYMAE_CACHE": str(tmp_path / "cache"),
             "RAYMAE_OFFLINE": "1"},
    )
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict["complete"]
    assert verdict["data"]["source"] == "synthetic"
    beside = max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))  # other work takes its share
    assert took < MOST_S * beside
