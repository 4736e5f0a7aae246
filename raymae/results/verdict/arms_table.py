"""The arms of a sweep, best first, as the text cells that terminal, page and Markdown put into their tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from raymae.results.verdict.numbers import aligned, column, duration, half_width, number, significant, span
from raymae.results.verdict.statistics import Interval
from raymae.results.verdict.verdict import Verdict


class Mean(Protocol):
    """A mean with its 95 % interval, where it has one."""

    @property
    def mean(self) -> float: ...

    @property
    def ci95(self) -> Interval | None: ...


@dataclass(frozen=True)
class ArmCells:
    """An arm's row.

    Attributes:
        arm: Its name.
        kind: `pretrained`, `trained` or `reference`.
        completed: Trials that ended so; `stopped` and `failed` likewise.
        val: Its best validation score.
        test: Its mean test score.
        half: The half-width of that mean's 95 % interval, or "".
        interval: The interval from end to end.
        seeds: Replicates that are scored.
        compute: Wall time of its trials.
        skill: Mean skill of its pretraining, or "" where it has none.
    """

    arm: str
    kind: str
    completed: str
    stopped: str
    failed: str
    val: str
    test: str
    half: str
    interval: str
    seeds: str
    compute: str
    skill: str


def arms_table(verdict: Verdict, *, alike: bool = False) -> list[ArmCells]:
    """The rows of all arms, best first.

    Args:
        verdict: What was found.
        alike: Scores of a column get the same number of decimals; otherwise four significant digits each.
    """
    scores = [verdict.test(arm) for arm in verdict.arms]
    best = [arm.val.score for arm in verdict.arms]
    means = mean_cells(scores) if alike else [(significant(score.mean if score else None), "") for score in scores]
    rows = zip(verdict.arms, scores, column(best) if alike else map(significant, best), means, strict=True)
    return [
        ArmCells(arm.arm, arm.kind, str(arm.num_trials.completed), str(arm.num_trials.stopped),
                 str(arm.num_trials.failed), val, test, half, span(score.ci95 if score else None), str(arm.n),
                 duration(arm.compute_s), "" if arm.skill is None else number(arm.skill.mean, 2))
        for arm, score, val, (test, half) in rows
    ]


def mean_cells(scores: Iterable[Mean | None]) -> list[tuple[str, str]]:
    """Means and the half-widths of their intervals, all with the same number of decimals; "" without an interval."""
    scores = list(scores)
    decimals = aligned(score.mean if score else None for score in scores)
    return [(number(score.mean if score else None, decimals),
             number(half_width(score.ci95), decimals) if score and score.ci95 else "") for score in scores]
