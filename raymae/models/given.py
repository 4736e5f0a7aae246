"""Weights that somebody had, from which an arm starts: of a vision transformer, or of another network of the task.

They travel as one safetensors file, whose hash names them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from raymae.errors import EncoderError, one_line
from raymae.models.start import Start, start_from, start_from_same
from raymae.models.tensor_file import saved
from raymae.models.tokens import TokenGrid
from raymae.models.vit import Vit, Weights

ABOUT = "vit"


@dataclass(frozen=True)
class Given:
    """Weights to start from.

    Attributes:
        weights: In the names of our masked autoencoders.
        vit: What a vision transformer's shapes do not say; None for a network that fits only its like.
        source: Where they were found, for people.
    """

    weights: Weights
    vit: Vit | None
    source: str = ""

    @classmethod
    def of_vit(cls, vit: Vit, source: str = "") -> Given:
        """Those of a vision transformer."""
        return cls(vit.weights, vit, source)

    @cached_property
    def data(self) -> bytes:
        """The file of weights: the same bytes for the same weights, wherever they were found."""
        about = {} if self.vit is None else {ABOUT: json.dumps({
            "size": self.vit.grid.size, "patch_size": self.vit.grid.patch_size, "in_channels":
            self.vit.grid.in_channels, "heads": self.vit.heads, "decoder_heads": self.vit.decoder_heads})}
        return saved({name: self.weights[name] for name in sorted(self.weights)}, about)

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def from_data(cls, data: bytes, source: str = "") -> Given:
        """The inverse of `data`, from a file whose hash was checked.

        Raises:
            EncoderError: It is no such file.
        """
        import safetensors.torch

        try:
            weights: Mapping[str, Tensor] = safetensors.torch.load(data)
            header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
            about = json.loads(header.get("__metadata__", {}).get(ABOUT, "null"))
            if about is None:
                return cls(weights, None, source)
            grid = TokenGrid(tuple(about["size"]), tuple(about["patch_size"]), about["in_channels"])
            return cls.of_vit(Vit(weights, grid, about["heads"], about["decoder_heads"]), source)
        except Exception as error:  # whatever safetensors raises at a file that its own card calls whole
            raise EncoderError(f"{source}: not a file of weights to start from: {one_line(error)}") from None

    def start(self, model: nn.Module) -> Start:
        """Give a masked autoencoder these weights.

        Raises:
            EncoderError: They do not fit; names where they are from, and shapes.
        """
        try:
            return start_from_same(self.weights, model) if self.vit is None else start_from(self.vit, model)
        except EncoderError as error:
            raise EncoderError(f"{self.source}: {error}") from None
