"""A model of a sweep, loaded: it predicts on new inputs, gives features, and scores itself again."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raymae.errors import DataError, ModelError, RayMAEError, unknown
from raymae.inference.shelf import ModelShelf
from raymae.models.mae import expect_positions
from raymae.results.store.cards import ModelCard
from raymae.results.store.folder import Folder
from raymae.results.store.store import Store
from raymae.results.views.models import in_one_cell, models_of
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig
from raymae.tasks import TASKS, task_class
from raymae.tasks.base import Task
from raymae.tasks.predictor import Predictor
from raymae.train.device import pick_device
from raymae.train.epoch import evaluate


class KeptModel:
    """The kept networks of one arm: the best replicate's, or those of all replicates, whose answers are averaged.

    Args:
        shelf: Where they are.
        cards: Of the networks, the best on validation first.
        device: Where to compute.

    Attributes:
        shelf: Where they are.
        cards: Of the networks.
        device: Where it computes.
    """

    def __init__(self, shelf: ModelShelf, cards: Sequence[ModelCard], device: torch.device) -> None:
        self.shelf, self.cards, self.device = shelf, tuple(cards), device

    @property
    def card(self) -> ModelCard:
        """That of the replicate which is best on validation."""
        return self.cards[0]

    @property
    def arm(self) -> str:
        """The arm."""
        return self.card.arm

    def __repr__(self) -> str:
        """Which arm, and whose networks."""
        return f"<KeptModel {self.arm}: {', '.join(card.trial_id for card in self.cards)}>"

    @cached_property
    def members(self) -> tuple[KeptModel, ...]:
        """Each network for itself."""
        return tuple(KeptModel(self.shelf, [card], self.device) for card in self.cards)

    @cached_property
    def config(self) -> TrialConfig:
        """The configuration of the best replicate."""
        return config_of(self.card, self.shelf)

    @cached_property
    def predictors(self) -> tuple[Predictor, ...]:
        """What the task makes of a user's inputs and of a network's answers: one a network, that of `card` first.

        Raises:
            ModelError: The task cannot do that, or a card is not one of its own.
        """
        kind = task_of(self.card, self.shelf).predictor
        if kind is None:
            raise ModelError(f"{self.shelf.root}: the task {self.card.task} has no `predictor`, so its models cannot "
                             "be used on other inputs; `score()` works without one")
        return tuple(_understood(card, self.shelf, partial(kind, config_of(card, self.shelf), card.state, self.device))
                     for card in self.cards)

    @property
    def predictor(self) -> Predictor:
        """That which prepares inputs and words answers for all of them."""
        return self.predictors[0]

    @cached_property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks with their weights, for evaluation, without any data at hand; that of `card` first."""
        return tuple(filled(self.shelf, card, predictor.build, self.device)
                     for card, predictor in zip(self.cards, self.predictors, strict=True))

    @torch.no_grad()
    def predict(self, inputs: Any, **options: bool) -> Any:
        """What the networks say of inputs of the kind that the task reads; their scores are averaged.

        Args:
            inputs: What the task's `Predictor.prepare` takes.
            **options: Some of its `options`.

        Returns:
            What its `answer` gives, in the user's units.

        Raises:
            ModelError: The model is damaged, its task cannot predict, or has no such option.
            DataError: The inputs are not what it was trained on.
        """
        prepared = self._prepared(inputs, options)
        scores = [predictor.scores(network, prepared)
                  for predictor, network in zip(self.predictors, self.networks, strict=True)]
        return self.predictor.answer(scores[0] if len(scores) == 1 else np.mean(scores, axis=0), prepared)

    @torch.no_grad()
    def encode(self, inputs: Any, **options: bool) -> np.ndarray:
        """Features of inputs for other uses, `[examples, D]`: of the best replicate, since each has its own.

        Args:
            inputs: As `predict` takes them.
            **options: Likewise.

        Raises:
            ModelError: The model is damaged, its task cannot predict, or has no such option.
            DataError: The inputs are not what it was trained on.
        """
        return self.predictor.encode(self.networks[0], self._prepared(inputs, options))

    def _prepared(self, inputs: Any, options: Mapping[str, bool]) -> Any:
        for name in options:
            if name not in self.predictor.options:
                raise ModelError(f"{unknown('option', name, self.predictor.options)} for {self.card.task}")
        return self.predictor.prepare(inputs, **options)

    def score(self, split: str = "test", *, path: str | os.PathLike[str] | None = None) -> dict[str, float]:
        """Score the network on the data that it was trained on, read again: the recorded metrics come out.

        Args:
            split: `test` or `val`.
            path: Where the data lies now; where the sweep found it by default.

        Returns:
            Metrics by column, such as `test_mse`.

        Raises:
            ModelError: The model is damaged, or these are several networks: score `members`.
            DataError: The data cannot be had, or is other data; says both fingerprints.
        """
        if split not in ("val", "test"):
            raise ModelError(f"split: {unknown('split', split, ('val', 'test'))}")
        if len(self.cards) > 1:
            raise ModelError(f"{self.shelf.root}: a score was recorded for each of these {len(self.cards)} networks "
                             "and none for their average; use `members` and score each")
        config, kind = self.config, task_of(self.card, self.shelf)
        if path is not None:
            where = config.data.where.model_copy(update={"path": os.fspath(path)})
            config = replace(config, data=replace(config.data, where=where))
        located = kind.locate(config.data.where)
        if located.fingerprint != self.card.fingerprint:
            raise DataError(f"{config.data.name}: the data found at {located.path or 'no file (generated)'} has the "
                            f"fingerprint {located.fingerprint}, that of this model has {self.card.fingerprint}; say "
                            "where its data lies with `path`")
        task: Task = _understood(self.card, self.shelf, lambda: kind(config, self.device))
        network = filled(self.shelf, self.card, task.build, self.device)
        task.hold(task.params.epochs - 1)
        return {f"{split}_{name}": value for name, value in evaluate(task, network, task.load(split)).items()}


