"""The driver's sign of life, `state.json` in the results folder: what `raymae watch` and `raymae serve` go by.

    state        running | ended | interrupted | failed
    time         when this was written; started_at: when this run of the sweep began (ISO, UTC)
    host, pid    of the driver;  every_s: seconds between two signs of life
    dashboard    Ray's, "" where it has none, or null until Ray is up
    slots        trials at once
    elapsed_s, left_s     of this run; left_s is null until there is something to go by
    planned      per arm: search trials and replicates
    running      per trial under way: trial_id, arm, stage, attempt, phase, epoch, epochs, wall_s, best
    error        why it failed, or null
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raymae.search.background import repeatedly
from raymae.search.live.display import time_left

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor

EVERY_S = 5.0


class Pulse:
    """Writes the state of a conductor's sweep. Make one with `beating`.

    Attributes:
        dashboard: Address of Ray's dashboard; None until Ray is up.
        also: Called at every beat, such as to set Ray's metrics.
    """

    def __init__(self, conductor: Conductor, every_s: float) -> None:
        self.dashboard: str | None = None
        self.also: Callable[[], None] = lambda: None
        self._conductor, self._every_s = conductor, every_s
        self._started_at = datetime.now(UTC)

    def beat(self, state: str = "running", error: str | None = None) -> None:
        """Write one sign of life."""
        try:
            described = describe(self._conductor)
        except RuntimeError:  # the conductor's thread added a trial while this one counted; the next beat is near
            return
        self._conductor.store.write_state({
            "state": state, "time": datetime.now(UTC).isoformat(), "started_at": self._started_at.isoformat(),
            "host": os.uname().nodename, "pid": os.getpid(), "every_s": self._every_s, "dashboard": self.dashboard,
            **described, **({} if state == "running" else {"running": []}), "error": error,
        })
        if state != "running":
            return
        try:
            self.also()
        except RuntimeError:  # as above
            return
        except Exception as failure:  # a sweep must not look dead because its metrics are
            self.also = lambda: None
            self._conductor.warn(f"Ray is told no more metrics: {type(failure).__name__}: {failure}")


def describe(conductor: Conductor) -> dict[str, Any]:
    """The part of the state that the conductor knows."""
    trials = list(conductor.trials.values())
    reports = {trial.trial_id: trial.last and trial.last.report for trial in trials}
    left = time_left(conductor, [trial for trial in trials if trial.status not in ("running", "pending")])
    return {
        "slots": conductor.slots,
        "elapsed_s": round(conductor.elapsed, 1),
        "left_s": None if left is None else round(left, 1),
        "planned": {arm: {"search": conductor.quota[arm], "replicates": conductor.num_replicates(arm)}
                    for arm in conductor.plans},
        "running": [{
            "trial_id": trial.trial_id, "arm": trial.config.arm, "stage": trial.stage, "attempt": trial.attempt,
            "phase": report and report.phase, "epoch": report and report.epoch,
            "epochs": trial.config.params.get(
                "pretrain_epochs" if report and report.phase == "pretrain" else "epochs"),
            "wall_s": round(conductor.clock() - trial.started, 1),
            "best": _finite(trial.best.get(conductor.metric)),
        } for trial in trials if trial.status == "running" for report in [reports[trial.trial_id]]],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@contextmanager
def beating(conductor: Conductor, every_s: float = EVERY_S) -> Iterator[Pulse]:
    """Write `state.json` every few seconds for the length of a `with` block, and how it ended after it.

    Args:
        conductor: Whose sweep.
        every_s: Seconds between two signs of life.
    """
    pulse = Pulse(conductor, every_s)
    pulse.beat()
    state, reason = "failed", None
    try:
        with repeatedly(pulse.beat, every_s, "pulse", patience_s=30.0):
            yield pulse
        state = "interrupted" if conductor.interrupted else "ended"
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(error).strip() or type(error).__name__
        raise
    finally:
        pulse.beat(state, reason)
