"""Asks something of a running sweep, from any machine that can write to its folder, and hears what became of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from raymae.errors import ResultsError, unknown
from raymae.results.store.columns import last_attempts
from raymae.results.store.commands import AddPoint, Command, CommandFolder, StopTrial, myself, now
from raymae.results.store.store import Store
from raymae.results.views.progress import DriverState
from raymae.results.views.pulse import Pulse, driver_of
from raymae.spec.points import problems_of, told
from raymae.spec.space import Scalar

LOOK_S = 1.0  # between two looks for a receipt


@dataclass(frozen=True)
class Asked:
    """What was asked of a sweep.

    Attributes:
        id: The command's, which its file is named by.
        kind: `stop-trial` or `add`.
        by: Who asked.
        at: When (ISO, UTC).
        status: `asked` where nobody waited for the sweep, else `applied` or `refused`.
        text: What became of it, in words.
    """

    id: str
    kind: Literal["stop-trial", "add"]
    by: str
    at: str
    status: Literal["asked", "applied", "refused"]
    text: str

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


def stop_trial(root: str, trial_id: str, *, wait: bool = False, sleep: Callable[[float], None] = time.sleep) -> Asked:
    """Ask a running sweep to end one of its trials at its next report.

    Args:
        root: The sweep's folder, a path or a URI.
        trial_id: The trial.
        wait: Wait until the sweep has said what becomes of it.
        sleep: Passes the time between two looks.

    Raises:
        ResultsError: No sweep runs there, there is no such trial, it has ended, or it is one that is compared.
    """
    store, pulse = Store.open(root), Pulse()
    driver = _running(store, pulse, "there is nothing to stop", sleep)
    if all(one.trial_id != trial_id for one in driver.running):
        _check_known(store, trial_id, driver)
    return _ask(store, pulse, StopTrial(trial_id=trial_id, by=myself(), at=now()), wait, sleep)


def add(
    root: str, point: dict[str, Scalar], arm: str | None = None, *, wait: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Asked:
    """Ask a running sweep to try a point next, in place of one that its search would propose.

    Args:
        root: The sweep's folder, a path or a URI.
        point: Values of searched parameters.
        arm: The arm that tries it; None for every one that searches some of them.
        wait: Wait until the sweep has said what becomes of it.
        sleep: Passes the time between two looks.

    Raises:
        ResultsError: No sweep runs there, or the point is none of its space.
    """
    store, pulse = Store.open(root), Pulse()
    if problems := problems_of(point, arm, store.spec()):
        raise ResultsError("\n".join(f"{store.root}: {problem}" for problem in problems))
    given = ", ".join(f"{name}: {value}" for name, value in point.items())
    where = shlex.quote(store.root)
    _running(store, pulse, f"`raymae extend {where} --num-trials N` runs it on, and takes points then; `raymae fork "
                           f"{where} NAME --set 'search.points=[{{{given}}}]'` starts a new one with it", sleep)
    return _ask(store, pulse, AddPoint(point=point, arm=arm, by=myself(), at=now()), wait, sleep)


def _running(store: Store, pulse: Pulse, instead: str, sleep: Callable[[float], None]) -> DriverState:
    """The sign of life of a driver that runs; where two machines' clocks differ, its next one is waited for.

    Raises:
        ResultsError: None does; ends with what is to be done instead.
    """
    driver = driver_of(store)
    if driver is None:
        raise ResultsError(f"{store.root}: no sweep runs here, none has given a sign of life; {instead}")
    state, note = pulse.feel(driver)
    if state == "lost" and "is gone" not in note:
        sleep(2 * driver.every_s + 1)
        driver = driver_of(store) or driver
        state, note = pulse.feel(driver)
    if state != "running":
        raise ResultsError(f"{store.root}: no sweep runs here{f' ({note})' if note else f', it is {state}'}; {instead}")
    return driver


def _check_known(store: Store, trial_id: str, driver: DriverState) -> None:
    """Refuse a trial that there is not, or that has ended; one that has just begun may be neither.

    Raises:
        ResultsError: See above.
    """
    known = store.trial_ids()
    running = ", ".join(one.trial_id for one in driver.running) or "none"
    if trial_id not in known:
        near = unknown("trial", trial_id, known).partition(" allowed: ")[0]
        raise ResultsError(f"{store.root}: {near} running now: {running}")
    last = last_attempts(store.trials())
    ended = last[last["trial_id"] == trial_id]["status"].tolist()
    if ended:
        raise ResultsError(f"{store.root}: {trial_id} has ended: it is {ended[0]}; running now: {running}")


def _ask(store: Store, pulse: Pulse, command: Command, wait: bool, sleep: Callable[[float], None]) -> Asked:
    folder = CommandFolder(store.location)
    name = folder.give(command)
    what = f"end {command.trial_id}" if isinstance(command, StopTrial) else f"try {told(command.point)}"
    asked = Asked(name, command.kind, command.by, command.at, "asked",
                  f"asked the sweep to {what}; it looks every few seconds, and `raymae watch {store.root}` shows what "
                  "becomes of it")
    while wait:
        try:
            receipt = folder.receipt(name)
        except OSError:  # the next look may succeed, or the sweep is lost
            receipt = None
        if receipt is not None:
            return Asked(name, command.kind, command.by, command.at, receipt.status, receipt.text)
        driver = driver_of(store)
        if driver is None or pulse.feel(driver)[0] != "running":
            raise ResultsError(f"{store.root}: the sweep has ended before it took the command {name}, and will refuse "
                               "it if it goes on")
        sleep(LOOK_S)
    return asked
