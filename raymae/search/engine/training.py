"""Ray Train's trainer with its controller in the calling thread, and without helpers that no group here needs.

Ray Train starts four actors for a trainer beside its workers. Of those the record of runs, which the dashboard shows,
is kept. The controller is a loop in a thread here. Not needed are the synchronisation of `train.report`, which nobody
calls (reports go through the mailbox); the coordination of several trainers' wishes for nodes (a group's placement
group asks the autoscaler by itself); the manager of Ray Data sets; and what frees the reservations of a dead
controller, which Ray does itself when the actor dies that reserved them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ScalingDecision
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.logging import LoggingManager

UNNEEDED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
HELD_S = 0.5  # between two looks whether a group that is held back may start


class _FixedSize(FixedScalingPolicy):
    """Always the same number of workers, and nobody is told. Until they may start, the group holds nothing.

    Args:
        scaling: How many workers, of what.
        may_start: Whether they may, now.
    """

    def __init__(self, scaling: Any, may_start: Callable[[], bool]) -> None:
        super().__init__(scaling)
        self._may_start = may_start
        self.controller: Any = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """The group's size; or nothing yet, with the places of its last workers given back."""
        if self._may_start():
            return super().make_decision_for_non_running_worker_group()
        if self.controller.get_worker_group() is not None:
            self.controller._shutdown_worker_group()
        time.sleep(HELD_S)
        return NoopDecision()

    def after_controller_start(self, train_run_context: Any) -> None:
        """No coordinator is asked for nodes."""

    def _maybe_send_resource_request(self) -> None:
        """Nor again."""


class NoSynchronization:
    """Stands where Ray Train has the handle of an actor at which ranks would meet."""

    @classmethod
    def options(cls, **_: Any) -> type[NoSynchronization]:
        """As of an actor's class."""
        return cls

    @classmethod
    def remote(cls, **_: Any) -> NoSynchronization:
        """As of an actor's class."""
        return cls()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name}: ranks meet in the mailbox, and in torch's process group")


def without_synchronization() -> None:
    """Start no such actor in this process."""
    worker_group.SynchronizationActor = NoSynchronization
    state._shutdown_sync_actor = lambda actor: None


def logging_once() -> None:
    """Configure this process's logging for the first of its controllers alone.

    Each would do so, for files of the same names. While one does, it holds the lock of all handlers and waits for each
    handler's; another that writes its first line holds its handler's and waits for the one of all. Both would for ever.
    """
    real, lock, done = LoggingManager.configure_controller_logger, threading.Lock(), threading.Event()

    def configure(context: Any) -> None:
        with lock:
            if not done.is_set():
                real(context)
                done.set()

    LoggingManager.configure_controller_logger = staticmethod(configure)


def trainer_class(workers: int) -> Any:
    """A trainer of so many ranks. Several need torch's process group. One does not, and without it the keeper need not
    import torch."""
    without_synchronization()
    logging_once()
    if workers > 1:
        from ray.train.torch import TorchTrainer as Base
    else:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer as Base

    class Trainer(Base):
        """See the module; `may_start` says whether its workers may start now."""

        may_start: Callable[[], bool]

        def _create_default_callbacks(self) -> list[Any]:
            return [one for one in super()._create_default_callbacks() if type(one).__name__ not in UNNEEDED]

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            policy = _FixedSize(self.scaling_config, self.may_start)
            policy.controller = controller = TrainController(**{**parts, "scaling_policy": policy})
            asyncio.run(controller.run())
            return controller.get_result()

    return Trainer
