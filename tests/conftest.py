"""One thread per process, the real data where it is, and debug-size trials for the suites that train."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from raymae.spec import TrialConfig

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it
REAL_ROOT = os.environ.get("RAYMAE_DATA")  # as it was before any test changed it
SYNTHETIC = {"name": "synthetic", "source": "synthetic"}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    if not REAL_ROOT or not Path(REAL_ROOT).is_dir():
        pytest.skip("needs real data: set RAYMAE_DATA to a folder that holds ett/ETTh1.csv")
    return Path(REAL_ROOT)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrialConfig]:
    """A trial of size `debug` with some parameters changed; those the arm does not have are left out."""
    from raymae.spec import TrialConfig
    from raymae.spec.trial import applies
    from raymae.tasks import task_class

    def make(task: str, arm: str, *, stage: Any = "search", seed: int = 0, data: Any = None,
             **changes: Any) -> TrialConfig:
        cls = task_class(task)
        defaults = {name: field.get_default() for name, field in cls.Params.model_fields.items()}
        merged = {**defaults, **cls.sizes["debug"], **changes}
        params = {name: value for name, value in merged.items()
                  if applies(cls.Params, name, arm, cls.arms[arm].kind)}
        return TrialConfig(task, arm, params, data or SYNTHETIC, seed, stage)

    return make