def load_model(
    folder: str | os.PathLike[str], arm: str | None = None, *, ensemble: bool = False,
    device: torch.device | str | None = None, cell: Mapping[str, Scalar] | None = None,
) -> KeptModel:
    """Load a model that a sweep has kept.

    Args:
        folder: The sweep's results folder, a path or a URI.
        arm: Whose; by default the verdict's best arm that has a model.
        ensemble: Average over all replicates of the arm; by default the one that is best on validation.
        device: Where to compute; this process's GPU if it has one, by default.
        cell: Of a sweep with factors, some of their values, such as `{"label_fraction": 0.1}`; by default those of the
            network that is best on validation. Networks of different values are never averaged.

    Raises:
        ResultsError: There is no sweep.
        ModelError: There is no such model; says how to get one.
    """
    store = Store.open(folder)
    cards = in_one_cell(models_of(store).of(arm), store.spec().factors, cell or {})
    chosen = pick_device() if device is None else torch.device(device)
    return KeptModel(ModelShelf.of_sweep(store.location), cards if ensemble else cards[:1], chosen)


def config_of(card: ModelCard, shelf: ModelShelf) -> TrialConfig:
    """The configuration in a card.

    Raises:
        ModelError: It is none.
    """
    config = _understood(card, shelf, lambda: TrialConfig.from_json(card.config))
    if (config.task, config.arm) != (card.task, card.arm):
        raise ModelError(f"{_where(card, shelf)}: config: of the task {config.task} and the arm {config.arm}, the card "
                         f"of {card.task} and {card.arm}")
    return config


def task_of(card: ModelCard, shelf: ModelShelf) -> type[Task]:
    """The task of a model. One of your own is imported as a sweep would; never from the model's own folder.

    Raises:
        ModelError: There is none of that name, it lies beside the model, or it has no such arm.
    """
    module = card.task.partition(":")[0].partition(".")[0]
    folder = Folder(shelf.root).parent().local
    if card.task not in TASKS and folder is not None and module.isidentifier():
        spec = importlib.util.find_spec(module)
        here = Path.cwd() / module
        for place in (spec and spec.origin, here):
            if place and folder.resolve() in (Path(place).resolve(), *Path(place).resolve().parents) and (
                    place != here or here.exists() or here.with_suffix(".py").exists()):
                raise ModelError(f"{_where(card, shelf)}: its task {card.task} lies in the results folder itself, from "
                                 "where no code is run; put it where you keep your own code")
    try:
        kind = task_class(card.task)
    except KeyError as error:
        names, *why = error.args
        raise ModelError(f"{_where(card, shelf)}: {why[0] if why else unknown('task', card.task, names)}") from None
    method = card.config.get("like") or card.arm  # an arm of the sweep's own is like one of the task's
    if method not in kind.schema.arms:
        raise ModelError(f"{_where(card, shelf)}: {unknown('arm', method, kind.schema.arms)}")
    return kind


def filled(
    shelf: ModelShelf, card: ModelCard, build: Callable[[], nn.Module], device: torch.device
) -> nn.Module:
    """A network with a model's weights, for evaluation.

    Its shapes are compared with the file's before any memory is taken for either.

    Args:
        shelf: Where the model is.
        card: The model.
        build: Makes the network.
        device: Where it goes.

    Raises:
        ModelError: The file is damaged or of another network.
    """
    deepest = len(shelf.shapes(card))
    for name, value in _mapping(card.config.get("params")).items():
        if name.endswith("depth") and isinstance(value, int) and value > deepest:
            raise ModelError(f"{_where(card, shelf)}: config.params.{name}: {value} layers, and weights of {deepest} "
                             "tensors")
    try:
        with torch.device("meta"):
            network = build()
            expect_positions(network, shelf.shapes(card))
            shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    except Exception:  # a network that computes with its values while it is built; the next one says what is wrong
        shapes = None
    if shapes is not None:
        shelf.check(card, shapes)
    network = _understood(card, shelf, build)
    shelf.fill(network, card)
    return network.to(device).eval()


def _understood(card: ModelCard, shelf: ModelShelf, make: Callable[[], Any]) -> Any:
    """What is made of a card's values; whatever that raises is the card's fault.

    Raises:
        ModelError: They are not what they should be.
        DataError: The data is to blame.
    """
    try:
        return make()
    except RayMAEError:
        raise
    except Exception as error:  # of pydantic, torch or a task's own code: the card may say anything
        raise ModelError(f"{_where(card, shelf)}: not what this version of raymae can use: {type(error).__name__}: "
                         f"{' '.join(str(error).split())[:300]}") from error


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _where(card: ModelCard, shelf: ModelShelf) -> str:
    return f"{shelf.root}/{card.trial_id}.json"
