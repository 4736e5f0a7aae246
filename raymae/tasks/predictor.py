"""How a kept network is used on files that no sweep has seen: what a task's `Predictor` reads, says and writes.

A predictor knows a trial's configuration and the *state* that was kept with its weights: plain values learned from the
training data (scaler statistics, order of columns, class names, categories, spacing). It never reads that data.

    items(source) -> Item.read() -> inputs -> prepare -> scores of each network, averaged -> answer -> Writer.add

Of several replicates of an arm any one's predictor prepares and answers for all; each one's own takes its scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from raymae.spec.read import Tree
from raymae.spec.task import TaskSchema, untied
from raymae.spec.trial import TrialConfig


@dataclass(frozen=True)
class Item:
    """One thing to predict for.

    Attributes:
        name: Of its file, as messages have it.
        read: Reads it, as `Predictor.prepare` takes it. Raises `DataError` where it cannot.
    """

    name: str
    read: Callable[[], Any]


class Curves(NamedTuple):
    """What came over time, and what was forecast. T steps, F forecast ones.

    Attributes:
        title: Stands on top of a picture.
        time_T: Times of what came, datetime64, or numbers of steps.
        value_T: float64, NaN where it is missing.
        time_F: Times of what was forecast.
        value_F: float64.
    """

    title: str
    time_T: np.ndarray
    value_T: np.ndarray
    time_F: np.ndarray
    value_F: np.ndarray


class Writer(Protocol):
    """Where answers go."""

    def add(self, item: Item, inputs: Any, answer: Any) -> list[Path]:
        """Take one answer; returns the files that were written for it now."""
        ...

    def close(self) -> list[Path]:
        """Write what is written once for all, and return those files."""
        ...


class Predictor(ABC):
    """What a kept network is told and says, in its user's units.

    Args:
        config: Of the replicate that was kept.
        state: What `Task.kept_state` said of it.
        device: Where to compute.

    Class attributes:
        schema: The task's.
        options: What `prepare` takes beside inputs, by name; each is a switch that is off by default.
    """

    schema: ClassVar[TaskSchema]
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: TrialConfig, state: Tree, device: torch.device) -> None:
        self.config, self.state, self.device = config, state, device
        self.params: Any = self.schema.params.model_validate(untied(self.schema.params, config.params))

    @abstractmethod
    def build(self) -> nn.Module:
        """The network that the weights fit, freshly initialised, of the right shapes without any data at hand."""

    @abstractmethod
    def prepare(self, inputs: Any, **options: bool) -> Any:
        """Make what networks see of what a user has.

        Args:
            inputs: As `Item.read` gives it; also a path, and what else the task understands.
            **options: Some of `options`.

        Raises:
            DataError: It is not what the network was trained on, with what was expected and what is there.
        """

    @abstractmethod
    def scores(self, model: nn.Module, prepared: Any) -> np.ndarray:
        """What one network says, as numbers whose mean over several networks makes sense: probabilities, levels."""

    @abstractmethod
    def answer(self, scores: np.ndarray, prepared: Any) -> Any:
        """What a user wants of the scores: a table of forecasts, class names, a mask, a filled table."""

    def curves(self, inputs: Any, answer: Any) -> Curves | None:
        """What a picture of an answer shows; None where a task has no such picture."""
        return None

    @abstractmethod
    def encode(self, model: nn.Module, prepared: Any) -> np.ndarray:
        """Features for other uses: `[examples, D]`, the encoder's tokens averaged, without any hidden."""

    @abstractmethod
    def items(self, source: Path) -> Iterator[Item]:
        """What there is to predict for in a user's file or folder, in the order of names.

        Raises:
            DataError: There is nothing there, with what was looked for.
        """

    @abstractmethod
    def writer(self, to: Path, source: Path) -> Writer:
        """Writes answers.

        Args:
            to: A file or a folder, which need not exist.
            source: What they are answers to.

        Raises:
            DataError: Answers cannot be written there: another ending is needed, or it is among the inputs.
        """
