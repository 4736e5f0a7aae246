"""What a phase of a trial is, what it reports, and the state from which it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from raymae.spec.trial import PhaseName, UnitTable
from raymae.train.epoch import Between
from raymae.train.streams import Within


class Evaluation(NamedTuple):
    """What a phase has to report.

    Attributes:
        metrics: `loss`, `lr`, and `val_` or `test_` metrics.
        last: The phase ends here.
        pictures: RGB images `[H, W, 3]`, uint8, by name.
        units: The scores of single examples of the test split; None elsewhere.
    """

    metrics: dict[str, float]
    last: bool
    pictures: Mapping[str, np.ndarray]
    units: UnitTable | None = None


@dataclass(frozen=True)
class PhaseState:
    """Where a phase is, and everything that it has changed; a view of live tensors, so save it at once.

    Attributes:
        phase: Name of the phase.
        epoch: Epochs done.
        model: Weights of the network.
        optimiser: The optimiser's state; empty where nothing is trained.
        average: Moving average of the weights; empty where none is kept.
        best: Metrics of the best evaluation so far; of pretraining its lowest `pretext_loss`.
        best_weights: Weights at that evaluation.
        stale: Evaluations since then.
        stopped_early: Patience has run out.
        within: Where inside an epoch it is (see `Learner.within`); empty between epochs.
    """

    phase: PhaseName
    epoch: int
    model: dict[str, Tensor]
    optimiser: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    stopped_early: bool = False
    within: Within = field(default_factory=Within)


class Phase(Protocol):
    """A stretch of a trial that works on one network.

    Attributes:
        name: Its name in reports.
        model: The network.
        epoch: Epochs done.
        best: The `val_` metrics of the best evaluation so far; empty while pretraining.
    """

    name: PhaseName
    model: nn.Module
    epoch: int
    best: dict[str, float]

    def run(self, between: Between | None = None) -> Iterator[Evaluation]:
        """Do everything that is left to do, and yield after each evaluation.

        Args:
            between: Told after each batch that is trained; `state` can be taken there, on every rank. May raise.
        """
        ...

    def result(self) -> nn.Module:
        """The network as this phase leaves it to the next."""
        ...

    def state(self) -> PhaseState:
        """Everything from which `restore` continues."""
        ...

    def restore(self, state: PhaseState) -> None:
        """Continue where a state was taken."""
        ...
