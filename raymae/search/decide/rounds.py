"""Replicates in rounds: more of them until the primary comparison is decided."""

from __future__ import annotations

from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_of
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
        store: Holds the rows of those that ended, by which the primary comparison is decided or not.

    Attributes:
        wanted: Replicates by arm; grows.
    """

    def __init__(self, spec: SweepSpec, plans: dict[str, ArmPlan], trials: Trials, store: Store) -> None:
        self._spec, self._plans, self._trials, self._store = spec, plans, trials, store
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

    def _is_decided(self) -> bool:
        """Whether the rows so far decide the primary comparison, by intervals that hold at every look."""
        self._store.flush()
        pairs = verdict_of(self._store).pairs
        return not pairs or pairs[0].verdict != "undecided"

    def _want(self, asked: int) -> None:
        self._asked = asked
        self.wanted.update({name: plan.arm.num_replicates(asked) for name, plan in self._plans.items()})
