"""Sweeps of a known answer: trials of two arms whose scores are a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from tiny_task import tiny_spec, trial

from raymae.spec import SweepSpec

Score = Callable[[str, Mapping[str, float]], float]
SPACE = {"lr": {"loguniform": [1e-4, 1e-2]}, "depth": {"int": [1, 6]},
         "mask_ratio": {"uniform": [0.2, 0.8], "when": {"arm": "mae"}},
         "patch_size": {"choice": [4, 8, 16], "when": {"arm": "mae"}}}


def spec_of(space: Mapping[str, Any] = SPACE, **changes: Any) -> SweepSpec:
    return tiny_spec(space=dict(space), **changes)


def made_up(number: int, score: Score, seed: int = 0, noise: float = 0.15, **changes: Any) -> pd.DataFrame:
    """Rows of `trials`: so many of `mae` and of `scratch`, drawn from SPACE at random."""
    rng, rows = np.random.default_rng(seed), []
    for arm in ("mae", "scratch"):
        for index in range(number):
            params: dict[str, Any] = {"lr": 10 ** rng.uniform(-4, -2), "depth": int(rng.integers(1, 7)),
                                      "mask_ratio": rng.uniform(0.2, 0.8), "patch_size": int(rng.choice([4, 8, 16]))}
            if arm == "scratch":
                params |= {"mask_ratio": None, "patch_size": None}
            value = score(arm, params) + noise * rng.standard_normal()
            rows.append(trial(f"{arm}-{index:04d}", arm, **{**params, "val_mse": value, **changes}))
    return pd.DataFrame(rows)


def common(params: Mapping[str, float]) -> float:
    """What both arms' scores depend on: learning rate above all, with an interaction."""
    rate, depth = (np.log10(params["lr"]) + 4) / 2, (params["depth"] - 1) / 5
    return float(6 * (rate - 0.55) ** 2 + 0.5 * depth + 0.6 * rate * depth)


def no_difference(arm: str, params: Mapping[str, float]) -> float:
    return common(params)


def flips(arm: str, params: Mapping[str, float]) -> float:
    """Pretraining hurts below a mask ratio of .6 and helps above (less is better)."""
    return common(params) + (2.0 * (0.6 - params["mask_ratio"]) if arm == "mae" else 0.0)
