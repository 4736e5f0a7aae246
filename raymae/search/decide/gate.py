"""What must be there before a trial starts: its encoder, whose pretraining goes first."""

from __future__ import annotations

from collections.abc import Callable

from raymae.results.store.store import Store
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.searches import Searches
from raymae.search.decide.trials import Trial, Trials
from raymae.spec.trial import Stage


class Gate:
    """Starts trials, and holds those whose encoder is not there yet.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        trials: Every trial there is.
        searches: The search of each arm.
        store: Where a new trial's configuration goes.
        clock: Seconds, monotonic.
        encoders: Those there are; without them every trial pretrains for itself.

    Attributes:
        freed: Trials that were held until now, or are to be started once more; whoever starts them takes them away.
        hopeless: Held trials that will never start; whoever records that takes them away.
    """

    def __init__(
        self, trials: Trials, searches: Searches, store: Store, clock: Callable[[], float], encoders: Encoders | None
    ) -> None:
        self._trials, self._searches, self._store, self._clock = trials, searches, store, clock
        self._encoders = encoders
        self.freed: list[Trial] = []
        self.hopeless: list[Trial] = []

    def note(self, trial: Trial) -> None:
        """Enter a trial of an earlier run: a pretraining goes on when somebody needs its encoder."""
        if self._encoders is None:
            return
        if trial.stage == "pretrain":
            self._encoders.take_up(trial)
        elif trial.config.pretrain_seed is not None:
            self._encoders.name(trial)
            self._searches.note(trial)

    # -- who starts ----------------------------------------------------------------------------------------------------

    def pass_(self, trial: Trial) -> Trial | None:
        """Start a trial, or the pretraining that must come before it; None where that is under way, or hopeless."""
        if self._encoders is None:
            return self._start(trial)
        self._encoders.name(trial)
        if self._encoders.is_ready(trial):
            return self._start(trial)
        self._hold(trial)
        pretraining = self._encoders.hold(trial)
        if pretraining is None or pretraining.trial_id in self._trials.running:
            return None
        if self._encoders.is_failed(trial.encoder_id):
            self.ended(pretraining)
            return None
        return self._start(pretraining)

    def orphan(self) -> Trial | None:
        """Free the trials whose encoder another sweep has made; start a pretraining that it has left undone."""
        if self._encoders is None:
            return None
        freed, orphaned = self._encoders.arrived()
        self.freed += freed
        return self._start(orphaned[0]) if orphaned else None

    def holds(self, lane: str, stage: Stage = "search") -> bool:
        """Whether trials of a lane and stage wait for their encoder."""
        return self._encoders is not None and self._encoders.holds(lane, stage)

    def holds_any(self) -> bool:
        """Whether any trial waits for its encoder, or to be started after that."""
        return bool(self.freed) or (self._encoders is not None and self._encoders.holds_any())

    def enter(self, trial: Trial) -> Trial:
        """Keep a new trial."""
        self._trials.add(trial)
        self._store.write_config(trial.trial_id, trial.to_json())
        return trial

    def _hold(self, trial: Trial) -> None:
        if trial.trial_id not in self._trials:
            trial.status, trial.attempt = "pending", -1
            self.enter(trial)
        elif trial.is_asked:
            self._searches.studies[trial.lane].resume(trial.trial_id, trial.sampled)

    def _start(self, trial: Trial) -> Trial:
        if trial.trial_id not in self._trials:
            return self.enter(trial)
        self._trials.start(trial, self._clock())
        if trial.is_asked:
            self._searches.studies[trial.lane].resume(trial.trial_id, trial.sampled)
        return trial

    def beat(self) -> None:
        """Tell other sweeps that use the encoders' folder that this one lives."""
        if self._encoders is not None:
            self._encoders.beat()

    def close(self) -> None:
        """Make no more encoders."""
        if self._encoders is not None:
            self._encoders.close()

    # -- what happened -------------------------------------------------------------------------------------------------

    def ended(self, pretraining: Trial) -> None:
        """Free the trials that waited for a pretraining, or give them up with it."""
        if self._encoders is None or pretraining.status in ("running", "pending"):
            return
        held = self._encoders.ended(pretraining)
        if pretraining.status == "completed":
            self.freed += held
            return
        for trial in held:
            if pretraining.status == "failed":
                trial.error = f"its pretraining failed: {pretraining.error}"
            trial.stopped_by = trial.stopped_by or pretraining.stopped_by
            self.hopeless.append(trial)

    def again(self, trial: Trial) -> bool:
        """Take back a trial whose encoder is gone or damaged; returns False where that has happened too often."""
        if self._encoders is None or not self._encoders.lose(trial):
            return False
        self.freed.append(trial)
        return True
