"""A point that somebody has added while a sweep runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raymae.spec.space import Scalar


@dataclass(frozen=True)
class Added:
    """What a lane tries next because somebody asked for it.

    Attributes:
        command: The id of the command, by which a later run of the sweep knows that it has been tried.
        by: Who gave it.
        point: The values; what they leave open is proposed.
    """

    command: str
    by: str
    point: Mapping[str, Scalar]
