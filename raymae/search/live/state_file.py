"""The driver's sign of life, `state.json` in the results folder: what `raymae watch` and `raymae serve` go by.

Its keys are the fields of `raymae.results.views.progress.DriverState`, which says what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from raymae.errors import ResultsError
from raymae.results.store.columns import Row
from raymae.results.store.store import Store
from raymae.results.views.progress import DriverState, PlannedTrials, Progress
from raymae.results.views.pulse import driver_of
from raymae.search.background import repeatedly

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor
    from raymae.search.messages import Message

EVERY_S = 5.0


class StateFile:
    """Writes a sweep's state at every beat, as an observer of its conductor.

    Args:
        store: The sweep's results.
        every_s: Seconds between two beats, for those who wait for the next.
    """

    def __init__(self, store: Store, every_s: float = EVERY_S) -> None:
        self._store, self._every_s = store, every_s

    def warned(self, text: str) -> None:
        """Write nothing."""

    def reported(self, row: Row, message: Message) -> None:
        """Write nothing: the next beat is near."""

    def ended(self, row: Row, progress: Progress) -> None:
        """Write nothing: the next beat is near."""

    def beat(self, progress: Progress) -> None:
        """Write that the sweep lives, and how far it is."""
        self.write(progress, "running")

    def write(
        self, progress: Progress, state: Literal["running", "ended", "interrupted", "failed"], error: str | None = None
    ) -> None:
        """Write one sign of life, or the last one."""
        self._store.write_state(DriverState(
            state=state, time=datetime.now(UTC).isoformat(), started_at=progress.started_at,
            host=os.uname().nodename, pid=os.getpid(), every_s=self._every_s, dashboard=progress.dashboard,
            slots=progress.slots or 0, elapsed_s=progress.elapsed_s or 0.0, left_s=progress.left_s,
            planned={arm.arm: PlannedTrials(arm.search.planned, arm.replicates.planned) for arm in progress.arms},
            running=progress.running if state == "running" else (), error=error, commands=progress.commands,
            dollars=progress.dollars,
        ).to_json())


def spent_before(store: Store) -> float:
    """Dollars that count against this run of a sweep: those of an earlier one that was killed, interrupted or failed.

    One that ended by itself, with its verdict or its budget spent, counts no more: the next run has as much again.
    """
    try:
        before = driver_of(store)
    except ResultsError:  # it is about to be written anew
        return 0.0
    return 0.0 if before is None or before.state == "ended" else before.dollars or 0.0


@contextmanager
def beating(conductor: Conductor, every_s: float = EVERY_S) -> Iterator[None]:
    """Let a conductor beat every few seconds for the length of a `with` block, and write how it ended after it.

    Args:
        conductor: Whose sweep.
        every_s: Seconds between two beats.
    """
    file = StateFile(conductor.store, every_s)
    conductor.add_observer(file)
    conductor.beat()
    state: Literal["ended", "interrupted", "failed"] = "failed"
    reason = None
    try:
        with repeatedly(conductor.beat, every_s, "heartbeat", patience_s=30.0):
            yield
        state = "interrupted" if conductor.interrupted else "ended"
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(error).strip() or type(error).__name__
        raise
    finally:
        file.write(conductor.progress(), state, reason)
