"""What a task says about itself is complete and consistent."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from pydantic_core import PydanticUndefined
from torch import nn

from raymae.spec import TrialConfig
from raymae.spec.task import ArmKind, Mode, TrainingParams, applies
from raymae.tasks import TASKS, schema_of, task_class
from raymae.tasks.base import Task

KINDS = set(get_args(ArmKind))

pytestmark = pytest.mark.parametrize("name", TASKS)


def test_the_class_carries_the_name_it_is_registered_under(name: str) -> None:
    cls = task_class(name)
    assert issubclass(cls, Task)
    assert cls.schema.name == name
    assert cls.__doc__
    assert not getattr(cls, "__abstractmethods__", None)


def test_every_parameter_is_declared_with_param(name: str) -> None:
    schema = schema_of(name)
    kinds = {arm: about.kind for arm, about in schema.arms.items()}
    assert issubclass(schema.params, TrainingParams)
    for field_name, field in schema.params.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"declare {field_name} with param()"
        assert extra.keys() >= {"unit", "arms", "kinds"}, field_name
        assert field.description, field_name
        assert field.default is not PydanticUndefined, field_name
        assert set(extra["arms"]) <= set(schema.arms), field_name
        assert set(extra["kinds"]) <= KINDS, field_name
        assert any(applies(schema.params, field_name, arm, kind) for arm, kind in kinds.items()), field_name


def test_training_parameters_keep_their_meaning(name: str) -> None:
    fields = schema_of(name).params.model_fields
    for field_name, field in TrainingParams.model_fields.items():
        mine, every = fields[field_name], field.json_schema_extra
        assert mine.json_schema_extra in (every, {**every, "kinds": [], "arms": mine.json_schema_extra["arms"]}), \
            f"{field_name}: a task may only say which of its arms have it"
        assert (mine.default, mine.metadata) == (field.default, field.metadata), field_name


def test_presets_hold_known_and_possible_values(name: str, make_config: Callable[..., TrialConfig]) -> None:
    schema = schema_of(name)
    assert "debug" in schema.sizes
    for size, values in schema.sizes.items():
        assert values.keys() <= schema.params.model_fields.keys(), size
        schema.params.model_validate(dict(values))
        for arm in schema.arms:
            assert schema.check(arm, make_config(name, arm, **values).params) == [], f"{size}, {arm}"
    for size, arms in schema.sizes_of_arms.items():
        for arm, values in arms.items():
            assert schema.sizes[size] != schema.preset(size, arm) == {**schema.sizes[size], **values}
            assert all(applies(schema.params, key, arm, schema.arms[arm].kind) for key in values), f"{size}, {arm}"
            schema.params.model_validate(schema.preset(size, arm))


def test_arms_are_described_and_of_every_kind(name: str) -> None:
    arms = schema_of(name).arms
    assert {arm.kind for arm in arms.values()} == KINDS  # pretraining is compared with training and with doing nothing
    assert all(arm.about for arm in arms.values())


def test_the_objective_is_one_of_the_metrics(name: str) -> None:
    schema = schema_of(name)
    assert schema.objective.metric in schema.metrics
    assert schema.objective.mode in get_args(Mode)
    assert schema.objective.unit
    assert len(set(schema.metrics)) == len(schema.metrics)
    assert "mae" not in schema.metrics  # MAE is the masked autoencoder, never a metric
    assert not any(metric.startswith(("val_", "test_")) for metric in schema.metrics)


def test_the_primary_pair_is_a_pretrained_arm_and_one_trained_without(name: str) -> None:
    schema = schema_of(name)
    assert schema.primary is not None
    assert [schema.arms[arm].kind for arm in schema.primary] == ["pretrained", "trained"]


def test_published_numbers_are_of_its_arms_metrics_and_settings(name: str) -> None:
    schema = schema_of(name)
    assert schema.published.keys() <= schema.arms.keys()
    for number in (number for numbers in schema.published.values() for number in numbers):
        assert number.metric in schema.metrics
        assert number.data
        assert number.settings.keys() <= schema.params.model_fields.keys()


def test_every_layer_norm_has_the_epsilon_of_mae(name: str, make_config: Callable[..., TrialConfig]) -> None:
    for arm, about in schema_of(name).arms.items():
        if about.kind != "reference":
            task = task_class(name)(make_config(name, arm), torch.device("cpu"))
            pretraining = task.pretraining()
            networks = [task.build(), *([pretraining.build()] if pretraining is not None else [])]
            norms = [module for network in networks for module in network.modules() if isinstance(module, nn.LayerNorm)]
            assert {norm.eps for norm in norms} <= {1e-6}, arm


def test_validate_describes_the_splits(name: str, make_config: Callable[..., TrialConfig]) -> None:
    for arm in schema_of(name).arms:
        config = make_config(name, arm)
        line = task_class(name).validate(config.data, config.params)
        assert line
        assert "\n" not in line
