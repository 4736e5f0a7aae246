"""A parameter that an arm has does something there: with another value, another network, batch, loss or prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_origin

import pytest
import torch
from torch import Generator, nn

from raymae.contract.phases import other_values
from raymae.spec import TrialConfig
from raymae.spec.space import Scalar
from raymae.spec.task import TaskSchema, TrainingParams
from raymae.tasks import TASKS, schema_of, task_class
from raymae.train.phases import Finetune, Pretrain

# What the loop itself reads, whatever the task and arm; how files are read, and synthetic data is not; how it is run.
ELSEWHERE = {*TrainingParams.model_fields, "group", "date_column", "categorical", "numeric", "drop", "intensity",
             "num_classes", "spacing", "window_low", "window_high", "unlabelled", "fold", "first_label", "ignore_label",
             "compile", "pretrain_classes"} - {"label_fraction", "layer_decay"}
# Values of parameters that are texts, and of those that a debug trial needs in another size.
OTHERS: dict[str, tuple[Scalar, ...]] = {
    "roi_size": ("16x16x16", "32x32x32"), "overlap": (0.75,),
    "max_rounds": (1,), "num_donors": (50,), "shrink": (2,),
    "patch_size": (4, 6, 8, 12, 16), "image_size": (24, 48, 64, 96), "crop_size": (24, 96), "pretrain_crop": (0.5, 24),
}
TARGETS: dict[str, tuple[Scalar, ...]] = {"forecasting": ("HUFL",), "prediction": ("median_income",)}
# Parameters that matter only beside others.
BESIDE: dict[str, dict[str, Scalar]] = {
    "match_to": {"match": 1.0}, "shrink": {"patch_size": 4}, "mechanism": {"missing_kind": "mnar"},
}
SMALL: dict[str, Scalar] = {"num_trees": 3, "max_rounds": 2, "encoder_depth": 2, "drop_path": 0.1}
ARMS = [(name, arm) for name in TASKS for arm in schema_of(name).arms]


def others(schema: TaskSchema, arm: str, params: Mapping[str, Scalar], name: str) -> Iterator[dict[str, Scalar]]:
    """An arm's parameters with another value of one of them, wherever that is possible."""
    known = TARGETS[schema.name] if name == "target" else OTHERS.get(name, ())
    assert known or not isinstance(params[name], str) or get_origin(
        schema.params.model_fields[name].annotation) is Literal, f"say another value of {name} in OTHERS"
    for value in other_values(schema, arm, params, name, known):
        yield {**params, name: value}


def trained(phase: Any, split: str, loss: Callable[[Any], Any]) -> Iterator[Any]:
    """What a phase makes and learns from: network, groups of the optimiser, examples, a loss with its gradients."""
    model = phase.model
    yield repr(model), [(group["lr_scale"], len(group["params"])) for group in phase.learner.optimiser.param_groups]
    yield dict(model.state_dict())
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)  # behind a head of zeros nothing is seen
    source = phase.task.load(split)
    batch = source.batch(torch.arange(4), Generator().manual_seed(1))
    yield len(source)
    yield batch
    torch.manual_seed(2)
    loss(batch).mean.backward()
    yield {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


def signs(config: TrialConfig) -> Iterator[Any]:
    """What an arm does with its parameters, the cheapest first."""
    task = task_class(config.task)(config, torch.device("cpu"))
    if task.arm.kind == "reference":
        model = task.build()
    else:
        tuning = Finetune(task)
        yield from trained(tuning, "train", lambda batch: task.finetune_loss(tuning.model, batch))
        model = tuning.model.eval()
    pretraining = task.pretraining()
    if pretraining is not None:
        before = Pretrain(task)

        def loss(batch: Any) -> Any:
            return pretraining.loss(before.model, batch, pretraining.draw_mask(batch, Generator().manual_seed(3)))

        yield from trained(before, "pretrain", loss)
    source = task.load("val")
    batch = source.batch(torch.arange(min(2, len(source))), None)
    yield batch
    windows: list[Any] = []
    model.register_forward_pre_hook(lambda _, inputs: windows.append(inputs))
    with torch.no_grad():
        prediction = task.predict(model, batch)
    yield prediction
    yield len(windows), [len(inputs[0]) for inputs in windows]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.equal(a.nan_to_num(-7), b.nan_to_num(-7))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return bool(a == b)


@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_every_parameter_of_an_arm_does_something(
    name: str, arm: str, make_config: Callable[..., TrialConfig]
) -> None:
    schema = schema_of(name)
    small = {key: value for key, value in SMALL.items() if key in schema.params.model_fields}
    config = make_config(name, arm, **small)
    idle = []
    for parameter in sorted(set(config.params) - ELSEWHERE):
        base = make_config(name, arm, **{**small, **BESIDE.get(parameter, {})})
        for params in others(schema, arm, base.params, parameter):
            other = TrialConfig(config.task, arm, params, config.data, config.seed, config.stage)
            if not all(same(*pair) for pair in zip(signs(base), signs(other), strict=False)):
                break
        else:
            idle.append(parameter)
    assert idle == []
