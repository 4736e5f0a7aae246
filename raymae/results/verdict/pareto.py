"""Which search trials nobody beats in both metric and cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


def pareto_front(last: pd.DataFrame, objective: Objective, cost: str) -> list[dict[str, Any]]:
    """The Pareto front over all arms, cheapest first.

    Args:
        last: The `trials` dataset, one row per trial.
        objective: The metric.
        cost: A column that less is better of: `wall_s` or `num_parameters`.

    Returns:
        `arm`, `trial_id`, `value` (on validation) and `cost` of every completed search trial that no other beats in one
        and matches in the other. References cost nothing to search and stand beside it, so they are left out.
    """
    metric = f"val_{objective.metric}"
    done = last[(last["stage"] == "search") & (last["status"] == "completed")]
    points: list[dict[str, Any]] = []
    for row in done[done["epochs_done"] > 0].to_dict("records"):
        value, spent = float(row[metric]), float(row[cost])
        if math.isfinite(value) and math.isfinite(spent):
            points.append({"arm": str(row["arm"]), "trial_id": str(row["trial_id"]), "value": value, "cost": spent})
    sign = 1.0 if objective.mode == "min" else -1.0
    front: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["cost"], sign * p["value"])):
        if not front or sign * point["value"] < sign * front[-1]["value"]:
            front.append(point)
    return front
