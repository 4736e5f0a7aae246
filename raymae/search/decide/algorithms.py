"""Optuna and Tune's schedulers, one of each per arm, told the truth about how trials ended."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import optuna

from raymae.errors import TrialError
from raymae.spec.resolve import ArmPlan
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Uniform, contains
from raymae.spec.sweep import SearchSpec
from raymae.spec.task import Objective

MAX_DRAWS = 1000
PATIENT_DRAWS = 50  # of a sampler that proposes what breaks a constraint, before chance takes over
SKILL = "pretext_skill"  # the constraint of what `search.min_skill` lets nobody choose
EndStatus = Literal["completed", "stopped", "failed"]


def make_sampler(search: SearchSpec, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler behind `search.algorithm`; a grid is enqueued, so its sampler does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.algorithm:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True,
                    n_startup_trials=min(10, max(3, search.num_trials // 3)),
                )
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=min(10, max(3, search.num_trials // 3)))
            case "cmaes":
                return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "qmc":
                return optuna.samplers.QMCSampler(
                    seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
                )
            case "random" | "grid":
                return optuna.samplers.RandomSampler(seed=seed)


def optuna_distribution(
    distribution: Uniform | LogUniform | IntRange | Choice
) -> optuna.distributions.BaseDistribution:
    """Turn a distribution into Optuna's."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return optuna.distributions.FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return optuna.distributions.FloatDistribution(low, high, log=True)
        case IntRange(range_=(low, high), step=step):
            return optuna.distributions.IntDistribution(low, high - (high - low) % step, step=step)
        case Choice(choice=values):
            return optuna.distributions.CategoricalDistribution(values)


