"""One epoch: a pass over the training data, the same in every phase, and a pass over a split to score it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raymae.errors import TrialError
from raymae.tasks.base import Batch, Loss, Source, Task
from raymae.train.device import derive_seed, rank_and_world
from raymae.train.gradients import Gradients, OneMessage, Overlapped, overlaps
from raymae.train.optim import clip_gradients, cosine_lr, make_optimiser, set_lr, set_weight_decay
from raymae.train.streams import Streams, Within
from raymae.train.units import UnitLog

Between = Callable[[int], None]
"""Told after each batch how many of its epoch's are done."""


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
        self._streams: Streams | None = None  # of the epoch that is under way
        self._done, self._summed = 0, torch.zeros((), device=task.device)  # its batches, and their losses
        self._entered = Within()  # where the next epoch goes on from
        self._one_message = OneMessage(model)
        self._overlapped: tuple[bool, Overlapped] | None = None

    def train(
        self, source: Source, epoch: int, epochs: int, *, steps: Steps, head_only: bool = False,
        between: Between | None = None,
    ) -> EpochResult:
        """Pass over the data: once, or as often as makes an epoch of enough steps.

        Args:
            source: The examples.
            epoch: Which epoch, from 0.
            epochs: All epochs of the phase, over which the learning rate falls.
            steps: This epoch's.
            head_only: Whether the encoder keeps its weights.
            between: Told after each batch; may look at `within`, and may raise.

        Raises:
            TrialError: The loss is not finite.
        """
        def seed(purpose: str) -> int:
            return derive_seed(self.task.config.seed, self.phase, epoch, purpose)

        device = self.task.device
        set_weight_decay(self.optimiser, steps.weight_decay)
        streams = Streams(device, seed)
        shuffle, passes = Generator().manual_seed(seed("order")), steps.passes(len(source))
        order = torch.cat([torch.randperm(len(source), generator=shuffle) for _ in range(passes)])
        batches = order.tensor_split(steps.of_an_epoch(len(source)))  # no tiny last batch
        total = epochs * len(batches)
        warmup = min(steps.warmup_epochs * len(batches), 0.5 * total)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not head_only or self.task.is_head(name))
        self.model.train()
        gradients = self._averaging(head_only, min(map(len, batches)))
        self._enter(streams)
        step_lr = 0.0
        for index, chosen in enumerate(batches):
            step_lr = cosine_lr(epoch * len(batches) + index, peak=steps.lr, total=total, warmup=warmup)
            if index < self._done:
                continue
            set_lr(self.optimiser, step_lr)
            share = chosen[self.rank :: self.world]

            def part(share: Tensor = share) -> Loss:
                batch = source.batch(share, streams.augment)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=steps.precision == "bfloat16"):
                    return self.loss(batch, streams.masks)

            self.optimiser.zero_grad(set_to_none=True)
            self._summed += gradients(part if len(share) else None) * len(chosen)
            clip_gradients(self.model.parameters(), steps.clip_norm)
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            self._done = index + 1
            if between is not None:
                between(self._done)
        self._streams = None
        mean = float(self._summed) / len(order)
        if not math.isfinite(mean):
            raise TrialError(f"the {self.phase} loss is {mean} in epoch {epoch + 1}; lower the learning rate "
                             f"({steps.lr:g}) or {'pretrain_' if self.phase == 'pretrain' else ''}clip_norm "
                             f"({steps.clip_norm:g})")
        return EpochResult(mean, step_lr)

    def _averaging(self, head_only: bool, smallest: int) -> Gradients:
        """How gradients are averaged in an epoch whose smallest batch has so many examples."""
        wanted = self.world > 1 and overlaps(self.task.device) and smallest >= self.world and any(
            parameter.requires_grad for parameter in self.model.parameters())
        if self._overlapped is not None and (not wanted or self._overlapped[0] != head_only):
            self._overlapped[1].detach()
            self._overlapped = None
        if not wanted:
            return self._one_message
        if self._overlapped is None:
            self._overlapped = head_only, Overlapped(self.model)
        return self._overlapped[1]

    def _enter(self, streams: Streams) -> None:
        """Begin an epoch, or go on inside it."""
        within, self._entered = self._entered, Within()
        self._streams, self._done, self._summed = streams, 0, torch.zeros((), device=self.task.device)
        if within:
            self._done, self._summed = within["batches"], within["loss"].to(self.task.device, copy=True)
            streams.restore(within["streams"])

    def within(self) -> Within:
        """Where inside an epoch training is. Inside one, every rank has to ask."""
        if self._streams is None:
            return self._entered.copy()
        return Within(batches=self._done, loss=self._summed, streams=self._streams.states())

    def go_on(self, within: Within) -> None:
        """Let the next epoch go on where `within` was taken."""
        self._entered = within


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
