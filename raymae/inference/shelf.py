"""The models of a sweep on their shelf: kept by whoever scored them, read without trusting whoever wrote them.

A file of weights is safetensors: a header that says which tensors there are, and their bytes. Nothing in it is run.
Before its bytes are read, its header has to be that of the network that they are for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from raymae.data.find.registry import DATASETS
from raymae.errors import ModelError, shorten
from raymae.models.mae import expect_positions
from raymae.models.tensor_file import MAX_HEADER, header_length, saved
from raymae.results.store import layout
from raymae.results.store.cards import ModelCard, read_card, read_cards
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.shelf import PATIENCE_S, Shelf
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class

if TYPE_CHECKING:
    from torch import nn

    from raymae.train.trial import Report

WIDEST = 8  # bytes of a value


class ModelShelf(Shelf):
    """The folder of a sweep's models, local or on an object store.

    Args:
        root: The folder, a path or a URI.
    """

    @classmethod
    def of_sweep(cls, root: str) -> ModelShelf:
        """The shelf in a sweep's results folder."""
        return cls(Folder(root).uri(layout.MODELS))

    def cards(self) -> tuple[list[ModelCard], list[ModelError]]:
        """Every card, and what is wrong with those that are damaged.

        Raises:
            ModelError: The folder cannot be listed.
        """
        return read_cards(self._folder)

    def card(self, trial_id: str) -> ModelCard:
        """What is known of a model.

        Raises:
            ModelError: There is none of this name, or its card is damaged.
        """
        return read_card(self._folder, trial_id)

    def keep(
        self, trial_id: str, config: TrialConfig, report: Report, *, fingerprint: str, encoder_id: str | None = None,
        versions: Mapping[str, str | None] | None = None, waits_s: Iterable[float] = PATIENCE_S,
    ) -> ModelCard | None:
        """Write the network that a replicate was scored with.

        Args:
            trial_id: The replicate.
            config: Its configuration.
            report: That of its test.
            fingerprint: Of the data.
            encoder_id: The encoder that it started from.
            versions: Of the packages that could matter.
            waits_s: Seconds before each further try where the storage fails.

        Returns:
            The card; None where the network has no parameters, and nothing is kept.

        Raises:
            OSError: The storage kept failing.
            ValueError: What the task says of it holds NaN or an infinite number.
            TypeError: Likewise, something that is no plain value.
        """
        if not report.num_parameters:
            return None
        data = saved(report.state().phase.model, {"trial_id": trial_id})
        known = DATASETS.get(config.data.name) if config.data.where.path is None else None
        about = {"name": config.data.name, "source": str(config.data.source),
                 "licence": known.licence if known is not None and config.data.source == "real" else None}
        objective = task_class(config.task).schema.objective
        card = ModelCard(
            trial_id, config.task, config.arm, config.to_json(), report.kept(), encoder_id, fingerprint, about,
            {**report.best, **report.metrics}, objective.metric, objective.mode, report.num_parameters,
            hashlib.sha256(data).hexdigest(), len(data), versions=dict(versions or {}))
        self.put(trial_id, data, json_bytes(card.to_json()), waits_s)
        return card

    def forget(self, trial_id: str) -> None:
        """Delete a model, its card first.

        Raises:
            OSError: The storage failed.
        """
        self._folder.remove(layout.card(trial_id))
        self._folder.remove(layout.weights(trial_id))

    def fill(self, model: nn.Module, card: ModelCard) -> None:
        """Load a model's weights into its network.

        Args:
            model: The network, on whatever device.
            card: Of the model.

        Raises:
            ModelError: The file is not there, damaged, or of another network; says which tensor.
        """
        import safetensors.torch

        expect_positions(model, self.shapes(card))
        self.check(card, {name: tuple(value.shape) for name, value in model.state_dict().items()})
        data = self.whole(card.trial_id, card.sha256, card.num_bytes, ModelError)
        try:
            model.load_state_dict(safetensors.torch.load(data))
        except Exception as error:  # whatever safetensors and torch raise at a file that its own card calls whole
            raise ModelError(f"{self.where(card.trial_id)}: not weights of this network: {error}") from None

    def check(self, card: ModelCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare a file's header with the tensors of a network; no more than the header is read.

        Args:
            card: Of the model.
            shapes: Of the network's tensors, by name.

        Raises:
            ModelError: They differ.
        """
        where, found = self.where(card.trial_id), self.shapes(card)
        for name in shapes:
            if name not in found:
                raise ModelError(f"{where}: the tensor {shorten(name)} of the network is not in it; it holds "
                                 f"{len(found)}")
        for name, shape in found.items():
            if name not in shapes:
                raise ModelError(f"{where}: holds a tensor {shorten(name)}, which the network does not have")
            if shape != shapes[name]:
                raise ModelError(f"{where}: {shorten(name)}: must have the shape {shapes[name]} of the network, got "
                                 f"{shorten(shape)}")
        if card.num_bytes > 8 + MAX_HEADER + WIDEST * sum(map(math.prod, shapes.values())):
            raise ModelError(f"{where}: {card.num_bytes:,} bytes are more than its tensors take")

    def shapes(self, card: ModelCard) -> dict[str, tuple[int, ...]]:
        """The shapes of a model's tensors, by name, as its file's header says.

        Raises:
            ModelError: There is no file, or it begins with something else.
        """
        name, where = layout.weights(card.trial_id), self.where(card.trial_id)
        try:
            if not self._folder.holds(name):
                raise ModelError(f"{where}: there is no such file in the folder itself")
            size = self._folder.size(name)
            try:
                length = header_length(self._folder.head(name, 8), size)
            except ValueError as error:
                raise ModelError(f"{where}: {error}") from None
            header = json.loads(self._folder.head(name, 8 + length)[8:])
            return {key: tuple(map(int, tensor["shape"])) for key, tensor in header.items() if key != "__metadata__"}
        except OSError as error:
            raise ModelError(f"{where}: cannot be read: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"{where}: its header is not that of a safetensors file: {error!r}") from None
