"""The test scores of single examples, gathered over batches and ranks while a split is scored."""

from __future__ import annotations

import numpy as np
import torch.distributed as dist
from torch import Tensor

from raymae.spec.trial import UnitTable
from raymae.tasks.base import Task, UnitScores
from raymae.train.device import rank_and_world


class UnitLog:
    """Takes the scores of each batch; complete once a split has been scored on every rank."""

    def __init__(self) -> None:
        self._index: list[np.ndarray] = []
        self._scores: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, index_B: Tensor, scores: UnitScores | None) -> None:
        """Take the scores of the examples at these indices; None where the task has none."""
        if scores is not None:
            self._index.append(index_B.numpy())
            self._scores.append((scores.score_BP.cpu().numpy(), scores.weight_BP.cpu().numpy()))

    def table(self, task: Task, split: str) -> UnitTable | None:
        """The scores of a whole split, on rank 0; None on other ranks, or where the task has none.

        Args:
            task: The task, which knows the examples' names and groups.
            split: The split.
        """
        parts = [(index, *scores) for index, scores in zip(self._index, self._scores, strict=True)]
        rank, world = rank_and_world()
        if world > 1:
            gathered: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in range(world)]
            dist.all_gather_object(gathered, parts)
            parts = [one for several in gathered for one in several]
        if rank or not parts:
            return None
        index, score, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order, units = np.argsort(index), task.units(split)
        return UnitTable(units.names, units.groups, task.metrics().parts, score[order], weight[order])
