"""One step of training, on one rank or as one of several, and the gradients that it leaves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from raymae.data.scene_labels import IGNORED
from raymae.spec import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Batch, Source
from raymae.train.epoch import Steps
from raymae.train.phases import Finetune, Pretrain

EXAMPLES = 5  # three for the first of two ranks, two for the second


class Drawn(NamedTuple):
    """A few examples whose crops, masks and mixtures are drawn already, the same for every rank."""

    whole: Batch

    @classmethod
    def of(cls, source: Source) -> Drawn:
        """Draw the first examples of a split; where pixels have labels, most of the first one's are taken away."""
        batch = source.batch(torch.arange(EXAMPLES), Generator().manual_seed(3))
        if "label" in batch and batch["label"].ndim == 3:
            batch["label"][0, 5:] = IGNORED
        return cls(batch)

    def __len__(self) -> int:
        return EXAMPLES

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """The examples at these indices."""
        return {name: value[index_B] for name, value in self.whole.items()}


def step(config: TrialConfig, phase: str) -> dict[str, Tensor]:
    """Train one step on all examples at once; returns the loss, and the gradient of every parameter by name."""
    task = task_class(config.task)(config, torch.device("cpu"))
    pretraining = task.pretraining()
    if phase == "pretrain":
        assert pretraining is not None
        entered, source = Pretrain(task), Drawn.of(task.load("pretrain"))
        source.whole["hidden"] = pretraining.draw_mask(source.whole, Generator().manual_seed(4))
        entered.learner.loss = lambda batch, _: pretraining.loss(entered.model, batch, batch["hidden"])
    else:
        entered, source = Finetune(task), Drawn.of(task.load("train"))
    for module in entered.model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # UperNet's is no parameter
        elif isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)  # behind a head of zeros nothing has a gradient
    result = entered.learner.train(source, 0, 1, steps=Steps.of(task.params, phase))
    gradients = {name: p.grad for name, p in entered.model.named_parameters() if p.grad is not None}
    return {"loss": torch.tensor(result.loss), **gradients}
