"""What determines a pretrained encoder, and nothing else: its pretraining's configuration, and a name made of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from raymae.spec.task import TaskSchema, encoder_params
from raymae.spec.trial import TrialConfig


@dataclass(frozen=True)
class EncoderRef:
    """Which encoder a trial makes or starts from, and where encoders are kept.

    Attributes:
        encoder_id: Hash of all that determines it.
        shelf: Folder of the encoders, a path or a URI.
        fingerprint: Of the data that it is pretrained on.
    """

    encoder_id: str
    shelf: str
    fingerprint: str


def pretraining_of(config: TrialConfig, schema: TaskSchema) -> TrialConfig | None:
    """The pretraining that a trial starts with, as a configuration of its own; None where its arm does not pretrain.

    Every trial that has the same one starts from the same encoder, bit for bit: what fine-tuning alone reads is not in
    it (see `raymae.spec.task.param`).

    Args:
        config: The trial, or the pretraining itself.
        schema: Its task.
    """
    if schema.arms[config.method].kind != "pretrained":
        return None
    seed = config.seed if config.pretrain_seed is None else config.pretrain_seed
    if config.adopts:  # nothing is drawn for it
        seed = 0
    return replace(config, params=encoder_params(schema.params, config.params_at(0)), seed=seed, stage="pretrain",
                   earlier=(), pretrain_seed=None)


def encoder_id(pretraining: TrialConfig, fingerprint: str) -> str:
    """The name of the encoder that a pretraining ends with, 16 hex digits.

    Args:
        pretraining: Of `pretraining_of`.
        fingerprint: Of the content of the data.
    """
    identity = f"{pretraining.identity()} {pretraining.seed} {fingerprint}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
