"""What a sweep still has to run, and in which order: interrupted trials, children, the search, replicates; and before
each the encoder that it starts from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from raymae.search.decide.budget import Budget
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.gate import Gate
from raymae.search.decide.proposals import Proposals
from raymae.search.decide.rounds import Rounds
from raymae.search.decide.searches import Searches
from raymae.search.decide.trials import Trial, Trials


class Agenda:
    """Chooses the next trial. Lanes take turns (arms, in every cell of the factors): a lane's replicates wait until its
    search is over, or that of the cell that is searched for it.

    They take turns in their replicates, too: where the budget ends before all are done, there are some of every lane.

    A lane whose replicates have begun is searched no more, even where time turns out to be left: its test scores are
    known, or will be, and nothing may be chosen after them.

    A trial whose encoder is not there is held, and its pretraining goes before it; meanwhile others are started.

    It is not guarded: its conductor holds a lock whenever it asks it.

    Args:
        proposals: Makes the trials.
        trials: Every trial there is.
        searches: The search of each lane.
        rounds: How many replicates each lane needs.
        budget: What is left, and the slots.
        gate: Starts them, once their encoder is there.
        encoders: Those there are; without them every trial pretrains for itself.
        reopened: Whether the search goes on although replicates have been scored: asked for by `raymae extend`.

    Attributes:
        cut_short: Lanes whose search the budget has ended before they had all their trials.
    """

    def __init__(
        self, proposals: Proposals, trials: Trials, searches: Searches, rounds: Rounds, budget: Budget, gate: Gate, *,
        encoders: Encoders | None = None, reopened: bool = False,
    ) -> None:
        self._proposals, self._trials, self._searches, self._rounds = proposals, trials, searches, rounds
        self._budget, self._gate, self._encoders, self._reopened = budget, gate, encoders, reopened
        self.cut_short: set[str] = set()
        self._waiting: list[Trial] = []  # interrupted by the end of an earlier run; they go first
        self._children: list[Trial] = []  # in place of trials that a population has ended; they go next

    def take_up(self, interrupted: Iterable[Trial]) -> None:
        """Put trials of an earlier run first."""
        for trial in interrupted:
            self._trials.add(trial)
            self._gate.note(trial)
            if trial.stage != "pretrain":
                self._waiting.append(trial)

    # -- what is next --------------------------------------------------------------------------------------------------

    def next(self) -> Trial | None:
        """The next trial, started; None while all slots are busy or something must end first."""
        if len(self._trials.running) >= self._budget.slots:
            return None
        if (orphan := self._gate.orphan()) is not None:
            return orphan
        while (trial := self._propose()) is not None:
            if (started := self._gate.pass_(trial)) is not None:
                return started
        return None

    def _propose(self) -> Trial | None:
        """The next trial that is wanted, not started yet; None if something must end first."""
        for queue in (self._waiting, self._gate.freed):
            if queue:
                return queue.pop(0)
        if not self._budget.search_time_is_up():
            self._children = [child for child in self._children if not self._is_closed(child.lane)]
            if self._children:
                return self._children.pop(0)
            shares = {lane: self._trials.num_asked(lane) / quota for lane, quota in self._searches.quota.items()
                      if quota and not self._is_closed(lane) and self._budget.fits_another(lane)}
            for lane in sorted(shares, key=lambda name: shares[name]):
                if shares[lane] < 1 and (trial := self._ask(lane)) is not None:
                    return trial
        while True:
            ready = [(number, lane) for lane in self._rounds.wanted
                     for number in [self._to_replicate(lane)] if number is not None and self._search_is_over(lane)]
            if ready:
                return self._replicate(*min(ready, key=lambda one: one[0]))
            if not self._is_through() or not self._rounds.next():
                return None

    def _ask(self, lane: str) -> Trial | None:
        """The next trial of a lane's search; None where it has to wait for an encoder that several trials share."""
        trial_id, number, group = self._search_id(lane), self._trials.num_asked(lane), None
        groups = None if self._encoders is None else self._searches.groups.get(lane)
        if groups is not None and self._encoders is not None:
            group = groups.open(self._encoders)
            if group is None and not groups.may_begin(self._searches.quota[lane] - number, self._encoders):
                return None
        sampled = self._searches.studies[lane].ask(
            trial_id, group.sampled if group else {}, groups.sampled() if groups else ())
        trial = self._proposals.sampled(trial_id, lane, number, sampled)
        if groups is not None:
            trial.config = replace(trial.config, pretrain_seed=group.pretrain_seed if group else trial.config.seed)
            self._gate.note(trial)
        return trial

    def _to_replicate(self, lane: str) -> int | None:
        """The number of the next replicate of a lane's best configuration; None if none is needed, or nothing is best.
        """
        if self._trials.best(lane) is None:
            return None
        number = self._trials.num_replicates(lane)
        return number if number < self._rounds.wanted[lane] else None

    def _replicate(self, number: int, lane: str) -> Trial:
        best, repeated = self._trials.best(lane), self._trials.best_config(lane)
        assert best is not None
        assert repeated is not None
        return self._proposals.replicate(best, number, lane, repeated)

    def _search_is_over(self, lane: str) -> bool:
        home = self._trials.home(lane)
        if self._trials.num_running(home, "search") or self._gate.holds(home):
            return False
        if self._is_closed(home) or (self._trials.num_asked(home) >= self._searches.quota[home]
                                     and not any(child.lane == home for child in self._children)):
            return True
        if not self._budget.fits_another(home):
            self.cut_short.add(home)
        return home in self.cut_short

    def _is_closed(self, home: str) -> bool:
        """Whether replicates of what a lane's search finds have begun, or the budget has ended it so that they can."""
        if home in self.cut_short:
            return True
        return not self._reopened and any(self._trials.of(lane, "replicate") for lane in self._searches.served[home])

    def _search_id(self, lane: str) -> str:
        return f"{lane}-{len(self._trials.of(lane, 'search')):04d}"

    # -- what is left --------------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether it will never name another trial."""
        return self._is_through() and self._rounds.is_over()

    def _is_through(self) -> bool:
        """Whether nothing is left to start of the search and of the replicates that are wanted by now."""
        if self._waiting or self._gate.holds_any():
            return False
        return all(self._search_is_over(lane) and self._to_replicate(lane) is None for lane in self._rounds.wanted)

    # -- what happened -------------------------------------------------------------------------------------------------

    def replaces(self, trial: Trial, epoch: int, step: int, value: float) -> bool:
        """Whether a population ends a trial at this epoch; a child of a better one then takes its place.

        Args:
            trial: A running trial.
            epoch: Epochs of fine-tuning it has done.
            step: Its report.
            value: Its best score so far.
        """
        population = self._searches.populations.get(trial.lane)
        if population is None or trial.stage != "search":
            return False
        population.note(trial.trial_id, epoch, step, value)
        parent = population.judge(trial.trial_id, epoch)
        if parent is None:
            return False
        better = self._trials[parent.trial_id]
        sampled = population.mutate(better.sampled)
        child = self._proposals.child(self._search_id(trial.lane), better, sampled, parent)
        self._children.append(self._gate.enter(child))
        return True

    def give_up(self, lane: str) -> str | None:
        """Search a lane no more whose first trials all failed the same way: more of them would burn the budget.

        Returns:
            Why they failed, where it is given up now.
        """
        reason = self._trials.systematic_failure(lane)
        if reason is not None:
            quota = self._searches.quota
            quota[lane] = min(quota[lane], len(self._trials.of(lane, "search")))
        return reason
