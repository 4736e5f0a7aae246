"""How far each lane is: whether its search is over, and its finals, so that replicates may begin."""

from __future__ import annotations

from raymae.search.decide.budget import Budget
from raymae.search.decide.gate import Gate
from raymae.search.decide.searches import Searches
from raymae.search.decide.trials import Trial, Trials


class Stages:
    """Says of every lane which stage it is in.

    A lane whose replicates have begun is searched no more and has no more finals, even where time turns out to be left:
    its test scores are known, or will be, and nothing may be chosen after them.

    It is not guarded: its conductor holds a lock whenever it asks it.

    Args:
        trials: Every trial there is.
        searches: The search of each lane.
        budget: What is left.
        gate: Holds the trials that wait for an encoder.
        reopened: Whether the search goes on although replicates have been scored: asked for by `raymae extend`.

    Attributes:
        children: In place of trials that a population has ended, not started yet; a search is not over before them.
        cut_short: Lanes whose search the budget has ended before they had all their trials.
        news: What people should know that nobody has told them yet; whoever tells them takes it away.
    """

    def __init__(
        self, trials: Trials, searches: Searches, budget: Budget, gate: Gate, *, reopened: bool = False
    ) -> None:
        self._trials, self._searches, self._budget, self._gate = trials, searches, budget, gate
        self._reopened = reopened
        self.children: list[Trial] = []
        self.cut_short: set[str] = set()
        self.news: list[str] = []

    def search_is_over(self, lane: str) -> bool:
        """Whether the search that serves a lane has ended."""
        home = self._trials.home(lane)
        if self._trials.num_running(home, "search") or self._gate.holds(home):
            return False
        if self.is_closed(home) or (self._trials.num_asked(home) >= self._searches.quota[home]
                                    and not any(child.lane == home for child in self.children)):
            return True
        if not self._budget.fits_another(home):
            self._cut_short(home)
        return home in self.cut_short

    def is_closed(self, home: str) -> bool:
        """Whether replicates of what a lane's search finds have begun, or the budget has ended it so that they can."""
        return home in self.cut_short or self._has_replicates(home)

    def _has_replicates(self, home: str) -> bool:
        return not self._reopened and any(self._trials.of(lane, "replicate") for lane in self._searches.served[home])

    def _cut_short(self, home: str) -> None:
        if not self.cut_short:
            quota = self._searches.quota
            made, asked = sum(map(self._trials.num_asked, quota)), sum(quota.values())
            self.news.append(f"the budget cuts the search short after {made} of {asked} trials: what is left of it is "
                             "kept for the replicates; an arm whose replicates have begun is searched no more")
        self.cut_short.add(home)

    # -- finals --------------------------------------------------------------------------------------------------------

    def is_chosen(self, lane: str) -> bool:
        """Whether it is known what a lane's replicates repeat: the search that serves it is over, and so are its
        finals."""
        home, finals = self._trials.home(lane), self._trials.finals
        if not self.search_is_over(home) or self._trials.num_running(home, "final") or self._gate.holds(home, "final"):
            return False
        if home not in finals.closed and self._final_of(home) is None:
            if finals.next(home) is not None and not self._has_replicates(home):
                self.news.append(f"the budget cuts the finals of {home} short: its finalists are compared over the "
                                 "seeds that all of them have")
            finals.closed.add(home)
        return home in finals.closed

    def next_final(self) -> tuple[str, int] | None:
        """The next final, of the lane whose search is over that has the fewest: the search trial of the finalist and
        the number of the seed; None if none is wanted now."""
        finals = self._trials.finals
        ready = [(finals.num_begun(lane), wanted) for lane in self._searches.quota
                 if finals.planned(lane) and self.search_is_over(lane)
                 for wanted in [self._final_of(lane)] if wanted is not None]
        return min(ready, key=lambda one: one[0])[1] if ready else None

    def _final_of(self, home: str) -> tuple[str, int] | None:
        if self._has_replicates(home) or not self._budget.fits_a_final(home):
            return None
        return self._trials.finals.next(home)
