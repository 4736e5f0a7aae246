"""Which configuration of a search an arm is represented by: the best on one seed, or the best of several finalists.

A search takes the best of many scores, each of one seed, so the score of its best is flattered (the winner's curse),
and another configuration may be the better one. With `search.finalists: 3` the best three are run again on more
validation seeds, in trials of stage `final`, and the best mean is chosen. This is the one rule for it: while a sweep
runs it is asked of its trials (`raymae.search.decide.finals`), afterwards of their rows
(`raymae.results.verdict.cells`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raymae.spec.task import Objective


@dataclass(frozen=True)
class Finalist:
    """One of the best configurations of a search.

    Attributes:
        trial_id: The search trial that found it.
        config_id: The configuration.
        score: That trial's validation score.
        finals: By seed the validation score of the finals that are through; one that failed has none that is finite.
    """

    trial_id: str
    config_id: str
    score: float
    finals: Mapping[int, float]

    @property
    def failed(self) -> bool:
        """Whether one of its finals failed."""
        return not all(map(math.isfinite, self.finals.values()))


@dataclass(frozen=True)
class Chosen:
    """How an arm's configuration was chosen after its search.

    Attributes:
        finalists: Configurations that were compared.
        seeds: Validation seeds that they were compared over, that of the search among them.
        asked: Seeds that the sweep file asks for.
        mean: The chosen one's mean validation score over them.
        failed: Finalists that are out because training failed on a seed.
    """

    finalists: int
    seeds: int
    asked: int
    mean: float
    failed: int = 0


def may_be_chosen(skill: float | None, least: float | None) -> bool:
    """Whether a search trial's pretraining is one that its arm may be represented by, while there is such a one.

    Args:
        skill: Of its pretraining; None or NaN where it has none.
        least: `search.min_skill`.
    """
    return least is None or skill is None or math.isnan(skill) or skill > least


def lacking_skill(skill: float | None, least: float | None) -> float | None:
    """What a pretraining lacks to be one that its arm may be represented by; 0 where it may, None where any may."""
    if least is None:
        return None
    return 0.0 if skill is None or may_be_chosen(skill, least) else max(least - skill, 1e-12)


def choose(finalists: Sequence[Finalist], objective: Objective, asked: int) -> tuple[Finalist, Chosen]:
    """Choose one of the finalists: that of the best mean over the seeds that all of them have.

    A finalist that failed on a seed is out while another is left. Seeds that only some have yet, because the sweep goes
    on or its budget has ended, do not count: without any the best score of the search decides. Of equals it is the
    one that the search ranks higher.

    Args:
        finalists: The best of the search, best first; at least one.
        objective: What is selected on.
        asked: Seeds that the sweep file asks for, that of the search among them.
    """
    sound = [one for one in finalists if not one.failed]
    left = sound or list(finalists)
    common = sorted(set.intersection(*(set(_finite(one)) for one in left)))
    means = [math.fsum([one.score, *(one.finals[seed] for seed in common)]) / (1 + len(common)) for one in left]
    best = 0
    for index, mean in enumerate(means):
        if objective.better(mean, means[best]):
            best = index
    return left[best], Chosen(len(finalists), 1 + len(common), asked, means[best],
                              len(finalists) - len(sound) if sound else 0)


def _finite(finalist: Finalist) -> list[int]:
    return [seed for seed, score in finalist.finals.items() if math.isfinite(score)]
