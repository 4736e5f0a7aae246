"""A running sweep recorded elsewhere, by recorders that are told of it in threads of their own.

The results folder is the truth; a recorder is a copy for people who look elsewhere. So nothing waits for it but the end
of the sweep, for a few seconds, and what it does not take is counted and said once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from raymae.errors import one_line
from raymae.results.store.columns import Row, last_attempts
from raymae.results.store.folder import Folder
from raymae.results.store.layout import PICTURES
from raymae.results.store.store import Store
from raymae.results.views.tensorboard import pictures_of, plain_rows
from raymae.search.decide.trials import ENDED
from raymae.search.live.recorded import Ending, RecordedSweep, RecordedTrial, sweep_of, trial_of
from raymae.search.live.variables import redacted
from raymae.spec.trial import VALIDATED

if TYPE_CHECKING:
    from raymae.results.verdict.verdict import Verdict
    from raymae.results.views.progress import Progress
    from raymae.search.decide.conductor import Conductor
    from raymae.search.messages import Message

MOST_WAITING = 20_000  # reports and ends that wait for a service which does not answer: some 20 MB
MOST_AT_ONCE = 200  # of them
PATIENCE_S = 10.0  # that the end of a sweep waits for all recorders together
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between two tries


class Recorder(Protocol):
    """A service that keeps a run of every trial. Methods may raise and take long; each may be called again after it
    has raised, and then does what is missing.

    Attributes:
        title: Its name, for people.
    """

    title: str

    def open(self, sweep: RecordedSweep, say: Callable[[str], None]) -> Collection[str]:
        """Begin or continue the sweep's own run; returns the trials that are recorded to their end."""

    def begin(self, trial: RecordedTrial) -> Collection[int]:
        """Begin or continue a trial's run; returns the steps of the reports that are there."""

    def report(self, trial_id: str, rows: Sequence[Row]) -> None:
        """Add reports, in their order; several where it was slower than the sweep."""

    def end(self, trial_id: str, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Add how a trial ended, and what it does in pictures: PNGs by name."""

    def close(self, how: Ending, text: str, verdict: Verdict | None) -> None:
        """Add the answer to the sweep's run; trials that have not ended wait to be continued."""

    def may_pass(self, failure: Exception) -> bool:
        """Whether the same call may do later."""


@dataclass(frozen=True)
class _Entry:
    what: str
    trial: RecordedTrial
    row: Row


class Recording:
    """Tells one recorder of a sweep, in a thread of its own.

    Args:
        to: The recorder.
        sweep: The sweep.
        before: The trials of an earlier run of the sweep: what is missing of them is recorded, too.
        ended: Those of them that had ended by then.
        warn: Told once that something fails, and at the end what was not recorded.
    """

    def __init__(
        self, to: Recorder, sweep: RecordedSweep, before: Sequence[RecordedTrial], ended: Collection[str],
        warn: Callable[[str], None],
    ) -> None:
        self._to, self._sweep, self._warn, self._ended = to, sweep, warn, ended
        self._before = {trial.trial_id: trial for trial in before}
        self._earlier: dict[str, list[Row]] = {}
        self._ends: list[Row] = []
        self._there: dict[str, set[int]] = {}
        self._missing: Counter[str] = Counter()
        self._last: Callable[[], None] = lambda: None
        self._guard = threading.Lock()
        self._over, self._given_up, self._failed = threading.Event(), False, False
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=f"record {to.title}", daemon=True)
        self._thread.start()

    def report(self, trial: RecordedTrial, row: Row) -> None:
        """Have a report recorded."""
        self._put(_Entry("report", trial, row))

    def end(self, trial: RecordedTrial, row: Row) -> None:
        """Have the end of a trial recorded."""
        self._put(_Entry("end", trial, row))

    def close(self, how: Ending, text: str, verdict: Verdict | None) -> None:
        """Have the end of the sweep recorded, and nothing after it."""
        self._last = partial(self._to.close, how, text, verdict)
        with self._guard:
            self._missing["verdict"] += 1
        self._over.set()
        with suppress(queue.Full):  # then it sees by itself that all is over
            self._waiting.put_nowait(None)

    def wait(self, deadline: float) -> None:
        """Wait for all that to be done, and say what was not.

        Args:
            deadline: By the monotonic clock.
        """
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._guard:
            self._given_up = True
            left = [_said(what, number) for what, number in sorted(self._missing.items()) if number]
        if left:
            self._warn(f"{self._to.title} lacks what it did not take in time: {', '.join(left)}. The results folder "
                       "has all of it; the same command again records the trials that are missing or have no end there")

    # -- for whoever reports -------------------------------------------------------------------------------------------

    def _put(self, entry: _Entry) -> None:
        with self._guard:
            self._missing[entry.what] += 1
            given_up = self._given_up
        if not given_up:
            with suppress(queue.Full):  # it stays counted
                self._waiting.put_nowait(entry)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._try(self._open):
            for row in self._ends:
                with self._guard:
                    self._missing["end"] += 1
                self._one("end", partial(self._end, self._before[row["trial_id"]], row))
            while not self._given_up and (taken := self._take()) is not None:
                self._record(taken)
            self._one("verdict", self._last)
        with self._guard:
            self._given_up = True

    def _take(self) -> list[_Entry] | None:
        """What waits, a little at least; None once there is nothing and never will be."""
        taken: list[_Entry] = []
        while len(taken) < MOST_AT_ONCE:
            try:
                entry = self._waiting.get(timeout=None if taken else 1.0, block=not taken)
            except queue.Empty:
                if taken:
                    return taken
                if self._over.is_set():
                    return None
                continue
            if entry is None:
                return taken or None
            taken.append(entry)
        return taken

    def _record(self, entries: Sequence[_Entry]) -> None:
        """Record some entries, those of one trial together."""
        of: dict[str, list[_Entry]] = {}
        for entry in entries:
            of.setdefault(entry.trial.trial_id, []).append(entry)
        for mine in of.values():
            rows = [entry.row for entry in mine if entry.what == "report"]
            if rows:
                self._one("report", partial(self._report, mine[0].trial, rows), len(rows))
            for entry in mine:
                if entry.what != "report":
                    self._one(entry.what, partial(self._end, entry.trial, entry.row))

    def _one(self, what: str, action: Callable[[], None], number: int = 1) -> None:
        if self._try(action):
            with self._guard:
                self._missing[what] -= number

    def _try(self, action: Callable[[], None]) -> bool:
        """Do something, again and again while that may help and the sweep goes on; returns whether it is done."""
        pause = FIRST_PAUSE_S
        while not self._given_up:
            try:
                action()
                return True
            except Exception as failure:  # whatever a service's client raises
                if not self._failed and not self._given_up:
                    self._failed = True
                    self._warn(f"{self._to.title} does not take what it is told: {redacted(one_line(failure))}; the "
                               "sweep goes on, and its end says what is missing there")
                if not self._to.may_pass(failure):
                    return False
            if self._over.wait(pause):
                self._given_up = True  # the end does not wait for who does not answer
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return False

    def _open(self) -> None:
        done = self._to.open(self._sweep, lambda text: self._warn(redacted(text)))
        self._before = {name: trial for name, trial in self._before.items() if name not in done}
        if self._before:
            store = Store.open(self._sweep.location)
            ended, reports = plain_rows(last_attempts(store.trials())), store.reports()
            # of the others, which go on, the end may be there by now: it is on its way here, too
            self._ends = [row for row in ended if row["trial_id"] in self._before and row["trial_id"] in self._ended]
            reports = reports[reports["trial_id"].isin([*self._before])]
            reports = reports.drop_duplicates(["trial_id", "step"], keep="last")
            self._earlier = {str(name): plain_rows(mine.sort_values("step"))
                             for name, mine in reports.groupby("trial_id", sort=False)}

    def _begin(self, trial: RecordedTrial) -> None:
        name = trial.trial_id
        if name not in self._there:
            self._there[name] = set(self._to.begin(trial))
        self._add(name, self._earlier.get(name, ()))
        self._earlier.pop(name, None)

    def _add(self, name: str, rows: Sequence[Row]) -> None:
        new = [row for row in rows if row["step"] not in self._there[name]]
        if new:
            self._to.report(name, new)
            self._there[name].update(row["step"] for row in new)

    def _report(self, trial: RecordedTrial, rows: Sequence[Row]) -> None:
        self._begin(trial)
        self._add(trial.trial_id, rows)

    def _end(self, trial: RecordedTrial, row: Row) -> None:
        self._begin(trial)
        self._to.end(trial.trial_id, row, self._pictures(row))
        del self._there[trial.trial_id]

    def _pictures(self, row: Row) -> dict[str, bytes]:
        if row["stage"] in VALIDATED:
            return {}
        try:
            folder = Folder(self._sweep.location)
            return pictures_of(folder, row, folder.names(PICTURES))
        except OSError:  # they are for looks
            return {}


