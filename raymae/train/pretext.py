"""Whether a pretraining has learned: what it makes of hidden values of the validation split."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Generator, nn

from raymae.spec.trial import PRETEXT
from raymae.tasks.base import Pretraining, Task
from raymae.train.device import rank_and_world

MOST_EXAMPLES = 1024
AT_ONCE = 64


@torch.no_grad()
def validate(task: Task, pretraining: Pretraining[nn.Module], model: nn.Module) -> dict[str, float]:
    """Measure what a network makes of what is hidden from it, against a reconstruction that takes no learning.

    Masks are the same at every evaluation, for every seed and on any number of ranks, and at most so many examples are
    used, spread evenly over the split. Random streams of training are left alone.

    Args:
        task: The problem.
        pretraining: Its pretraining.
        model: The network; left in evaluation mode.

    Returns:
        `pretext_loss`, the mean squared error of hidden values in the data's own scale, and `pretext_skill`, which is
        1 - loss / loss of the trivial reconstruction: 0 is no better than that, 1 is perfect. Nothing where the task
        has no trivial reconstruction, or nothing is hidden.
    """
    source, (rank, world) = task.load("pretext"), rank_and_world()
    index = torch.linspace(0, len(source) - 1, min(len(source), MOST_EXAMPLES)).long()
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for number, chunk in enumerate(index.split(AT_ONCE)):
        if number % world == rank and len(chunk):
            masks = Generator(task.device).manual_seed(number)
            found = pretraining.errors(model, source.batch(chunk, None), masks)
            if found is not None:
                sums += torch.stack([torch.as_tensor(part).double().cpu() for part in found])
    if world > 1:
        summed = sums.to(task.device) if dist.get_backend() == "nccl" else sums
        dist.all_reduce(summed)
        sums = summed.cpu()
    own, trivial, counted = sums.tolist()
    if not counted:
        return {}
    return dict(zip(PRETEXT, (own / counted, 1 - own / trivial if trivial else math.nan), strict=True))
