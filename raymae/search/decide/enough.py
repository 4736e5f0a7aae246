"""When a search has found enough: `budget.target` and `budget.patience_trials`.

A comparison is fair while arms have equal numbers of trials, so no arm's search ends by itself: the one that is through
would be compared with one that was searched for longer, or stop while luck is still owed to it. The searches of arms
that are compared end together, once **every** arm that trains has met one of the two; those behind by a turn still get
their last trial. References, which do not train, are not waited for, and end with the others. Cells of the factors are
answers of their own: each ends by itself, but for cells that share the trials of an arm without that factor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raymae.search.decide.trials import Trials
from raymae.spec.limits import BudgetSpec
from raymae.spec.resolve import ArmPlan


class Enough:
    """Ends searches that have met the budget's target or its patience.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        budget: The sweep's budget section.
        plans: Its lanes.
        quota: Search trials by lane; those of a search that ends are lowered to what has been asked for.
        trials: Its trials.
    """

    def __init__(
        self, budget: BudgetSpec, plans: Mapping[str, ArmPlan], quota: dict[str, int], trials: Trials
    ) -> None:
        self._budget, self._plans, self._quota, self._trials = budget, plans, quota, trials
        self._open: list[list[str]] = []
        self._met: list[tuple[list[str], str]] = []
        self.add(plans)

    def add(self, lanes: Collection[str]) -> None:
        """Look at lanes, too, that there are from now on."""
        if self._budget.target is not None or self._budget.patience_trials:
            self._open += _compared({lane: self._plans[lane] for lane in lanes}, self._quota)

    def look(self) -> None:
        """Note which searches have found enough; after every trial that ends, and for good."""
        for lanes in list(self._open):
            judged = [lane for lane in lanes if self._plans[lane].arm.kind != "reference"] or lanes
            reasons = [self._reason(lane) for lane in judged]
            if all(reasons):
                self._open.remove(lanes)
                why = [f"{lane}: {reason}" for lane, reason in zip(judged, reasons, strict=True)]
                self._met.append((lanes, "; ".join(why)))

    def close(self) -> list[str]:
        """Ask for no more trials of the searches that have found enough.

        Returns:
            Why, for people, where that spares trials.
        """
        said = []
        for lanes, why in self._met:
            most, before = max(map(self._trials.num_asked, lanes)), sum(self._quota[lane] for lane in lanes)
            for lane in lanes:
                self._quota[lane] = min(self._quota[lane], most)
            after = sum(self._quota[lane] for lane in lanes)
            if after < before:
                said.append(f"the search ends after {after} of {before} trials, equally many of every arm ({why})")
        self._met.clear()
        return said

    def _reason(self, lane: str) -> str:
        """Why a lane has found enough; "" where it has not."""
        best, asked, target = self._trials.best_completed(lane), self._trials.num_asked(lane), self._budget.target
        metric = self._trials.objective
        if best is not None and target is not None and not metric.better(target, best):
            return f"{metric.val} {best:.4g} reaches the target {target:g}"
        patience, waited = self._budget.patience_trials, self._trials.since_best(lane)
        if patience is not None and waited >= patience:
            return f"{waited} trials without a better score"
        return "all its trials" if asked >= self._quota[lane] else ""


def _compared(plans: Mapping[str, ArmPlan], quota: Mapping[str, int]) -> list[list[str]]:
    """The lanes that are searched, those together that are compared in some cell, and what is compared with those."""
    groups: list[list[str]] = []
    for lane in (lane for lane in plans if quota[lane] > 1):
        joined = [group for group in groups if any(_share_a_cell(plans[lane], plans[other]) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([other for group in joined for other in group] + [lane])
    return groups


def _share_a_cell(a: ArmPlan, b: ArmPlan) -> bool:
    """Whether two lanes are compared: they have the same value of every factor that both have."""
    return all(b.cell[name] == value for name, value in a.cell.items() if name in b.cell)
