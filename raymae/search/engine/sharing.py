"""Several sweeps on one cluster: each runs its share of the trials that fit, and gives back what is over.

A sweep's keeper of slots is an actor with a name, which goes when the sweep ends, however it ends: the names are the
sweeps that run now. Nothing else is shared.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raymae.search.background import repeatedly
from raymae.spec.limits import ResourceSpec

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor

NAMESPACE = "raymae"
PERIOD_S = 2.0
LIFE = "+"  # between a sweep's name here and the number of its keeper: a dead one keeps its name for a while


def keeper_name(resources: ResourceSpec) -> str:
    """A name for a sweep's keeper of slots: what it competes for, when it came, and something unique."""
    return f"{'gpu' if resources.gpus_per_worker else 'cpu'}-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def rivals_of(name: str, names: Iterable[str]) -> list[str]:
    """The sweeps that compete for the same, this one among them, in the order in which they came."""
    return sorted({other for other in names if other.split("-")[0] == name.split("-")[0]} | {name})


def share(capacity: int, place: int, sweeps: int) -> int:
    """How many trials one of several sweeps runs at once: an equal part, of what is left over one for the first come.

    Everybody has at least one, even if there is no room for it yet: Ray starts it as soon as somebody else ends.

    Args:
        capacity: Trials of this sweep that the cluster holds.
        place: This sweep's in the order of their coming, from 0.
        sweeps: How many there are.
    """
    part, rest = divmod(capacity, sweeps)
    return max(1, part + (place < rest))


@contextmanager
def shared(
    conductor: Conductor, name: str, capacity: Callable[[], int], *, period_s: float = PERIOD_S
) -> Iterator[None]:
    """Follow other sweeps' coming and going with `conductor.use_slots`, for the length of a `with` block.

    Args:
        conductor: Has the number of slots that it would like to have.
        name: Of this sweep's keeper.
        capacity: Trials of this sweep that the cluster holds; 0 while nobody knows.
        period_s: Seconds between two looks.
    """
    import ray

    wanted = conductor.slots

    def look() -> None:
        try:
            named = ray.util.list_named_actors(all_namespaces=True)
            holds = capacity() or wanted
        except Exception:  # the cluster's head is busy or gone, which others will say
            return
        names = [str(one["name"]).partition(LIFE)[0] for one in named if one["namespace"] == NAMESPACE]
        rivals = rivals_of(name, names)
        slots = min(wanted, share(holds, rivals.index(name), len(rivals))) if len(rivals) > 1 else wanted
        if slots != conductor.slots:
            who = f"{len(rivals)} sweeps share the cluster" if len(rivals) > 1 else "no other sweep is on the cluster"
            conductor.warn(f"{who} now: {slots} trials of this one at once")
            conductor.use_slots(slots)

    look()
    with repeatedly(look, period_s, "sharing"):
        yield
