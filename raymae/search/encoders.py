"""Where encoders are kept: for each a file of weights, and a card that says what it is and proves it whole."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from raymae.errors import EncoderError, RayMAEError
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import encoder_card, encoder_weights
from raymae.results.store.manifest import checked
from raymae.search.checkpoints import stubbornly
from raymae.spec.read import Tree

if TYPE_CHECKING:
    from raymae.spec.encoder import EncoderRef
    from raymae.spec.trial import TrialConfig
    from raymae.train.encoder import Encoder
    from raymae.train.trial import Report

PATIENCE_S = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0)  # between tries to write one: without it, its trials fail
FORMAT = 1


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


class EncoderShelf:
    """A folder of encoders, local or on an object store; of one sweep, or shared by several.

    The weights are written first, and the card last: where there is a card, the encoder is whole, and `load` proves it.
    Whoever makes an encoder once more writes the same bits, so two at once do each other no harm.

    Args:
        root: The folder, a path or a URI.
    """

    def __init__(self, root: str) -> None:
        self._folder = Folder(root)
        # as another process finds it, whatever folder that runs in
        self.root = root if self._folder.local is None else str(self._folder.local)

    def ids(self) -> set[str]:
        """Names of the encoders that are there; none where the folder cannot be read."""
        try:
            return {name.removesuffix(".json") for name in self._folder.names() if name.endswith(".json")}
        except OSError:
            return set()

    def card(self, encoder_id: str) -> Card | None:
        """What is known of an encoder; None where there is none, or its card is damaged."""
        try:
            plain = self._folder.read_json(encoder_card(encoder_id))
            if plain is None:
                return None
            checked(Card, plain, self._folder.uri(encoder_card(encoder_id)))
            return Card(**plain)
        except (OSError, RayMAEError, TypeError):
            return None

    def keep(self, ref: EncoderRef, config: TrialConfig, report: Report) -> None:
        """Write the encoder that a pretraining has ended with.

        Args:
            ref: Which it is.
            config: The pretraining.
            report: Its last.

        Raises:
            OSError: The storage kept failing.
        """
        import safetensors.torch

        from raymae.search.environment import versions

        weights = {name: value.detach().cpu().contiguous().clone()
                   for name, value in report.state().phase.model.items()}
        data = safetensors.torch.save(weights, {"encoder_id": ref.encoder_id})
        card = Card(ref.encoder_id, config.to_json(), ref.fingerprint, dict(report.pretext), report.epoch,
                    report.seconds, report.num_parameters, hashlib.sha256(data).hexdigest(), len(data),
                    versions=versions("raymae", "torch"))
        stubbornly(lambda: self._put(ref.encoder_id, data, json_bytes(asdict(card))), PATIENCE_S)

    def _put(self, encoder_id: str, weights: bytes, card: bytes) -> None:
        self._folder.make()
        self._folder.write(encoder_weights(encoder_id), weights)
        self._folder.write(encoder_card(encoder_id), card)

    def borrow(self, other: EncoderShelf, encoder_id: str) -> bool:
        """Copy an encoder from another shelf; returns whether it is here now."""
        try:
            self._put(encoder_id, other._folder.read(encoder_weights(encoder_id)),
                      other._folder.read(encoder_card(encoder_id)))
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

        card, where = self.card(encoder_id), self._folder.uri(encoder_weights(encoder_id))
        if card is None:
            raise EncoderError(f"{where}: there is no whole encoder of this name")
        try:
            data = self._folder.read(encoder_weights(encoder_id))
        except OSError as error:
            raise EncoderError(f"{where}: cannot be read: {error}") from None
        if hashlib.sha256(data).hexdigest() != card.sha256:
            raise EncoderError(f"{where}: damaged: {len(data):,} bytes that are not the {card.num_bytes:,} of its card")
        try:
            return Encoder(safetensors.torch.load(data), dict(card.pretext), card.epochs, card.seconds)
        except Exception as error:  # whatever safetensors raises at a file that its own card calls whole
            raise EncoderError(f"{where}: not a file of weights: {error}") from None

    def forget(self, encoder_id: str) -> None:
        """Delete the card of an encoder that turned out damaged, so that nobody starts from it."""
        with contextlib.suppress(OSError):  # it is made again all the same
            self._folder.remove(encoder_card(encoder_id))
