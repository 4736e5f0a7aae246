"""Every sweep in `sweeps/`, at the size for trying it: what the size replaces, and that a verdict comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raymae.spec.load import load_sweep
from raymae.spec.resolve import arm_plan
from raymae.tasks import schema_of

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
MOST_S = 180  # on two cores that nobody else uses


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_debug_is_a_smaller_sweep(path: Path) -> None:
    """Pretraining, batches and what sets a network's size are the preset's, whatever the file says."""
    spec = load_sweep(path, ["size=debug"], schema_of=schema_of)
    schema = schema_of(spec.task)
    sizes = {name: value for name, value in schema.sizes["debug"].items()
             if name in ("pretrain_epochs", "batch_size", "num_trees", "num_donors", "max_rounds")
             or name.startswith(("encoder_", "decoder_", "rnn_", "hidden_", "upernet_"))}
    for arm in spec.arms:
        fixed = arm_plan(spec, schema, arm).fixed
        assert {name: fixed[name] for name in sizes if name in fixed} == {
            name: value for name, value in sizes.items() if name in fixed}, arm
        if schema.arms[arm].kind == "pretrained" and path.stem != "timeseries_long_horizon":
            assert fixed["epochs"] == schema.sizes["debug"]["epochs"]


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_debug_ends_with_a_verdict_in_minutes(path: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "raymae.cli", "sweep", str(path), "--set", "size=debug", "--set", f"results={tmp_path}",
         "--json"],
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
