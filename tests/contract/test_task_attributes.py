"""What registered tasks promise beyond the contract of all tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import nn

from raymae.spec import TrialConfig
from raymae.spec.task import ArmKind
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


def test_arms_are_of_every_kind_and_the_question_is_about_two(name: str) -> None:
    schema = schema_of(name)
    assert {arm.kind for arm in schema.arms.values()} == KINDS  # with pretraining, without, and doing nothing
    assert schema.primary is not None
    assert schema.objective.unit


def test_every_layer_norm_has_the_epsilon_of_mae(name: str, make_config: Callable[..., TrialConfig]) -> None:
    for arm, about in schema_of(name).arms.items():
        if about.kind != "reference":
            task = task_class(name)(make_config(name, arm), torch.device("cpu"))
            pretraining = task.pretraining()
            networks = [task.build(), *([pretraining.build()] if pretraining is not None else [])]
            norms = [module for network in networks for module in network.modules() if isinstance(module, nn.LayerNorm)]
            assert {norm.eps for norm in norms} <= {1e-6}, arm
