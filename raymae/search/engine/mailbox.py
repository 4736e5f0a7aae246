"""The one mailbox between Tune and the worker groups.

It holds a slot per worker group. A group's rank 0 takes jobs and delivers messages; for Tune the keeper (`keeper.py`),
in whose actor the mailbox lives, assigns jobs and collects messages. A worker runs at most one report ahead of Tune: it
may compute report k + 1 while Tune decides about report k, and learns the decision when it delivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raymae.search.messages import HANDED_BACK, NOT_STARTED, Job, Message

Reply = Literal["go on", "stop", "leave"]  # to a worker that has delivered a message
GO_ON: Reply = "go on"
STOP: Reply = "stop"
LEAVE: Reply = "leave"

MAX_ATTEMPTS = 3  # of one trial within one run of the sweep, when its workers die under it
MAX_FRUITLESS = 5  # incarnations of a group that die without a message before it is given up


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
class _Slot:
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


class Mailbox:
    """Holds a slot per worker group: its job, and the message it waits to hand over.

    All methods are coroutines of one actor; a slot springs into being when first named.
    """

    def __init__(self, nodes: Callable[[], NodeStates] = lambda: NodeStates()) -> None:
        """`nodes` tells the state of the cluster's machines; asked when workers die and after reports."""
        self._slots: dict[str, _Slot] = {}
        self._nodes = nodes
        self._allowed: int | None = None
        self._ending = False

    def _slot(self, name: str) -> _Slot:
        return self._slots.setdefault(name, _Slot())

    async def states(self) -> dict[str, str]:
        """What every slot is doing, for the watchdog."""
        def state(slot: _Slot) -> str:
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

    # -- Tune's side ---------------------------------------------------------------------------------------------------

    async def assign(self, name: str, job: Job) -> None:
        """Give a slot its next job; whatever it was doing ends at its next report."""
        slot = self._slot(name)
        async with slot.changed:
            slot.serial += 1
            slot.job, slot.taken, slot.outbox, slot.tries = job, False, None, 1
            slot.changed.notify_all()

    async def collect(self, name: str, timeout: float | None = None) -> Message | None:
        """The next message of a slot's job; the job ends with one that is `final`.

        Args:
            name: The slot.
            timeout: Seconds to wait for it once the job runs; None waits for ever.

        Returns:
            The message, or None if it took too long.

        Raises:
            RuntimeError: The worker group is gone and does not come back.
        """
        slot = self._slot(name)
        async with slot.changed:
            ready = lambda: slot.outbox is not None or slot.error is not None  # noqa: E731
            # the clock starts when workers have the job: a cluster may boot nodes for minutes before, and workers that
            # died under it are replaced meanwhile
            since = asyncio.get_running_loop().time()
            while not ready():
                if not slot.taken:
                    await slot.changed.wait_for(lambda: slot.taken or ready())
                    continue
                since = max(since, slot.taken_at)
                left = None if timeout is None else since + timeout - asyncio.get_running_loop().time()
                if left is not None and left <= 0:
                    return None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(slot.changed.wait(), left)
            if slot.outbox is None:
                raise RuntimeError(slot.error)
            message, slot.outbox, slot.fruitless = slot.outbox, None, 0
            if message.report is None or message.report.final:
                slot.job = None
            elif slot.job is not None:
                slot.job = replace(slot.job, next_step=message.report.step + 1)
            slot.changed.notify_all()
            return message

    async def workers(self, name: str) -> list[Any]:
        """Actor handles of a slot's ranks."""
        return self._slot(name).workers

    async def abandon(self, name: str) -> Job | None:
        """Take a slot's job back, as its last attempt, if it has one; the incarnation that has it will not be listened
        to."""
        slot = self._slot(name)
        async with slot.changed:
            job = slot.job
            if job is not None:
                slot.job, slot.outbox, slot.serial = None, None, slot.serial + 1
                slot.changed.notify_all()
            return job

    async def stop_waiting(self) -> None:
        """End the jobs that wait for workers, or whose machines are gone, with `NOT_STARTED`: the sweep is over."""
        for slot in self._slots.values():
            async with slot.changed:
                if slot.job is not None and (not slot.taken or self._nodes().lost(slot.nodes)):
                    slot.outbox = Message.failed(slot.job, NOT_STARTED)
                    slot.job, slot.serial = None, slot.serial + 1
                    slot.changed.notify_all()

    async def recall(self) -> None:
        """Have all jobs handed back from inside their epochs, to be gone on with in another run of the sweep."""
        self._ending = True

    async def close(self, name: str) -> None:
        """No more jobs: the group's serve loop returns."""
        await self._end(name, None)

    async def fail(self, name: str, error: str) -> None:
        """The group ended by itself; whoever waits for its messages gets the error."""
        await self._end(name, error)

    async def _end(self, name: str, error: str | None) -> None:
        slot = self._slot(name)
        async with slot.changed:
            slot.closed, slot.error = True, slot.error or error
            slot.changed.notify_all()

    async def allow(self, groups: int | None) -> None:
        """Let so many groups hold their places, or all; others give theirs back at their next report."""
        self._allowed = groups
        for slot in self._slots.values():
            if slot.held and not self._too_many(1):
                slot.held = False

    def _too_many(self, more: int = 0) -> bool:
        """Whether more groups hold places than may; `more` counts some in addition."""
        holding = sum(not (slot.closed or slot.held) for slot in self._slots.values())
        return self._allowed is not None and holding + more > self._allowed

    def may_start(self, name: str) -> bool:
        """Whether a group's workers may be started now: asked in its thread.

        Raises:
            RuntimeError: They are not needed any more, and never came back.
        """
        slot = self._slot(name)
        if slot.held and slot.closed:
            raise RuntimeError("it gave its place back, and is not needed any more")
        return not slot.held

    # -- the workers' side ---------------------------------------------------------------------------------------------

    async def hello(self, name: str, workers: list[Any], nodes: frozenset[str] = frozenset()) -> int:
        """A new incarnation of the group: an unfinished job is handed out again, as its next attempt.

        Dying with its machine is not the trial's fault and is not counted.

        Args:
            name: The slot.
            workers: Actor handles of its ranks.
            nodes: Ids of the machines they run on.

        Returns:
            The incarnation's number, or 0 if it should not go on: it has died again and again without a message, or is
            not needed.
        """
        slot = self._slot(name)
        async with slot.changed:
            blameless = self._nodes().lost(slot.nodes)
            slot.workers, slot.nodes, slot.life = workers, nodes, slot.life + 1
            slot.fruitless += not blameless
            if slot.job is not None and slot.taken:
                slot.serial += 1
                slot.outbox = None
                if slot.tries >= MAX_ATTEMPTS and not blameless:
                    died = f"its worker processes died {slot.tries} times (killed, or out of memory)"
                    slot.outbox = Message.failed(slot.job, died)
                    slot.job = None
                else:
                    slot.tries += not blameless
                    slot.job = slot.job.once_more()
                    slot.taken = False
            slot.changed.notify_all()
            return slot.life if not slot.closed and slot.fruitless <= MAX_FRUITLESS else 0

    async def take(self, name: str, life: int) -> tuple[int, Job] | None:
        """Wait for the next job: its serial number and content, or None when there will be no more.

        The call of a worker that died while it waited goes on here; its incarnation's number keeps it from a job.
        """
        slot = self._slot(name)
        async with slot.changed:
            await slot.changed.wait_for(
                lambda: slot.closed or slot.life != life or (slot.job is not None and not slot.taken)
            )
            if slot.closed or slot.life != life or slot.job is None:
                return None
            slot.taken, slot.taken_at = True, asyncio.get_running_loop().time()
            slot.changed.notify_all()
            return slot.serial, slot.job

    async def deliver(self, name: str, serial: int, message: Message) -> Reply:
        """Hand over a message and wait until it is collected.

        Returns:
            `STOP` when the job is not wanted any more; `LEAVE` when a machine of the group will be taken away, or its
            place is wanted by another sweep: the job, whose state was saved before the message, then waits for the
            group's next incarnation elsewhere, or later.
        """
        slot = self._slot(name)
        async with slot.changed:
            if slot.serial == serial:
                slot.outbox = message
                slot.changed.notify_all()
            await slot.changed.wait_for(
                lambda: slot.closed or slot.serial != serial or slot.outbox is not message
            )
            if slot.closed or slot.serial != serial:
                return STOP
            return GO_ON if slot.job is None else self._leave(slot, slot.job)

    async def ask(self, name: str, serial: int) -> Reply:
        """What becomes of a job between its reports: `STOP` when nobody waits for it, `LEAVE` when its state should be
        saved and the job handed back."""
        slot = self._slot(name)
        if slot.closed or slot.serial != serial or slot.job is None:
            return STOP
        leaves = self._ending or self._too_many() or self._nodes().going & slot.nodes
        return LEAVE if leaves else GO_ON

    async def hand_back(self, name: str, serial: int) -> Reply:
        """Take back a job whose state has been saved inside an epoch.

        Returns:
            `LEAVE` when it waits for the group's next incarnation, elsewhere or later; `STOP` when another run of the
            sweep goes on with it, or nobody waits for it; `GO_ON` when another group has given its place meanwhile.
        """
        slot = self._slot(name)
        async with slot.changed:
            if slot.closed or slot.serial != serial or slot.job is None:
                return STOP
            slot.fruitless = 0
            if not self._ending:
                return self._leave(slot, slot.job)
            slot.outbox = Message.failed(slot.job, HANDED_BACK)
            slot.job, slot.serial = None, slot.serial + 1
            slot.changed.notify_all()
            return STOP

    def _leave(self, slot: _Slot, job: Job) -> Reply:
        """Whether a group whose job's state is saved gives its place back: the job then waits for its next
        incarnation."""
        slot.held = self._too_many()
        if not (slot.held or self._nodes().going & slot.nodes):
            return GO_ON
        slot.serial += 1
        slot.job, slot.taken, slot.outbox = job.once_more(), False, None
        slot.changed.notify_all()
        return LEAVE
