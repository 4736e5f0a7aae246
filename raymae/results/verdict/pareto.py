"""Which search trials nobody beats in both metric and cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymae.results.store.columns import alone_s
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


@dataclass(frozen=True)
class FrontPoint:
    """A completed search trial on the front, with its validation score in the objective."""

    arm: str
    trial_id: str
    value: float
    cost: float


@dataclass(frozen=True)
class Pareto:
    """The front of metric and cost.

    Attributes:
        cost: A column that less is better of: `wall_s` or `num_parameters`.
        front: Cheapest first.
    """

    cost: str
    front: tuple[FrontPoint, ...]


def pareto_front(last: pd.DataFrame, objective: Objective, cost: str) -> Pareto:
    """The Pareto front over all arms: every completed search trial that no other beats in one and matches in the other.

    References train nothing: what they cost is no training's, so they stand beside it.

    Args:
        last: The `trials` dataset, one row per trial.
        objective: The metric, on validation.
        cost: A column that less is better of: `wall_s` or `num_parameters`.
    """
    last = last.assign(wall_s=alone_s(last))  # a cheap fine-tuning of a dear encoder is not cheap
    done = last[(last["stage"] == "search") & (last["status"] == "completed")]
    points = []
    for row in done[done["epochs_done"] > 0].to_dict("records"):
        point = FrontPoint(str(row["arm"]), str(row["trial_id"]), float(row[objective.val]), float(row[cost]))
        if math.isfinite(point.value) and math.isfinite(point.cost):
            points.append(point)
    sign = 1.0 if objective.mode == "min" else -1.0
    front: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, sign * point.value)):
        if not front or objective.better(point.value, front[-1].value):
            front.append(point)
    return Pareto(cost, tuple(front))
