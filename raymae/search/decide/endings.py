"""How trials end, and who ends with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from raymae.results.store.columns import Row
from raymae.search.decide.agenda import Agenda
from raymae.search.decide.algorithms import EndStatus
from raymae.search.decide.gate import Gate
from raymae.search.decide.searches import Searches
from raymae.search.decide.trials import Trial, Trials
from raymae.search.messages import LEFT_OPEN


@dataclass(frozen=True)
class Ended:
    """A trial that runs no more.

    Attributes:
        trial_id: Its name.
        lane: Its arm, in the cells in which it counts.
        row: Its row of the trials' table.
        given_up: Why its arm is searched no more from now on; None where it is.
    """

    trial_id: str
    lane: str
    row: Row
    given_up: str | None


class Endings:
    """Enters the end of trials.

    It is not guarded: its conductor holds a lock whenever it tells it.

    Args:
        trials: Every trial there is.
        searches: The search of each arm.
        agenda: What is still to be run.
        gate: Holds the trials that wait for an encoder.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, trials: Trials, searches: Searches, agenda: Agenda, gate: Gate, clock: Callable[[], float]
    ) -> None:
        self._trials, self._searches, self._agenda, self._gate = trials, searches, agenda, gate
        self._clock = clock

    def enter(self, trial: Trial, error: str | None, *, cut_short: bool) -> tuple[list[Ended], str | None]:
        """Enter that a trial runs no more.

        Args:
            trial: The trial.
            error: What its workers could not say of it themselves.
            cut_short: Whether it was told to end.

        Returns:
            Who has ended: nobody where the trial is taken up again, now or by the next run of the sweep; and what is
            wrong with its encoder, which is made again.
        """
        trial.error = trial.error or error
        status, lost = _end_of(trial, cut_short), None
        if trial.last is not None and trial.last.lost_encoder and self._gate.again(trial):
            status, lost, trial.error = None, trial.error, None
        if status is None:
            self._trials.end(trial, "pending")
            return [], lost
        trial.wall_s = trial.wall_s or self._clock() - trial.started
        return [self._settle(trial, status), *self.hopeless()], None

    def hopeless(self) -> list[Ended]:
        """Enter the end of trials that were held for an encoder which will not be made."""
        given_up, self._gate.hopeless = self._gate.hopeless, []
        return [self._settle(trial, "stopped" if trial.error is None else "failed") for trial in given_up]

    def _settle(self, trial: Trial, status: EndStatus) -> Ended:
        self._trials.end(trial, status)
        self._searches.end(trial, status)
        if trial.stage == "pretrain":
            self._gate.ended(trial)
        self._agenda.look()
        reason = self._agenda.give_up(trial.lane) if status == "failed" else None
        return Ended(trial.trial_id, trial.lane, trial.row(datetime.now(UTC)), reason)


def _end_of(trial: Trial, cut_short: bool) -> EndStatus | None:
    """How a trial that runs no more has ended; None if the next run of the sweep goes on with it."""
    final = trial.last is not None and trial.last.final
    if trial.error in LEFT_OPEN or (trial.error is None and not final and cut_short):
        return None
    return "failed" if trial.error is not None else "completed" if final else "stopped"
