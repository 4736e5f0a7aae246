"""Where encoders are kept: for each a file of weights, and a card that says what it is and proves it whole."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from raymae.errors import EncoderError, RayMAEError
from raymae.results.store import layout
from raymae.results.store.folder import json_bytes
from raymae.results.store.manifest import checked
from raymae.results.store.shelf import Shelf
from raymae.spec.read import Tree

if TYPE_CHECKING:
    from raymae.models.given import Given
    from raymae.spec.encoder import EncoderRef
    from raymae.spec.trial import TrialConfig
    from raymae.train.encoder import Encoder
    from raymae.train.trial import Report

FORMAT = 1
GIVEN = "given-"  # begins the names of weights that an arm starts from


@dataclass(frozen=True)
class Card:
    """What is known of an encoder; the JSON file beside its weights.

    Attributes:
        encoder_id: Its name: the hash of all that determines it.
        config: The pretraining, as `TrialConfig.to_json` has it.
        fingerprint: Of the data.
        pretext: How the pretraining did on validation (see `raymae.spec.trial.ReportData`).
        epochs: Epochs it took.
        seconds: Seconds they took.
        num_parameters: Values of the masked autoencoder, its decoder counted.
        sha256: Of the file of weights.
        num_bytes: Of the file of weights.
        made_at: When, ISO, UTC.
        versions: Of the packages that could matter.
        format: Of this card.
        source: Where somebody's weights were found, of those that an arm starts from; "" of what was pretrained.
    """

    encoder_id: str
    config: Tree
    fingerprint: str
    pretext: Mapping[str, float]
    epochs: int
    seconds: float
    num_parameters: int
    sha256: str
    num_bytes: int
    made_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str | None] = field(default_factory=dict)
    format: int = FORMAT
    source: str = ""


def name_of_given(sha256: str) -> str:
    """The name of weights that an arm starts from, on a shelf."""
    return f"{GIVEN}{sha256[:16]}"


class EncoderShelf(Shelf):
    """A folder of encoders, local or on an object store; of one sweep, or shared by several.

    Args:
        root: The folder, a path or a URI.
    """

    def card(self, encoder_id: str) -> Card | None:
        """What is known of an encoder; None where there is none, or its card is damaged."""
        try:
            plain = self._folder.read_json(layout.card(encoder_id))
            if plain is None:
                return None
            checked(Card, plain, self._folder.uri(layout.card(encoder_id)))
            return Card(**plain)
        except (OSError, RayMAEError, TypeError):
            return None

    def keep(
        self, ref: EncoderRef, config: TrialConfig, report: Report, versions: Mapping[str, str | None] | None = None
    ) -> None:
        """Write the encoder that a pretraining has ended with.

        Args:
            ref: Which it is.
            config: The pretraining.
            report: Its last.
            versions: Of the packages that could matter.

        Raises:
            OSError: The storage kept failing.
        """
        from raymae.models.tensor_file import saved

        data = saved(report.state().phase.model, {"encoder_id": ref.encoder_id})
        card = Card(ref.encoder_id, config.to_json(), ref.fingerprint, dict(report.pretext), report.epoch,
                    report.seconds, report.num_parameters, hashlib.sha256(data).hexdigest(), len(data),
                    versions=dict(versions or {}))
        self.put(ref.encoder_id, data, json_bytes(asdict(card)))

    def borrow(self, other: EncoderShelf, encoder_id: str) -> bool:
        """Copy an encoder from another shelf; returns whether it is here now."""
        try:
            self.put(encoder_id, other._folder.read(layout.weights(encoder_id)),
                     other._folder.read(layout.card(encoder_id)), ())
        except OSError:
            return False
        return True

    def load(self, encoder_id: str) -> Encoder:
        """Read an encoder; no code in its file is run.

        Raises:
            EncoderError: It is not there, or not what its card says.
        """
        import safetensors.torch

        from raymae.train.encoder import Encoder

        card, where = self.card(encoder_id), self.where(encoder_id)
        if card is None:
            raise EncoderError(f"{where}: there is no whole encoder of this name")
        data = self.whole(encoder_id, card.sha256, card.num_bytes, EncoderError)
        try:
            return Encoder(safetensors.torch.load(data), dict(card.pretext), card.epochs, card.seconds)
        except Exception as error:  # whatever safetensors raises at a file that its own card calls whole
            raise EncoderError(f"{where}: not a file of weights: {error}") from None

    def give(self, given: Given, fingerprint: str) -> None:
        """Write weights that an arm starts from, so that workers need this folder alone.

        Args:
            given: The weights.
            fingerprint: Of the data of this sweep.

        Raises:
            EncoderError: The storage kept failing.
        """
        name = name_of_given(given.sha256)
        card = Card(name, {}, fingerprint, {}, 0, 0.0, sum(value.numel() for value in given.weights.values()),
                    given.sha256, len(given.data), source=given.source)
        if self.card(name) is not None:
            return
        try:
            self.put(name, given.data, json_bytes(asdict(card)))
        except OSError as error:
            raise EncoderError(f"{self.where(name)}: cannot be written: {error}") from None

    def given(self, sha256: str) -> Given:
        """Read weights that an arm starts from.

        Raises:
            EncoderError: They are not there, or not what their name says.
        """
        from raymae.models.given import Given

        name = name_of_given(sha256)
        card, where = self.card(name), self.where(name)
        if card is None:
            raise EncoderError(f"{where}: the weights that the arm starts from are not there; run the sweep again "
                               "where they can be read")
        return Given.from_data(self.whole(name, sha256, card.num_bytes, EncoderError), card.source)

    def given_of(self, source: str) -> str | None:
        """The hash of the weights that were found at a place when the sweep began; None where there are none."""
        cards = (self.card(name) for name in sorted(self.ids()) if name.startswith(GIVEN))
        return next((card.sha256 for card in cards if card is not None and card.source == source), None)

    def forget(self, encoder_id: str) -> None:
        """Delete the card of an encoder that turned out damaged, so that nobody starts from it."""
        with contextlib.suppress(OSError):  # it is made again all the same
            self._folder.remove(layout.card(encoder_id))
