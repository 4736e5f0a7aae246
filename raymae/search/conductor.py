"""Who runs next: search trials per arm, then replicates of each arm's best, within the budget. No Ray in here.

The conductor owns the state of a running sweep. Tune's searcher asks it for trials, Tune's callback tells it about
reports, and it writes both to the store; the live display reads it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from raymae.results.store import Store
from raymae.search.algorithms import ArmStudy, EndStatus
from raymae.search.checkpoints import Keeper
from raymae.spec.resolve import ArmPlan, trial_config
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import Objective, Scalar, Stage, TrialConfig

if TYPE_CHECKING:
    import pandas as pd

REPLICATE_SEED = 10_000
SYSTEMATIC = 3  # first trials of an arm that fail the same way end the arm


@dataclass
class Trial:
    """One trial, from proposal to end."""

    trial_id: str
    config: TrialConfig
    sampled: Mapping[str, Scalar]
    started: float
    started_at: datetime
    attempt: int = 0
    next_step: int = 0
    status: Literal["pending", "running", "completed", "stopped", "failed"] = "running"
    best: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    error: str | None = None
    wall_s: float = 0.0

    @property
    def stage(self) -> Stage:
        """`search` or `replicate`."""
        return self.config.stage

    def job(self, objective: Objective, root: str) -> dict[str, Any]:
        """What a worker group needs to run it."""
        return {"trial_id": self.trial_id, "attempt": self.attempt, "config": self.config.to_json(),
                "objective": f"val_{objective.metric}", "root": root, "next_step": self.next_step}


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
        self.trials: dict[str, Trial] = {}
        self._interrupted: list[Trial] = []  # by an earlier end of the sweep; they go first
        self.interrupted = False
        self.hopeless: dict[str, str] = {}
        self.last_event = self.started
        self.warn: Callable[[str], None] = lambda message: None
        self.listener: Callable[[Trial], None] = lambda trial: None
        self.studies = {
            name: ArmStudy(plan, spec.search, objective, index) for index, (name, plan) in enumerate(plans.items())
        }
        self.quota = {name: study.num_trials for name, study in self.studies.items()}
        if spec.budget.num_trials is not None:
            self._shrink(spec.budget.num_trials)

    def _shrink(self, total: int) -> None:
        """Lower every arm's quota evenly until the sum fits the budget; every arm keeps at least one trial."""
        while sum(self.quota.values()) > total and max(self.quota.values()) > 1:
            largest = max(self.quota, key=lambda name: self.quota[name])
            self.quota[largest] -= 1

    # -- what runs next ------------------------------------------------------------------------------------------------

    def of(self, arm: str, stage: Stage) -> list[Trial]:
        """An arm's trials of a stage, in order of proposal."""
        known = [*self.trials.values(), *self._interrupted]
        return [trial for trial in known if trial.config.arm == arm and trial.stage == stage]

    @property
    def running(self) -> list[Trial]:
        """Trials under way."""
        return [trial for trial in self.trials.values() if trial.status == "running"]

    def num_replicates(self, arm: str) -> int:
        """Replicates of an arm: a reference without randomness needs one."""
        return min(self.spec.replicates, 1) if self.plans[arm].arm.kind == "reference" else self.spec.replicates

    @property
    def num_interrupted(self) -> int:
        """Trials of an earlier run that wait to be continued."""
        return len(self._interrupted)

    @property
    def num_planned(self) -> int:
        """Trials of the whole sweep, if none of the arms fails."""
        return sum(self.quota.values()) + sum(map(self.num_replicates, self.plans))

    def next(self) -> Trial | None:
        """The next trial to start, or None while all slots are busy or something must end first."""
        if len(self.running) >= self.slots or self.interrupted or self.time_is_up():
            return None
        if self._interrupted:
            return self._again(self._interrupted.pop(0))
        if not self.search_time_is_up():
            open_arms = [arm for arm in self.plans if len(self.of(arm, "search")) < self.quota[arm]]
            if open_arms:
                return self._search_trial(min(open_arms, key=lambda arm: len(self.of(arm, "search")) / self.quota[arm]))
        for arm in self.plans:
            if self._search_is_over(arm) and len(self.of(arm, "replicate")) < self.num_replicates(arm):
                best = self.best(arm)
                if best is not None:
                    return self._replicate(best, len(self.of(arm, "replicate")))
        return None

    def finished(self) -> bool:
        """Whether no trial will ever be proposed again."""
        if self.interrupted or self.time_is_up():
            return True
        return not self._interrupted and all(
            self._search_is_over(arm)
            and (self.best(arm) is None or len(self.of(arm, "replicate")) >= self.num_replicates(arm))
            for arm in self.plans
        )

    def _search_is_over(self, arm: str) -> bool:
        trials = self.of(arm, "search")
        proposed = len(trials) >= self.quota[arm] or self.search_time_is_up()
        return proposed and all(trial.status != "running" for trial in trials)

    def best(self, arm: str) -> Trial | None:
        """The arm's best search trial on validation: among completed ones, or else among stopped ones."""
        trials = [trial for trial in self.of(arm, "search") if math.isfinite(trial.best.get(self.metric, math.nan))]
        for status in ("completed", "stopped"):
            group = [trial for trial in trials if trial.status == status]
            if group:
                sign = 1 if self.objective.mode == "min" else -1
                return min(group, key=lambda trial: sign * trial.best[self.metric])
        return None

    def _search_trial(self, arm: str) -> Trial:
        trial_id = f"{arm}-{len(self.of(arm, 'search')):04d}"
        sampled = self.studies[arm].ask(trial_id)
        return self._start(trial_id, arm, sampled, self.spec.search.seed, "search")

    def _replicate(self, best: Trial, number: int) -> Trial:
        arm = best.config.arm
        seed = REPLICATE_SEED + 1000 * self.spec.search.seed + number
        return self._start(f"{arm}-seed{number}", arm, best.sampled, seed, "replicate")

    def _start(self, trial_id: str, arm: str, sampled: Mapping[str, Scalar], seed: int, stage: Stage) -> Trial:
        config = trial_config(self.spec, self.plans[arm], sampled, seed=seed, stage=stage, source=self.source)
        trial = Trial(trial_id, config, sampled, self.clock(), datetime.now(UTC))
        self.trials[trial_id] = trial
        self.store.write_config(trial_id, {**config.to_json(), "sampled": dict(sampled)})
        return trial

    def _again(self, trial: Trial) -> Trial:
        trial.started, trial.attempt = self.clock(), trial.attempt + 1
        self.trials[trial.trial_id] = trial
        if trial.stage == "search":
            self.studies[trial.config.arm].resume(trial.trial_id, trial.sampled)
        return trial

    def restore(self) -> int:
        """Take over what an earlier run of this sweep left in the store.

        Trials that ended are kept and told to the search; trials that were under way are continued first, from their
        last checkpoint. Returns how many trials had ended.
        """
        rows, reports = self.store.trials(), self.store.reports()
        ended = {str(row["trial_id"]): {str(key): value for key, value in row.items()}
                 for row in rows.to_dict("records")}
        recorded = dict(tuple(reports.groupby("trial_id")))
        for trial_id, plain in sorted(self.store.configs().items()):
            trial = Trial(trial_id, TrialConfig.from_json(plain), plain["sampled"], self.clock(), datetime.now(UTC))
            if trial_id in ended:
                self._restore_ended(trial, ended[trial_id], recorded.get(trial_id))
            else:
                if trial_id in recorded:
                    trial.next_step = int(recorded[trial_id]["step"].max()) + 1
                    trial.attempt = int(recorded[trial_id]["attempt"].max())
                self._interrupted.append(trial)
        return len(ended)

    def _restore_ended(self, trial: Trial, row: Mapping[str, Any], reports: pd.DataFrame | None) -> None:
        trial.status, trial.wall_s = row["status"], float(row["wall_s"])
        trial.best = {key: row[key] for key in row if key.startswith("val_") and math.isfinite(row[key])}
        self.trials[trial.trial_id] = trial
        if trial.stage == "search":
            values: dict[int, float] = {}
            if reports is not None:
                tuning = reports[reports["phase"] == "finetune"]
                values = {int(epoch): float(value) for epoch, value in zip(tuning["epoch"], tuning[self.metric],
                                                                           strict=True)}
            self.studies[trial.config.arm].add(
                trial.trial_id, trial.sampled, trial.status, values, trial.best.get(self.metric)  # type: ignore[arg-type]
            )

    # -- budget --------------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the sweep started."""
        return self.clock() - self.started

    def time_is_up(self) -> bool:
        """Whether the whole budget of wall time is spent."""
        limit = self.spec.budget.wall_minutes
        return limit is not None and self.elapsed >= 60 * limit

    def search_time_is_up(self) -> bool:
        """Whether the search must end so that the replicates still fit."""
        limit = self.spec.budget.wall_minutes
        return limit is not None and self.elapsed >= 60 * limit - self.replicate_seconds()

    def replicate_seconds(self) -> float:
        """Expected wall time of the replicates that are left: their sum over the slots, plus the longest, since they
        do not end together; with a tenth in reserve."""
        total = longest = 0.0
        for arm in self.plans:
            left = self.num_replicates(arm) - sum(t.status != "running" for t in self.of(arm, "replicate"))
            ended = [t.wall_s for t in self.of(arm, "search") if t.status == "completed"]
            best = self.best(arm)
            each = best.wall_s if best is not None else max(ended, default=0.0)
            total += left * each
            longest = max(longest, each if left else 0.0)
        return 1.1 * (total / self.slots + longest)

    def must_stop(self, trial: Trial) -> bool:
        """Whether a running trial has to end now because the budget is spent."""
        return self.interrupted or self.time_is_up() or (trial.stage == "search" and self.search_time_is_up())

    # -- what happened -------------------------------------------------------------------------------------------------

    def on_report(self, trial: Trial, message: Mapping[str, Any]) -> None:
        """Record one message of a trial's worker."""
        self.last_event = self.clock()
        trial.last = dict(message)
        trial.attempt = message.get("attempt", trial.attempt)
        if message.get("error") is not None:
            trial.error = message["error"]
            return
        trial.best = message["best"] or trial.best
        trial.wall_s = message["seconds"]
        metrics = message["metrics"]
        if message["phase"] == "finetune":
            trial.epochs = message["epoch"]
            if trial.stage == "search":
                self.studies[trial.config.arm].report(trial.trial_id, message["epoch"], trial.best[self.metric])
        if message["phase"] == "test":
            trial.test = {key: value for key, value in metrics.items() if key.startswith("test_")}
        self.store.add_report({
            "trial_id": trial.trial_id, "arm": trial.config.arm, "stage": trial.stage, "attempt": trial.attempt,
            "step": message["step"], "phase": message["phase"], "epoch": message["epoch"],
            "wall_s": message["seconds"], "time": datetime.now(UTC), **metrics,
        })

    def on_end(self, trial: Trial, error: str | None = None) -> None:
        """Record how a trial ended: completed by itself, stopped by scheduler or budget, or failed."""
        if trial.status != "running":
            return
        self.last_event = self.clock()
        trial.error = trial.error or error
        if trial.error is None and not trial.last.get("final") and self._to_be_continued(trial):
            trial.status = "pending"  # the next run of the sweep goes on from its checkpoint
            return
        status: EndStatus = "completed" if trial.last.get("final") else "stopped"
        if trial.error is not None:
            status = "failed"
        trial.status = status
        trial.wall_s = trial.wall_s or self.clock() - trial.started
        if trial.stage == "search":
            self.studies[trial.config.arm].tell(trial.trial_id, status, trial.best.get(self.metric))
        self.store.add_trial({
            "trial_id": trial.trial_id, "config_id": trial.config.config_id, "arm": trial.config.arm,
            "stage": trial.stage, "attempt": trial.attempt, "status": status, "seed": trial.config.seed,
            **trial.config.params, **trial.best, **trial.test, "epochs_done": trial.epochs,
            "num_parameters": trial.last.get("num_parameters"), "wall_s": trial.wall_s,
            "started_at": trial.started_at, "ended_at": datetime.now(UTC), "host": trial.last.get("host"),
            "pid": trial.last.get("pid"), "device": trial.last.get("device"), "error": trial.error,
        })
        Keeper(self.store.location, trial.trial_id).remove()
        if status == "failed":
            self._look_for_systematic_failure(trial.config.arm)
        self.listener(trial)

    def _to_be_continued(self, trial: Trial) -> bool:
        """Whether a trial that ended early was cut short by us, not by its scheduler."""
        return self.interrupted or (trial.stage == "replicate" and self.time_is_up())

    def _look_for_systematic_failure(self, arm: str) -> None:
        """End an arm whose first trials all fail the same way: more of them would burn the budget."""
        ended = [trial for trial in self.of(arm, "search") if trial.status not in ("running", "pending")]
        reasons = {_shape(trial.error) for trial in ended if trial.status == "failed"}
        if len(ended) == SYSTEMATIC and all(t.status == "failed" for t in ended) and len(reasons) == 1:
            self.quota[arm] = min(self.quota[arm], len(self.of(arm, "search")))
            self.hopeless[arm] = ended[-1].error or ""
            self.warn(f"arm {arm} is given up: its first {SYSTEMATIC} trials all failed the same way: "
                      f"{self.hopeless[arm]}")


def _shape(error: str | None) -> str:
    """An error without its numbers, so that two of a kind compare equal."""
    return re.sub(r"[-+]?\d[\d.e+-]*|nan|inf", "#", error or "")
