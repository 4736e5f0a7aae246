"""A loss or a prediction that is no number fails a trial of every task and arm, and says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from raymae.errors import TrialError
from raymae.spec import TrialConfig
from raymae.tasks import TASKS, schema_of, task_class
from raymae.tasks.base import Loss
from raymae.train import run_trial

ARMS = [(name, arm) for name in TASKS for arm in schema_of(name).arms]
TRAINED = [(name, arm) for name, arm in ARMS if schema_of(name).arms[arm].kind != "reference"]
PRETRAINED = [(name, arm) for name, arm in ARMS if schema_of(name).arms[arm].kind == "pretrained"]


@pytest.mark.parametrize(("name", "arm", "broken"), [
    *((*case, broken) for case in TRAINED for broken in ("finetune_loss", "predict")),
    *((*case, "loss") for case in PRETRAINED),
])
def test_nan_fails_the_trial_with_a_reason(
    name: str, arm: str, broken: str, make_config: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = task_class(name)
    config = make_config(name, arm, epochs=1, pretrain_epochs=1, label_fraction=0.1)
    owner = type(cls(config, torch.device("cpu")).pretraining()) if broken == "loss" else cls
    whole = getattr(owner, broken)

    def not_a_number(self: Any, *args: Any) -> Any:
        made = whole(self, *args)
        return made._replace(mean=made.mean * math.nan) if isinstance(made, Loss) else made * math.nan

    monkeypatch.setattr(owner, broken, not_a_number)
    reason = {"loss": "the pretrain loss is nan in epoch 1", "finetune_loss": "the finetune loss is nan",
              "predict": f"{cls.schema.objective.val} is nan after fine-tuning epoch 1"}[broken]
    with pytest.raises(TrialError, match=f"{reason}.*lower"):
        list(run_trial(config))
