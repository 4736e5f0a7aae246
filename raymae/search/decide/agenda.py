"""What a sweep still has to run, and in which order: interrupted trials, children, the search, its finals, replicates;
and before each the encoder that it starts from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from raymae.errors import TrialError
from raymae.search.decide.budget import Budget
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.enough import Enough
from raymae.search.decide.gate import Gate
from raymae.search.decide.proposals import Proposals
from raymae.search.decide.rounds import Rounds
from raymae.search.decide.searches import Searches
from raymae.search.decide.stages import Stages
from raymae.search.decide.trials import Trial, Trials
from raymae.spec.points import told


class Agenda:
    """Chooses the next trial. Lanes take turns (arms, in every cell of the factors): a lane's finals wait until its
    search is over, its replicates until its finals are, or those of the cell that is searched for it.

    They take turns in finals and replicates, too: where the budget ends before all are done, there are some of every
    lane.

    A trial whose encoder is not there is held, and its pretraining goes before it; meanwhile others are started.

    It is not guarded: its conductor holds a lock whenever it asks it.

    Args:
        proposals: Makes the trials.
        trials: Every trial there is.
        searches: The search of each lane.
        rounds: How many replicates each lane needs.
        budget: What is left, and the slots.
        gate: Starts them, once their encoder is there.
        enough: Ends searches that have found enough.
        stages: How far each lane is.
        encoders: Those there are; without them every trial pretrains for itself.
    """

    def __init__(
        self, proposals: Proposals, trials: Trials, searches: Searches, rounds: Rounds, budget: Budget, gate: Gate,
        enough: Enough, stages: Stages, *, encoders: Encoders | None = None,
    ) -> None:
        self._proposals, self._trials, self._searches, self._rounds = proposals, trials, searches, rounds
        self._budget, self._gate, self._enough, self._stages = budget, gate, enough, stages
        self._encoders = encoders
        self._waiting: list[Trial] = []  # interrupted by the end of an earlier run; they go first; then children

    def take_over(self, ended: Iterable[Trial], interrupted: Iterable[Trial]) -> None:
        """Enter trials of an earlier run, in the order in which they ended, and put the interrupted ones first."""
        for trial in ended:
            self._trials.add(trial)
            self._gate.note(trial)
            self._enough.look()
        for trial in interrupted:
            self._trials.add(trial)
            self._gate.note(trial)
            if trial.stage != "pretrain":
                self._waiting.append(trial)
        self._stages.news += self._enough.close()

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
            self._stages.children = [child for child in self._stages.children if not self._stages.is_closed(child.lane)]
            if self._stages.children:
                return self._stages.children.pop(0)
            shares = {lane: self._trials.num_asked(lane) / quota for lane, quota in self._searches.quota.items()
                      if quota and not self._stages.is_closed(lane) and self._budget.fits_another(lane)}
            for lane in sorted(shares, key=lambda name: shares[name]):
                if shares[lane] < 1 and (trial := self._ask(lane)) is not None:
                    return trial
        if (final := self._stages.next_final()) is not None:
            trial_id, number = final
            return self._proposals.final(self._trials[trial_id], number, self._trials.finals.seeds[number])
        while True:
            ready = [(number, lane) for lane in self._rounds.wanted
                     for number in [self._to_replicate(lane)] if number is not None and self._stages.is_chosen(lane)]
            if ready:
                return self._replicate(*min(ready, key=lambda one: one[0]))
            if not self._is_through() or not self._rounds.next():
                return None

    def _ask(self, lane: str) -> Trial | None:
        """The next trial of a lane's search, of a point that somebody has added where there is one; None where it has
        to wait for an encoder that several trials share."""
        trial_id, number, group = self._search_id(lane), self._trials.num_asked(lane), None
        added, study = self._searches.added.get(lane, []), self._searches.studies[lane]
        point = added[0].point if added else {}
        groups = None if self._encoders is None else self._searches.groups.get(lane)
        if groups is not None and self._encoders is not None:
            group = groups.open(self._encoders, point)
            if (group is None and not groups.read_by_pretraining(point)
                    and not groups.may_begin(self._searches.quota[lane] - number, self._encoders)):
                return None
        shared = group.sampled if group else {}
        try:
            sampled = study.complete(trial_id, {**shared, **point}) if added else study.ask(
                trial_id, shared, groups.sampled() if groups else ())
        except TrialError as error:
            if not added:
                raise
            self._stages.news.append(f"the point {told(added.pop(0).point)} of {lane} is left out: {error}")
            return self._ask(lane)
        trial = self._proposals.sampled(trial_id, lane, number, sampled)
        trial.added = added.pop(0) if added else None
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
        return all(self._stages.is_chosen(lane) and self._to_replicate(lane) is None for lane in self._rounds.wanted)

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
        self._stages.children.append(self._gate.enter(child))
        return True

    def look(self) -> None:
        """End the searches that have found enough, now that a trial has ended."""
        self._enough.look()
        self._stages.news += self._enough.close()

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
