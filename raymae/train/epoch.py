"""One epoch: a pass over the training data, the same in every phase, and a pass over a split to score it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raymae.errors import TrialError
from raymae.tasks.base import Batch, Loss, Source, Task
from raymae.train.device import derive_seed, rank_and_world, seed_all
from raymae.train.optim import clip_gradients, cosine_lr, make_optimiser, set_lr, set_weight_decay
from raymae.train.units import UnitLog


class EpochResult(NamedTuple):
    """What an epoch of training reports.

    Attributes:
        loss: Mean over the examples.
        lr: Learning rate of the last step.
    """

    loss: float
    lr: float


@dataclass(frozen=True)
class Steps:
    """The numbers of a phase's steps.

    Attributes:
        lr: Peak learning rate.
        batch_size: Examples per step over all ranks.
        weight_decay: Decoupled.
        warmup_epochs: Of the learning rate, linear.
        clip_norm: What the gradient norm is clipped to; 0 is off.
        precision: What is computed in.
        epoch_steps: An epoch passes over its examples as often as makes it so many steps; 0 is one pass.
    """

    lr: float
    batch_size: int
    weight_decay: float
    warmup_epochs: float
    clip_norm: float
    precision: Literal["float32", "bfloat16"]
    epoch_steps: int = 0

    @classmethod
    def of(cls, params: Any, phase: Literal["pretrain", "finetune"]) -> Steps:
        """Those of a phase, as a task's parameters have them now."""
        prefix = "pretrain_" if phase == "pretrain" else ""
        names = [part.name for part in fields(cls) if phase == "finetune" or part.name != "epoch_steps"]
        return cls(**{name: getattr(params, f"{prefix}{name}") for name in names})

    def passes(self, num_examples: int) -> int:
        """How often an epoch passes over its examples."""
        return max(1, math.ceil(self.epoch_steps / math.ceil(num_examples / self.batch_size)))

    def of_an_epoch(self, num_examples: int) -> int:
        """Steps of an epoch."""
        return math.ceil(self.passes(num_examples) * num_examples / self.batch_size)


class Learner:
    """Trains a network: holds its optimiser, and the moving average of its weights where one is kept.

    Args:
        task: The problem, which has seed and device.
        phase: Name of the phase, from which the random streams are derived.
        model: The network, on the task's device.
        loss: Loss of the network on a batch; masks are drawn from the generator.
        steps: The phase's first ones.
        betas: The optimiser's momenta.
        layer_decay: Factor on the learning rate from each encoder layer to the one below.
        ema_decay: Of the moving average; 0 keeps none.
    """

    def __init__(
        self, task: Task, phase: str, model: nn.Module, loss: Callable[[Batch, Generator], Loss], *, steps: Steps,
        betas: tuple[float, float], layer_decay: float = 1.0, ema_decay: float = 0.0,
    ) -> None:
        self.task, self.phase, self.model, self.loss = task, phase, model, loss
        self.rank, self.world = rank_and_world()
        self.optimiser = make_optimiser(
            model, lr=steps.lr, weight_decay=steps.weight_decay, layer_decay=layer_decay, betas=betas
        )
        self.average: AveragedModel | None = None
        if ema_decay > 0:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)

    def train(
        self, source: Source, epoch: int, epochs: int, *, steps: Steps, head_only: bool = False
    ) -> EpochResult:
        """Pass over the data: once, or as often as makes an epoch of enough steps.

        Args:
            source: The examples.
            epoch: Which epoch, from 0.
            epochs: All epochs of the phase, over which the learning rate falls.
            steps: This epoch's.
            head_only: Whether the encoder keeps its weights.

        Raises:
            TrialError: The loss is not finite.
        """
        def seed(purpose: str) -> int:
            return derive_seed(self.task.config.seed, self.phase, epoch, purpose)

        device = self.task.device
        set_weight_decay(self.optimiser, steps.weight_decay)
        seed_all(seed(f"dropout-{self.rank}"))
        shuffle, passes = Generator().manual_seed(seed("order")), steps.passes(len(source))
        order = torch.cat([torch.randperm(len(source), generator=shuffle) for _ in range(passes)])
        augment = Generator(device).manual_seed(seed(f"augment-{self.rank}"))
        masks = Generator(device).manual_seed(seed(f"mask-{self.rank}"))
        batches = order.tensor_split(steps.of_an_epoch(len(source)))  # no tiny last batch
        total = epochs * len(batches)
        warmup = min(steps.warmup_epochs * len(batches), 0.5 * total)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not head_only or self.task.is_head(name))
        self.model.train()
        summed = torch.zeros((), device=device)
        step_lr = 0.0
        for index, chosen in enumerate(batches):
            step_lr = cosine_lr(epoch * len(batches) + index, peak=steps.lr, total=total, warmup=warmup)
            set_lr(self.optimiser, step_lr)
            share = chosen[self.rank :: self.world]
            self.optimiser.zero_grad(set_to_none=True)
            loss = Loss(torch.zeros((), device=device), 0)
            if len(share):
                batch = source.batch(share, augment)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=steps.precision == "bfloat16"):
                    loss = self.loss(batch, masks)
                (loss.mean if self.world == 1 else loss.mean * loss.counted).backward()
            summed += self._over_ranks(loss) * len(chosen)
            clip_gradients(self.model.parameters(), steps.clip_norm)
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        mean = float(summed) / len(order)
        if not math.isfinite(mean):
            raise TrialError(f"the {self.phase} loss is {mean} in epoch {epoch + 1}; lower the learning rate "
                             f"({steps.lr:g}) or {'pretrain_' if self.phase == 'pretrain' else ''}clip_norm "
                             f"({steps.clip_norm:g})")
        return EpochResult(mean, step_lr)

    def _over_ranks(self, loss: Loss) -> Tensor:
        """The mean loss of a batch over all ranks' parts of it, whose gradients it leaves behind; takes one message.

        Args:
            loss: Of this rank's part; where there are several, gradients are of its mean times what it counted.
        """
        mean = loss.mean.detach()
        if self.world == 1:
            return mean
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        count = torch.as_tensor(loss.counted, dtype=mean.dtype, device=mean.device)
        flat = torch.cat([
            *(p.grad.reshape(-1) for p in trained if p.grad is not None), (mean * count)[None], count[None]])
        dist.all_reduce(flat)
        *grads, total, count = flat.split([*(p.numel() for p in trained), 1, 1])
        count = torch.where(count > 0, count, 1)  # nothing counted anywhere: the loss is 0, as on one rank
        for parameter, grad in zip(trained, grads, strict=True):
            parameter.grad = (grad / count).view_as(parameter)
        return (total / count)[0]


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, source: Source, *, batch_size: int | None = None, rank: int = 0, world: int = 1,
    units: UnitLog | None = None,
) -> dict[str, float]:
    """Score a model on a split: every example once, sums divided at the end.

    Args:
        task: The problem.
        model: A network of `task.build()`.
        source: A split of `task.load(split)`.
        batch_size: Examples at once, `task.eval_batch` by default; does not change the result.
        rank: This process; it scores every `world`-th example.
        world: Processes that share the split; sums are added up over them.
        units: Takes the scores of single examples.
    """
    model.eval()
    metrics = task.metrics()
    share = torch.arange(len(source))[rank::world]
    for index in share.split(batch_size or task.eval_batch) if len(share) else ():  # fewer examples than ranks
        batch = source.batch(index, None)
        prediction = task.predict(model, batch)
        metrics.update(prediction, batch)
        if units is not None:
            units.add(index, metrics.unit_scores(prediction, batch))
    metrics.reduce()
    return metrics.compute()
