"""The one mailbox between Tune and the worker groups.

It holds a slot per worker group. A group's rank 0 takes jobs and delivers messages; for Tune the keeper (`keeper.py`),
in whose actor the mailbox lives, assigns jobs and collects messages. A worker runs at most one report ahead of Tune: it
may compute report k + 1 while Tune decides about report k, and learns the decision when it delivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from raymae.search.engine.places import NodeStates, Places
from raymae.search.messages import HANDED_BACK, NOT_STARTED, Job, Message

Reply = Literal["go on", "stop", "leave"]  # to a worker that has delivered a message
GO_ON: Reply = "go on"
STOP: Reply = "stop"
LEAVE: Reply = "leave"

MAX_ATTEMPTS = 3  # of one trial within one run of the sweep, when its workers die under it
MAX_FRUITLESS = 5  # incarnations of a group that die without a message before it is given up


class Mailbox:
    """Holds a slot per worker group: its job, and the message it waits to hand over.

    All methods are coroutines of one actor; a slot springs into being when first named.
    """

    def __init__(self, nodes: Callable[[], NodeStates] = lambda: NodeStates()) -> None:
        """`nodes` tells the state of the cluster's machines; asked when workers die and after reports."""
        self._slots = Places(nodes)
        self._ending = False

    async def states(self) -> dict[str, str]:
        """What every slot is doing, for the watchdog."""
        return self._slots.doing()

    # -- Tune's side ---------------------------------------------------------------------------------------------------

    async def assign(self, name: str, job: Job) -> None:
        """Give a slot its next job; whatever it was doing ends at its next report."""
        slot = self._slots[name]
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
        slot = self._slots[name]
        async with slot.changed:
            if not await slot.comes(timeout):
                return None
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
        return self._slots[name].workers

    async def abandon(self, name: str) -> Job | None:
        """Take a slot's job back, as its last attempt, if it has one; the incarnation that has it will not be listened
        to."""
        slot = self._slots[name]
        async with slot.changed:
            job = slot.job
            if job is not None:
                slot.job, slot.outbox, slot.serial = None, None, slot.serial + 1
                slot.changed.notify_all()
            return job

    async def stop_waiting(self) -> None:
        """End the jobs that wait for workers, or whose machines are gone, with `NOT_STARTED`: the sweep is over."""
        for slot in self._slots.all():
            async with slot.changed:
                if slot.job is not None and (not slot.taken or self._slots.lost(slot)):
                    slot.end(NOT_STARTED)

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
        slot = self._slots[name]
        async with slot.changed:
            slot.closed, slot.error = True, slot.error or error
            self._slots.release()
            slot.changed.notify_all()

    async def allow(self, groups: int | None) -> None:
        """Let so many groups hold their places, or all; others give theirs back at their next report, or inside a long
        epoch."""
        self._slots.allow(groups)

    def may_start(self, name: str) -> bool:
        """Whether a group's workers may be started now: asked in its thread.

        Raises:
            RuntimeError: They have given their place back, and are not needed any more.
        """
        slot = self._slots[name]
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
        slot = self._slots[name]
        async with slot.changed:
            blameless = self._slots.lost(slot)
            slot.workers, slot.nodes, slot.life = workers, nodes, slot.life + 1
            slot.fruitless += not blameless
            if slot.job is not None and slot.taken:
                if slot.tries >= MAX_ATTEMPTS and not blameless:
                    slot.end(f"its worker processes died {slot.tries} times (killed, or out of memory)")
                else:
                    slot.tries += not blameless
                    slot.wait_again()
            slot.changed.notify_all()
            return slot.life if not slot.closed and slot.fruitless <= MAX_FRUITLESS else 0

    async def take(self, name: str, life: int) -> tuple[int, Job] | None:
        """Wait for the next job: its serial number and content, or None when there will be no more.

        The call of a worker that died while it waited goes on here; its incarnation's number keeps it from a job.
        """
        slot = self._slots[name]
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
        slot = self._slots[name]
        async with slot.changed:
            if slot.serial == serial:
                slot.outbox = message
                slot.changed.notify_all()
            await slot.changed.wait_for(
                lambda: slot.closed or slot.serial != serial or slot.outbox is not message
            )
            if slot.closed or slot.serial != serial:
                return STOP
            return LEAVE if slot.job is not None and self._slots.gives_back(slot) else GO_ON

    async def ask(self, name: str, serial: int) -> Reply:
        """What becomes of a job between its reports: `STOP` when nobody waits for it, `LEAVE` when its state should be
        saved and the job handed back."""
        slot = self._slots[name]
        if slot.closed or slot.serial != serial or slot.job is None:
            return STOP
        return LEAVE if self._ending or self._slots.must_leave(slot) else GO_ON

    async def hand_back(self, name: str, serial: int) -> Reply:
        """Take back a job whose state has been saved inside an epoch.

        Returns:
            `LEAVE` when it waits for the group's next incarnation, elsewhere or later; `STOP` when another run of the
            sweep goes on with it, or nobody waits for it; `GO_ON` when another group has given its place meanwhile.
        """
        slot = self._slots[name]
        async with slot.changed:
            if slot.closed or slot.serial != serial or slot.job is None:
                return STOP
            slot.fruitless = 0
            if not self._ending:
                return LEAVE if self._slots.gives_back(slot) else GO_ON
            slot.end(HANDED_BACK)
            return STOP
