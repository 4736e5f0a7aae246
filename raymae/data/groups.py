"""Groups of examples that belong together, such as a patient, a drive or a household: no group is in two splits.

Splits and shares are drawn over groups. An example whose group is not known is a group of its own, so where nothing is
known the draws are over examples. scikit-learn's group splitters draw otherwise, and neither nested shares nor some of
every class; here a group stands for its examples in the draws that there are.

Shape suffixes: N examples, G groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from raymae.errors import DataError

UNKNOWN = "no groups known: settings.group keeps examples that belong together in one split"


def group_of(pattern: str, name: str) -> str | None:
    """The group in a name: what the pattern's first group matched, or all that matched if it has none.

    Args:
        pattern: A regular expression, looked for anywhere in the name.
        name: A file's name without its ending.

    Returns:
        None where nothing was matched.
    """
    found = re.search(pattern, name)
    return None if found is None else found[1 if found.re.groups else 0] or None


def named_groups(pattern: str, names: Sequence[str], where: str) -> tuple[str, ...]:
    """The group of every name.

    Args:
        pattern: See `group_of`.
        names: At least one.
        where: The data set, for messages.

    Raises:
        DataError: The pattern is no regular expression, or leaves a name without a group.
    """
    wrong = pattern_problems({"group": pattern})
    if wrong:
        raise DataError(f"{where}: settings.{wrong[0][1]}")
    groups = [group_of(pattern, name) for name in names]
    left = [name for name, group in zip(names, groups, strict=True) if group is None]
    if left:
        which = "none" if len(left) == len(names) else f"only {len(names) - len(left):,}"
        raise DataError(
            f"{where}: settings.group={pattern!r} matches {which} of {len(names):,} file names, not {left[0]!r}; it "
            "must match a part of every name without its ending: its first group in parentheses, or else all that it "
            "matches, is the group")
    return tuple(group for group in groups if group is not None)


def pattern_problems(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """What is wrong with a task's parameter `group` that is a pattern, as `TaskSchema.check` returns problems."""
    try:
        re.compile(str(params["group"]))
    except re.error as error:
        return [("group", f"group={params['group']!r} must be a regular expression: {error}; try `^([^_]+)_` for what "
                          "is before the first underscore")]
    return []


def numbered(groups: Sequence[str] | None, count: int) -> np.ndarray:
    """The number of every example's group, int64 `[N]`: from 0, in the order of names.

    Args:
        groups: Of every example; None where they are not known: then each is its own.
        count: N.
    """
    return np.arange(count) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]


def cut(group_N: np.ndarray, order_G: np.ndarray, borders: Sequence[int]) -> list[np.ndarray]:
    """Cut groups in some order at these borders into parts, and give each part's examples, ascending."""
    return [np.flatnonzero(np.isin(group_N, part)) for part in np.split(order_G, borders)]


def shared(*splits: Iterable[str]) -> set[str]:
    """Groups that are in several splits."""
    seen: set[str] = set()
    twice: set[str] = set()
    for split in map(set, splits):
        twice |= seen & split
        seen |= split
    return twice


def counted(splits: Mapping[str, Sequence[str] | None]) -> str:
    """How many groups each split has, for a dry run: `25 train / 5 val / 12 test groups`.

    Args:
        splits: Groups of every example, by split, or None where none is known; the last one is scored.
    """
    if any(groups is None for groups in splits.values()):
        return UNKNOWN
    counts = {name: len(set(groups or ())) for name, groups in splits.items()}
    line = " / ".join(f"{count:,} {name}" for name, count in counts.items()) + " groups"
    last = [*counts][-1]
    return f"{line}, so the {last} says nothing of other groups" if counts[last] == 1 else line


def split_anew(both: Iterable[str], most: int = 3) -> str:
    """Say in a dry run that a data set's own lists were not kept, for they have these groups in two splits."""
    names = sorted(both)
    listed = ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
    return f"split anew by group, as the official lists have {listed} in two splits"
