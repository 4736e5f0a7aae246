"""The small sweep file that these tests change, and the fixtures' types."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from raymae.spec import SweepSpec

ROOT = Path(__file__).parents[2]
BASE = """\
name: debug
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [mae, scratch, persistence]
space:
  lr: {loguniform: [3e-4, 3e-3]}
search: {num_trials: 2}
"""


class Load(Protocol):
    def __call__(self, text: str = ..., *overrides: str) -> SweepSpec: ...


class Refuse(Protocol):
    def __call__(self, text: str = ..., *overrides: str) -> list[str]: ...
