"""What a sweep may spend, what it has spent, and what is left: wall time, GPU hours, dollars."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from raymae.search.decide.trials import Trials
from raymae.spec.sweep import SweepSpec


class Budget:
    """Limits on a sweep, all of which must hold. Every quantity is turned into seconds of the whole sweep.

    Args:
        spec: The sweep.
        trials: Its trials.
        replicates: How many each arm's best configuration needs.
        slots: Trials at once.
        clock: Seconds, monotonic.

    Attributes:
        slots: Trials at once, as of now.
        started: When this run of the sweep began.
    """

    def __init__(
        self, spec: SweepSpec, trials: Trials, replicates: Mapping[str, int], *, slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._trials, self._replicates, self._clock = spec.budget, trials, replicates, clock
        self._gpus_per_trial = spec.resources.workers * spec.resources.gpus_per_worker
        self._earlier_s = 0.0
        self.slots, self.started = slots, clock()

    def forget_earlier(self) -> None:
        """Leave out what trials have spent until now: an earlier run did, and a budget is one run's."""
        self._earlier_s = self._trials.spent_s(self._clock())

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run of the sweep began."""
        return self._clock() - self.started

    def seconds_left(self) -> float | None:
        """Seconds until the budget is spent with all slots busy; None without a limit."""
        limits = []
        if self._limits.wall_minutes is not None:
            limits.append(60 * self._limits.wall_minutes - self.elapsed_s)
        if self._limits.dollars is not None and self._limits.price_per_node_hour is not None:
            limits.append(3600 * self._limits.dollars / self._limits.price_per_node_hour - self.elapsed_s)
        if self._limits.gpu_hours is not None and self._gpus_per_trial:
            spent_s = self._trials.spent_s(self._clock()) - self._earlier_s
            left = 3600 * self._limits.gpu_hours - spent_s * self._gpus_per_trial
            limits.append(left / (self.slots * self._gpus_per_trial))
        return min(limits) if limits else None

    def time_is_up(self) -> bool:
        """Whether the whole budget is spent."""
        left = self.seconds_left()
        return left is not None and left <= 0

    def search_time_is_up(self) -> bool:
        """Whether the search must end so that the replicates still fit."""
        left = self.seconds_left()
        return left is not None and left <= self.replicate_seconds()

    def replicate_seconds(self) -> float:
        """Expected wall time of the replicates that are left: their sum over the slots, plus the longest, since they
        do not end together; with a tenth in reserve."""
        total = longest = 0.0
        for arm, needed in self._replicates.items():
            best = self._trials.best(arm)
            if best is None:
                continue
            left = needed - (self._trials.num_replicates_of(best) - self._trials.num_running(arm, "replicate"))
            total += left * best.wall_s
            longest = max(longest, best.wall_s if left else 0.0)
        return 1.1 * (total / self.slots + longest)

    def expected_s(self, quota: Mapping[str, int]) -> float | None:
        """Seconds until the sweep is over, from the mean time of each arm's ended trials, and no more than the budget
        leaves; None until there is something to go by.

        Args:
            quota: Search trials by arm.
        """
        ended = self._trials.ended
        num = sum(one.num for one in ended.values())
        if not num:
            return None
        overall = sum(one.wall_s for one in ended.values()) / num
        total = 0.0
        for arm, replicates in self._replicates.items():
            mine = ended.get(arm)
            left = quota[arm] + replicates - (mine.num if mine else 0)
            total += max(left, 0) * (mine.wall_s / mine.num if mine else overall)
        limit, estimate = self.seconds_left(), total / self.slots
        return estimate if limit is None else max(0.0, min(estimate, limit))
