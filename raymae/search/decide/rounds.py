"""Replicates in rounds: more of them until the primary comparison is decided."""

from __future__ import annotations

from collections.abc import Callable

from raymae.search.decide.trials import Trials
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec


class Rounds:
    """How many replicates each arm needs by now.

    It is not guarded: its conductor holds a lock whenever it asks it.

    Args:
        spec: The sweep.
        plans: Its arms.
        trials: Its trials.
        is_decided: Whether the primary comparison is decided by the replicates that there are.

    Attributes:
        wanted: Replicates by arm; grows.
    """

    def __init__(
        self, spec: SweepSpec, plans: dict[str, ArmPlan], trials: Trials, is_decided: Callable[[], bool]
    ) -> None:
        self._spec, self._plans, self._trials, self._is_decided = spec, plans, trials, is_decided
        self._asked, self._decided = spec.num_replicates, False
        self.wanted: dict[str, int] = {}
        self._want(self._asked)

    def catch_up(self) -> None:
        """Go on with the round that an earlier run of the sweep had begun."""
        begun = max((len(self._trials.of(arm, "replicate")) for arm in self._plans), default=0)
        while self._asked < min(begun, self._spec.most_replicates):
            self._want(min(self._asked + self._spec.num_replicates, self._spec.most_replicates))

    def is_over(self) -> bool:
        """Whether no other round will begin."""
        if self._asked >= self._spec.most_replicates:
            return True
        if not self._trials.running:
            self._decided = self._decided or self._is_decided()
        return self._decided

    def next(self) -> bool:
        """Begin another round, if all so far have ended and the comparison is not decided: whether it did."""
        if self._trials.running or self.is_over():
            return False
        self._want(min(self._asked + self._spec.num_replicates, self._spec.most_replicates))
        return True

    def _want(self, asked: int) -> None:
        self._asked = asked
        self.wanted.update({name: plan.arm.num_replicates(asked) for name, plan in self._plans.items()})
