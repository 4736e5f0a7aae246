"""How ranks that share a batch come to the gradients of the whole batch's loss.

Each has the mean loss of its part and how much that is the mean of (see `raymae.tasks.base.Loss`), and the parts hold
unequally many examples, labelled pixels or hidden cells. The whole's loss is the mean weighted by that, and so is its
gradient. `OneMessage` does it after the backward pass; `Overlapped`, torch's DistributedDataParallel, while it goes on,
which a test holds to the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymae.tasks.base import Loss
from raymae.train.device import rank_and_world


class Gradients(Protocol):
    """Leaves the gradients of a batch's loss in the trained parameters, the same on every rank."""

    def __call__(self, part: Callable[[], Loss] | None) -> Tensor:
        """Compute them; returns the loss of the whole batch.

        Args:
            part: Computes the loss of this rank's part of the batch; None where it has no examples.
        """
        ...


def overlaps(device: torch.device) -> bool:
    """Whether messages can go on beside the backward pass: on a GPU, which computes by itself."""
    return device.type == "cuda"


class OneMessage:
    """All gradients in one message once they are there; nothing is sent where there is one rank.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        _, self._world = rank_and_world()

    def __call__(self, part: Callable[[], Loss] | None) -> Tensor:
        """See `Gradients`."""
        if part is None:
            loss = Loss(torch.zeros((), device=next(self._model.parameters()).device), 0)
        else:
            loss = part()
            (loss.mean if self._world == 1 else loss.mean * loss.counted).backward()
        return loss.mean.detach() if self._world == 1 else self._sent(loss)

    def _sent(self, loss: Loss) -> Tensor:
        mean = loss.mean.detach()
        trained = [p for p in self._model.parameters() if p.requires_grad]
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


class Overlapped:
    """Gradients in several messages, each sent as soon as its part of the backward pass is through.

    Every rank must have examples in every batch, and the trained parameters that a loss depends on must be the same in
    every batch.

    Args:
        model: The network, with `requires_grad` of its parameters as it stays.
    """

    def __init__(self, model: nn.Module) -> None:
        with warnings.catch_warnings():  # from torch 2.14 on it has another name, which also sends buffers at first
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self._parallel = nn.parallel.DistributedDataParallel(
                _Part(model), broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True)

    def __call__(self, part: Callable[[], Loss] | None) -> Tensor:
        """See `Gradients`."""
        assert part is not None, "a rank without examples"
        scaled, whole = self._parallel(part)
        scaled.backward()
        return whole

    def detach(self) -> None:
        """Send no more: the parameters' gradients are left to others."""
        self._parallel._remove_autograd_hooks()  # it may live on in a circle of references


class _Part(nn.Module):
    """What torch takes for the network: this rank's part of the loss, for which the ranks' plain mean is right."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, part: Callable[[], Loss]) -> tuple[Tensor, Tensor]:
        """The loss to go backward from, and that of the whole batch."""
        loss = part()
        mean = loss.mean.detach()
        count = torch.as_tensor(loss.counted, dtype=mean.dtype, device=mean.device)
        told = torch.stack([mean * count, count])
        dist.all_reduce(told)
        total, counted = told.unbind()
        counted = torch.where(counted > 0, counted, 1)
        return loss.mean * (count * dist.get_world_size() / counted), total / counted
