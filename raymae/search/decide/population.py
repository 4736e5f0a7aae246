"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), one population per arm, without a barrier.

Every `grace_epochs` epochs of fine-tuning a trial is compared with all that have come as far. One in the lowest quarter
is ended, and a child of one in the highest quarter takes its place: it goes on from its parent's state at that epoch,
with other values of the parameters that may change while training. A child's configuration holds the values of every
epoch before, so that it can be trained again from the start, on another seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from raymae.search.messages import Parent
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Uniform
from raymae.spec.sweep import SearchSpec
from raymae.spec.task import Objective

QUARTER = 0.25
FACTORS = (0.8, 1.25)
RESAMPLE = 0.25
SMALLEST = 4  # trials to compare with
MAX_DRAWS = 100


class Population:
    """The population of one arm.

    Args:
        plan: What the arm searches.
        search: The sweep's search section.
        objective: What is selected on.
    """

    def __init__(self, plan: ArmPlan, search: SearchSpec, objective: Objective) -> None:
        self.plan, self.every = plan, search.grace_epochs
        self._objective = objective
        self._random = random.Random(f"{search.seed}-{plan.name}")
        self._scores: dict[int, dict[str, tuple[float, int]]] = {}

    def is_milestone(self, epoch: int) -> bool:
        """Whether trials are compared after this epoch; after the last nobody can be replaced."""
        return epoch > 0 and epoch % self.every == 0 and epoch < self.plan.longest

    def note(self, trial_id: str, epoch: int, step: int, value: float) -> None:
        """Remember a trial's score at an epoch."""
        if self.is_milestone(epoch) and math.isfinite(value):
            self._scores.setdefault(epoch, {})[trial_id] = (value, step)

    def judge(self, trial_id: str, epoch: int) -> Parent | None:
        """Whose child should replace a trial at an epoch that has been noted; None if it may go on."""
        scores = self._scores.get(epoch, {})
        if trial_id not in scores or len(scores) < SMALLEST:
            return None
        sign = 1.0 if self._objective.mode == "min" else -1.0
        ranked = sorted(scores, key=lambda name: sign * scores[name][0])
        share = max(1, int(QUARTER * len(ranked)))
        if trial_id not in ranked[-share:]:
            return None
        parent = self._random.choice(ranked[:share])
        return Parent(parent, epoch, scores[parent][1])

    def mutate(self, sampled: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """A parent's sampled values with the live ones changed, within the space and its constraints."""
        for _ in range(MAX_DRAWS):
            others = {name: self._other(name, sampled[name]) for name in self.plan.live if name in sampled}
            if self.plan.admits({**sampled, **others}):
                return {**sampled, **others}
        return dict(sampled)

    def _other(self, name: str, value: Scalar) -> Scalar:
        distribution, draw = self.plan.space[name], self._random
        afresh = draw.random() < RESAMPLE
        match distribution:
            case Choice(choice=values):
                return draw.choice(values)
            case LogUniform(loguniform=(low, high)) if afresh:
                return math.exp(draw.uniform(math.log(low), math.log(high)))
            case Uniform(uniform=(low, high)) if afresh:
                return draw.uniform(low, high)
            case IntRange(range_=(low, high), step=step):
                others = list(range(low, high + 1, step))
                return draw.choice(others)
            case LogUniform(loguniform=(low, high)) | Uniform(uniform=(low, high)) if isinstance(value, (int, float)):
                return min(max(value * draw.choice(FACTORS), low), high)
        raise AssertionError(name)
