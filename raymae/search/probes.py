"""What is tried on a worker before the search, with a trial of each arm: what a sweep's file leaves to the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from raymae.errors import TrialError, one_line
from raymae.search.plan import Plan, example_config

NUM_TIMED = 4  # of each, the first to warm up
ENOUGH_S = 20.0  # of timing, before a search; see `shortest`


class Probe:
    """Calls a function on the resources of a trial, one call after the other: two would slow each other down.

    Args:
        plan: The sweep; Ray is connected.
        function: Takes a trial's configuration, torch's threads, the weights that its arm starts from, or None, and
            whatever else it is called with.
    """

    def __init__(self, plan: Plan, function: Callable[..., Any]) -> None:
        import ray

        resources = plan.spec.resources
        self._plan, self._threads = plan, max(1, int(resources.cpus_per_worker))
        self._get, self._failure = ray.get, ray.exceptions.RayTaskError
        self._remote = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(function)

    def __call__(self, arm: str, *more: object) -> Any:
        """What the function returns for one of the sweep's lanes; an arm stands for its first.

        Raises:
            TrialError: It failed; says why in one line.
        """
        config = example_config(self._plan, arm)
        try:
            return self._get(self._remote.remote(config, self._threads, self._plan.given.get(config.arm), *more))
        except self._failure as error:
            raise TrialError(one_line(error.cause or error, 0)) from None


def shortest(runs: Sequence[Iterator[object]], clock: Callable[[], float], enough_s: float = ENOUGH_S) -> list[float]:
    """Seconds until each of several runs yields, the shortest of a few times.

    They take turns: other work on the machine can only add to a time, and what it adds in one turn it adds to all. The
    first time of each warms up, and counts only where there is no time for another.

    Args:
        runs: Each does once what is timed whenever it is asked for its next value.
        clock: In seconds.
        enough_s: What has been timed for so long is timed no more.
    """
    began, times = clock(), [[math.inf, math.inf] for _ in runs]  # warming up, and after it
    for index in range(NUM_TIMED):
        if index and clock() - began > enough_s:
            break
        for run, least in zip(runs, times, strict=True):
            at = clock()
            next(run)
            least[min(index, 1)] = min(least[min(index, 1)], clock() - at)
    return [warm if warm < math.inf else cold for cold, warm in times]
