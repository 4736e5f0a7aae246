"""Who runs next: search trials per arm, then replicates of each arm's best, within the budget. No Ray in here.

The conductor owns the state of a running sweep. Tune's searcher asks it for trials, Tune's callback tells it about
reports, and it writes both to the store; the live display reads it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from raymae.results.store.store import Store
from raymae.search.checkpoints import Keeper, tidy
from raymae.search.decide.algorithms import ArmStudy, EndStatus
from raymae.search.decide.budget import Budget
from raymae.search.decide.population import Population
from raymae.search.decide.trials import Ledger, Trial
from raymae.search.messages import NOT_STARTED, Job, Message, report_row
from raymae.spec.resolve import ArmPlan, trial_config
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Objective

REPLICATE_SEED = 10_000
SYSTEMATIC = 3  # first trials of an arm that fail the same way end the arm


class Recorder(Protocol):
    """Told every row that goes to the store, after it has gone there. It must not raise."""

    def report(self, row: Mapping[str, Any], message: Message) -> None:
        """One report: its row, and the worker's message that it was made of."""

    def trial(self, row: Mapping[str, Any]) -> None:
        """One trial ended."""


class Conductor:
    """The state of a running sweep.

    Args:
        spec: The sweep.
        plans: What each arm fixes and searches.
        objective: What is selected on.
        store: Where reports and trials go.
        source: `real` or `synthetic`.
        slots: Trials at once.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, spec: SweepSpec, plans: Mapping[str, ArmPlan], objective: Objective, store: Store, *, source: str,
        slots: int, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec, self.plans, self.objective, self.store, self.source = spec, plans, objective, store, source
        self.slots, self.clock = slots, clock
        self.metric = f"val_{objective.metric}"
        self.started = clock()
        self.ledger = Ledger(objective)
        self.waiting: list[Trial] = []  # interrupted by the end of an earlier run; they go first
        self._children: list[Trial] = []  # in place of trials that a population has ended; they go next
        self.interrupted = False
        self.squeezed = False  # other sweeps have taken slots from this one
        self.hopeless: dict[str, str] = {}
        self.last_event = self.started
        self.warn: Callable[[str], None] = lambda message: None
        self.recorders: list[Recorder] = []
        self.listener: Callable[[Trial], None] = lambda trial: None
        self.studies = {
            name: ArmStudy(plan, spec.search, objective, index) for index, (name, plan) in enumerate(plans.items())
        }
        self.populations = {
            name: Population(plan, spec.search, objective)
            for name, plan in plans.items() if spec.search.scheduler == "pbt" and plan.space
        }
        self.quota = {name: study.num_trials for name, study in self.studies.items()}
        self.budget = Budget(spec.budget, spec.resources, slots=slots)
        self.earlier_s = 0.0  # spent by earlier runs of this sweep: the budget is one run's
        if spec.budget.num_trials is not None:
            self._shrink(spec.budget.num_trials)

    def use_slots(self, slots: int) -> None:
        """Run so many trials at once: known once a cluster has been joined, and changed by other sweeps there."""
        self.squeezed = self.squeezed or slots < self.slots
        self.slots = self.budget.slots = slots

    @property
    def num_running(self) -> int:
        """Trials under way."""
        return len(self.ledger.running)

    def _shrink(self, total: int) -> None:
        """Lower every arm's quota evenly until the sum fits the budget; every arm keeps at least one trial."""
        while sum(self.quota.values()) > total and max(self.quota.values()) > 1:
            largest = max(self.quota, key=lambda name: self.quota[name])
            self.quota[largest] -= 1

    # -- what runs next ------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> dict[str, Trial]:
        """All trials by id, in order of proposal."""
        return self.ledger.trials

    def best(self, arm: str) -> Trial | None:
        """The arm's best search trial on validation."""
        return self.ledger.best(arm)

    def num_replicates(self, arm: str) -> int:
        """Replicates of an arm: a reference without randomness needs one."""
        return min(self.spec.replicates, 1) if self.plans[arm].arm.kind == "reference" else self.spec.replicates

    @property
    def num_interrupted(self) -> int:
        """Trials of an earlier run that wait to be continued."""
        return len(self.waiting)

    @property
    def num_planned(self) -> int:
        """Trials of the whole sweep, if none of the arms fails."""
        return sum(self.quota.values()) + sum(map(self.num_replicates, self.plans))

    def next(self) -> Trial | None:
        """The next trial to start, or None while all slots are busy or something must end first."""
        if len(self.ledger.running) >= self.slots or self.interrupted or self.time_is_up():
            return None
        if self.waiting:
            return self._again(self.waiting.pop(0))
        if not self.search_time_is_up():
            if self._children:
                return self._again(self._children.pop(0))
            shares = {arm: self.ledger.num_asked(arm) / self.quota[arm] for arm in self.plans}
            arm = min(shares, key=lambda name: shares[name])
            if shares[arm] < 1:
                return self._search_trial(arm)
        for arm in self.plans:
            best = self.best(arm)
            if best is not None and self._search_is_over(arm):
                number = self.ledger.num_replicates_of(best)
                if number < self.num_replicates(arm):
                    return self._replicate(best, number)
        return None

    def job(self, trial: Trial) -> Job:
        """What a worker group needs to run a trial."""
        population = self.populations.get(trial.config.arm)
        every = population.every if population is not None and trial.stage == "search" else 0
        return trial.job(self.objective, self.store.location, every)

    def finished(self) -> bool:
        """Whether no trial will ever be proposed again."""
        if self.interrupted or self.time_is_up():
            return True
        if self.waiting or not all(map(self._search_is_over, self.plans)):
            return False
        bests = ((arm, self.best(arm)) for arm in self.plans)
        return all(best is None or self.ledger.num_replicates_of(best) >= self.num_replicates(arm)
                   for arm, best in bests)

    def _search_is_over(self, arm: str) -> bool:
        if self.search_time_is_up():
            proposed = True
        else:
            proposed = self.ledger.num_asked(arm) >= self.quota[arm] and not any(
                child.config.arm == arm for child in self._children)
        running = any(t.config.arm == arm and t.stage == "search" for t in self.ledger.running.values())
        return proposed and not running

    def _search_trial(self, arm: str) -> Trial:
        trial_id = f"{arm}-{len(self.ledger.of(arm, 'search')):04d}"
        sampled = self.studies[arm].ask(trial_id)
        config = trial_config(self.spec, self.plans[arm], sampled, seed=self.spec.search.seed, stage="search",
                              source=self.source)
        return self._enter(Trial(trial_id, config, sampled, self.clock(), datetime.now(UTC)))

    def _replicate(self, best: Trial, number: int) -> Trial:
        seed = REPLICATE_SEED + 1000 * self.spec.search.seed + number
        data = {**self.spec.data.model_dump(), "source": self.source}  # may lie elsewhere than when the search ran
        config = replace(best.config, seed=seed, stage="replicate", data=data)
        trial_id = f"{best.trial_id}-seed{number}"
        return self._enter(Trial(trial_id, config, best.sampled, self.clock(), datetime.now(UTC)))

    def _enter(self, trial: Trial) -> Trial:
        self.ledger.add(trial)
        parent = {} if trial.parent is None else {"parent": asdict(trial.parent)}
        self.store.write_config(
            trial.trial_id, {**trial.config.to_json(), "sampled": dict(trial.sampled), **parent}
        )
        return trial

    def replaces(self, trial: Trial, epoch: int, step: int, value: float) -> bool:
        """Whether a population ends a trial at this epoch; a child of a better one is proposed in its place."""
        population = self.populations.get(trial.config.arm)
        if population is None or trial.stage != "search":
            return False
        population.note(trial.trial_id, epoch, step, value)
        parent = population.judge(trial.trial_id, epoch)
        if parent is None:
            return False
        better, arm = self.trials[parent.trial_id], trial.config.arm
        parent = replace(parent, config_id=better.config.config_id)
        sampled = population.mutate(better.sampled)
        before = {name: better.config.params[name] for name in self.plans[arm].live if name in better.sampled}
        config = replace(
            better.config, params=self.plans[arm].params(sampled),
            earlier=(*(one for one in better.config.earlier if one[0] < parent.epoch), (parent.epoch, before)),
        )
        child = Trial(f"{arm}-{len(self.ledger.of(arm, 'search')):04d}", config, sampled, self.clock(),
                      datetime.now(UTC), attempt=-1, next_step=parent.step + 1, status="pending", parent=parent)
        self._children.append(self._enter(child))
        return True

    def _again(self, trial: Trial) -> Trial:
        trial.started, trial.attempt, trial.status = self.clock(), trial.attempt + 1, "running"
        self.ledger.add(trial)
        if trial.stage == "search" and trial.parent is None:
            self.studies[trial.config.arm].resume(trial.trial_id, trial.sampled)
        return trial

    # -- budget --------------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the sweep started."""
        return self.clock() - self.started

    def seconds_left(self) -> float | None:
        """Seconds until the budget is spent; None without a limit."""
        spent = self.ledger.spent_s(self.clock()) - self.earlier_s
        return self.budget.seconds_left(elapsed_s=self.elapsed, trial_s=spent)

    def time_is_up(self) -> bool:
        """Whether the whole budget is spent."""
        left = self.seconds_left()
        return left is not None and left <= 0

    def search_time_is_up(self) -> bool:
        """Whether the search must end so that the replicates still fit."""
        left = self.seconds_left()
        return left is not None and left <= self.replicate_seconds()

    def replicate_seconds(self) -> float:
        """Expected wall time of the replicates that are left: their sum over the slots, plus the longest, since they
        do not end together; with a tenth in reserve."""
        total = longest = 0.0
        for arm in self.plans:
            best = self.best(arm)
            if best is None:
                continue
            ended = self.ledger.num_replicates_of(best) - sum(
                t.stage == "replicate" and t.config.arm == arm for t in self.ledger.running.values()
            )
            left = self.num_replicates(arm) - ended
            total += left * best.wall_s
            longest = max(longest, best.wall_s if left else 0.0)
        return 1.1 * (total / self.slots + longest)

    def must_stop(self, trial: Trial) -> bool:
        """Whether a running trial has to end now because the budget is spent."""
        return self.interrupted or self.time_is_up() or (trial.stage == "search" and self.search_time_is_up())

    # -- what happened -------------------------------------------------------------------------------------------------

    def on_report(self, trial: Trial, message: Message) -> None:
        """Record one message of a trial's worker."""
        self.last_event = self.clock()
        trial.last, trial.attempt, report = message, message.attempt, message.report
        if report is None:
            trial.error = message.failure
            return
        if message.warning:
            self.warn(f"{trial.trial_id}: {message.warning}")
        trial.best = report.best or trial.best
        trial.wall_s = report.seconds
        if report.phase == "finetune":
            trial.epochs = report.epoch
            if trial.stage == "search" and trial.parent is None:
                self.studies[trial.config.arm].report(trial.trial_id, report.epoch, trial.best[self.metric])
        if report.phase == "test":
            trial.test = {key: value for key, value in report.metrics.items() if key.startswith("test_")}
        row = report_row(message, trial.config)
        self.store.add_report(row)
        for recorder in self.recorders:
            recorder.report(row, message)

    def on_end(self, trial: Trial, error: str | None = None) -> None:
        """Record how a trial ended: completed by itself, stopped by scheduler or budget, or failed."""
        if trial.status != "running":
            return
        self.last_event = self.clock()
        trial.error = trial.error or error
        ended = trial.error is not None or (trial.last is not None and trial.last.final)
        if trial.error == NOT_STARTED or (not ended and self._to_be_continued(trial)):
            trial.status = "pending"  # the next run of the sweep goes on from its checkpoint
            self.ledger.end(trial)
            return
        status: EndStatus = "failed" if trial.error is not None else "completed" if ended else "stopped"
        trial.status = status
        trial.wall_s = trial.wall_s or self.clock() - trial.started
        self.ledger.end(trial)
        if trial.stage == "search" and trial.parent is None:
            costs = {"wall_s": trial.wall_s, "num_parameters": trial.num_parameters, None: None}
            cost = costs[self.spec.search.cost]
            self.studies[trial.config.arm].tell(trial.trial_id, status, trial.best.get(self.metric), cost)
        worker = trial.last and trial.last.worker
        row = {
            "trial_id": trial.trial_id, "config_id": trial.config.config_id, "arm": trial.config.arm,
            "stage": trial.stage, "attempt": trial.attempt, "status": status, "seed": trial.config.seed,
            **trial.config.params, **trial.best, **trial.test, "epochs_done": trial.epochs,
            "num_parameters": trial.num_parameters, "wall_s": trial.wall_s,
            "started_at": trial.started_at, "ended_at": datetime.now(UTC), "host": worker and worker.host,
            "pid": worker and worker.pid, "device": worker and worker.device, "error": trial.error,
            **({"parent": f"{trial.parent.trial_id}@{trial.parent.epoch}"} if trial.parent else {}),
        }
        self.store.add_trial(row)
        for recorder in self.recorders:
            recorder.trial(row)
        Keeper(self.store.location, trial.trial_id).remove()
        if status == "failed":
            self._look_for_systematic_failure(trial.config.arm)
        self.listener(trial)

    def close(self) -> None:
        """Tidy up after the last trial; populations keep their checkpoints until nobody can go on from one."""
        ended = {name for name, trial in self.trials.items() if trial.status not in ("running", "pending")}
        tidy(self.store.location, ended, milestones=self.finished() and not self.interrupted)

    def _to_be_continued(self, trial: Trial) -> bool:
        """Whether a trial that ended early was cut short by us, not by its scheduler."""
        return self.interrupted or (trial.stage == "replicate" and self.time_is_up())

    def _look_for_systematic_failure(self, arm: str) -> None:
        """End an arm whose first trials all fail the same way: more of them would burn the budget."""
        ended = [t for t in self.ledger.of(arm, "search") if t.status not in ("running", "pending")]
        reasons = {_shape(trial.error) for trial in ended if trial.status == "failed"}
        if len(ended) == SYSTEMATIC and all(t.status == "failed" for t in ended) and len(reasons) == 1:
            self.quota[arm] = min(self.quota[arm], len(self.ledger.of(arm, "search")))
            self.hopeless[arm] = ended[-1].error or ""
            self.warn(f"arm {arm} is given up: its first {SYSTEMATIC} trials all failed the same way: "
                      f"{self.hopeless[arm]}")


def _shape(error: str | None) -> str:
    """An error without its numbers, so that two of a kind compare equal."""
    return re.sub(r"[-+]?\d[\d.e+-]*|nan|inf", "#", error or "")
