"""What a task says about itself is complete and consistent."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from raymae.contract.subject import Check, Subject, require
from raymae.spec.task import ArmKind, Mode, Phase, TrainingParams, applies, phase_of

KINDS: tuple[ArmKind, ...] = get_args(ArmKind)
PHASES: tuple[Phase, ...] = get_args(Phase)


def parameters_are_declared(subject: Subject) -> None:
    """Every parameter has a default, a meaning and an arm: declared with param()."""
    schema = subject.schema
    require(issubclass(schema.params, TrainingParams), "schema.params must be derived from TrainingParams")
    for name, field in schema.params.model_fields.items():
        extra = field.json_schema_extra
        require(isinstance(extra, dict) and extra.keys() >= {"unit", "arms", "kinds"}, f"declare {name} with param()")
        assert isinstance(extra, dict)
        require(field.description, f"say in a line what {name} is: param(default, \"…\")")
        require(field.default is not PydanticUndefined, f"{name} needs a default")
        arms, kinds = extra["arms"], extra["kinds"]
        assert isinstance(arms, list)
        assert isinstance(kinds, list)
        require({*arms} <= {*schema.arms}, f"{name} is of arms {arms}, but the arms are {[*schema.arms]}")
        require({*kinds} <= {*KINDS}, f"{name} is of kinds {kinds}, but the kinds are {[*KINDS]}")
        phase = phase_of(schema.params, name)
        require(phase in PHASES, f"{name} is of phase {phase!r}, but phases are {', '.join(PHASES)}")
        alone = all(about.kind == "pretrained" for arm, about in schema.arms.items()
                    if applies(schema.params, name, arm, about.kind))
        require(phase != "pretrain" or alone, f"{name} is read by pretraining alone, and arms without it have it")
        inherited = name in TrainingParams.model_fields
        require(inherited or any(applies(schema.params, name, arm, about.kind) for arm, about in schema.arms.items()),
                f"no arm has the parameter {name}")


def training_parameters_keep_their_meaning(subject: Subject) -> None:
    """Inherited parameters keep default and bounds; a task may only say which arms have them."""
    fields = subject.schema.params.model_fields
    for name, every in TrainingParams.model_fields.items():
        mine, theirs = fields[name].json_schema_extra, every.json_schema_extra
        assert isinstance(mine, dict)
        assert isinstance(theirs, dict)
        require(mine in (theirs, {**theirs, "kinds": [], "arms": mine["arms"]}),
                f"{name}: a task may only say which of its arms have it")
        require((fields[name].default, fields[name].metadata) == (every.default, every.metadata),
                f"{name}: its default and bounds are those of TrainingParams; put other values into sizes")


def sizes_are_possible(subject: Subject) -> None:
    """Every size, `debug` among them, holds known and possible values."""
    schema = subject.schema
    require("debug" in schema.sizes, "sizes must have a `debug` that trains in seconds on a CPU")
    for size in schema.sizes:
        for arm, about in schema.arms.items():
            values = schema.preset(size, arm)
            unknown = sorted(values.keys() - schema.params.model_fields.keys())
            require(not unknown, f"the size {size} has unknown parameters: {', '.join(unknown)}")
            try:
                schema.params.model_validate(values)
            except ValidationError as error:
                at = error.errors()[0]
                require(False, f"the size {size}: {'.'.join(map(str, at['loc']))}: {at['msg']}")
            problems = schema.check(arm, subject.config(arm, **dict[str, Any](values)).params)
            require(not problems, f"the size {size} with the arm {arm}: {problems[:1]}")
            own = schema.sizes_of_arms.get(size, {}).get(arm, {})
            idle = [name for name in own if not applies(schema.params, name, arm, about.kind)]
            require(not idle, f"the size {size} gives the arm {arm} {', '.join(idle)}, which it does not have")
    for size, arms in schema.sizes_of_arms.items():
        require(size in schema.sizes and {*arms} <= {*schema.arms},
                f"sizes_of_arms[{size!r}] is of {sorted(arms)}; sizes are {[*schema.sizes]}, arms {[*schema.arms]}")
        for arm in arms:
            require(schema.preset(size, arm) != schema.sizes[size], f"sizes_of_arms[{size!r}][{arm!r}] changes nothing")


def arms_are_described(subject: Subject) -> None:
    """There are arms, each of a known kind and with a line about it."""
    arms = subject.schema.arms
    require(arms, "schema.arms is empty")
    for name, arm in arms.items():
        require(arm.kind in KINDS, f"the arm {name} is of kind {arm.kind!r}; kinds are {', '.join(KINDS)}")
        require(arm.about, f"say in a line what the arm {name} is")


def objective_is_a_metric(subject: Subject) -> None:
    """The objective is one of the metrics, whose names are without val_ and test_."""
    schema = subject.schema
    metrics, objective = schema.metrics, schema.objective
    require(objective.metric in metrics, f"the objective {objective.metric} is none of the metrics {metrics}")
    require(objective.mode in get_args(Mode), f"the objective's mode is min or max, got {objective.mode!r}")
    require(len({*metrics}) == len(metrics), f"metrics names one twice: {metrics}")
    for metric in metrics:
        require(not metric.startswith(("val_", "test_")), f"name the metric {metric} without val_ and test_")
        require(metric != "mae", "`mae` is the masked autoencoder; call the metric abs_error")


def primary_pair_is_with_and_without_pretraining(subject: Subject) -> None:
    """The primary pair, where there is one, is a pretrained arm and one trained without."""
    schema = subject.schema
    if schema.primary is not None:
        require({*schema.primary} <= {*schema.arms}, f"primary={schema.primary}, but the arms are {[*schema.arms]}")
        kinds = tuple(schema.arms[arm].kind for arm in schema.primary)
        require(kinds == ("pretrained", "trained"), f"primary={schema.primary} are of kinds {kinds}")


def published_numbers_are_of_its_own(subject: Subject) -> None:
    """Published numbers are of its arms, metrics and settings."""
    schema = subject.schema
    for arm, numbers in schema.published.items():
        require(arm in schema.arms, f"published names the arm {arm}, which there is not")
        for number in numbers:
            require(number.metric in schema.metrics, f"published for {arm}: {number.metric} is no metric")
            require(number.data, f"published for {arm}: say of which data set")
            unknown = sorted(number.settings.keys() - schema.params.model_fields.keys())
            require(not unknown, f"published for {arm}: unknown settings {', '.join(unknown)}")


def splits_are_described_in_a_line(subject: Subject, arm: str) -> None:
    """validate() reads the data and describes its splits in a line."""
    line = subject.cls.validate(subject.data, subject.config(arm).params)
    require(isinstance(line, str) and line and "\n" not in line, f"validate() returns {line!r}; return a line of text")


CHECKS = (
    Check(parameters_are_declared), Check(training_parameters_keep_their_meaning), Check(arms_are_described),
    Check(sizes_are_possible), Check(objective_is_a_metric), Check(primary_pair_is_with_and_without_pretraining),
    Check(published_numbers_are_of_its_own), Check(splits_are_described_in_a_line, *KINDS),
)
