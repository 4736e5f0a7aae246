"""From a sweep file and a task's description to what each arm fixes and searches.

Precedence, weakest first: the task's defaults, the size preset, `training` and `settings`, the arm's own fixed values,
`space`. Factors are none of these: a sweep file says them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raymae.spec.arms import Origin, fixed_in, origin_of
from raymae.spec.constraints import Constraint
from raymae.spec.factors import Cell, cells, factors_of, held, home_cell, lane
from raymae.spec.space import Choice, IntRange, LogUniform, Scalar, Uniform, ordered
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Arm, TaskSchema, TrainingParams, is_live, phase_of
from raymae.spec.trial import DataSource, Stage, TrialConfig, TrialData

# what only a loop that pretrains reads: an arm that starts from weights as they are has none of it
UNADOPTED = frozenset(name for name in TrainingParams.model_fields if phase_of(TrainingParams, name) == "pretrain")


@dataclass(frozen=True)
class ArmPlan:
    """What one arm fixes and what is searched for it, in the cells of a sweep in which it is the same.

    Attributes:
        name: The arm.
        arm: Its kind and description.
        fixed: Every parameter the arm has, at its fixed or default value.
        space: The distributions that apply to the arm, in an order in which conditions can be decided.
        constraints: What every configuration satisfies.
        live: The searched parameters that may change while a trial trains.
        shared: The searched parameters that pretraining reads, of an arm that pretrains.
        origin: The task's arm that it is like, and the weights that it starts from.
        weights: The content of those, as a hash; "" where it starts from none, or they have not been read.
        times_epochs: How many times the epochs of fine-tuning it gets, so that arms are equal in what `fair` says.
        epoch_cost: What an epoch of fine-tuning costs in that, where it was measured.
        cell: The values of the sweep's factors that it has.
        lane: Names it within the sweep; the arm's name where it has no factor.
        home: The lane whose search serves it: its own, unless another cell is searched for all.
        encoder_cell: Those of its values of factors that pretraining reads.
    """

    name: str
    arm: Arm
    fixed: Mapping[str, Scalar]
    space: Mapping[str, Uniform | LogUniform | IntRange | Choice]
    constraints: tuple[Constraint, ...] = ()
    live: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    times_epochs: float = 1.0
    epoch_cost: float | None = None
    origin: Origin = field(default_factory=Origin)
    weights: str = ""
    cell: Cell = field(default_factory=dict)
    lane: str = ""
    home: str = ""
    encoder_cell: Cell = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lane", self.lane or self.name)
        object.__setattr__(self, "home", self.home or self.lane)

    def params(self, sampled: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The arm's complete parameters with the sampled ones laid over the fixed ones."""
        params = {**self.fixed, **{name: _like(value, self.fixed[name]) for name, value in sampled.items()}}
        if self.times_epochs != 1:
            params["epochs"] = self._lengthened(params["epochs"])
        return params

    def _lengthened(self, epochs: Scalar) -> int:
        return max(1, round(self.times_epochs * int(epochs or 1)))

    def admits(self, sampled: Mapping[str, Scalar]) -> bool:
        """Whether a configuration satisfies every constraint."""
        values = {"arm": self.name, **self.params(sampled)}
        return all(constraint.holds(values) for constraint in self.constraints)

    def num_trials(self, asked: int) -> int:
        """Search trials: one where there is nothing to search."""
        return asked if self.space else 1

    @property
    def longest(self) -> int:
        """Fine-tuning epochs of the longest trial."""
        epochs = self.space["epochs"].probes() if "epochs" in self.space else [self.fixed.get("epochs", 1)]
        return self._lengthened(max(int(value) for value in epochs if value is not None))


def _like(value: Scalar, default: Scalar) -> Scalar:
    """A whole number as a real one where the parameter is real: 1 and 1.0 are the same configuration."""
    return float(value) if isinstance(default, float) and type(value) is int else value


def arm_plans(spec: SweepSpec, schema: TaskSchema) -> dict[str, ArmPlan]:
    """Resolve every arm in every cell, by lane, cell by cell; by arm where the sweep has no factors."""
    plans: dict[str, ArmPlan] = {}
    for cell in cells(spec.factors):
        for name in spec.arms:
            plan = arm_plan(spec, schema, name, cell)
            plans.setdefault(plan.lane, plan)
    return plans


