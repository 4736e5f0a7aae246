"""Which encoders there are, which are being made, and which trials wait for them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from raymae.inference.encoders import EncoderShelf
from raymae.search.decide.claims import Claims
from raymae.search.decide.trials import Trial
from raymae.spec.encoder import EncoderRef, encoder_id, pretraining_of
from raymae.spec.task import TaskSchema
from raymae.spec.trial import Stage

MOST_LOSSES = 3  # of one encoder, before those that start from it fail
LOOK_S = 2.0  # between two looks for an encoder that another sweep makes


class Encoders:
    """The encoders of a sweep. A pretraining is a trial of its own, started when the first trial needs its encoder;
    trials that need one which is not there are held until it is.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        schema: The task.
        shelf: Where encoders are kept.
        fingerprint: Of the content of the data.
        others: Where encoders may be taken from that are there already: those of sweeps this one learns from.
        clock: Seconds, monotonic.
        shared: Whether other sweeps use the shelf: then what is being made is claimed, so that it is made once.
    """

    def __init__(
        self, schema: TaskSchema, shelf: EncoderShelf, fingerprint: str, *, others: Iterable[EncoderShelf] = (),
        clock: Callable[[], float] = time.monotonic, shared: bool = False,
    ) -> None:
        self._schema, self._shelf, self._fingerprint, self._clock = schema, shelf, fingerprint, clock
        self._ready = shelf.ids()
        self._borrowed = {name: other for other in others for name in other.ids()}
        self._claims = Claims(shelf.root) if shared else None
        self._looked = clock()
        self._pretrainings: dict[str, Trial] = {}
        self._held: dict[str, list[Trial]] = {}
        self._losses: Counter[str] = Counter()
        self._unrecorded: set[str] = set()  # pretrainings that an earlier run of the sweep left under way

    def name(self, trial: Trial) -> None:
        """Say in a trial which encoder it makes or starts from."""
        pretraining = pretraining_of(trial.config, self._schema)
        if pretraining is not None:
            trial.encoder_id = encoder_id(pretraining, self._fingerprint)

    def ref(self, trial: Trial) -> EncoderRef | None:
        """What a job says of its encoder."""
        if not trial.encoder_id:
            return None
        return EncoderRef(trial.encoder_id, self._shelf.root, self._fingerprint)

    def take_up(self, pretraining: Trial) -> None:
        """Enter a pretraining of an earlier run of the sweep.

        One that was killed after it had written its encoder, and before that was recorded, is run again all the same:
        it goes on from its last checkpoint, and its end is recorded.
        """
        self.name(pretraining)
        self._pretrainings[pretraining.encoder_id] = pretraining
        if pretraining.status == "pending":
            self._ready.discard(pretraining.encoder_id)
            self._unrecorded.add(pretraining.encoder_id)

    # -- who needs what ------------------------------------------------------------------------------------------------

    def is_ready(self, trial: Trial) -> bool:
        """Whether a trial can start: it needs no encoder, or its own is there; the trial then knows what that took."""
        name = trial.encoder_id
        if not name:
            return True
        if name not in self._ready and not self._is_found(name):
            return False
        self._ready.add(name)
        made = self._pretrainings.get(name)
        card = self._shelf.card(name) if made is None or made.status != "completed" else None
        trial.pretrain_s = card.seconds if card is not None else made.wall_s if made is not None else 0.0
        return True

    def _is_found(self, name: str) -> bool:
        """Whether another sweep has made an encoder meanwhile, or before."""
        if name in self._unrecorded:
            return False
        if self._claims is not None and self._shelf.card(name) is not None:
            return True
        return name in self._borrowed and self._shelf.borrow(self._borrowed[name], name)

    def is_failed(self, name: str) -> bool:
        """Whether an encoder could not be made, or somebody has asked for the end of its pretraining."""
        made = self._pretrainings.get(name)
        over = made is not None and (made.status == "failed" or (made.status == "stopped" and made.stopped_by))
        return bool(over) and name not in self._ready

    def is_there(self, name: str) -> bool:
        """Whether an encoder is there."""
        return name in self._ready

    def hold(self, trial: Trial) -> Trial | None:
        """Hold a trial until its encoder is there.

        Returns:
            The pretraining that makes it: new, waiting to go on, under way, or failed. None where another sweep makes
            it.
        """
        name = trial.encoder_id
        self._held.setdefault(name, []).append(trial)
        return None if self._is_claimed(name) else self._pretraining(name, trial)

    def _is_claimed(self, name: str) -> bool:
        return self._claims is not None and not self._claims.take(name)

    def _pretraining(self, name: str, trial: Trial) -> Trial:
        if name not in self._pretrainings:
            config = pretraining_of(trial.config, self._schema)
            assert config is not None
            self._pretrainings[name] = Trial(
                f"{config.arm}-encoder-{name}", config, {key: value for key, value in trial.sampled.items()
                                                         if key in config.params},
                self._clock(), datetime.now(UTC), encoder_id=name, lane=trial.lane)
        return self._pretrainings[name]

    def holds(self, lane: str, stage: Stage) -> bool:
        """Whether trials of a lane and stage wait for their encoder."""
        return any(trial.lane == lane and trial.stage == stage
                   for held in self._held.values() for trial in held)

    def holds_any(self) -> bool:
        """Whether any trial waits for its encoder."""
        return bool(self._held)

    def is_for(self, pretraining: Trial, stage: Stage) -> bool:
        """Whether a trial of a stage waits for what a pretraining makes."""
        return any(trial.stage == stage for trial in self.waiting_for(pretraining))

    def waiting_for(self, pretraining: Trial) -> list[Trial]:
        """Trials that wait for what a pretraining makes."""
        return self._held.get(pretraining.encoder_id, [])

    # -- what happened -------------------------------------------------------------------------------------------------

    def ended(self, pretraining: Trial) -> list[Trial]:
        """Enter that a pretraining has ended; returns who waited for it."""
        name = pretraining.encoder_id
        self._unrecorded.discard(name)
        if pretraining.status == "completed":
            self._ready.add(name)
        if self._claims is not None:
            self._claims.give_back(name)
        return self._held.pop(name, [])

    def lose(self, trial: Trial) -> bool:
        """Enter that a trial's encoder is gone or damaged; returns whether it is made again."""
        name = trial.encoder_id
        self._losses[name] += 1
        if name in self._ready:
            self._ready.discard(name)
            self._shelf.forget(name)
        return self._losses[name] <= MOST_LOSSES

    def arrived(self) -> tuple[list[Trial], list[Trial]]:
        """Look after encoders that another sweep makes, now and then.

        Returns:
            Trials whose encoder is there by now, and pretrainings to be made here after all: who made them is gone.
        """
        if self._claims is None or self._clock() - self._looked < LOOK_S:
            return [], []
        self._looked = self._clock()
        freed, orphaned, there = [], [], self._shelf.ids()
        for name in list(self._held):
            made = self._pretrainings.get(name)
            if made is not None and made.status == "running":
                continue
            if name in there and name not in self._unrecorded:
                self._ready.add(name)
                freed += self._held.pop(name)
            elif not self._is_claimed(name):
                orphaned.append(self._pretraining(name, self._held[name][0]))
        return freed, orphaned

    def beat(self) -> None:
        """Renew the claims on what is being made here."""
        if self._claims is not None:
            self._claims.renew()

    def close(self) -> None:
        """Give every claim back: this run of the sweep makes no more."""
        if self._claims is not None:
            self._claims.give_all_back()
