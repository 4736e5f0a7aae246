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
    rows, told = unseen(keys, scored, [is_apart(name) for name in names])
    told += [note] if note else []
    more = f" ({'; '.join(told)})" if told else ""
    return Guarded(rows, tuple(f"{corpus}/{names[row]}" for row in rows.tolist()),
                   f"{len(rows):,} {what} of {corpus}{more}")


def unseen(
    keys: Sequence[Hashable], scored: Collection[Hashable], is_apart: Sequence[bool]
) -> tuple[np.ndarray, list[str]]:
    """The rule itself: which examples are no copies of what is selected or scored on, and of nobody who is in it.

    Args:
        keys: Of each example what is equal for copies.
        scored: The same of what is selected or scored on.
        is_apart: Whether nobody of an example's group is in it.

    Returns:
        Which they are, int64, ascending; and what has to be said of the others.
    """
    new_N = np.array([key not in scored for key in keys], bool)
    kept_N = new_N & np.asarray(is_apart, bool)
    copies, others = int((~new_N).sum()), int((new_N & ~kept_N).sum())
    told = [f"{copies:,} left out, as val or test has the same"] if copies else []
    told += [f"{others:,} left out, as their group is in val or test"] if others else []
    return np.flatnonzero(kept_N), told
