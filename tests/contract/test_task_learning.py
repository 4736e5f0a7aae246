"""What the loop promises of registered tasks' networks: shares of ranks add up, and no weight is lost in silence."""

from __future__ import annotations

import pytest
import torch
from subjects import SOURCES, MakeSubject
from torch import nn

from raymae.contract.networks import FirstExamples
from raymae.errors import TransferError
from raymae.train import evaluate

pytestmark = pytest.mark.parametrize(("name", "source"), SOURCES)


def test_evaluation_shared_by_more_ranks_than_examples(name: str, source: str, subject: MakeSubject) -> None:
    whole_task = subject(name, source)
    task = whole_task.make(next(arm for arm, about in whole_task.schema.arms.items() if about.kind == "reference"))
    examples = FirstExamples(task.load("val"), 3)
    shares = []
    for rank in range(5):
        metrics = task.metrics()
        task_metrics, task.metrics = task.metrics, lambda metrics=metrics: metrics  # type: ignore[method-assign]
        try:
            evaluate(task, task.build(), examples, rank=rank, world=5)
        except ZeroDivisionError:
            pass  # an empty share has no metrics of its own; it adds nothing to the sum
        finally:
            task.metrics = task_metrics  # type: ignore[method-assign]
        shares.append(metrics.totals)
    whole = task.metrics()
    batch = examples.batch(torch.arange(3), None)
    whole.update(task.predict(task.build(), batch), batch)
    torch.testing.assert_close(sum(shares), whole.totals)


def test_a_renamed_or_resized_encoder_weight_fails_the_trial(name: str, source: str, subject: MakeSubject) -> None:
    task = subject(name, source).make()
    pretraining = task.pretraining()
    renamed = pretraining.build()
    body = next(key for key in renamed.state_dict() if not task.is_head(key)).partition(".")[0]  # what is transferred
    renamed.get_submodule(body).register_parameter("surplus", nn.Parameter(torch.zeros(1)))
    with pytest.raises(TransferError, match=r"surplus → .* have no counterpart|have no counterpart.*surplus"):
        pretraining.transfer(renamed, task.build())
    pretrained = pretraining.build()
    resized = pretrained.get_submodule(body)
    name, parameter = next(iter(resized.named_parameters()))
    owner = resized.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], nn.Parameter(torch.zeros(*parameter.shape, 2)))
    model = task.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TransferError, match=r"has shape .* expects"):
        pretraining.transfer(pretrained, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
