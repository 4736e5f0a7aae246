"""The places of worker groups: what each has to do, which machines it is on, and whether it has to leave them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raymae.search.messages import Job, Message


@dataclass(frozen=True)
class NodeStates:
    """Machines of the cluster, by Ray's ids.

    Attributes:
        alive: Those that are there; None if that is not known.
        going: Those that will be taken away (drained) soon.
    """

    alive: frozenset[str] | None = None
    going: frozenset[str] = frozenset()

    def lost(self, nodes: frozenset[str]) -> bool:
        """Whether any of these is gone, or going."""
        return bool(nodes & self.going) or (self.alive is not None and not nodes <= self.alive)


class ClusterNodes:
    """The state of this cluster's machines, asked at most once a second: `Mailbox(ClusterNodes())` in an actor."""

    def __init__(self) -> None:
        self._asked, self._known = -float("inf"), NodeStates()

    def __call__(self) -> NodeStates:
        """Alive and drained machines."""
        now = time.monotonic()
        if now - self._asked >= 1.0:
            import ray
            from ray._private.state import state

            alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
            self._asked, self._known = now, NodeStates(alive, frozenset(state.get_draining_nodes() or {}))
        return self._known


@dataclass
class Place:
    """One worker group's place in the mailbox.

    Attributes:
        changed: Held to read or write any of the others, and notified after a change.
        job: What the group has to do, as its latest attempt.
        serial: Of the job as it was last handed out or taken back; messages of an earlier one are not listened to.
        taken: Whether workers have the job.
        taken_at: When they took it, by the event loop's clock.
        tries: How often the job was handed out, deaths with a machine not counted.
        outbox: A message that waits to be collected.
        error: Why the group is gone.
        closed: Whether there will be no more jobs.
        workers: Actor handles of the ranks.
        nodes: Ids of the machines they run on.
        fruitless: Incarnations in a row that died without a message.
        life: Number of the present incarnation.
        held: Whether its workers are kept from starting.
    """

    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    job: Job | None = None
    serial: int = 0
    taken: bool = False
    taken_at: float = 0.0
    tries: int = 0
    outbox: Message | None = None
    error: str | None = None
    closed: bool = False
    workers: list[Any] = field(default_factory=list)
    nodes: frozenset[str] = frozenset()
    fruitless: int = 0
    life: int = 0
    held: bool = False

    async def comes(self, timeout: float | None) -> bool:
        """Wait for a message, or the group's end; False if it took too long. Holds `changed`.

        Args:
            timeout: Seconds once workers have the job: a cluster may boot nodes for minutes before, and workers that
                died under it are replaced meanwhile. None waits for ever.
        """
        def ready() -> bool:
            return self.outbox is not None or self.error is not None

        since = asyncio.get_running_loop().time()
        while not ready():
            if not self.taken:
                await self.changed.wait_for(lambda: self.taken or ready())
                continue
            since = max(since, self.taken_at)
            left = None if timeout is None else since + timeout - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), left)
        return True

    def wait_again(self) -> None:
        """Let the job wait for the group's next incarnation; the one that had it is not listened to."""
        assert self.job is not None
        self.serial += 1
        self.job, self.taken, self.outbox = self.job.once_more(), False, None
        self.changed.notify_all()

    def end(self, why: str) -> None:
        """End the job with a message that says why."""
        assert self.job is not None
        self.outbox = Message.failed(self.job, why)
        self.job, self.serial = None, self.serial + 1
        self.changed.notify_all()


class Places:
    """All slots, and who of them has to give its place away.

    Args:
        nodes: Tells the state of the cluster's machines.
    """

    def __init__(self, nodes: Callable[[], NodeStates]) -> None:
        self._slots: dict[str, Place] = {}
        self._nodes = nodes
        self._allowed: int | None = None

    def __getitem__(self, name: str) -> Place:
        return self._slots.setdefault(name, Place())

    def all(self) -> list[Place]:
        """Those that were named so far."""
        return list(self._slots.values())

    def doing(self) -> dict[str, str]:
        """What every slot is doing, in words."""
        def state(slot: Place) -> str:
            if slot.closed:
                return "closed"
            if slot.held:
                return "waiting until a sweep of higher priority leaves it room"
            if not slot.workers:
                return "waiting for its workers to start (resources, or a node that boots)"
            if slot.job is None:
                return "idle"
            return f"training {slot.job.trial_id}" if slot.taken else "restarting its workers"

        return {name: state(slot) for name, slot in self._slots.items()}

    def lost(self, slot: Place) -> bool:
        """Whether a machine of a group is gone, or going."""
        return self._nodes().lost(slot.nodes)

    def allow(self, groups: int | None) -> None:
        """Let so many groups hold their places, or all."""
        self._allowed = groups
        self.release()

    def release(self) -> None:
        """Let groups that are held back start while there is room for them: more may, or another has ended."""
        for slot in self._slots.values():
            if slot.held and not slot.closed and not self.too_many(1):
                slot.held = False

    def too_many(self, more: int = 0) -> bool:
        """Whether more groups hold places than may; `more` counts some in addition."""
        holding = sum(not (slot.closed or slot.held) for slot in self._slots.values())
        return self._allowed is not None and holding + more > self._allowed

    def must_leave(self, slot: Place) -> bool:
        """Whether a machine of a group will be taken away, or a group too many holds its place."""
        return bool(self._nodes().going & slot.nodes) or self.too_many()

    def gives_back(self, slot: Place) -> bool:
        """Whether a group whose job's state is saved gives its place back; the job then waits for its next
        incarnation."""
        leaves, slot.held = self.must_leave(slot), self.too_many()
        if leaves:
            slot.wait_again()
        return leaves
