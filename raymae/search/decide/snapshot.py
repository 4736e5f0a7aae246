"""A running sweep's progress, taken from its conductor's parts while its lock is held."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from raymae.results.verdict.verdict import SweepData, TrialCounts
from raymae.results.views.progress import ArmProgress, Failure, Progress, RunningTrial, StageCount, TestMean
from raymae.search.decide.budget import Budget
from raymae.search.decide.trials import ENDED, Status, Trial, Trials
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import VALIDATED


@dataclass(frozen=True)
class Watched:
    """What of a sweep does not change while it runs, or changes in place.

    Attributes:
        spec: The sweep.
        plans: Its lanes: each arm, in every cell of the factors.
        quota: Search trials by lane.
        replicates: Replicates by lane.
        trials: Its trials.
        budget: What is left.
        root: Its folder.
        source: `real` or `synthetic`.
        started_at: When this run began (ISO, UTC).
        commands: The last things that people have asked of it, for people.
    """

    spec: SweepSpec
    plans: Mapping[str, ArmPlan]
    quota: Mapping[str, int]
    replicates: Mapping[str, int]
    trials: Trials
    budget: Budget
    root: str
    source: str
    started_at: str
    commands: Collection[str]


def snapshot(sweep: Watched, now: float, *, dashboard: str | None) -> Progress:
    """Take the progress of a sweep.

    Args:
        sweep: The sweep.
        now: The time by its conductor's clock.
        dashboard: Ray's; None until Ray is up.
    """
    trials, budget = sweep.trials, sweep.budget
    left = budget.expected_s(sweep.quota)
    counts = TrialCounts(*(trials.num_ended(status) for status in ENDED))
    return Progress(
        sweep=sweep.spec.name, task=sweep.spec.task, root=sweep.root,
        data=SweepData(sweep.spec.data.name, "synthetic" if sweep.source == "synthetic" else "real", ""),
        objective=trials.objective, state="running", note="starting Ray" if dashboard is None else "",
        started_at=sweep.started_at, elapsed_s=round(budget.elapsed_s, 1),
        left_s=None if left is None else round(left, 1), dashboard=dashboard, slots=budget.slots,
        num_planned=sum(sweep.quota.values()) + sum(map(trials.finals.planned, sweep.quota)) + sum(
            sweep.replicates.values()),
        num_ended=counts.completed + counts.stopped + counts.failed, num_trials=counts, num_reports=None,
        last_report=None, arms=tuple(_arm(sweep, lanes) for lanes in _by_arm(sweep.plans)),
        running=tuple(_running(trial, trials.objective.val, now) for trial in trials.running.values()),
        failures=tuple(Failure(trial.trial_id, trial.error or "") for trial in trials.failures), headline="",
        commands=tuple(sweep.commands), dollars=_rounded(budget.dollars()),
    )


def _rounded(dollars: float | None) -> float | None:
    return None if dollars is None else round(dollars, 4)


def _by_arm(plans: Mapping[str, ArmPlan]) -> list[list[str]]:
    """The lanes of each arm."""
    found: dict[str, list[str]] = {}
    for lane, plan in plans.items():
        found.setdefault(plan.name, []).append(lane)
    return list(found.values())


def _arm(sweep: Watched, lanes: Sequence[str]) -> ArmProgress:
    """How far an arm is, all its lanes together; scores only where it has one, others are not of one kind."""
    trials, plan = sweep.trials, sweep.plans[lanes[0]]
    ended = [trials.ended[lane] for lane in lanes if lane in trials.ended]
    search, replicates = (_sum(trials.counts(lane, stage) for lane in lanes for stage in stages)
                          for stages in (VALIDATED, ("replicate",)))
    best, config = (trials.best(lanes[0]), trials.best_config(lanes[0])) if len(lanes) == 1 else (None, None)
    scores = [] if config is None else [
        trial.test[trials.objective.test] for trial in trials.of(lanes[0], "replicate")
        if trial.status == "completed" and trial.config.config_id == config.config_id
        and math.isfinite(trial.test.get(trials.objective.test, math.nan))]
    searched = sum(sweep.quota[lane] + trials.finals.planned(lane) for lane in lanes)
    return ArmProgress(
        plan.name, plan.arm.kind, _stage(search, searched),
        _stage(replicates, sum(sweep.replicates[lane] for lane in lanes)),
        TrialCounts(*(search.get(status, 0) + replicates.get(status, 0) for status in ENDED)),
        best.best[trials.objective.val] if best else None, best.trial_id if best else None,
        TestMean(math.fsum(scores) / len(scores), None) if scores else None, math.fsum(one.wall_s for one in ended),
    )


def _sum(counts: Iterable[Mapping[Status, int]]) -> Mapping[Status, int]:
    """Numbers of trials by status, of several lanes together."""
    total: Counter[Status] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _stage(counts: Mapping[Status, int], planned: int) -> StageCount:
    statuses = {str(status): number for status, number in counts.items()}
    return StageCount(sum(counts.get(status, 0) for status in ENDED), planned, statuses)


def _running(trial: Trial, metric: str, now: float) -> RunningTrial:
    report, best = trial.last.report if trial.last else None, trial.best.get(metric, math.nan)
    return RunningTrial(
        trial.trial_id, trial.config.arm, trial.stage, trial.attempt, report.phase if report else None,
        report.epoch if report else None,
        _number(trial.config.params.get("pretrain_epochs" if report and report.phase == "pretrain" else "epochs")),
        round(now - trial.started, 1), best if math.isfinite(best) else None,
    )


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None
