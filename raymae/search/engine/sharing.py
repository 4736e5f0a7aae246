"""Several sweeps on one cluster: each runs its share of the trials that fit, and gives back what is over. One of higher
priority gets what it can use first.

A sweep's keeper of slots is an actor with a name, which goes when the sweep ends, however it ends: the names are the
sweeps that run now, what each is and how much it can use. Nothing else is shared.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymae.search.background import repeatedly
from raymae.spec.limits import ResourceSpec

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor

NAMESPACE = "raymae"
PERIOD_S = 2.0
LIFE = "+"  # between a sweep's name here and the number of its keeper: a dead one keeps its name for a while


@dataclass(frozen=True, order=True)
class Rival:
    """A sweep on the cluster, as its keeper's name says it; sorted by priority, then by when it came.

    Attributes:
        behind: Its priority, negated.
        came: When it came, and something unique.
        kind: What it competes for, `cpu` or `gpu`.
        units: How many of them it can use at once.
    """

    behind: int
    came: str
    kind: str
    units: float

    @classmethod
    def of(cls, resources: ResourceSpec, slots: int) -> Rival:
        """A sweep that begins now."""
        kind, each = ("gpu", resources.gpus_per_worker) if resources.gpus_per_worker else \
            ("cpu", resources.cpus_per_worker)
        return cls(-resources.priority, f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", kind,
                   slots * resources.workers * each)

    @property
    def name(self) -> str:
        """Of its keeper."""
        return f"{self.kind}-{self.came}-{self.behind}-{self.units:.3f}"

    @classmethod
    def named(cls, name: str) -> Rival | None:
        """The sweep of a keeper with this name; None of another actor's, or another version's."""
        match name.partition(LIFE)[0].split("-", 3):
            case [kind, when, which, rest]:
                behind, _, units = rest.rpartition("-")
                try:
                    return cls(int(behind), f"{when}-{which}", kind, float(units))
                except ValueError:
                    return None
        return None


def rivals_of(mine: Rival, others: Iterable[Rival]) -> list[Rival]:
    """The sweeps that compete for the same, this one among them, the first to be served first."""
    return sorted({other for other in others if other.kind == mine.kind} | {mine})


def part_of(mine: Rival, rivals: Sequence[Rival], capacity: int, each: float) -> int:
    """How many trials a sweep runs at once beside others: its share of what those of higher priority leave.

    Args:
        mine: The sweep.
        rivals: All that compete for the same, this one among them.
        capacity: Trials of this sweep that the cluster holds.
        each: Units that one of them takes.

    Returns:
        Its trials at once; 0 only where others go before it and leave nothing.
    """
    before = sum(other.units for other in rivals if other.behind < mine.behind)
    equals = [other for other in rivals if other.behind == mine.behind]
    left = max(0, int(capacity - before / each + 1e-6))
    return share(left, equals.index(mine), len(equals)) if left or not before else 0


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
    conductor: Conductor, mine: Rival, capacity: Callable[[], int], allow: Callable[[int | None], None], *,
    period_s: float = PERIOD_S,
) -> Iterator[None]:
    """Follow other sweeps' coming and going with `conductor.use_slots`, for the length of a `with` block.

    Beside equals, trials that run end before their places are given away; for a sweep of higher priority they are given
    back at their next report.

    Args:
        conductor: Has the number of slots that it would like to have.
        mine: This sweep.
        capacity: Trials of this sweep that the cluster holds; 0 while nobody knows.
        allow: Told how many groups may hold their places; None is all.
        period_s: Seconds between two looks.
    """
    import ray

    wanted, each = conductor.slots, mine.units / conductor.slots
    allowed: int | None = None

    def look() -> None:
        try:
            named = ray.util.list_named_actors(all_namespaces=True)
            holds = capacity() or wanted
        except Exception:  # the cluster's head is busy or gone, which others will say
            return
        names = [str(one["name"]) for one in named if one["namespace"] == NAMESPACE]
        rivals = rivals_of(mine, filter(None, map(Rival.named, names)))
        slots = min(wanted, part_of(mine, rivals, holds, each)) if len(rivals) > 1 else wanted
        first = rivals[0].behind < mine.behind
        if slots != conductor.slots:
            who = "a sweep of higher priority is on the cluster" if first else \
                f"{len(rivals)} sweeps share the cluster" if len(rivals) > 1 else "no other sweep is on the cluster"
            conductor.warn(f"{who} now: {slots} trials of this one at once" + (
                "; others give their places back at their next report, and go on later" if first else ""))
            conductor.use_slots(slots)
        nonlocal allowed
        if allowed != (now := slots if first else None):
            allow(now)
            allowed = now

    look()
    with repeatedly(look, period_s, "sharing"):
        yield
