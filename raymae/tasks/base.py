"""The Task contract: everything particular to a problem, and nothing else.

A task is one class in one file plus one line in the registry. The training loop (`raymae.train`) calls only what is
declared here; `raymae/contract/` has the rules of it, which `raymae task check` tries with any task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from raymae.data.find.corpora import locate_corpora
from raymae.data.find.locate import Located, locate
from raymae.models.tokens import TokenGrid
from raymae.models.transfer import Coverage, transfer
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.sweep import DataSpec, PretrainingSpec
from raymae.spec.task import TaskSchema, untied
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.predictor import Predictor

Batch = dict[str, Tensor]


def split_of(name: str) -> str:
    """The split of the data that a name of `Task.load` takes its examples from: `train`, `val` or `test`."""
    return {"pretrain": "train", "pretext": "val"}.get(name, name)


class Source(Protocol):
    """One split, ready to be cut into batches."""

    def __len__(self) -> int:
        """Examples."""
        ...

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """The examples at these indices, on the task's device.

        Args:
            index_B: Indices below `len(self)`, on the CPU.
            generator: Randomness for augmentation while training; None while evaluating.
        """
        ...


class Units(NamedTuple):
    """The examples of a split by name, in the order of its source, and what belongs together.

    Attributes:
        names: One per example, unique within a split: a file, a row, the time of a target step.
        groups: Of every example the patient, sequence, household or block of time that it belongs to: examples of a
            group are alike, so a group lies in one split, and intervals are over groups. None where nothing is known.
        in_time: Groups are several series, each split in time by itself: every split has a part of each.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    in_time: bool = False


def joined(units: Sequence[Units]) -> Units:
    """The units of several sources that follow each other; groups are known where they are of all."""
    names = tuple(name for part in units for name in part.names)
    groups = [part.groups for part in units if part.groups is not None]
    return Units(names, tuple(group for part in groups for group in part) if len(groups) == len(units) else None)


class Loss(NamedTuple):
    """The mean loss of a batch, and how much of the batch it is the mean of.

    A batch may be shared between ranks whose parts hold unequally many labelled pixels or hidden cells: the loss of the
    whole is the mean of the parts' losses, weighted by what each of them counted.

    Attributes:
        mean: A scalar; 0 where nothing is counted.
        counted: Examples, pixels, tokens or cells that the mean is over, or the sum of their weights in it.
    """

    mean: Tensor
    counted: Tensor | int


class Hidden(NamedTuple):
    """Squared errors of what was hidden from a pretrained network, summed over a batch, in the data's own scale.

    Attributes:
        model: The network's.
        trivial: Those of a reconstruction that nothing was learned for: straight lines, blurred surroundings, means.
        counted: Hidden values that both are summed over.
    """

    model: Tensor
    trivial: Tensor
    counted: Tensor | int


class UnitScores(NamedTuple):
    """The objective of single examples, so that its average over a sample of them can be computed again and again.

    A task's objective over a set of examples is the mean over its parts (the classes of a mean IoU, the columns of a
    table; most tasks have one part) of the weighted mean over examples; of that the square root where the task's
    `Objective.root` says so. Parts without any weight are left out.

    Attributes:
        score_BP: float64.
        weight_BP: float64, 0 where an example says nothing about a part.
    """

    score_BP: Tensor
    weight_BP: Tensor

    @classmethod
    def plain(cls, score_B: Tensor) -> UnitScores:
        """Scores whose mean is the objective: one part, equal weights."""
        return cls(score_B.double()[:, None], torch.ones_like(score_B, dtype=torch.float64)[:, None])


class Metrics(ABC):
    """Sums over a split, from which metrics are computed at the end: never averages of averages.

    Attributes:
        totals: Float64 sums on the CPU; two accumulators merge by adding them.
        parts: Names of the parts whose mean the objective is, see `UnitScores`.
    """

    parts: tuple[str, ...] = ("",)

    def __init__(self, size: int) -> None:
        self.totals = torch.zeros(size, dtype=torch.float64)

    @abstractmethod
    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add one batch."""

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores | None:
        """The objective of each example of a batch; None where it cannot be taken apart: then a verdict's intervals are
        over seeds alone."""
        return None

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metrics by name, without prefix."""

    def reduce(self) -> None:
        """Sum over all ranks, where there are several."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
            summed = self.totals.to(device)
            dist.all_reduce(summed)
            self.totals = summed.cpu()


Model = TypeVar("Model", bound=nn.Module)


class Pretraining(ABC, Generic[Model]):
    """Masked pretraining of a task's encoder: which tokens are hidden, and what is predicted of them."""

    @abstractmethod
    def build(self) -> Model:
        """The masked autoencoder, freshly initialised."""

    @abstractmethod
    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Choose the hidden tokens of a pretraining batch: bool `[B, N]`."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch, mask: Tensor) -> Loss:
        """Reconstruction loss of a batch."""

    @abstractmethod
    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """Put random values into hidden tokens and leave the rest as it was, to test that nothing leaks.

        Args:
            batch: As `Task.load("pretrain")` makes it; left unchanged.
            mask: Which tokens are hidden: bool `[B, N]`.
            generator: Source of the values.
        """

    @abstractmethod
    def encode_visible(self, model: Model, batch: Batch, mask: Tensor) -> Tensor:
        """Everything that the encoder makes of a masked batch; must not depend on hidden tokens' values."""

    def errors(self, model: Model, batch: Batch, generator: Generator) -> Hidden | None:
        """Reconstruct what is hidden in a batch of validation, and compare with what takes no learning.

        Whatever the network's targets are normalised by, errors are in the data's own scale, and nothing of what is
        hidden is used to get there. None where a task knows no trivial reconstruction: then nothing tells whether its
        pretraining has learned.

        Args:
            model: The network, evaluating.
            batch: Of `Task.load("pretext")`.
            generator: Source of the mask: the same for every network and at every evaluation.
        """
        return None

    def transfer(self, pretrained: Model, model: nn.Module) -> Coverage:
        """Move the pretrained encoder into the network that is fine-tuned; every encoder key must arrive."""
        return transfer(pretrained.get_submodule("encoder"), model)


