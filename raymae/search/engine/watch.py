"""Looks up from the batches of a long epoch, on every rank: is the trial wanted elsewhere, is a checkpoint due?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raymae.search.engine.mailbox import LEAVE, STOP, Reply

if TYPE_CHECKING:
    from raymae.train.trial import TrialState

LOOK_S = 3.0  # between two looks: Google tells a machine 30 s ahead, of which the watcher has used some

SOON = 8  # batches of an epoch before which several ranks look, however many they agreed upon in the one before


class Reclaimed(Exception):  # noqa: N818
    """Not an error: the group's place is taken away, and the group starts again elsewhere or later."""


class Unwanted(Exception):  # noqa: N818
    """Not an error: nobody waits for the trial any more."""


class Watch:
    """What a trial calls after each batch (see `raymae.train.trial.Watch`).

    Ranks look together: one alone at the clock, since clocks differ, and before how many batches all look next is
    agreed upon at each look, so that no batch takes a message.

    Args:
        ranks: This rank and how many there are.
        agree: Gives every rank what the first one has.
        ask: What becomes of the trial; asked by the first rank.
        keep: Writes a state; called by the first rank.
        leave: Gives the trial back once what was kept is on storage, and says what its ranks do now; likewise.
        checkpoint_s: Seconds between two checkpoints.
        clock: In seconds.
    """

    def __init__(
        self, ranks: tuple[int, int], agree: Callable[[Any], Any], *, ask: Callable[[], Reply],
        keep: Callable[[TrialState], None], leave: Callable[[], Reply], checkpoint_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        (self._rank, self._world), self._agree = ranks, agree
        self._ask, self._keep, self._leave, self._checkpoint_s, self._clock = ask, keep, leave, checkpoint_s, clock
        self._looked = self._kept_at = clock()
        self._left = 1  # batches to the next look
        self._since, self._paced = 0, self._looked  # batches of this epoch since the last look, and since when
        self._fresh = True

    def kept(self) -> None:
        """A checkpoint was just written, with a report."""
        self._kept_at = self._clock()

    def __call__(self, batches: int, state: Callable[[], TrialState]) -> None:
        """See `raymae.train.trial.Watch`.

        Raises:
            Reclaimed: The place goes; the trial's state is kept, and the trial waits for workers elsewhere, or later.
            Unwanted: Nobody waits for the trial.
        """
        if self._fresh and batches > 1 and self._rank == 0:
            print(f"goes on inside an epoch, of which {batches - 1} batches are done", flush=True)  # in the actor's log
        self._fresh = False
        self._since += 1
        if batches == 1:  # batches of another phase may take longer
            self._left, self._since, self._paced = min(self._left, SOON), 0, self._clock()
        self._left -= 1
        if self._left > 0 or (self._world == 1 and self._clock() - self._looked < LOOK_S):
            return
        reply, due, self._left = self._agree(self._look() if self._rank == 0 else None)
        if reply == STOP:
            raise Unwanted
        if due or reply == LEAVE:
            taken = state()
            if self._rank == 0:
                self._keep(taken)
            self.kept()
        if reply == LEAVE:
            reply = self._agree(self._leave() if self._rank == 0 else None)
            if reply == LEAVE:
                raise Reclaimed("its place is taken away; the trial goes on elsewhere, or later, from inside its epoch")
            if reply == STOP:
                raise Unwanted

    def _look(self) -> tuple[Reply, bool, int]:
        """What becomes of the trial, whether a checkpoint is due, and after how many batches to look again."""
        now = self._clock()
        fitting = 1
        if self._world > 1:
            took = max(now - self._paced, 1e-9)
            fitting = max(1, min(int(LOOK_S / took * self._since), 2 * self._since))
        self._looked = self._paced = now
        self._since = 0
        return self._ask(), now - self._kept_at >= self._checkpoint_s, fitting
