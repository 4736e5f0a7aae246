"""Tune's early-stopping schedulers, made from a sweep file's `search` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from raymae.spec.sweep import SearchSpec
from raymae.spec.task import Objective


def make_scheduler(search: SearchSpec, objective: Objective, max_epochs: int) -> TrialScheduler:
    """One arm's scheduler. It sees fine-tuning reports of search trials only (see `ArmScheduler`)."""
    common: Mapping[str, Any] = {"time_attr": "epoch", "metric": "objective", "mode": objective.mode}
    grace = min(search.grace_epochs, max_epochs)
    match search.scheduler:
        case "asha" | "hyperband":
            return AsyncHyperBandScheduler(
                **common, max_t=max(max_epochs, grace + 1), grace_period=grace,
                reduction_factor=search.reduction_factor, brackets=3 if search.scheduler == "hyperband" else 1,
            )
        case "median":
            return MedianStoppingRule(**common, grace_period=grace, min_samples_required=3)
        case "pbt" | "none":  # populations are the conductor's
            return FIFOScheduler()
