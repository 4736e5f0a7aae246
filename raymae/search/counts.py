"""How many trials and encoders a planned sweep makes of an arm, at most: before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass

from raymae.search.decide.algorithms import grid
from raymae.spec.resolve import ArmPlan, shares_encoders
from raymae.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Counts:
    """Search trials, finals, replicates and pretrainings."""

    trials: int = 0
    finals: int = 0
    replicates: int = 0
    pretrainings: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


def counts_of(lane: str, plans: Mapping[str, ArmPlan], spec: SweepSpec) -> Counts:
    """What is run of a lane. Another cell's search may serve it, and it may start from another's encoders.

    Several trials of a search may start from one encoder, a final or a replicate from one of its own.

    Args:
        lane: The lane.
        plans: All of them.
        spec: The sweep.
    """
    arm, by_grid = plans[lane], spec.search.algorithm == "grid"
    points = list(grid(arm)) if by_grid else []
    trials = len(points) if by_grid else arm.num_trials(spec.search.num_trials)
    finals, replicates = spec.search.num_finals(trials), arm.arm.num_replicates(spec.num_replicates)
    if arm.home != lane:
        trials = finals = 0
    if arm.arm.kind != "pretrained" or arm.origin.adopts:
        return Counts(trials, finals, replicates)
    searched = len({tuple(point.get(key) for key in arm.shared) for point in points}) if by_grid else math.ceil(
        trials / spec.search.finetunes_per_encoder)
    own = finals + replicates if not shares_encoders(lane, plans) else 0
    return Counts(trials, finals, replicates, (searched if trials else 0) + own)


def counts_of_arm(arm: str, plans: Mapping[str, ArmPlan], spec: SweepSpec) -> Counts:
    """What is run of an arm in all cells; of a factor that is bisected as if all were opened that may be."""
    lanes = [lane for lane, plan in plans.items() if plan.name == arm]
    counts = sum((counts_of(lane, plans, spec) for lane in lanes), Counts())
    if spec.bisected is None or not plans[lanes[0]].cell:
        return counts
    like = next((lane for lane in reversed(lanes) if plans[lane].home != lane), lanes[-1])
    for _ in range(spec.bisected[1].cells - len(lanes)):
        counts += counts_of(like, plans, spec)
    return counts
