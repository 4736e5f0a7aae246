"""The keeper of a sweep's slots: one actor with the mailbox and every worker group, which only wait.

A worker group per trial's actor would be two processes on the head for each slot, Tune's trainable and Ray Train's
controller, of 130 MB and two seconds of imports each. Here a slot is a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

from raymae.search.engine.mailbox import Mailbox
from raymae.search.engine.places import NodeStates
from raymae.search.engine.workers import GroupOptions, WorkerGroup
from raymae.search.messages import Job, Message

ALIVE_TIMEOUT_S = 5.0
POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # how often Ray Train asks a group's workers whether they live
SECONDS_A_SLOT = 0.04  # between two such questions in the whole process: a controller's takes some milliseconds


class Keeper(Mailbox):
    """The mailbox, with the worker groups that it serves. All methods are coroutines of one actor.

    Args:
        options: What every group is made of.
        slots: How many there may be at once.
        nodes: Tells the state of the cluster's machines.
    """

    def __init__(self, options: GroupOptions, slots: int, nodes: Callable[[], NodeStates]) -> None:
        # Ray Train is imported here, and not in the threads of several groups at once
        from raymae.search.engine.training import trainer_class

        super().__init__(nodes)
        self._options = options
        self._trainer = trainer_class(options.workers)
        self._groups: dict[str, WorkerGroup] = {}
        os.environ.setdefault(POLL, f"{max(2.0, SECONDS_A_SLOT * slots):g}")

    def __repr__(self) -> str:
        """The name in Ray's dashboard and logs."""
        return "raymae keeper of slots"

    async def open(self, name: str) -> None:
        """Start a slot's worker group; it takes seconds, which nobody waits for. A group of this name may run."""
        if name in self._groups:
            return
        loop = asyncio.get_running_loop()

        def ended(error: str) -> None:
            asyncio.run_coroutine_threadsafe(self.fail(name, error), loop)

        here = ray.get_runtime_context().current_actor
        self._groups[name] = WorkerGroup(name, self._options, self._trainer, here, ended,
                                         partial(self.may_start, name))

    async def start(self, name: str, job: Job) -> bool:
        """Give a slot a job, and a worker group if it has none."""
        await self.open(name)
        await self.assign(name, job)
        return True

    async def step(self, name: str, objective: str) -> dict[str, Any]:
        """Wait for the next message of a slot's job, as Tune's result. Workers that take too long are killed; Ray Train
        brings new ones.

        Raises:
            RuntimeError: The worker group is gone and does not come back.
        """
        limit = self._options.report_timeout_s
        while (message := await self.collect(name, limit)) is None:
            message = await self._replace_workers(name)
            if message is not None:
                break
        return result_of(message, objective)

    async def _replace_workers(self, name: str) -> Message | None:
        """Kill workers that are late; None where they are not slow but dead, and Ray Train is replacing them."""
        workers = await self.workers(name)
        try:
            await asyncio.wait_for(asyncio.gather(*(one.__ray_ready__.remote() for one in workers)), ALIVE_TIMEOUT_S)
        except ray.exceptions.RayActorError:
            return None
        except TimeoutError:
            pass  # alive, and too busy even to say so
        job = await self.abandon(name)
        if job is None:
            return None  # what was waited for came meanwhile
        for worker in workers:
            ray.kill(worker, no_restart=True)
        late = f"no report for {self._options.report_timeout_s:g} s (resources.report_timeout_s)"
        return Message.failed(job, f"{late}; its workers were replaced")

    async def shut(self, timeout_s: float) -> None:
        """End all groups at once, and wait until they have given back what they held."""
        for name in self._groups:
            await self.close(name)
        ends = (asyncio.to_thread(group.join, timeout_s) for group in self._groups.values())
        await asyncio.gather(*ends)


def result_of(message: Message, objective: str) -> dict[str, Any]:
    """Make Tune's result of a message: `message`, and what schedulers look at, which is `phase`, `epoch` (of
    fine-tuning), `report` (its number) and `objective` (the best so far).

    Args:
        message: A report, or a failure.
        objective: The column that is selected on.
    """
    report = message.report
    tuned = report if report is not None and report.phase == "finetune" else None
    number = report.step if report else 0
    return {
        "message": message, "phase": report and report.phase, "epoch": tuned.epoch if tuned else 0,
        "report": number, "objective": tuned.best.get(objective) if tuned else None,
        "training_iteration": number + 1, "done": message.final,
    }