class Task(ABC):
    """A problem, under one trial's configuration.

    Args:
        config: The trial.
        device: Where models and batches live.

    Class attributes:
        schema: Its name, parameters, arms, sizes, objective and metrics.
        eval_batch: Examples scored at once; less where one is large. Does not change a score.
        predictor: Uses a kept network on other files; None where a task cannot yet.
    """

    schema: ClassVar[TaskSchema]
    eval_batch: int = 1024
    predictor: ClassVar[type[Predictor] | None] = None

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.arm = self.schema.arms[config.method]
        self.hold(0)

    def hold(self, epoch: int) -> None:
        """Take the parameters of a fine-tuning epoch, counted from 0; pretraining has those of the first."""
        self.params: Any = self.schema.params.model_validate(untied(self.schema.params, self.config.params_at(epoch)))

    @classmethod
    def locate(cls, data: DataSpec) -> Located:
        """Find the data set of a `data` section, or decide for a synthetic one.

        Raises:
            DataError: It cannot be had, with everything tried.
        """
        return locate(data)

    @classmethod
    def image_grid(cls, params: Mapping[str, Scalar]) -> TokenGrid | None:
        """How images are cut for the encoder that is pretrained, where that is a plain vision transformer on colours of
        ImageNet's scale, so that timm and Hugging Face can load it; None where it is something else."""
        return None

    @classmethod
    def locate_corpora(cls, pretraining: PretrainingSpec) -> tuple[Located, ...]:
        """Find what pretraining sees beside the task's own data.

        Raises:
            DataError: One cannot be had, or is of a kind that the task does not pretrain on; says which it does.
        """
        return locate_corpora(pretraining, cls.schema.corpora, cls.schema.name)

    @classmethod
    @abstractmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read the data as a trial with these parameters would, and describe its splits in one line.

        Raises:
            DataError: It is malformed, or too small for these parameters.
        """

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """What pretraining sees where that is not the training split alone, and what is left out, in a line; or "".

        Args:
            data: As for `validate`, which has been called with it.
            params: Of an arm that pretrains.

        Raises:
            DataError: It cannot be read.
        """
        return ""

    @abstractmethod
    def load(self, split: str) -> Source:
        """A split: `pretrain` (all inputs, no labels), `train` (the labelled fraction), `val` or `test`.

        An arm that pretrains is also asked for `pretext`: the inputs of `val` as `pretrain` has them, on which its
        pretraining is validated.
        """

    def units(self, split: str) -> Units:
        """The examples of a split, by name and by group; by default they are numbered, and no group is known."""
        return Units(tuple(map(str, range(len(self.load(split))))))

    @abstractmethod
    def build(self) -> nn.Module:
        """The network that is fine-tuned and scored, freshly initialised. References have no parameters."""

    def pretraining(self) -> Pretraining[Any] | None:
        """How this trial's encoder is pretrained; None where its arm does not pretrain."""
        return None

    @abstractmethod
    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Supervised loss of a batch."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predictions for a batch, as `metrics().update` takes them."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """A fresh accumulator."""

    def reported(self) -> tuple[str, ...]:
        """The metrics that this trial's data can have: all by default, fewer where some are of classes it lacks."""
        return self.schema.metrics

    def kept_state(self, model: nn.Module) -> Tree:
        """What prediction needs besides weights and configuration, as plain values (see `Predictor`).

        Args:
            model: The network that is kept, as `build` made it and with the weights that were scored.
        """
        return {}

    def is_head(self, name: str) -> bool:
        """Whether a parameter belongs to the head (trained alone during `freeze_epochs`)."""
        return not name.startswith("encoder.")

    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """What a trained network does, for people: RGB images `[H, W, 3]`, uint8, by name; none by default.

        Called once at the end of a replicate's pretraining, with the masked autoencoder, and once after its test score,
        with the network that was scored. Draws nothing from global random state.
        """
        return {}
