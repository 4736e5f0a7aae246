"""The leak guard of corpora: nothing that is selected or scored on is pretrained on.

Shape suffixes: N examples of a corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from raymae.data.groups import group_of
from raymae.data.pictures import Pictures


class Guarded(NamedTuple):
    """What pretraining may see of a corpus.

    Attributes:
        rows: Which examples, int64, ascending.
        names: Theirs, after that of the corpus.
        note: How many, and how many are left out and why.
    """

    rows: np.ndarray
    names: tuple[str, ...]
    note: str


def guard(
    corpus: str, pictures: Pictures, scored: Collection[Hashable], groups: Collection[str], pattern: str
) -> Guarded:
    """What pretraining may see of a corpus of pictures.

    Args:
        corpus: Its name.
        pictures: All of it.
        scored: Hashes of the pixels of what is selected or scored on.
        groups: Groups, such as patients, who are in it.
        pattern: Says the group in a name, see `group_of`; "" where none is known.
    """
    def is_apart(name: str) -> bool:
        return not pattern or group_of(pattern, PurePosixPath(name).stem) not in groups

    return kept(corpus, pictures.names, pictures.content_N.tolist(), scored, is_apart, "pictures", pictures.note)


def kept(
    corpus: str, names: Sequence[str], keys: Sequence[Hashable], scored: Collection[Hashable],
    is_apart: Callable[[str], bool], what: str, note: str = "",
) -> Guarded:
    """What pretraining may see of any corpus.

    Args:
        corpus: Its name.
        names: Of its examples.
        keys: Of each what is equal for copies.
        scored: The same of what is selected or scored on.
        is_apart: Whether nobody of that name is in it.
        what: Examples are, in the plural.
        note: What else has to be said of the corpus, or "".
    """
    new = [row for row, key in enumerate(keys) if key not in scored]
    rows = [row for row in new if is_apart(names[row])]
    told = [f"{len(rows):,} {what} of {corpus}"]
    told += [f"{len(keys) - len(new):,} left out, as val or test has the same"] if len(new) < len(keys) else []
    told += [f"{len(new) - len(rows):,} left out, as their group is in val or test"] if len(rows) < len(new) else []
    told += [note] if note else []
    more = f" ({'; '.join(told[1:])})" if len(told) > 1 else ""
    return Guarded(np.array(rows, np.int64), tuple(f"{corpus}/{names[row]}" for row in rows), told[0] + more)
