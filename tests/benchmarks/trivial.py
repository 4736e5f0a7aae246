"""A task that costs nothing: what is left of a trial's time is the engine's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from raymae.data.find.locate import Located
from raymae.spec.task import Arm, Objective, TaskSchema, TrainingParams, param
from raymae.tasks.base import Loss, Metrics, Task


class TrivialParams(TrainingParams):
    """Nothing but a number to search."""

    x: float = param(0.5, "anything", ge=0, le=1)


class TrivialMetrics(Metrics):
    """The mean of what was predicted."""

    def update(self, prediction: torch.Tensor, batch: dict[str, torch.Tensor]) -> None:
        self.totals += torch.tensor([float(prediction.detach().sum()), float(len(prediction))], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        return {"loss": float(self.totals[0] / self.totals[1])}


class Numbers:
    """Four zeros."""

    def __len__(self) -> int:
        return 4

    def batch(self, index_B: torch.Tensor, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        return {"zero": torch.zeros(len(index_B), 1)}


class Trivial(Task):
    """Fits one number to one number."""

    schema = TaskSchema(
        name="trivial", params=TrivialParams, arms={"scratch": Arm("trained", "one weight")},
        sizes={"debug": {"epochs": 3}}, objective=Objective("loss", "min", ""), metrics=("loss",),
    )

    @classmethod
    def locate(cls, data: Any) -> Located:
        return Located(data.name, None, "synthetic", "none")

    @classmethod
    def validate(cls, data: Any, params: Any) -> str:
        return "four zeros"

    def load(self, split: str) -> Numbers:
        return Numbers()

    def build(self) -> nn.Module:
        return nn.Linear(1, 1)

    def finetune_loss(self, model: nn.Module, batch: Any) -> Loss:
        return Loss((model(batch["zero"]) - self.params.x).square().mean(), len(batch["zero"]))

    def predict(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch["zero"]) - self.params.x).square()

    def metrics(self) -> TrivialMetrics:
        return TrivialMetrics(2)
