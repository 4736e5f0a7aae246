"""Seeded shares of the training examples: those whose labels may be seen, and those held out to select on.

With one seed a smaller labelled share lies within a larger one. Where groups are known, shares are of groups, and hold
them whole. Shape suffixes: N examples, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raymae.data.groups import numbered
from raymae.errors import DataError

Groups = Sequence[str] | None


def labelled(num_examples: int, fraction: float, seed: int, *, block: int = 1, groups: Groups = None) -> np.ndarray:
    """Draw the share of training examples whose labels fine-tuning may see.

    Windows next to each other share most of their rows, so their labels are kept in blocks: the blocks are put in an
    order drawn from the seed and the first examples of that order are taken.

    Args:
        num_examples: Training examples.
        fraction: Share to keep, 0 < fraction <= 1; at least one example is kept.
        seed: Draws the order of the blocks.
        block: Neighbouring examples per block, at least 1.
        groups: Of every example: the share is then one of groups, unless all are of one. None where not known.

    Returns:
        int64, ascending, ceil(fraction * num_examples) indices, or those of ceil(fraction * G) groups.

    Raises:
        DataError: There are no examples, or the fraction or block is out of range.
    """
    if not num_examples:
        raise DataError("there are no training windows to take labels from; use a longer series")
    if not 0 < fraction <= 1:
        raise DataError(f"label_fraction must be above 0 and at most 1, got {fraction}")
    if block < 1:
        raise DataError(f"block must be at least 1 window, got {block}")
    if groups is not None and len(set(groups)) > 1:
        group_N = numbered(groups, num_examples)
        return np.flatnonzero(np.isin(group_N, labelled(int(group_N.max()) + 1, fraction, seed)))
    blocks = np.random.default_rng(seed).permutation(-(-num_examples // block))
    order = (blocks[:, None] * block + np.arange(block)).ravel()
    return _first(order[order < num_examples], fraction)  # the last block may be shorter


def labelled_by_class(labels_N: np.ndarray, fraction: float, seed: int, groups: Groups = None) -> np.ndarray:
    """Draw the share of training examples whose labels may be seen, even over classes.

    Returns:
        int64, ascending, ceil(fraction * N) indices, or those of ceil(fraction * G) groups.
    """
    if groups is not None and len(set(groups)) > 1:
        class_G, group_N = _most_frequent(labels_N, groups)
        return np.flatnonzero(np.isin(group_N, labelled_by_class(class_G, fraction, seed)))
    rank_N, counts_N = rank_within_class(labels_N, seed)
    return _first(np.lexsort((np.random.default_rng(seed).permutation(len(labels_N)), rank_N / counts_N)), fraction)


def hold_out(labels_N: np.ndarray, share: float, seed: int, groups: Groups = None) -> np.ndarray:
    """Mark a share of every class, at least one example of it and never all; of groups, that of their main class."""
    if groups is not None:
        class_G, group_N = _most_frequent(labels_N, groups)
        return hold_out(class_G, share, seed)[group_N]
    rank_N, counts_N = rank_within_class(labels_N, seed)
    return rank_N < np.clip(np.round(share * counts_N), 1, counts_N - 1)


def rank_within_class(labels_N: np.ndarray, seed: int, groups: Groups = None) -> tuple[np.ndarray, np.ndarray]:
    """Give every example's place in a random order of its class, and the number of examples of its class.

    The order is one of groups, where they are known: a group's examples follow each other.
    """
    group_N = numbered(groups, len(labels_N))
    order_G = np.random.default_rng(seed).permutation(int(group_N.max(initial=-1)) + 1)
    order_N = np.argsort(np.argsort(order_G)[group_N], kind="stable")
    order_N = order_N[np.argsort(labels_N[order_N], kind="stable")]
    counts_N = np.bincount(labels_N)[labels_N] if len(labels_N) else np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels_N))]) if len(labels_N) else np.zeros(1, np.int64)
    rank_N = np.empty(len(labels_N), np.int64)
    rank_N[order_N] = np.arange(len(labels_N)) - starts[labels_N[order_N]]
    return rank_N, counts_N


def _most_frequent(labels_N: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The class that most examples of a group have, int64 `[G]`, and the number of every example's group, `[N]`."""
    group_N = numbered(groups, len(labels_N))
    counts_GK = np.zeros((int(group_N.max()) + 1, int(labels_N.max()) + 1), np.int64)
    np.add.at(counts_GK, (group_N, labels_N), 1)
    return counts_GK.argmax(axis=1), group_N


def _first(order_N: np.ndarray, fraction: float) -> np.ndarray:
    num_kept = max(1, math.ceil(round(fraction * len(order_N), 6)))  # .07 * 100 is 7.000000000000001
    return np.sort(order_N[:num_kept])
