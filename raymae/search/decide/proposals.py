"""How a trial comes to be: sampled by its arm's study, repeated on a fresh seed, or in place of one of a population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from raymae.search.decide.trials import Trial
from raymae.search.messages import Parent
from raymae.spec.resolve import ArmPlan, data_of, trial_config
from raymae.spec.space import Scalar
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import DataSource, TrialConfig

REPLICATE_SEED = 10_000  # and so many seeds has a search before they come round, so that none is a replicate's


class Proposals:
    """Makes the trials of a sweep.

    Args:
        spec: The sweep.
        plans: What each lane fixes and searches.
        source: `real` or `synthetic`.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, spec: SweepSpec, plans: Mapping[str, ArmPlan], source: DataSource, clock: Callable[[], float]
    ) -> None:
        self._spec, self._plans, self._source, self._clock = spec, plans, source, clock

    def sampled(self, trial_id: str, lane: str, number: int, sampled: Mapping[str, Scalar]) -> Trial:
        """A trial of the search with the values that the lane's study chose.

        Every trial of a lane has a seed of its own: with few labels, a search on one seed would choose what suits one
        draw of them. Lanes have the same seeds in the same order.

        Args:
            trial_id: Its name.
            lane: Its lane.
            number: How many trials the lane's study was asked for before.
            sampled: Its values.
        """
        seed = 1000 * self._spec.search.seed + number % REPLICATE_SEED
        config = trial_config(self._spec, self._plans[lane], sampled, seed=seed, stage="search", source=self._source)
        return Trial(trial_id, config, sampled, self._clock(), datetime.now(UTC), lane=lane)

    def final(self, finalist: Trial, number: int, seed: int) -> Trial:
        """A trial of one of a search's best configurations on another validation seed; it pretrains anew.

        Args:
            finalist: The search trial that found it.
            number: Which of its seeds, from 0.
            seed: The seed.
        """
        data = data_of(self._spec, self._plans[finalist.lane], self._source)
        config = replace(finalist.config, seed=seed, stage="final", data=data, pretrain_seed=None)
        return Trial(f"{finalist.trial_id}-final{number}", config, finalist.sampled, self._clock(), datetime.now(UTC),
                     lane=finalist.lane, repeats=finalist.trial_id)

    def replicate(self, best: Trial, number: int, lane: str, repeated: TrialConfig) -> Trial:
        """A trial of a lane's best configuration on a fresh seed; lanes have the same seeds.

        Args:
            best: The trial that found the configuration, of this lane or of the one that is searched for it.
            number: Which replicate, from 0.
            lane: The lane.
            repeated: The configuration, with the lane's values of the factors.
        """
        seed = REPLICATE_SEED + 1000 * self._spec.search.seed + number
        # it may lie elsewhere than when the search ran
        data = data_of(self._spec, self._plans[lane], self._source)
        # it pretrains anew: what is said of pretraining must hold over its own seeds, too
        config = replace(repeated, seed=seed, stage="replicate", data=data, pretrain_seed=None)
        name = f"{lane}{best.trial_id.removeprefix(best.lane)}-seed{number}"
        return Trial(name, config, best.sampled, self._clock(), datetime.now(UTC), lane=lane,
                     repeats="" if best.lane == lane else best.trial_id)

    def child(self, trial_id: str, better: Trial, sampled: Mapping[str, Scalar], parent: Parent) -> Trial:
        """A pending trial that goes on from another's state, with other values of what may change while training.

        Args:
            trial_id: Its name.
            better: The trial it goes on from.
            sampled: Its values.
            parent: Where that trial was.
        """
        plan = self._plans[better.lane]
        before = {name: better.config.params[name] for name in plan.live if name in better.sampled}
        kept = (change for change in better.config.earlier if change[0] < parent.epoch)
        config = replace(better.config, params=plan.params(sampled), earlier=(*kept, (parent.epoch, before)))
        return Trial(trial_id, config, sampled, self._clock(), datetime.now(UTC), attempt=-1,
                     next_step=parent.step + 1, status="pending",
                     parent=replace(parent, config_id=better.config.config_id), lane=better.lane)
