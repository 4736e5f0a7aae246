"""The finals of every lane: its search's best configurations, run again on more validation seeds before one is chosen.

Every lane that is searched gets the same: as many finalists (fewer where its search has fewer configurations), on the
same seeds. Which one is chosen is `raymae.results.verdict.finals`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raymae.results.verdict.finals import Chosen, Finalist, choose, may_be_chosen
from raymae.spec.sweep import SearchSpec
from raymae.spec.task import Objective

FINAL_SEED = 20_000  # beyond the seeds of searches and of replicates (`raymae.search.decide.proposals`)


class Finals:
    """The best completed trials of each search, the finals that they have, and the one that is chosen.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        objective: What is selected on.
        search: The sweep's search section.
        quota: Search trials by lane; changes in place.

    Attributes:
        seeds: Seeds of the finals, the same for every lane.
        closed: Lanes that get no more finals: they have them all, or the budget has ended, or replicates have begun.
    """

    def __init__(self, objective: Objective, search: SearchSpec, quota: Mapping[str, int]) -> None:
        self._objective, self._search, self._quota = objective, search, quota
        self.seeds = tuple(FINAL_SEED + 1000 * search.seed + number for number in range(search.finalist_seeds))
        self.closed: set[str] = set()
        self._ranked: dict[str, list[Finalist]] = {}
        self._begun: dict[str, set[int]] = {}  # seeds by configuration
        self._ended: dict[str, set[int]] = {}
        self._scores: dict[str, dict[int, float]] = {}

    # -- what there is -------------------------------------------------------------------------------------------------

    def admits(self, pretext: Mapping[str, float]) -> bool:
        """Whether a search trial's pretraining is one that may be chosen, by its `pretext_skill`."""
        return may_be_chosen(pretext.get("pretext_skill"), self._search.min_skill)

    def rank(self, lane: str, trial_id: str, config_id: str, score: float) -> None:
        """Enter a completed search trial with a finite score; of equals the first is better, of a configuration its
        best trial counts."""
        ranked = self._ranked.setdefault(lane, [])
        if not any(one.config_id == config_id and not self._objective.better(score, one.score) for one in ranked):
            others = [one for one in ranked if one.config_id != config_id]
            at = sum(not self._objective.better(score, one.score) for one in others)
            others.insert(at, Finalist(trial_id, config_id, score, {}))
            self._ranked[lane] = others[:max(self._search.finalists, 1)]

    def begin(self, config_id: str, seed: int) -> None:
        """Enter a final that is proposed, or that an earlier run left."""
        self._begun.setdefault(config_id, set()).add(seed)

    def end(self, config_id: str, seed: int, score: float | None) -> None:
        """Enter how a final ended.

        Args:
            config_id: Its configuration.
            seed: Its seed.
            score: Its validation score, which is not finite where it failed; None where the budget has stopped it.
        """
        self._ended.setdefault(config_id, set()).add(seed)
        if score is not None:
            self._scores.setdefault(config_id, {})[seed] = score

    def best_score(self, lane: str) -> float | None:
        """The best score of a lane's completed search trials; None where none completed."""
        ranked = self._ranked.get(lane)
        return ranked[0].score if ranked else None

    def chosen(self, lane: str) -> tuple[str, Chosen] | None:
        """The search trial whose configuration represents a lane, of those that completed, and how it was chosen;
        None where none did."""
        ranked = [replace(one, finals=self._scores.get(one.config_id, {})) for one in self._ranked.get(lane, ())]
        if not ranked:
            return None
        best, how = choose(ranked, self._objective, 1 + self._search.finalist_seeds)
        return best.trial_id, how

    # -- what there is to be -------------------------------------------------------------------------------------------

    def planned(self, lane: str) -> int:
        """Finals that a lane will have, if nothing is cut short: none where there is nothing to choose from."""
        return self._search.num_finals(self._quota.get(lane, 0))

    def left(self, lane: str) -> int:
        """Finals of a lane that have not ended."""
        if lane in self.closed:
            return 0
        ended = sum(len(self._ended.get(one.config_id, ())) for one in self._ranked.get(lane, ()))
        return max(0, self.planned(lane) - ended)

    def num_begun(self, lane: str) -> int:
        """Finals of a lane's finalists that there are, whether they have ended or not."""
        return sum(len(self._begun.get(one.config_id, ())) for one in self._ranked.get(lane, ()))

    def next(self, lane: str) -> tuple[str, int] | None:
        """The next final of a lane whose search is over: the search trial of the finalist, and the number of the seed.

        All finalists have a seed before any has the next one, so that a budget that ends leaves them comparable.
        """
        ranked = self._ranked.get(lane, ())
        if lane in self.closed or len(ranked) < 2 or not self.planned(lane):
            return None
        for number, seed in enumerate(self.seeds):
            for one in ranked:
                if seed not in self._begun.get(one.config_id, ()):
                    return one.trial_id, number
        return None
