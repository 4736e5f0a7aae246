"""Cells that are opened while a sweep runs, one after another, where a factor is bisected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_of
from raymae.search.decide.budget import Budget, NewLane
from raymae.search.decide.enough import Enough
from raymae.search.decide.rounds import Rounds
from raymae.search.decide.searches import Searches
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec

if TYPE_CHECKING:
    from threading import RLock


class Opening:
    """Says which cell is opened next, and enters its lanes.

    It is asked once the cells so far are through. What was opened is in the store's manifest before any trial of it
    begins, and the next value follows from the rows alone, so that a killed sweep opens the same cells.

    Args:
        spec: The sweep.
        plans: Its lanes; those of new cells are added.
        searches: The search of each lane.
        rounds: How many replicates each lane needs.
        budget: What is left.
        store: Holds the rows.
        lock: The conductor's, under which all these change.
        enough: Ends searches that have found enough.
    """

    def __init__(
        self, spec: SweepSpec, plans: dict[str, ArmPlan], searches: Searches, rounds: Rounds, budget: Budget,
        store: Store, lock: RLock, enough: Enough,
    ) -> None:
        self._spec, self._plans, self._searches, self._rounds = spec, plans, searches, rounds
        self._budget, self._store, self._lock, self._enough = budget, store, lock, enough

    def next(self) -> int | float | None:
        """The value of the factor whose cell is to be opened now; None where there is nothing more to look for."""
        if self._spec.bisected is None:
            return None
        self._store.flush()
        place = verdict_of(self._store).place
        return None if place is None else place.next

    def fits(self, plans: Mapping[str, ArmPlan]) -> bool:
        """Whether the budget leaves room for one more cell: its replicates, and where it is searched by itself its
        finals and as many trials as they choose from.

        Args:
            plans: All lanes, with those of the cell.
        """
        with self._lock:
            return self._budget.fits_cell(
                [self._new(plan) for lane, plan in plans.items() if lane not in self._plans])

    def _new(self, plan: ArmPlan) -> NewLane:
        """What a lane needs that there is not yet.

        Where its pretraining is that of another cell it starts from the encoders of that one: its search begins with
        the same configurations on the same seeds, and what it replicates pretrains alike unless its own search has
        chosen what pretraining reads.
        """
        search, quota = self._spec.search, self._searches.quota
        like = [lane for lane, one in self._plans.items() if one.name == plan.name]
        made = any(self._plans[lane].encoder_cell == plan.encoder_cell for lane in like)
        searched = plan.home == plan.lane
        finals = search.num_finals(max((quota[lane] for lane in like), default=0)) if searched else 0
        return NewLane(
            like, num_search=max(1, finals // search.finalist_seeds) if searched else 0, num_finals=finals,
            num_replicates=plan.arm.num_replicates(self._spec.num_replicates), shares_first=made,
            shares=made and not (searched and plan.shared))

    def add(self, spec: SweepSpec, plans: Mapping[str, ArmPlan]) -> None:
        """Enter a cell that was opened.

        Args:
            spec: The sweep with it.
            plans: All its lanes; those that are known stay as they are.
        """
        new = {lane: plan for lane, plan in plans.items() if lane not in self._plans}
        with self._lock:
            self._plans.update(new)
            self._searches.add(new, self._plans)
            self._enough.add(new)
            self._rounds.widen(spec)