def arm_plan(spec: SweepSpec, schema: TaskSchema, name: str, cell: Cell | None = None) -> ArmPlan:
    """Resolve one arm. The spec must have been checked against the schema (`raymae.spec.check` found nothing), which
    has the sweep's own arms (`raymae.spec.arms.with_arms`).

    Args:
        spec: The sweep.
        schema: Its task.
        name: The arm.
        cell: A value of each factor; of a sweep that has any the first by default.
    """
    arm, origin = schema.arms[name], origin_of(spec, schema, name)
    cell = {key: values[0] for key, values in spec.factors.items()} if cell is None else cell
    factors, home = (held(one, factors_of(spec, schema, name)) for one in (cell, home_cell(spec, cell)))

    def has(key: str) -> bool:
        return schema.has(name, key) and not (origin.adopts and key in UNADOPTED)

    def may_search(key: str) -> bool:
        return has(key) and not (origin.adopts and phase_of(schema.params, key) == "pretrain")

    own = fixed_in(spec, name)
    defaults = schema.params.model_construct().model_dump()
    merged = {
        **defaults,
        **schema.preset(spec.size, name),
        **spec.training.model_dump(exclude_unset=True),
        **spec.settings,
        **own,
        **factors,
    }
    fixed = {key: _like(value, defaults[key]) for key, value in merged.items() if has(key)}
    space = {
        key: spec.space[key]
        for key in ordered(spec.space)
        if may_search(key)
        and key not in own
        and name in spec.space[key].when.get("arm", [name])
    }
    live = tuple(key for key in space if is_live(schema.params, key))
    constraints = tuple(map(Constraint, spec.constraints))
    space = {key: _possible(name, key, distribution, constraints) for key, distribution in space.items()}
    shared = tuple(key for key in space if arm.kind == "pretrained" and phase_of(schema.params, key) != "finetune")
    return ArmPlan(name, arm, fixed, space, constraints, live, shared, origin=origin,
                   cell={key: fixed[key] for key in factors}, lane=lane(name, factors, spec.factors),
                   home=lane(name, home, spec.factors),
                   encoder_cell={key: fixed[key] for key in factors if phase_of(schema.params, key) != "finetune"})


def _possible(
    arm: str, name: str, distribution: Uniform | LogUniform | IntRange | Choice, constraints: tuple[Constraint, ...]
) -> Uniform | LogUniform | IntRange | Choice:
    """A choice without the values that a constraint on this parameter alone forbids the arm.

    A sampler learns nothing from what it may not try: Optuna's TPE would propose a forbidden value again and again,
    as the one it knows least about.
    """
    if not isinstance(distribution, Choice):
        return distribution
    alone = [constraint for constraint in constraints if name in constraint.names <= {"arm", name}]
    left = [value for value in distribution.choice
            if not any(_forbids(constraint, {"arm": arm, name: value}) for constraint in alone)]
    return distribution.model_copy(update={"choice": left}) if left else distribution


def _forbids(constraint: Constraint, values: Mapping[str, Scalar]) -> bool:
    try:
        return not constraint.holds(values)
    except ValueError:  # it cannot be computed for them: the check of the sweep file says so, with its line
        return False


def shares_encoders(lane: str, plans: Mapping[str, ArmPlan]) -> bool:
    """Whether what a lane repeats on other seeds starts from the encoders of another one, of the lane that is searched
    for it or of an earlier one that is searched: there the search must have no part in what pretraining reads.

    Args:
        lane: The lane.
        plans: All of them, in their order.
    """
    plan = plans[lane]
    if plan.home != lane:
        return plan.encoder_cell == plans[plan.home].encoder_cell
    alike = (one for one, other in plans.items()
             if other.home == one and (other.name, other.encoder_cell) == (plan.name, plan.encoder_cell))
    return not plan.shared and next(alike) != lane


def trial_config(
    spec: SweepSpec, plan: ArmPlan, sampled: Mapping[str, Scalar], *, seed: int, stage: Stage,
    source: DataSource,
) -> TrialConfig:
    """One trial of an arm.

    Args:
        spec: The sweep.
        plan: The arm.
        sampled: What the search chose.
        seed: The trial's seed.
        stage: `search` or `replicate`.
        source: `real` or `synthetic`, decided once for the whole sweep.
    """
    like = plan.origin.like if plan.origin.like != plan.name else ""
    return TrialConfig(spec.task, plan.name, plan.params(sampled), data_of(spec, plan, source), seed, stage,
                       like=like, weights=plan.weights, goes_on=plan.origin.goes_on and bool(plan.weights))


def data_of(spec: SweepSpec, plan: ArmPlan, source: DataSource) -> TrialData:
    """What the trials of an arm read: the corpora of pretraining too where it pretrains."""
    pretrains = plan.arm.kind == "pretrained" and not plan.origin.adopts
    return TrialData(spec.data, source, *([spec.pretraining] if pretrains else []))
