"""The one mailbox between trials' drivers and their worker groups.

One small asynchronous actor for the whole sweep holds a slot per worker group. A group's rank 0 takes jobs and delivers
messages; the Tune trainable that owns the group assigns jobs and collects messages. A worker runs at most one report
ahead of Tune: it may compute report k + 1 while Tune decides about report k, and learns the decision when it delivers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass
class _Slot:
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    job: Message | None = None
    serial: int = 0
    taken: bool = False
    outbox: Message | None = None
    error: str | None = None
    closed: bool = False


class Hub:
    """See the module. All methods are coroutines of one actor; a slot springs into being when first named."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}

    def _slot(self, name: str) -> _Slot:
        return self._slots.setdefault(name, _Slot())

    # -- the trainable's side ------------------------------------------------------------------------------------------

    async def assign(self, name: str, job: Message) -> None:
        """Give a slot its next job; whatever it was doing ends at its next report."""
        slot = self._slot(name)
        async with slot.changed:
            slot.serial += 1
            slot.job, slot.taken, slot.outbox = job, False, None
            slot.changed.notify_all()

    async def collect(self, name: str) -> Message:
        """The next message of a slot's job; the job ends with a message whose `final` is true.

        Raises:
            RuntimeError: The worker group is gone and does not come back.
        """
        slot = self._slot(name)
        async with slot.changed:
            await slot.changed.wait_for(lambda: slot.outbox is not None or slot.error is not None)
            if slot.outbox is None:
                raise RuntimeError(slot.error)
            message, slot.outbox = slot.outbox, None
            if message["final"]:
                slot.job = None
            elif slot.job is not None:
                slot.job = {**slot.job, "next_step": message["step"] + 1}
            slot.changed.notify_all()
            return message

    async def close(self, name: str) -> None:
        """No more jobs: the group's serve loop returns."""
        await self._end(name, None)

    async def fail(self, name: str, error: str) -> None:
        """The group ended by itself; whoever waits for its messages gets the error."""
        await self._end(name, error)

    async def _end(self, name: str, error: str | None) -> None:
        slot = self._slot(name)
        async with slot.changed:
            slot.closed, slot.error = True, error
            slot.changed.notify_all()

    # -- the workers' side ---------------------------------------------------------------------------------------------

    async def hello(self, name: str) -> None:
        """A new incarnation of the group: an unfinished job is handed out again, as its next attempt."""
        slot = self._slot(name)
        async with slot.changed:
            if slot.job is not None and slot.taken:
                slot.serial += 1
                slot.job = {**slot.job, "attempt": slot.job["attempt"] + 1}
                slot.taken = False
                slot.changed.notify_all()

    async def take(self, name: str) -> tuple[int, Message] | None:
        """Wait for the next job: its serial number and content, or None when there will be no more."""
        slot = self._slot(name)
        async with slot.changed:
            await slot.changed.wait_for(lambda: slot.closed or (slot.job is not None and not slot.taken))
            if slot.closed or slot.job is None:
                return None
            slot.taken = True
            return slot.serial, slot.job

    async def deliver(self, name: str, serial: int, message: Message) -> bool:
        """Hand over a message and wait until it is collected; False when the job is not wanted any more."""
        slot = self._slot(name)
        async with slot.changed:
            slot.outbox = message if slot.serial == serial else slot.outbox
            slot.changed.notify_all()
            await slot.changed.wait_for(
                lambda: slot.closed or slot.serial != serial or slot.outbox is not message
            )
            return not slot.closed and slot.serial == serial
