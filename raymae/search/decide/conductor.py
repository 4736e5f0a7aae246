"""Who runs next: search trials per arm, finals of its best, replicates of the one chosen, within the budget. No Ray.

The conductor owns the state of a running sweep. Tune's searcher asks it for trials, Tune's callback tells it about
reports, and it writes both to the store. Whoever wants to see it asks for its `progress`, from whatever thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from raymae.results.store.store import Store
from raymae.results.views.progress import Progress
from raymae.search.checkpoints import TrialFiles, remove_checkpoints
from raymae.search.decide.agenda import Agenda
from raymae.search.decide.budget import Budget
from raymae.search.decide.by_hand import ByHand
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.endings import Ended, Endings
from raymae.search.decide.enough import Enough
from raymae.search.decide.finals import Finals
from raymae.search.decide.gate import Gate
from raymae.search.decide.observers import Observer, Observers
from raymae.search.decide.opening import Opening
from raymae.search.decide.proposals import Proposals
from raymae.search.decide.rounds import Rounds
from raymae.search.decide.searches import Searches
from raymae.search.decide.snapshot import Watched, snapshot
from raymae.search.decide.stages import Stages
from raymae.search.decide.trials import SYSTEMATIC, Trial, Trials, model_left_by
from raymae.search.messages import Job, Message, report_row
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Objective
from raymae.spec.trial import DataSource


class Conductor:
    """Decides what a sweep runs, and keeps its state under one lock.

    Args:
        spec: The sweep.
        plans: What each lane fixes and searches: each arm, in every cell of the sweep's factors.
        objective: What is selected on.
        store: Where reports and trials go.
        source: `real` or `synthetic`.
        slots: Trials at once.
        observers: Told what happens.
        clock: Seconds, monotonic.
        encoders: Those there are; without them every trial pretrains for itself.
        extended: Whether trials or replicates were asked for after a verdict: the search then goes on.

    Attributes:
        trials: Every trial.
        searches: The search of each lane.
        replicates: Replicates of its best by lane.
        budget: What may be spent, and the slots.
        opening: Opens cells of a factor that is bisected.
        by_hand: Takes what people ask of the running sweep.
        interrupted: Whether it was told to end.
        shares_cluster: Whether other sweeps have taken slots from this one.
        last_event: Time of the last report or end, by the clock.
    """

    def __init__(
        self, spec: SweepSpec, plans: Mapping[str, ArmPlan], objective: Objective, store: Store, *, source: DataSource,
        slots: int, observers: Iterable[Observer] = (), clock: Callable[[], float] = time.monotonic,
        encoders: Encoders | None = None, extended: bool = False,
    ) -> None:
        self.spec, self.objective, self.store, self.clock = spec, objective, store, clock
        self.plans = plans = dict(plans)
        self.searches = Searches(spec, plans, objective)
        self.trials = Trials(objective, plans, Finals(objective, spec.search, self.searches.quota))
        self._rounds = Rounds(spec, plans, self.trials, store)
        self.replicates = self._rounds.wanted
        self.budget = Budget(spec, self.trials, self.replicates, slots=slots, clock=clock)
        self.interrupted = self.shares_cluster = False
        self.last_event, self._lock = clock(), threading.RLock()
        enough = Enough(spec.budget, plans, self.searches.quota, self.trials)
        self.opening = Opening(spec, plans, self.searches, self._rounds, self.budget, store, self._lock, enough)
        self._observers, self._encoders = Observers(observers), encoders
        self._gate = Gate(self.trials, self.searches, store, clock, encoders)
        self._stages = Stages(self.trials, self.searches, self.budget, self._gate, reopened=extended)
        self._agenda = Agenda(
            Proposals(spec, plans, source, clock), self.trials, self.searches, self._rounds, self.budget, self._gate,
            enough, self._stages, encoders=encoders)
        self.by_hand = ByHand(spec, plans, self.trials, self.searches, self._stages, self.budget, encoders, self._lock)
        self._endings = Endings(self.trials, self.searches, self._agenda, self._gate, clock)
        self._dashboard: str | None = None
        self._watched = Watched(spec, plans, self.searches.quota, self.replicates, self.trials, self.budget,
                                store.location, source, datetime.now(UTC).isoformat(), self.by_hand.log)

    # -- told from outside ---------------------------------------------------------------------------------------------

    def add_observer(self, observer: Observer) -> None:
        """Tell one more observer from now on."""
        self._observers.add(observer)

    def warn(self, text: str) -> None:
        """Tell the observers what a person should know now."""
        self._observers.warned(text)

    def beat(self) -> None:
        """Tell the observers how far the sweep is, and other sweeps that it lives."""
        self._observers.beat(self.progress())
        self._gate.beat()

    def progress(self) -> Progress:
        """How far the sweep is; from whatever thread."""
        with self._lock:
            return snapshot(self._watched, self.clock(), dashboard=self._dashboard)

    def take_over(self, ended: Iterable[Trial], interrupted: Iterable[Trial]) -> None:
        """Enter what an earlier run of the sweep left: trials that ended, and trials to be continued first."""
        with self._lock:
            self._agenda.take_over(ended, interrupted)
            self._rounds.catch_up()
            self.budget.forget_earlier()

    def use_plans(self, plans: Mapping[str, ArmPlan]) -> None:
        """Run lanes by other plans; before anything is proposed."""
        with self._lock:
            for lane, plan in plans.items():
                self.plans[lane] = plan
                self.searches.change_plan(lane, plan)

    def connected(self, dashboard: str) -> None:
        """Ray is up, with a dashboard or ""."""
        self._dashboard = dashboard

    def use_slots(self, slots: int) -> None:
        """Run so many trials at once: known once a cluster has been joined, and changed by other sweeps there."""
        with self._lock:
            self.shares_cluster = self.shares_cluster or slots < self.budget.slots
            self.budget.slots = slots

    def interrupt(self) -> None:
        """Propose no more trials, and end those under way at their next report or before. Safe in a signal handler."""
        self.interrupted = True
        self.warn("interrupted: trials under way end at their next report; again to end at once")

    def close(self) -> None:
        """Delete checkpoints of ended trials, milestones while nobody may go on from one, and claims on encoders."""
        self._gate.close()
        ended = {trial.trial_id for trial in self.trials if trial.status not in ("running", "pending")}
        remove_checkpoints(self.store.location, ended, milestones=self.finished() and not self.interrupted)

    @property
    def slots(self) -> int:
        """Trials at once, as of now."""
        return self.budget.slots

    # -- what runs next ------------------------------------------------------------------------------------------------

    def next(self) -> Trial | None:
        """The next trial to start, or None while all slots are busy or something must end first."""
        with self._lock:
            trial = None if self.is_over() else self._agenda.next()
            hopeless = self._endings.hopeless()
            news, self._stages.news = self._stages.news, []
        self._record(hopeless)
        for text in news:
            self.warn(text)
        return trial

    def job(self, trial: Trial) -> Job:
        """What a worker group needs to run a trial."""
        encoder = None if self._encoders is None else self._encoders.ref(trial)
        model = model_left_by(trial, self.spec, self.plans, self.store.manifest.data.fingerprint)
        return trial.job(self.objective, self.store.location, self.searches.milestones(trial), encoder, model)

    def is_over(self) -> bool:
        """Whether nothing more is started, finished or not: interrupted, or the budget is spent."""
        with self._lock:
            return self.interrupted or self.budget.time_is_up()

    def finished(self) -> bool:
        """Whether no trial will ever be proposed again."""
        with self._lock:
            return self.is_over() or self._agenda.is_empty()

    def must_stop(self, trial: Trial) -> bool:
        """Whether a running trial has to end now: the budget is spent, or somebody has asked for it."""
        with self._lock:
            asked = bool(trial.stopped_by)
            if asked or self.is_over() or trial.stage == "replicate" or not self.budget.search_time_is_up():
                return asked or self.is_over()
            if self._encoders is not None and self._encoders.is_for(trial, "replicate"):
                return False
            if trial.stage == "final" or (self._encoders is not None and self._encoders.is_for(trial, "final")):
                return self.budget.finals_time_is_up()
            # an arm without any score has nothing to replicate: its trial goes on until it has one
            return self.trials.best(trial.lane) is not None or self.objective.val in trial.best

    def replaces(self, trial: Trial, epoch: int, step: int, value: float) -> bool:
        """Whether a population ends a trial at this epoch; a child of a better one is proposed in its place."""
        with self._lock:
            return self._agenda.replaces(trial, epoch, step, value)

    # -- what happened -------------------------------------------------------------------------------------------------

    def on_report(self, trial: Trial, message: Message) -> None:
        """Record one message of a trial's worker."""
        with self._lock:
            self.last_event = self.clock()
            trial.take(message)
            if message.report is None:
                return
            if message.report.phase == "finetune":
                self.searches.report(trial)
        if message.warning:
            self.warn(f"{trial.trial_id}: {message.warning}")
        row = report_row(message, trial.config)
        self.store.add_report(row)
        self._observers.reported(row, message)

    def on_end(self, trial: Trial, error: str | None = None) -> None:
        """Record how a trial ended: completed by itself, stopped by scheduler or budget, or failed."""
        if trial.status != "running":
            return
        with self._lock:
            self.last_event = self.clock()
            cut_short = self.interrupted or (trial.stage != "search" and self.budget.time_is_up())
            # what ends a sweep often ends its processes too, as Slurm does: that is no failure of a trial
            ended, lost = self._endings.enter(trial, None if self.interrupted else error, cut_short=cut_short)
        if lost is not None:
            self.warn(f"{trial.trial_id}: {lost}; the encoder is made again")
        self._record(ended)

    def _record(self, ended: Iterable[Ended]) -> None:
        for one in ended:
            self.store.add_trial(one.row)
            TrialFiles(self.store.location, one.trial_id).remove()
            if one.given_up is not None:
                self.warn(f"arm {one.lane} is given up: its first {SYSTEMATIC} trials all failed the same way: "
                          f"{one.given_up}")
            self._observers.ended(one.row, self.progress())
