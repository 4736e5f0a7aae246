"""What is tried on a worker before the search, with a trial of each arm: what a sweep's file leaves to the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raymae.errors import TrialError, one_line
from raymae.search.plan import Plan, example_config


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
