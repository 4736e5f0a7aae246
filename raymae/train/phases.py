"""The phases of a trial: masked pretraining, fine-tuning, the test. Each builds or takes a network and works on it.

An arm that pretrains goes through `Pretrain`, `Finetune`, `Test`; a trained one starts at `Finetune`, and a reference
has `Reference` in its place. Only replicates reach `Test`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Generator, Tensor, nn

from raymae.errors import CheckpointError, EncoderError, TrialError
from raymae.models.given import Given
from raymae.spec.trial import VALIDATED, PhaseName
from raymae.tasks.base import Batch, Loss, Task
from raymae.train.device import derive_seed, rank_and_world, seed_all
from raymae.train.encoder import Encoder
from raymae.train.epoch import Between, Learner, Steps, evaluate
from raymae.train.phase import Evaluation, Phase, PhaseState
from raymae.train.pretext import validate
from raymae.train.units import UnitLog


class Pretrain:
    """Masked pretraining.

    An arm that starts from somebody's weights as they are does not train here: the phase ends with its one report.

    Args:
        task: The problem, under an arm that pretrains.
        given: Weights to start from, where its configuration asks for some.
    """

    name: PhaseName = "pretrain"

    def __init__(self, task: Task, given: Given | None = None) -> None:
        config = task.config
        seed = 0 if config.adopts else config.pretrain_seed
        if seed not in (None, config.seed):
            task = type(task)(replace(config, seed=seed, pretrain_seed=None), task.device)
        pretraining = task.pretraining()
        assert pretraining is not None, f"the arm {config.arm} does not pretrain"
        self.task, self.epoch, self.stale, self.stopped_early = task, 0, 0, False
        self.best: dict[str, float] = {}
        self.lowest = math.inf
        seed_all(derive_seed(task.config.seed, self.name, "init"))
        model = pretraining.build()
        started = None if given is None else given.start(model)
        self.is_known = not config.adopts or (started is not None and started.with_decoder)
        model.to(task.device)

        def loss(batch: Batch, masks: Generator) -> Loss:
            return pretraining.loss(model, batch, pretraining.draw_mask(batch, masks))

        self.model: nn.Module = model
        self.pretraining = pretraining
        self.steps = Steps.of(task.params, "pretrain")
        self.learner = Learner(task, self.name, model, loss, steps=self.steps, betas=(0.9, 0.95))  # as MAE's

    def run(self, between: Between | None = None) -> Iterator[Evaluation]:
        """Train, report the loss, and what is made of hidden values of the validation split."""
        if self.task.config.adopts:
            yield from self._adopt()
            return
        p, source = self.task.params, self.task.load("pretrain")
        while self.epoch < p.pretrain_epochs and not self.stopped_early:
            result = self.learner.train(source, self.epoch, p.pretrain_epochs, steps=self.steps, between=between)
            self.epoch += 1
            if _is_due(self.epoch, p.pretrain_epochs, p.pretrain_eval_every):
                found = validate(self.task, self.pretraining, self.model)
                self._consider(found.get("pretext_loss", math.nan))
                metrics, last = {**result._asdict(), **found}, self.epoch == p.pretrain_epochs or self.stopped_early
                yield Evaluation(metrics, last, _pictures(self.task, self.model, "pretrain") if last else {})

    def _adopt(self) -> Iterator[Evaluation]:
        """Report how weights that are taken over reconstruct this data, where they have a decoder."""
        if self.stopped_early:
            return
        self.stopped_early = True
        if self.is_known:
            found = validate(self.task, self.pretraining, self.model)
            yield Evaluation(found, True, _pictures(self.task, self.model, "pretrain"))
        else:
            yield Evaluation({}, True, {})

    def _consider(self, loss: float) -> None:
        """Stop where validation has not improved for long enough; a loss that is not known never stops it."""
        if not loss >= self.lowest:
            self.lowest, self.stale = min(loss, self.lowest) if math.isfinite(loss) else self.lowest, 0
            return
        self.stale += 1
        self.stopped_early = 0 < self.task.params.pretrain_patience <= self.stale

    def result(self) -> nn.Module:
        """The masked autoencoder."""
        return self.model

    def state(self) -> PhaseState:
        """Weights and optimiser."""
        lowest = {"pretext_loss": self.lowest} if math.isfinite(self.lowest) else {}
        return PhaseState(self.name, self.epoch, self.model.state_dict(), self.learner.optimiser.state_dict(),
                          best=lowest, stale=self.stale, stopped_early=self.stopped_early,
                          within=self.learner.within())

    def restore(self, state: PhaseState) -> None:
        """Continue where a state was taken."""
        self.epoch, self.stale, self.stopped_early = state.epoch, state.stale, state.stopped_early
        self.lowest = state.best.get("pretext_loss", math.inf)
        self.model.load_state_dict(state.model)
        self.learner.optimiser.load_state_dict(state.optimiser)
        self.learner.go_on(state.within)


class Finetune:
    """Supervised training; keeps the weights that are best on validation.

    Args:
        task: The problem.
        pretrained: A masked autoencoder whose encoder the network starts from; random weights by default.
    """

    name: PhaseName = "finetune"

    def __init__(self, task: Task, pretrained: nn.Module | None = None) -> None:
        p = task.params
        self.task, self.epoch, self.stale, self.stopped_early = task, 0, 0, False
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        seed_all(derive_seed(task.config.seed, self.name, "init"))
        self.model = task.build()
        if pretrained is not None:
            pretraining = task.pretraining()
            assert pretraining is not None, f"the arm {task.config.arm} does not pretrain"
            pretraining.transfer(pretrained, self.model)
        self.model.to(task.device)
        self.learner = Learner(task, self.name, self.model, self._loss, steps=Steps.of(p, "finetune"),
                               betas=(0.9, 0.999), layer_decay=p.layer_decay, ema_decay=p.ema_decay)

    def _loss(self, batch: Batch, _: Generator) -> Loss:
        return self.task.finetune_loss(self.model, batch)

    def run(self, between: Between | None = None) -> Iterator[Evaluation]:
        """Train, and score on validation."""
        source, epochs = self.task.load("train"), self.task.params.epochs
        while self.epoch < epochs and not self.stopped_early:
            self.task.hold(self.epoch)
            p = self.task.params
            frozen = self.task.arm.kind == "pretrained" and self.epoch < p.freeze_epochs
            result = self.learner.train(source, self.epoch, epochs, steps=Steps.of(p, "finetune"), head_only=frozen,
                                        between=between)
            self.epoch += 1
            if _is_due(self.epoch, epochs, p.eval_every):
                metrics = {**result._asdict(), **self._select()}
                yield Evaluation(metrics, last=self.epoch == epochs or self.stopped_early, pictures={})

    def _select(self) -> dict[str, float]:
        """Score on validation; keep the weights if they are the best so far; decide on early stopping."""
        p, objective = self.task.params, self.task.schema.objective
        model = self.model if self.learner.average is None else self.learner.average.module
        scores = _score(self.task, model, "val")
        score = scores[objective.val]
        if not math.isfinite(score):
            raise TrialError(f"{objective.val} is {score} after fine-tuning epoch {self.epoch}; lower lr "
                             f"({p.lr:g}) or clip_norm ({p.clip_norm:g})")
        if not self.best or objective.better(score, self.best[objective.val]):
            self.best, self.stale = scores, 0
            self.best_weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        else:
            self.stale += 1
            self.stopped_early = 0 < p.patience <= self.stale
        return scores

    def result(self) -> nn.Module:
        """The network with the weights that were best on validation."""
        self.model.load_state_dict(self.best_weights)
        return self.model

    def state(self) -> PhaseState:
        """Weights, optimiser, moving average, and the selection."""
        average = self.learner.average
        return PhaseState(
            self.name, self.epoch, self.model.state_dict(), self.learner.optimiser.state_dict(),
            {} if average is None else average.state_dict(), self.best, self.best_weights, self.stale,
            self.stopped_early, self.learner.within(),
        )

    def restore(self, state: PhaseState) -> None:
        """Continue where a state was taken."""
        self.epoch, self.best, self.stale, self.stopped_early = (
            state.epoch, state.best, state.stale, state.stopped_early
        )
        self.model.load_state_dict(state.model)
        self.learner.optimiser.load_state_dict(state.optimiser)
        self.learner.go_on(state.within)
        if self.learner.average is not None:
            self.learner.average.load_state_dict(state.average)
        self.best_weights = {key: value.to(self.task.device) for key, value in state.best_weights.items()}


class Reference:
    """A reference in the place of fine-tuning: nothing to train, scored on validation once.

    Args:
        task: The problem, under a reference arm.
    """

    name: PhaseName = "finetune"

    def __init__(self, task: Task) -> None:
        self.task, self.epoch = task, 0
        self.best: dict[str, float] = {}
        seed_all(derive_seed(task.config.seed, self.name, "init"))
        self.model = task.build().to(task.device)

    def run(self, between: Between | None = None) -> Iterator[Evaluation]:
        """Score on validation."""
        if not self.best:
            self.best = _score(self.task, self.model, "val")
            yield Evaluation(dict(self.best), last=True, pictures={})

    def result(self) -> nn.Module:
        """The reference itself."""
        return self.model

    def state(self) -> PhaseState:
        """The score."""
        return PhaseState(self.name, self.epoch, self.model.state_dict(), best=self.best)

    def restore(self, state: PhaseState) -> None:
        """Continue where a state was taken."""
        self.best = state.best
        self.model.load_state_dict(state.model)


class Test:
    """The one score on the test split.

    Args:
        task: The problem.
        model: The network to score.
        epoch: Epochs that it was trained.
        best: Its metrics on validation.
    """

    name: PhaseName = "test"

    def __init__(self, task: Task, model: nn.Module, epoch: int = 0, best: Mapping[str, float] | None = None) -> None:
        self.task, self.model, self.epoch, self.best = task, model, epoch, dict(best or {})

    def run(self, between: Between | None = None) -> Iterator[Evaluation]:
        """Score on the test split."""
        units = UnitLog()
        scores = _score(self.task, self.model, "test", units)
        yield Evaluation(scores, True, _pictures(self.task, self.model, "test"), units.table(self.task, "test"))

    def result(self) -> nn.Module:
        """The network that was scored."""
        return self.model

    def state(self) -> PhaseState:
        """The weights that were scored."""
        weights = self.model.state_dict()
        return PhaseState(self.name, self.epoch, weights, best=self.best, best_weights=weights)

    def restore(self, state: PhaseState) -> None:
        """Continue where a state was taken."""
        self.epoch, self.best = state.epoch, state.best
        self.model.load_state_dict(state.model)


def first_phase(task: Task, encoder: Encoder | None = None, given: Given | None = None) -> Phase:
    """Enter the phase that a trial starts with.

    Args:
        task: The problem.
        encoder: What its pretraining has led to, where that is over.
        given: Weights that its pretraining starts from, where its configuration asks for some.

    Raises:
        EncoderError: It is of another network, or those weights are not there.
    """
    if task.arm.kind == "pretrained":
        if encoder is None and task.config.weights and (given is None or given.sha256 != task.config.weights):
            raise EncoderError(f"the arm {task.config.arm} starts from the weights {task.config.weights[:16]}, and "
                               f"{'none' if given is None else given.sha256[:16]} were given")
        return Pretrain(task, given) if encoder is None else Finetune(task, encoder.model(task))
    return Reference(task) if task.arm.kind == "reference" else Finetune(task)


def next_phase(task: Task, done: Phase) -> Phase:
    """Enter the phase that follows one that is done."""
    if isinstance(done, Pretrain):
        return Finetune(task, done.result())
    return Test(task, done.result(), done.epoch, done.best)


def restored_phase(task: Task, state: PhaseState) -> Phase:
    """Enter the phase of a state, where the state was taken.

    Raises:
        CheckpointError: Its weights are of another network, as where another version of this package wrote them.
    """
    phase: Phase
    if state.phase == "test":
        phase = Test(task, task.build().to(task.device))
    elif state.phase == "pretrain":
        phase = Pretrain(task)
    else:
        phase = Reference(task) if task.arm.kind == "reference" else Finetune(task)
    try:
        phase.restore(state)
    except (RuntimeError, ValueError) as error:  # torch's names for other tensors than the network's
        raise CheckpointError(f"the checkpoint is of another network ({str(error).splitlines()[0]}); delete it to "
                              "start the trial over") from error
    return phase


def _is_due(epoch: int, epochs: int, every: int) -> bool:
    """Whether an evaluation follows after so many epochs."""
    return epoch % every == 0 or epoch >= epochs


def _score(task: Task, model: nn.Module, split: str, units: UnitLog | None = None) -> dict[str, float]:
    """Score on a split, shared between ranks; metrics are prefixed by its name."""
    rank, world = rank_and_world()
    scores = evaluate(task, model, task.load(split), rank=rank, world=world, units=units)
    return {f"{split}_{name}": value for name, value in scores.items()}


def _pictures(task: Task, model: nn.Module, phase: Literal["pretrain", "test"]) -> Mapping[str, np.ndarray]:
    """Draw what a network does, once over all ranks: a replicate's, or one that was pretrained for itself."""
    if task.config.stage in VALIDATED or rank_and_world()[0]:
        return {}
    model.eval()
    return task.pictures(model, phase)
