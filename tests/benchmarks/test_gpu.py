"""The script for a GPU is sound where there is none: it says what it skipped, and its checks fail when they should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.train.gradients import OneMessage
from tests.benchmarks import gpu

ROOT = Path(__file__).parents[2]


def test_without_a_gpu_every_check_is_skipped_and_says_why() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: run python -m tests.benchmarks.gpu")
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.gpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert rows.keys() == gpu.CHECKS.keys()
    assert all("no CUDA device" in row["skipped"] for row in rows.values())


def test_gradients_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert gpu.ddp(cpu) == {"backend": "gloo", "largest_relative_difference": 0.0}
    called = OneMessage.__call__

    def half(self: OneMessage, part: Any) -> Any:
        loss = called(self, part)
        for parameter in self._model.parameters():
            assert parameter.grad is not None
            parameter.grad *= 0.5
        return loss

    monkeypatch.setattr(OneMessage, "__call__", half)
    with pytest.raises(AssertionError, match="apart"):
        gpu.ddp(cpu)
