"""What is known of a kept model: the card beside its weights. Reading cards needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from raymae.errors import ModelError, ResultsError, shorten
from raymae.results.store import layout
from raymae.results.store.folder import Folder
from raymae.results.store.manifest import checked
from raymae.spec.read import Tree

FORMAT = 1
MAX_CARD = 20_000_000  # bytes
MAX_INTEGER = 2**63


@dataclass(frozen=True)
class ModelCard:
    """What is known of a kept model; the JSON file beside its weights.

    Attributes:
        trial_id: The replicate whose network it is.
        task: Name of its task.
        arm: Its arm.
        config: Its configuration, as `TrialConfig.to_json` has it.
        state: What prediction needs besides weights and configuration, see `Task.kept_state`.
        encoder_id: The encoder that it started from; None where it started from none.
        fingerprint: Of the data.
        data: `name`, `source` and `licence` of the data; the licence is None where nobody knows it.
        scores: Its `val_` and `test_` metrics.
        objective: The metric that the sweep selects on, without prefix.
        direction: Whether less (`min`) or more (`max`) of it is better.
        num_parameters: Values of the network.
        sha256: Of the file of weights.
        num_bytes: Of the file of weights.
        made_at: When, ISO, UTC.
        versions: Of the packages that could matter.
        format: Of this card.
    """

    trial_id: str
    task: str
    arm: str
    config: Tree
    state: Tree
    encoder_id: str | None
    fingerprint: str
    data: Mapping[str, str | None]
    scores: Mapping[str, float]
    objective: str
    direction: Literal["min", "max"]
    num_parameters: int
    sha256: str
    num_bytes: int
    made_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str | None] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def seed(self) -> int | None:
        """The replicate's seed."""
        return self.config.get("seed")

    @property
    def val(self) -> float | None:
        """Its validation score in the objective."""
        return self.scores.get(f"val_{self.objective}")

    @property
    def test(self) -> float | None:
        """Its test score in the objective."""
        return self.scores.get(f"test_{self.objective}")

    @property
    def rank(self) -> tuple[float, str]:
        """Sorts cards of an arm, the best on validation first."""
        if self.val is None:
            return math.inf, self.trial_id
        return (self.val if self.direction == "min" else -self.val), self.trial_id

    def to_json(self) -> dict[str, object]:
        """Plain values, as the file holds them."""
        return asdict(self)


def read_card(folder: Folder, trial_id: str) -> ModelCard:
    """Read a model's card, whoever wrote it: every value is of its kind and of a size that a card's can be.

    Args:
        folder: The models' own folder.
        trial_id: The replicate.

    Raises:
        ModelError: There is none, or it is damaged or of another version; names the file and what is wrong.
    """
    name = layout.card(trial_id)
    where = folder.uri(name)
    try:
        if not folder.holds(name):
            raise ModelError(f"{where}: there is no such card in the folder itself")
        if (size := folder.size(name)) > MAX_CARD:
            raise ModelError(f"{where}: {size:,} bytes; a card has at most {MAX_CARD:,}")
        plain = folder.read_json(name)
    except (OSError, ResultsError) as error:
        raise ModelError(f"{where}: cannot be read: {error}") from None
    assert plain is not None
    if plain.get("format") != FORMAT:
        raise ModelError(f"{where}: format: must be {FORMAT}, got {shorten(plain.get('format'))}; this version of "
                         "raymae reads no other")
    try:
        _check_sizes(plain)
        checked(ModelCard, plain, where)
        card = ModelCard(**plain)
    except (ResultsError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{where}: not a model's card: {error}") from None
    if card.trial_id != trial_id:
        raise ModelError(f"{where}: trial_id: must be {trial_id!r} as the file's name is, got {shorten(card.trial_id)}")
    return card


def read_cards(folder: Folder) -> tuple[list[ModelCard], list[ModelError]]:
    """Every card in a folder of models, in the order of names; and what is wrong with those that are damaged.

    Args:
        folder: The models' own folder; none where it is not there.

    Raises:
        ModelError: It cannot be listed.
    """
    try:
        names = [name for file in folder.names() if (name := layout.named_by_card(file)) is not None]
    except OSError as error:
        raise ModelError(f"{folder.root}: cannot list: {error}") from None

    def read(name: str) -> ModelCard | ModelError:
        try:
            return read_card(folder, name)
        except ModelError as error:
            return error

    with ThreadPoolExecutor(8) as pool:  # an object store answers each of them late
        found = list(pool.map(read, names))
    return ([card for card in found if isinstance(card, ModelCard)],
            [error for error in found if isinstance(error, ModelError)])


def _check_sizes(value: Any, key: str = "card") -> None:
    """Check that numbers are such as a computer's: a network of 10**30 rows is somebody's joke.

    Raises:
        ValueError: One is not; names it.
    """
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_sizes(part, f"{key}.{shorten(name)[1:-1]}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_sizes(part, f"{key}[{number}]")
    elif isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ValueError(f"{key}: a whole number of at most 64 bits, got one of {value.bit_length()}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: a finite number, got {value}")
