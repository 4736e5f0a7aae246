"""Search trials that share an encoder: the sampler proposes what pretraining reads once, then several fine-tunings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from raymae.search.decide.encoders import Encoders
from raymae.search.decide.trials import Trial
from raymae.spec.space import Scalar


@dataclass
class Group:
    """Trials that share an encoder.

    Attributes:
        encoder_id: The encoder.
        pretrain_seed: The seed of its pretraining.
        sampled: What the search chose of the parameters that pretraining reads.
        members: How many trials there are.
    """

    encoder_id: str
    pretrain_seed: int
    sampled: Mapping[str, Scalar]
    members: int = 0


class EncoderGroups:
    """The groups of one arm.

    Args:
        size: Fine-tunings per encoder.
        shared: The searched parameters that pretraining reads.
    """

    def __init__(self, size: int, shared: Collection[str]) -> None:
        self._size, self._shared = size, shared
        self._groups: dict[str, Group] = {}  # those with room, by encoder

    def note(self, trial: Trial) -> None:
        """Enter a trial that the arm's study was asked for."""
        seed, name = trial.config.pretrain_seed, trial.encoder_id
        if seed is None:
            return
        if name not in self._groups:
            sampled = {key: value for key, value in trial.sampled.items() if key in self._shared}
            self._groups[name] = Group(name, seed, sampled)
        self._groups[name].members += 1
        if self._groups[name].members >= self._size:
            del self._groups[name]

    def open(self, encoders: Encoders, point: Mapping[str, Scalar]) -> Group | None:
        """The first group that has room, an encoder, and the values of a point that pretraining reads."""
        shared = self.read_by_pretraining(point).items()
        return next((group for group in self._groups.values()
                     if encoders.is_there(group.encoder_id) and shared <= group.sampled.items()), None)

    def read_by_pretraining(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of a point that pretraining reads: with others, it takes another encoder."""
        return {name: value for name, value in point.items() if name in self._shared}

    def sampled(self) -> list[Mapping[str, Scalar]]:
        """What the search chose for each group that has room."""
        return [group.sampled for group in self._groups.values()]

    def may_begin(self, left: int, encoders: Encoders) -> bool:
        """Whether another group is needed: those whose encoders are under way have no room for all that are left.

        Args:
            left: Trials that the study will still be asked for.
            encoders: Which are there.
        """
        room = sum(self._size - group.members for group in self._groups.values()
                   if not encoders.is_failed(group.encoder_id))
        return room < left
