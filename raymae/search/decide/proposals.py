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
from raymae.spec.trial import DataSource

REPLICATE_SEED = 10_000  # and so many seeds has a search before they come round, so that none is a replicate's


class Proposals:
    """Makes the trials of a sweep.

    Args:
        spec: The sweep.
        plans: What each arm fixes and searches.
        source: `real` or `synthetic`.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, spec: SweepSpec, plans: Mapping[str, ArmPlan], source: DataSource, clock: Callable[[], float]
    ) -> None:
        self._spec, self._plans, self._source, self._clock = spec, plans, source, clock

    def sampled(self, trial_id: str, arm: str, number: int, sampled: Mapping[str, Scalar]) -> Trial:
        """A trial of the search with the values that the arm's study chose.

        Every trial of an arm has a seed of its own: with few labels, a search on one seed would choose what suits one
        draw of them. Arms have the same seeds in the same order.

        Args:
            trial_id: Its name.
            arm: Its arm.
            number: How many trials the arm's study was asked for before.
            sampled: Its values.
        """
        seed = 1000 * self._spec.search.seed + number % REPLICATE_SEED
        config = trial_config(self._spec, self._plans[arm], sampled, seed=seed, stage="search", source=self._source)
        return Trial(trial_id, config, sampled, self._clock(), datetime.now(UTC))

    def replicate(self, best: Trial, number: int) -> Trial:
        """A trial of an arm's best configuration on a fresh seed; arms have the same seeds.

        Args:
            best: The trial that found the configuration.
            number: Which replicate, from 0.
        """
        seed = REPLICATE_SEED + 1000 * self._spec.search.seed + number
        # it may lie elsewhere than when the search ran
        data = data_of(self._spec, self._plans[best.config.arm], self._source)
        # it pretrains anew: what is said of pretraining must hold over its own seeds, too
        config = replace(best.config, seed=seed, stage="replicate", data=data, pretrain_seed=None)
        return Trial(f"{best.trial_id}-seed{number}", config, best.sampled, self._clock(), datetime.now(UTC))

    def child(self, trial_id: str, better: Trial, sampled: Mapping[str, Scalar], parent: Parent) -> Trial:
        """A pending trial that goes on from another's state, with other values of what may change while training.

        Args:
            trial_id: Its name.
            better: The trial it goes on from.
            sampled: Its values.
            parent: Where that trial was.
        """
        plan = self._plans[better.config.arm]
        before = {name: better.config.params[name] for name in plan.live if name in better.sampled}
        kept = (change for change in better.config.earlier if change[0] < parent.epoch)
        config = replace(better.config, params=plan.params(sampled), earlier=(*kept, (parent.epoch, before)))
        return Trial(trial_id, config, sampled, self._clock(), datetime.now(UTC), attempt=-1,
                     next_step=parent.step + 1, status="pending",
                     parent=replace(parent, config_id=better.config.config_id))
