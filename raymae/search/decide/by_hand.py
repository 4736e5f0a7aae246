"""What people ask of a running sweep: that one of its trials ends, or that a point of theirs is tried next.

A comparison stays one of equals: arms keep equal numbers of search trials, since a point takes the place of one that
the search would have proposed, and nothing that is compared, a final or a replicate, is ended by hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from raymae.errors import unknown
from raymae.search.decide.added import Added
from raymae.search.decide.budget import Budget
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.searches import Searches
from raymae.search.decide.stages import Stages
from raymae.search.decide.trials import ENDED, Trial, Trials
from raymae.spec.points import told
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Scalar
from raymae.spec.sweep import SweepSpec

if TYPE_CHECKING:
    from threading import RLock

NUM_SHOWN = 5  # commands that are kept for whoever watches
NUM_LISTED = 12  # trials that a message names


class Answer(NamedTuple):
    """What becomes of something that was asked, and why, for people."""

    status: Literal["applied", "refused"]
    text: str


class ByHand:
    """Takes what people ask of a running sweep, or says why not.

    Args:
        spec: The sweep.
        plans: Its lanes.
        trials: Its trials.
        searches: The search of each lane.
        stages: How far each lane is.
        budget: What is left.
        encoders: Those there are; without them every trial pretrains for itself.
        lock: The conductor's, under which all these change.

    Attributes:
        log: The last commands of this run, for people.
    """

    def __init__(
        self, spec: SweepSpec, plans: Mapping[str, ArmPlan], trials: Trials, searches: Searches, stages: Stages,
        budget: Budget, encoders: Encoders | None, lock: RLock,
    ) -> None:
        self._spec, self._plans, self._trials, self._searches = spec, plans, trials, searches
        self._stages, self._budget, self._encoders, self._lock = stages, budget, encoders, lock
        self.log: deque[str] = deque(maxlen=NUM_SHOWN)

    # -- one trial ends ------------------------------------------------------------------------------------------------

    def stop(self, trial_id: str, by: str) -> Answer:
        """End a running trial of the search at its next report; its search knows it as stopped.

        Args:
            trial_id: The trial, or a pretraining: then those of the search that wait for its encoder end with it.
            by: Who asks.
        """
        with self._lock:
            if trial_id not in self._trials:
                return Answer("refused", self._no_trial(trial_id))
            trial = self._trials[trial_id]
            waiting = self._waiting_for(trial)
            if reason := self._must_go_on(trial, waiting):
                return Answer("refused", reason)
            trial.stopped_by = by
        others = f", and with it {_listed(waiting)}, which wait for its encoder" if waiting else ""
        return Answer("applied", f"{trial_id} ends at its next report{others}")

    def _no_trial(self, trial_id: str) -> str:
        running = list(self._trials.running)
        near = unknown("trial", trial_id, (trial.trial_id for trial in self._trials))
        return f"{near.partition(' allowed: ')[0]} running now: {_listed(running) or 'none'}"

    def _waiting_for(self, trial: Trial) -> list[str]:
        if trial.stage != "pretrain" or self._encoders is None:
            return []
        return [one.trial_id for one in self._encoders.waiting_for(trial)]

    def _must_go_on(self, trial: Trial, waiting: list[str]) -> str:
        """Why a trial is not ended by hand; "" where it may be."""
        name = trial.trial_id
        if trial.status in ENDED:
            return f"{name} has ended: it is {trial.status}"
        compared = next((one for one in (trial, *(self._trials[other] for other in waiting))
                         if one.stage in ("final", "replicate")), None)
        if compared is not None:
            what = "one of the seeds that are compared" if compared.stage == "replicate" else \
                "one of the seeds that a configuration is chosen by"
            of = f"{compared.trial_id} is" if compared is trial else f"{name} makes the encoder of {compared.trial_id},"
            return (f"{of} {what}: to end some of them by hand would select among them. Ctrl-C, or `raymae stop` of a "
                    "job, ends the sweep with its verdict so far")
        if trial.status == "pending":
            encoder = f"{trial.encoder_id}, which a pretraining makes" if trial.encoder_id else "a free place"
            return f"{name} does not run yet, it waits for {encoder}; it can be stopped once it runs"
        return ""

    # -- a point is tried ----------------------------------------------------------------------------------------------

    def add(self, command: str, point: Mapping[str, Scalar], arm: str | None, by: str) -> Answer:
        """Try a point next, in place of what the search would have proposed, in every cell of the factors.

        Args:
            command: The command's id.
            point: Values of searched parameters; an arm takes those that it searches.
            arm: The arm; None for every one that searches some of them.
            by: Who asks.
        """
        with self._lock:
            lanes = dict(self._lanes(point, arm))
            over = [lane for lane in lanes if not self._has_room(lane)]
            if over:
                asked = ", ".join(f"{lane} has {self._taken(lane)} of {self._searches.quota[lane]}" for lane in over)
                other = "; name an arm that has some, arm=NAME" if arm is None and len(over) < len(lanes) else ""
                return Answer("refused", f"no search trial is left that could be of this point ({asked}){other}. "
                                         "`raymae extend DIR --num-trials N` asks for more, once the sweep has ended")
            for lane, own in lanes.items():
                self._searches.added.setdefault(lane, []).append(Added(command, by, own))
        tries = f"{_listed(list(lanes))} {'try' if len(lanes) > 1 else 'tries'} {told(point)} next"
        return Answer("applied", f"{tries}, in place of what the search would have proposed")

    def _lanes(self, point: Mapping[str, Scalar], arm: str | None) -> Iterator[tuple[str, dict[str, Scalar]]]:
        """The lanes that are searched and take a point, and what each takes of it."""
        for lane, plan in self._plans.items():
            own = {name: value for name, value in point.items() if name in plan.space}
            if own and plan.home == lane and arm in (None, plan.name):
                yield lane, own

    def _taken(self, lane: str) -> int:
        """Search trials of a lane that have been asked for, or are somebody's."""
        return self._trials.num_asked(lane) + len(self._searches.added.get(lane, ()))

    def _has_room(self, lane: str) -> bool:
        return (self._taken(lane) < self._searches.quota[lane] and not self._stages.is_closed(lane)
                and not self._budget.search_time_is_up() and self._budget.fits_another(lane))

    # -- an earlier run ------------------------------------------------------------------------------------------------

    def stops_still(self, trial_id: str, by: str) -> None:
        """Go on to wait for the next report of a trial whose end was asked for in an earlier run of the sweep."""
        with self._lock:
            if trial_id in self._trials and self._trials[trial_id].status not in ENDED:
                self._trials[trial_id].stopped_by = by

    def adds_still(self, command: str, point: Mapping[str, Scalar], arm: str | None, by: str) -> None:
        """Try a point that an earlier run of the sweep took and did not come to."""
        with self._lock:
            for lane, own in self._lanes(point, arm):
                if not any(trial.added and trial.added.command == command for trial in self._trials.of(lane, "search")):
                    self._searches.added.setdefault(lane, []).append(Added(command, by, own))

    def is_tried(self, command: str) -> bool:
        """Whether a trial is of a point that a command has added."""
        with self._lock:
            return any(trial.added is not None and trial.added.command == command for trial in self._trials)

    def untried(self) -> list[str]:
        """Points that have been taken and not tried yet, for people."""
        with self._lock:
            return [f"{told(one.point)} of {lane}" for lane, queue in self._searches.added.items() for one in queue]


def _listed(names: list[str]) -> str:
    more = len(names) - NUM_LISTED
    return ", ".join(names[:NUM_LISTED]) + (f" and {more} more" if more > 0 else "")