def suggest(trial: optuna.Trial, name: str, distribution: Uniform | LogUniform | IntRange | Choice) -> Scalar:
    """Draw one parameter."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return trial.suggest_float(name, low, high)
        case LogUniform(loguniform=(low, high)):
            return trial.suggest_float(name, low, high, log=True)
        case IntRange(range_=(low, high), step=step):
            return trial.suggest_int(name, low, high - (high - low) % step, step=step)
        case Choice(choice=values):
            return trial.suggest_categorical(name, values)


class ArmStudy:
    """The search of one arm: an Optuna study, asked and told.

    Args:
        plan: What the arm fixes and searches.
        search: The sweep's search section.
        objective: What is selected on.
        index: The arm's place, so that arms draw from different streams.
    """

    def __init__(self, plan: ArmPlan, search: SearchSpec, objective: Objective, index: int = 0) -> None:
        self.plan = plan
        directions = optuna.study.StudyDirection
        better = directions.MINIMIZE if objective.mode == "min" else directions.MAXIMIZE
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler_seed = (search.seed * 1000 + index) % 2**32
        sampler = make_sampler(search, sampler_seed)
        self.costly = search.cost is not None
        self.study = optuna.create_study(
            directions=[better, directions.MINIMIZE] if self.costly else [better], sampler=sampler
        )
        self.num_trials = plan.num_trials(search.num_trials)
        self._by_chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sampler_seed))
        self._asked: dict[str, optuna.Trial] = {}
        self._points = self._in_groups() if search.algorithm == "grid" else self._first(search.points)
        self._is_grid = search.algorithm == "grid"
        if self._is_grid:
            self.num_trials = len(self._points)

    def _in_groups(self) -> list[dict[str, Scalar]]:
        """The points of the grid, those together that start from one encoder."""
        groups: dict[tuple[tuple[str, Scalar], ...], list[dict[str, Scalar]]] = {}
        for point in grid(self.plan):
            groups.setdefault(tuple(item for item in point.items() if item[0] in self.plan.shared), []).append(point)
        return [point for group in groups.values() for point in group]

    def _first(self, given: Iterable[Mapping[str, Scalar]]) -> list[dict[str, Scalar]]:
        """What is tried before the sampler proposes: what the sweep file gives, then what one would have run."""
        found: list[dict[str, Scalar]] = []
        for point in [*({name: value for name, value in one.items() if name in self.plan.space} for one in given),
                      *self._default()]:
            if point and point not in found:
                found.append(point)
        return found

    def _default(self) -> list[dict[str, Scalar]]:
        """The first trial is what one would have run without a search, as far as the space holds it."""
        fixed, space = self.plan.fixed, self.plan.space
        point = {name: fixed[name] for name in space if contains(space[name], fixed[name])}
        return [point] if point and self.plan.admits(point) else []

    def add(self, trial_id: str, sampled: Mapping[str, Scalar], status: EndStatus, values: Mapping[int, float],
            best: float | None, cost: float | None = None, lacking: float | None = None) -> None:
        """Tell the study of a trial that ended in an earlier run of the sweep, or in another sweep.

        Args:
            trial_id: For people.
            sampled: What had been sampled.
            status: How it ended.
            values: Intermediate values by epoch.
            best: Its score, if it completed.
            cost: Its cost, where the search minds it.
            lacking: What its pretraining lacks to be one that may be chosen; None where any may.
        """
        finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
        reached = self._values(best, cost) if status == "completed" else None
        states = optuna.trial.TrialState
        stopped = states.FAIL if self.costly else states.PRUNED  # Optuna prunes no study of several objectives
        self.study.add_trial(optuna.trial.create_trial(
            state=states.COMPLETE if reached else stopped if status == "stopped" else states.FAIL,
            values=reached, params=dict(sampled), intermediate_values=finite,
            distributions={name: optuna_distribution(self.plan.space[name]) for name in sampled},
            user_attrs={"trial_id": trial_id}, constraints={SKILL: lacking} if lacking is not None else None,
        ))
        self._points = [point for point in self._points if not point.items() <= sampled.items()]

    def resume(self, trial_id: str, sampled: Mapping[str, Scalar]) -> None:
        """Take up a trial that was interrupted: the study treats it as just asked, unless it was."""
        if trial_id in self._asked:
            return
        self.study.enqueue_trial(dict(sampled))
        self._sample(trial_id)
        self._points = [point for point in self._points if not point.items() <= sampled.items()]

    def ask(
        self, trial_id: str, fixed: Mapping[str, Scalar] | None = None, others: Iterable[Mapping[str, Scalar]] = ()
    ) -> dict[str, Scalar]:
        """Propose the next configuration: a value for every searched parameter that exists in it.

        Args:
            trial_id: For people.
            fixed: Values that it must have, those of an encoder that is there; of a grid only while it has such points.
            others: Those of other encoders, whose points a grid leaves for later.
        """
        point = next((point for point in self._points if fixed and fixed.items() <= point.items()), None)
        if point is None and (self._is_grid or not fixed):
            later = [other.items() for other in others if other]
            point = next((point for point in self._points if not any(other <= point.items() for other in later)),
                         next(iter(self._points), None))
        if point is None:
            return self._sample(trial_id, fixed)
        self._points.remove(point)
        self.study.enqueue_trial(point)
        return self._sample(trial_id)

    def complete(self, trial_id: str, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Propose a configuration that has all values of a point; what it leaves open is the sampler's.

        Raises:
            TrialError: No draw of the other parameters satisfies the constraints.
        """
        return self._sample(trial_id, point)

    def _sample(self, trial_id: str, fixed: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Take the sampler's first proposal that satisfies every constraint, with these values fixed.

        What breaks one is told as a failure, from which no sampler learns: where proposals go on breaking them, one
        is drawn by chance in their place.

        Raises:
            TrialError: No draw satisfies them.
        """
        for number in range(MAX_DRAWS):
            if number >= PATIENT_DRAWS:
                if fixed:
                    self._by_chance.enqueue_trial(dict(fixed))
                drawn = self._drawn(self._by_chance.ask())
                if not self.plan.admits(drawn):
                    continue
                self.study.enqueue_trial(drawn)
            elif fixed:
                self.study.enqueue_trial(dict(fixed))
            trial = self.study.ask()
            sampled = self._drawn(trial)
            if self.plan.admits(sampled):
                self._asked[trial_id] = trial
                return sampled
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise TrialError(f"arm {self.plan.name}: {MAX_DRAWS} draws in a row break a constraint; widen the space or "
                         f"loosen {[constraint.text for constraint in self.plan.constraints]}")

    def _drawn(self, trial: optuna.Trial) -> dict[str, Scalar]:
        """The values that a sampler gives to a trial, for every parameter that exists in it."""
        sampled: dict[str, Scalar] = {}
        for name, distribution in self.plan.space.items():
            if distribution.active({"arm": self.plan.name, **sampled}):
                sampled[name] = suggest(trial, name, distribution)
        return sampled

    def _values(self, value: float | None, cost: float | None) -> list[float] | None:
        """What a completed trial is judged by, or None where something is missing or not finite."""
        values = [value, cost] if self.costly else [value]
        finite = [number for number in values if number is not None and math.isfinite(number)]
        return finite if len(finite) == len(values) else None

    def report(self, trial_id: str, epoch: int, value: float) -> None:
        """Note an intermediate value; what a stopped trial is judged by."""
        if math.isfinite(value) and not self.costly:
            self._asked[trial_id].report(value, epoch)

    def tell(
        self, trial_id: str, status: EndStatus, value: float | None, cost: float | None = None,
        lacking: float | None = None,
    ) -> None:
        """Note how a trial ended. Stopped is pruned, never complete; no finite value is a failure.

        One whose pretraining may not be chosen breaks a constraint: TPE and the Gaussian process move away from it
        however good it is; the other samplers know no constraints. A study of metric and cost knows no pruned trials
        (optuna#3450): there, stopped is a failure, too.
        """
        trial = self._asked.pop(trial_id)
        if lacking is not None:  # 0 as well: Optuna's Gaussian process wants it of all trials or of none
            trial.set_constraint(SKILL, lacking)
        reached = self._values(value, cost) if status == "completed" else None
        if reached:
            self.study.tell(trial, reached)
        elif status == "stopped" and not self.costly:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)


def grid(plan: ArmPlan) -> Iterator[dict[str, Scalar]]:
    """Every point of an arm's finite space, conditions respected, each once."""
    names = list(plan.space)
    seen: set[tuple[tuple[str, Scalar], ...]] = set()
    for values in itertools.product(*(plan.space[name].values() or () for name in names)):
        point: dict[str, Scalar] = {}
        for name, value in zip(names, values, strict=True):
            if plan.space[name].active({"arm": plan.name, **point}):
                point[name] = value
        key = tuple(point.items())
        if key not in seen and plan.admits(point):
            seen.add(key)
            yield point
