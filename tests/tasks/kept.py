"""A network of debug size as a sweep leaves it: weights, configuration and state that was JSON, and what it scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from raymae.spec import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Task
from raymae.tasks.predictor import Predictor
from raymae.train import evaluate, run_trial


class Kept(NamedTuple):
    """A network, the predictor that knows its card only, its test scores, and the task that it was trained under."""

    predictor: Predictor
    model: nn.Module
    scores: dict[str, float]
    task: Task

    def answer(self, inputs: Any, **options: bool) -> Any:
        prepared = self.predictor.prepare(inputs, **options)
        return self.predictor.answer(self.predictor.scores(self.model, prepared), prepared)


def kept(config: TrialConfig) -> Kept:
    """Train a replicate, and keep its network."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    task = task_class(config.task)(config, cpu)
    for report in run_trial(config, task=task):
        last = report
    scored = task.build()
    scored.load_state_dict(last.state().phase.best_weights)
    scored.eval()
    again = evaluate(task, scored, task.load("test"))
    scores = {name.removeprefix("test_"): value for name, value in last.metrics.items() if name.startswith("test_")}
    assert all(scores[name] == value for name, value in again.items() if value == value)
    plain = json.loads(json.dumps([config.to_json(), task.kept_state(scored)], allow_nan=False))
    assert task.predictor is not None
    predictor = task.predictor(TrialConfig.from_json(plain[0]), plain[1], cpu)
    model = predictor.build().eval()
    model.load_state_dict(scored.state_dict())
    return Kept(predictor, model, scores, task)


MakeConfig = Callable[..., TrialConfig]
