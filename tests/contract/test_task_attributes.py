"""What a task says about itself is complete and consistent."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from pydantic_core import PydanticUndefined

from raymae.spec import TrialConfig
from raymae.spec.task import ArmKind, Mode, TrainingParams, applies
from raymae.tasks import TASKS, schema_of, task_class
from raymae.tasks.base import Task

KINDS = set(get_args(ArmKind))

pytestmark = pytest.mark.parametrize("name", TASKS)


def test_the_class_carries_the_name_it_is_registered_under(name: str) -> None:
    cls = task_class(name)
    assert issubclass(cls, Task)
    assert cls.name == name
    assert cls.__doc__
    assert not getattr(cls, "__abstractmethods__", None)


def test_every_parameter_is_declared_with_param(name: str) -> None:
    cls = task_class(name)
    assert issubclass(cls.Params, TrainingParams)
    for field_name, field in cls.Params.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"declare {field_name} with param()"
        assert extra.keys() >= {"unit", "arms", "kinds"}, field_name
        assert field.description, field_name
        assert field.default is not PydanticUndefined, field_name
        assert set(extra["arms"]) <= set(cls.arms), field_name
        assert set(extra["kinds"]) <= KINDS, field_name
        assert any(applies(cls.Params, field_name, arm, about.kind) for arm, about in cls.arms.items()), field_name


def test_training_parameters_keep_their_meaning(name: str) -> None:
    cls = task_class(name)
    for field_name, field in TrainingParams.model_fields.items():
        assert cls.Params.model_fields[field_name].json_schema_extra == field.json_schema_extra, field_name


def test_presets_hold_known_and_possible_values(name: str, make_config: Callable[..., TrialConfig]) -> None:
    cls = task_class(name)
    assert "debug" in cls.sizes
    for size, values in cls.sizes.items():
        assert values.keys() <= cls.Params.model_fields.keys(), size
        cls.Params.model_validate(dict(values))
        for arm in cls.arms:
            assert cls.check(arm, make_config(name, arm, **values).params) == [], f"{size}, {arm}"


def test_arms_are_described_and_of_every_kind(name: str) -> None:
    arms = task_class(name).arms
    assert {arm.kind for arm in arms.values()} == KINDS  # pretraining is compared with training and with doing nothing
    assert all(arm.about for arm in arms.values())


def test_the_objective_is_one_of_the_metrics(name: str) -> None:
    cls = task_class(name)
    assert cls.objective.metric in cls.metric_names
    assert cls.objective.mode in get_args(Mode)
    assert cls.objective.unit
    assert len(set(cls.metric_names)) == len(cls.metric_names)
    assert "mae" not in cls.metric_names  # MAE is the masked autoencoder, never a metric
    assert not any(metric.startswith(("val_", "test_")) for metric in cls.metric_names)


def test_the_schema_repeats_the_class(name: str) -> None:
    cls, schema = task_class(name), schema_of(name)
    assert (schema.name, schema.params, schema.arms, schema.sizes) == (cls.name, cls.Params, cls.arms, cls.sizes)
    assert (schema.objective, schema.metrics, schema.check) == (cls.objective, cls.metric_names, cls.check)


def test_validate_describes_the_splits(name: str, make_config: Callable[..., TrialConfig]) -> None:
    for arm in task_class(name).arms:
        config = make_config(name, arm)
        line = task_class(name).validate(config.data, config.params)
        assert line
        assert "\n" not in line
