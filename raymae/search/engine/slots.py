"""What Tune takes for a trial's actor is a slot of the keeper: it starts at once, and is no process.

Tune starts an actor where its resource manager has room for one, and calls it through its handle. This resource manager
always has room (how many trials run at once is the conductor's), and what it starts is a handle whose calls are the
keeper's, with a slot's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray
from ray.air.execution import AcquiredResources, ResourceManager, ResourceRequest
from ray.tune.execution import tune_controller

from raymae.search.messages import Job

SHUT_TIMEOUT_S = 60.0  # a group that is just starting has to come up before it can go; cut short, it keeps its CPUs


class Slots(ResourceManager):
    """A sweep's slots. Tune's actors are made here, and so is their keeper, anew where it died.

    Args:
        start_keeper: Starts a `Keeper` actor and returns its handle; told which it is of this sweep, from 1.
        first: Slots whose worker groups start now, before there are trials for them.
    """

    def __init__(self, start_keeper: Callable[[int], Any], first: int = 0) -> None:
        self._start_keeper, self._lives = start_keeper, count(1)
        self._allowed: int | None = None
        self.keeper: Any = start_keeper(next(self._lives))
        self._numbers = count(1)
        self._prepared = [self._name() for _ in range(first)]
        for name in self._prepared:
            self.keeper.open.remote(name)

    def _name(self) -> str:
        return f"slot-{next(self._numbers):04}"

    def handle(self) -> Slot:
        """A slot that is free: one of the first, or a new one."""
        return Slot(self.keeper, self._prepared.pop(0) if self._prepared else self._name())

    def revive(self) -> None:
        """Start another keeper if this one is dead; its groups went with it."""
        try:
            ray.get(self.keeper.__ray_ready__.remote())
        except ray.exceptions.RayActorError:
            _release(self.keeper)
            self._prepared.clear()
            self.keeper = self._start_keeper(next(self._lives))
            self.keeper.allow.remote(self._allowed)

    def allow(self, groups: int | None) -> None:
        """Let so many groups hold their places, or all; the others give them back at their next report."""
        self._allowed = groups
        self.keeper.allow.remote(groups)

    def shut(self) -> None:
        """End all groups, so that Ray Train's records say how they ended."""
        with suppress(ray.exceptions.RayError):
            ray.get(self.keeper.shut.remote(SHUT_TIMEOUT_S))

    # -- Tune's resource manager ---------------------------------------------------------------------------------------

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """Nothing: worker groups ask Ray for theirs."""

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """Nothing was asked for."""

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Always."""
        return True

    def acquire_resources(self, resource_request: ResourceRequest) -> AcquiredResources:
        """A place for one trial's actor."""
        return _Place(resource_request, self)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        """A slot that is closed gives back what it held by itself."""

    def clear(self) -> None:
        """Nothing is kept here."""


def _release(dead: Any) -> None:
    """Free what an actor had reserved for others: Ray does so at the end of the job, and it may have a while to go."""
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup

    for info in state._connect_and_get_accessor().get_placement_group_table():
        reserved = PlacementGroupTableData.FromString(info)
        if reserved.creator_actor_id == dead._actor_id.binary():
            ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID(reserved.placement_group_id)))


@dataclass
class _Place(AcquiredResources):
    """Where Tune puts a trial's actor."""

    slots: Slots

    def annotate_remote_entities(self, entities: list[Any]) -> list[Any]:
        """In the place of the class that Tune would start: what starts a slot."""
        return [self.slots.handle()]


class Slot:
    """A slot, as a handle of an actor class and then of an actor: Tune calls `remote` on it, and on its methods."""

    def __init__(self, keeper: Any, name: str) -> None:
        self._keeper, self.name = keeper, name
        self.train = _Method(self._step)
        self.reset = _Method(lambda config, **_: self._start(config["job"]))
        self.stop = self.__ray_terminate__ = _Method(lambda: keeper.close.remote(name))
        self.get_auto_filled_metrics = _Method(lambda **_: {})
        self.__ray_ready__ = _Method(lambda: self._start(self._job))

    def remote(self, *, config: dict[str, Any], **more: Any) -> Slot:
        """The actor, which begins with a job."""
        self._job: Job = config["job"]
        return self

    def _start(self, job: Job) -> Any:
        self._job = job
        return self._keeper.start.remote(self.name, job)

    def _step(self) -> Any:
        # the dashboard lists what runs by the names of tasks
        return self._keeper.step.options(name=f"{self._job.config.arm}: {self._job.trial_id}").remote(
            self.name, self._job.objective)


@dataclass(frozen=True)
class _Method:
    """A method of an actor's handle."""

    remote: Callable[..., Any] = field()


@contextmanager
def placed(slots: Slots) -> Iterator[None]:
    """Tune's actors are slots for the length of a `with` block.

    `TuneController` takes a resource manager, and `Tuner` has no way to give it one.
    """
    before = tune_controller.PlacementGroupResourceManager
    tune_controller.PlacementGroupResourceManager = lambda: slots
    try:
        yield
    finally:
        tune_controller.PlacementGroupResourceManager = before
