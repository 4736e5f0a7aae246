"""Where data lies that pretraining sees beside a task's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raymae.data.find.locate import Located, locate, located_at
from raymae.data.find.registry import DATASETS
from raymae.errors import DataError

if TYPE_CHECKING:
    from raymae.spec.sweep import PretrainingSpec
    from raymae.spec.trial import TrialData


def locate_corpora(pretraining: PretrainingSpec, kinds: Mapping[str, str], task: str) -> tuple[Located, ...]:
    """Find every corpus, in their order, downloading what is nowhere.

    Args:
        pretraining: The section of the sweep file.
        kinds: What the task takes, see `raymae.spec.task.TaskSchema.corpora`.
        task: Its name, for messages.

    Raises:
        DataError: One cannot be had, or is of another kind; names its key.
    """
    found = []
    for at, corpus in enumerate(pretraining.data):
        known = DATASETS.get(corpus.name)
        if known is not None and known.modality not in kinds:
            raise DataError(f"pretraining.data.{at}: {corpus.name} is of the kind {known.modality}, and {task} "
                            f"pretrains on {', or '.join(kinds.values())}")
        try:
            found.append(locate(corpus, labelled=False))
        except DataError as error:
            raise DataError(f"pretraining.data.{at}: {str(error).replace('data.path', 'path')}") from None
    return tuple(found)


def located_corpora(data: TrialData) -> tuple[Located, ...]:
    """Where the corpora of a trial lie; looked for once per process.

    Raises:
        DataError: One is nowhere, or damaged.
    """
    return tuple(replace(located_at(corpus.name, corpus.path, corpus.root), note="") for corpus in
                 data.pretraining.data)


def together(own: Located, corpora: Sequence[Located]) -> Located:
    """A task's data with the fingerprint of the corpora too, and what a person should know of them."""
    if not corpora:
        return own
    kind, _, first = own.fingerprint.partition(":")
    total = hashlib.sha256(" ".join([first, *(corpus.fingerprint for corpus in corpora)]).encode()).hexdigest()[:16]
    notes = [own.note, *(f"{corpus.name}: {corpus.note}" for corpus in corpora if corpus.note)]
    return replace(own, fingerprint=f"{kind}:{total}", note="; ".join(filter(None, notes)))