def _said(what: str, number: int) -> str:
    if what == "verdict":
        return "the verdict"
    many = "s" if number > 1 else ""
    return f"{number} report{many}" if what == "report" else f"the end{many} of {number} trial{many}"


class Recordings:
    """Tells recorders of a sweep, as an observer of its conductor; `over` at its end.

    Args:
        recorders: Who is told.
    """

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = recorders
        self._all: tuple[Recording, ...] = ()
        self._trial_of: Callable[[str], RecordedTrial]

    def follow(self, conductor: Conductor) -> None:
        """Tell of a sweep that begins or goes on; after it has taken over what an earlier run left."""
        if not self._recorders:
            return
        sweep = sweep_of(conductor)
        before = [trial_of(trial, sweep) for trial in conductor.trials]
        self._trial_of = lambda trial_id: trial_of(conductor.trials[trial_id], sweep)
        ended = {trial.trial_id for trial in conductor.trials if trial.status in ENDED}
        self._all = tuple(Recording(one, sweep, before, ended, conductor.warn) for one in self._recorders)
        conductor.add_observer(self)

    def warned(self, text: str) -> None:
        """Record nothing: warnings are in the log."""

    def reported(self, row: Row, message: Message) -> None:
        """Have a report recorded."""
        trial = self._trial_of(row["trial_id"])
        for one in self._all:
            one.report(trial, row)

    def ended(self, row: Row, progress: Progress) -> None:
        """Have the end of a trial recorded."""
        trial = self._trial_of(row["trial_id"])
        for one in self._all:
            one.end(trial, row)

    def beat(self, progress: Progress) -> None:
        """Record nothing."""

    def over(self, how: Ending, text: str, verdict: Verdict | None = None) -> None:
        """Have the end of the sweep recorded, and wait a little until all is.

        Args:
            how: How it ended.
            text: The answer, or why there is none.
            verdict: The answer.
        """
        deadline = time.monotonic() + PATIENCE_S
        for one in self._all:
            one.close(how, text, verdict)
        for one in self._all:
            one.wait(deadline)
