"""What a sweep may spend, what it has spent, and what is left: wall time, GPU hours, dollars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raymae.search.decide.meter import Meter
from raymae.search.decide.trials import Trial, Trials
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import TrialConfig

RESERVE = 1.25  # other work on the machine slows replicates that were estimated without it
HANDOVER_S = 1.0  # between two trials; a replicate is also scored on test, and drawn


@dataclass(frozen=True)
class NewLane:
    """What an arm needs in a cell that may be opened.

    Attributes:
        like: Its lanes in the cells so far, the longest of which stands for the new one.
        num_search: Search trials that it needs at least; 0 where another cell's search serves it.
        num_finals: Finals of its search's best.
        num_replicates: Replicates of the best.
        shares_first: Whether its first search trials start from encoders that other cells have made.
        shares: Whether its finals and replicates do.
    """

    like: Sequence[str]
    num_search: int
    num_finals: int
    num_replicates: int
    shares_first: bool
    shares: bool


class Budget:
    """Limits on a sweep, all of which must hold. Every quantity is turned into seconds of the whole sweep.

    Args:
        spec: The sweep.
        trials: Its trials.
        replicates: How many each lane's best configuration needs.
        slots: Trials at once.
        clock: Seconds, monotonic.

    Attributes:
        slots: Trials at once, as of now; 0 while sweeps of higher priority have the cluster.
        started: When this run of the sweep began.
        meter: What the nodes of a cluster have cost; None on this machine, which is one node.
    """

    def __init__(
        self, spec: SweepSpec, trials: Trials, replicates: Mapping[str, int], *, slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._trials, self._replicates, self._clock = spec.budget, trials, replicates, clock
        self._gpus_per_trial = spec.resources.workers * spec.resources.gpus_per_worker
        self._earlier_s = 0.0
        self.slots, self.started = slots, clock()
        self.meter: Meter | None = None

    def forget_earlier(self) -> None:
        """Leave out what trials have spent until now: an earlier run did, and a budget is one run's."""
        self._earlier_s = self._trials.spent_s(self._clock())

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run of the sweep began."""
        return self._clock() - self.started

    def _each(self) -> Iterator[tuple[float, float]]:
        """Seconds until a limit is reached with all slots busy, and the share of it that is spent; of each limit."""
        limits, elapsed, price = self._limits, self.elapsed_s, self._limits.price_per_node_hour
        if limits.wall_minutes is not None:
            yield 60 * limits.wall_minutes - elapsed, elapsed / (60 * limits.wall_minutes)
        if limits.dollars is not None and self.meter is not None:
            if (left := self.meter.seconds_left(limits.dollars)) is not None:
                yield left, self.meter.spent / limits.dollars
        elif limits.dollars is not None and isinstance(price, float):
            whole = 3600 * limits.dollars / price
            yield whole - elapsed, elapsed / whole
        if limits.gpu_hours is not None and self._gpus_per_trial:
            whole = 3600 * limits.gpu_hours
            spent = (self._trials.spent_s(self._clock()) - self._earlier_s) * self._gpus_per_trial
            yield (whole - spent) / (max(1, self.slots) * self._gpus_per_trial), spent / whole

    def seconds_left(self) -> float | None:
        """Seconds until the budget is spent with all slots busy; None without a limit."""
        return min((left for left, _ in self._each()), default=None)

    def share_spent(self) -> float | None:
        """How much of the budget is spent, from 0 to 1; None without a limit."""
        share = max((share for _, share in self._each()), default=None)
        return None if share is None else min(1.0, share)

    def dollars(self) -> float | None:
        """What has been spent; None where a price is not known."""
        if self.meter is not None:
            return self.meter.spent
        price = self._limits.price_per_node_hour
        return price * self.elapsed_s / 3600 if isinstance(price, float) else None

    def time_is_up(self) -> bool:
        """Whether the whole budget is spent."""
        left = self.seconds_left()
        return left is not None and left <= 0

    def search_time_is_up(self) -> bool:
        """Whether the search must end so that the finals and the replicates still fit."""
        left = self.seconds_left()
        return left is not None and left <= self.final_seconds() + self.replicate_seconds()

    def finals_time_is_up(self) -> bool:
        """Whether finals must end so that the replicates still fit."""
        left = self.seconds_left()
        return left is not None and left <= self.replicate_seconds()

    def fits_another(self, lane: str) -> bool:
        """Whether one more search trial of a lane can end before its finals or the replicates must begin.

        One without a score gets its trial whatever the reserve says: without one it has nothing to replicate.
        """
        left, ended = self.seconds_left(), self._trials.ended.get(lane)
        if left is None or self._trials.best(lane) is None:
            return left is None or left > 0
        needed = self.final_seconds() + self.replicate_seconds()
        return left > needed + (ended.mean_s + HANDOVER_S if ended else 0.0)

    def fits_a_final(self, lane: str) -> bool:
        """Whether one more final of a lane can end before the replicates must begin."""
        left = self.seconds_left()
        return left is None or left > self.replicate_seconds() + (self._replicate_s(lane) or 0.0) + HANDOVER_S

    def final_seconds(self) -> float:
        """Expected wall time of the finals that are left, reckoned as that of the replicates; a final takes as long."""
        finals = self._trials.finals
        return self._reserve((self._replicate_s(lane), finals.left(lane)) for lane in self._replicates)

    def replicate_seconds(self) -> float:
        """Expected wall time of the replicates that are left."""
        return self._reserve((self._replicate_s(lane), self._replicates_left(lane)) for lane in self._replicates)

    def _replicates_left(self, lane: str) -> int:
        """Replicates of a lane that have not ended."""
        counts = self._trials.counts(lane, "replicate")  # pending ones wait for their encoder
        begun = counts.get("running", 0) + counts.get("pending", 0)
        return self._replicates[lane] - self._trials.num_replicates(lane) + begun

    def _reserve(self, trials: Iterable[tuple[float | None, int]]) -> float:
        """Wall time of trials, given as seconds of one and number: their sum over the slots, plus the longest, since
        they do not end together; with a reserve."""
        total = longest = 0.0
        for each, left in trials:
            if each is not None and left > 0:
                total += left * (each + HANDOVER_S)
                longest = max(longest, each)
        return RESERVE * (total / max(1, self.slots) + longest)

    def fits_cell(self, lanes: Iterable[NewLane]) -> bool:
        """Whether a new cell of the factors can have its replicates, and before them its finals.

        Args:
            lanes: Those that it would add.
        """
        left, lanes = self.seconds_left(), list(lanes)
        if left is None:
            return True
        search = self._reserve((self._longest(one.like, one.shares_first), one.num_search) for one in lanes)
        return left > search + sum(
            self._reserve((self._longest(one.like, one.shares), number(one)) for one in lanes)
            for number in (lambda one: one.num_finals, lambda one: one.num_replicates))

    def _longest(self, lanes: Sequence[str], shares: bool) -> float | None:
        """Expected wall time of a replicate of that of some lanes which takes longest."""
        return max(filter(None, (self._replicate_s(lane, shares) for lane in lanes)), default=None)

    def _replicate_s(self, lane: str, shares: bool | None = None) -> float | None:
        """Expected wall time of one replicate of a lane: as long as its best trial takes with all its epochs, or the
        running one that is about to be the best, or its replicates so far took; None until there is something to go by.

        Where another cell is searched for it, it may see more labels for more epochs than the trials there; what its
        replicates share with that cell's, their encoders, is counted there.

        Args:
            lane: The lane.
            shares: Whether its encoder is there already; by default what holds for the lane's replicates.
        """
        trials, best, home = self._trials, self._trials.best(lane), self._trials.home(lane)
        config, shares = trials.best_config(lane), _spares_encoders(trials, lane) if shares is None else shares
        val, better = trials.objective.val, trials.objective.better
        leading = [trial for trial in trials.running.values()
                   if trial.lane == home and trial.stage == "search" and val in trial.best
                   and (best is None or better(trial.best[val], best.best[val]))]
        done = [trial.wall_s if shares else trial.alone_s
                for trial in trials.of(lane, "replicate") if trial.status == "completed"]
        if done and lane != home:
            return sum(done) / len(done)
        costs = [plan.epoch_cost if (plan := trials.plans.get(one)) else None for one in (lane, home)]
        times = costs[0] / costs[1] if costs[0] and costs[1] else None
        known = [_as_long(trial, config, shares, times) for trial in (*leading, *((best,) if best else ()))]
        seconds = [each for each in (*known, sum(done) / len(done) if done else None) if each is not None]
        return max(seconds, default=None)

    def expected_s(self, quota: Mapping[str, int]) -> float | None:
        """Seconds until the sweep is over, from the mean time of each arm's ended trials, and no more than the budget
        leaves; None until there is something to go by.

        Args:
            quota: Search trials by lane.
        """
        ended = self._trials.ended
        num = sum(one.num for one in ended.values())
        if not num:
            return None
        overall = sum(one.wall_s for one in ended.values()) / num
        total = 0.0
        for lane, replicates in self._replicates.items():
            mine = ended.get(lane)
            left = quota[lane] + self._trials.finals.planned(lane) + replicates - (mine.num if mine else 0)
            total += max(left, 0) * (mine.mean_s if mine and mine.num else overall)
        limit, estimate = self.seconds_left(), total / max(1, self.slots)
        return estimate if limit is None else max(0.0, min(estimate, limit))


def _spares_encoders(trials: Trials, lane: str) -> bool:
    """Whether the encoders of a lane's replicates are counted with an earlier lane's: so the sweep file has it, or
    the searches have found the same pretraining so far.

    A best may change yet, so of an arm's lanes that only look alike the first is counted with encoders of its own.
    """
    seen, alike = set[object](), 0
    mine = trials.plans.get(lane)
    if mine is None or not mine.shared or trials.shares_encoders(lane):
        return trials.shares_encoders(lane)
    for one, plan in trials.plans.items():
        best = trials.best(one) if plan.name == mine.name else None
        if best is None:
            continue
        found = (*plan.encoder_cell.items(), *((name, best.sampled.get(name)) for name in plan.shared))
        alike += found in seen
        if one == lane:
            return found in seen and alike > 1
        seen.add(found)
    return False


def _as_long(trial: Trial, config: TrialConfig | None, shares: bool, epoch_times: float | None) -> float | None:
    """Seconds that a trial of a configuration takes, by one of another cell; None until that can be told.

    Args:
        trial: The one that is known.
        config: The configuration; None for the same.
        shares: Whether its encoder is there already.
        epoch_times: How many times as long an epoch of its fine-tuning takes; None where only labels can tell.
    """
    if (whole_s := trial.whole_s) is None:
        return None
    before = trial.pretrain_s
    times = 1.0
    if config is not None:
        times = epoch_times or max(1.0, _labels(config) / _labels(trial.config))
        times *= _epochs(config, trial.config)
    return times * (whole_s - before) + (0.0 if shares else before)


def _epochs(one: TrialConfig, other: TrialConfig) -> float:
    """How many times the epochs of another trial one has."""
    return int(one.params.get("epochs") or 1) / int(other.params.get("epochs") or 1)


def _labels(config: TrialConfig) -> float:
    """The share of the labels that a trial sees; its time is at most in proportion to it."""
    share = config.params.get("label_fraction", 1.0)
    return float(share) if isinstance(share, (int, float)) else 1.0
