"""Names of folders that are splits: `train`, `Training`, `valid`, `dev`, `test_set` and the like.

A folder whose name only looks like a split's is never taken for a class in silence: see `splits_of_folders`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from raymae.errors import DataError

USUAL = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "tst": "test", "eval": "test", "evaluation": "test",
}
FILLERS = {"set", "data", "dataset", "image", "images", "imgs", "split", "seg"}  # training_set, test_images
MAX_SHOWN = 12


def split_of(name: str) -> str | None:
    """`train`, `val` or `test` where a folder's name is a usual one of a split, in any case."""
    words = [word for word in _words(name) if word not in FILLERS]
    return USUAL.get(words[0]) if len(words) == 1 else None


def splits_of_folders(folders: Sequence[str], place: object, tree: Iterable[str]) -> dict[str, str]:
    """Say which split each folder is, empty where they are no splits at all.

    Args:
        folders: The topmost folders' names.
        place: The data set, for messages.
        tree: Names of all its files, for messages.

    Raises:
        DataError: Some are splits and others not, or two are the same split, so what is meant is not known.
    """
    found = {name: split for name in folders if (split := split_of(name)) is not None}
    others = [name for name in folders if name not in found]
    odd = [name for name in others if {*_words(name)} & {*USUAL}]
    if found and others:
        raise DataError(f"{place}: {_listed(found)} {'is' if len(found) == 1 else 'are'} named like a split, but "
                        f"{_listed(others)} {'lies' if len(others) == 1 else 'lie'} beside, so the classes are not "
                        f"known; move what is no split away, or rename a class of that name. It holds{shown(tree)}")
    if len(odd) == len(folders) > 0:
        raise DataError(f"{place}: {_listed(odd)} look like splits, but are not understood; call them train, val and "
                        f"test. It holds{shown(tree)}")
    if len({*found.values()}) < len(found):
        raise DataError(f"{place}: two of {_listed(found)} are the same split; join them, or leave one out. It holds"
                        f"{shown(tree)}")
    if found and "train" not in found.values():
        raise DataError(f"{place}: of the splits only {_listed(found)} is there, nothing to learn from; call that "
                        f"folder train. It holds{shown(tree)}")
    return found


def shown(tree: Iterable[str]) -> str:
    """Show the upper folders of a tree, with the number of files in each, one a line."""
    counts: dict[str, int] = {}
    for name in tree:
        folders = name.split("/")[:-1][:2]
        key = "/".join(folders) + "/" if folders else "(beside)"
        counts[key] = counts.get(key, 0) + (not name.endswith("/"))
    rows = [f"\n  {name} {count:,} files" for name, count in list(counts.items())[:MAX_SHOWN]]
    return "".join([*rows, f"\n  and {len(counts) - MAX_SHOWN:,} more folders" if len(counts) > MAX_SHOWN else ""])


def _words(name: str) -> list[str]:
    """`testSet_images` → test, set, images; `trainset` → train, set."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    spaced = re.sub(r"(train|training|val|valid|validation|test)(set|data)(?![a-z])", r"\1 \2", spaced)
    return re.findall(r"[^\W_]+", spaced)


def _listed(names: Iterable[str]) -> str:
    found = [f"{name}/" for name in names]
    return ", ".join(found[:6]) + (f" and {len(found) - 6:,} more" if len(found) > 6 else "")
