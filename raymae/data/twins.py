"""The check of every reader that no example is in two splits, by path and by content.

The later split keeps a copy: one that is scored is never learned from, and one that the test has does not select.

Shape suffixes: N examples.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

KEEPERS = ("test", "val", "train", "unlabelled")  # who keeps an example that several have
HEAD = 1 << 20  # bytes by which most files of equal length are told apart
NIFTI_HEADER = 352  # bytes before the voxels, which tools write in different ways


def kept_apart(splits: Mapping[str, Sequence[Hashable]]) -> dict[str, list[int]]:
    """Say which examples of every split stay, so that no two splits share one.

    Args:
        splits: Of every split the keys of its examples, equal for copies.
    """
    taken: set[Hashable] = set()
    kept: dict[str, list[int]] = {}
    for split in sorted(splits, key=KEEPERS.index):
        keys = splits[split]
        kept[split] = [index for index, key in enumerate(keys) if key not in taken]
        taken |= {*keys}
    return {split: kept[split] for split in splits}


def copies_note(splits: Mapping[str, Sequence[Hashable]], names: Mapping[str, Sequence[str]]) -> str:
    """Say in a dry run how many examples are left out as copies of another split's, or "".

    Args:
        splits: As `kept_apart` takes them.
        names: Of every example, as a user knows it.
    """
    kept, notes = kept_apart(splits), []
    for split, keys in splits.items():
        gone = sorted({*range(len(keys))} - {*kept[split]})
        if gone:
            holder = next(other for other in KEEPERS if other != split and keys[gone[0]] in splits.get(other, ()))
            same = names[holder][[*splits[holder]].index(keys[gone[0]])]
            name = names[split][gone[0]]
            example = f"such as {name}" if name == same else f"such as {name}, which is {same}"
            notes.append(f"{len(gone):,} of {split} left out, as {holder} has the same, {example}")
    return "; ".join(notes)


def file_keys(paths: Sequence[Path]) -> list[Hashable]:
    """A key for every file, equal for the same file and for files of equal content, packed by gzip or not.

    Only files of equal length are read, and only those that begin alike are read whole.
    """
    keys: list[Hashable] = [os.path.realpath(path) for path in paths]
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        alike[_length(path)].append(index)
    for step in (lambda path: _hash(path, HEAD), lambda path: _hash(path, None)):
        alike = _finer(alike, paths, keys, step)
    for found in alike.values():
        for index in found:
            keys[index] = keys[found[0]]
    return keys


def _finer(
    alike: Mapping[Hashable, list[int]], paths: Sequence[Path], keys: Sequence[Hashable],
    step: Callable[[Path], Hashable],
) -> dict[Hashable, list[int]]:
    """Split groups of files that may be alike, leaving out those of which all are one file."""
    finer: dict[Hashable, list[int]] = defaultdict(list)
    for group, found in alike.items():
        if len({keys[index] for index in found}) > 1:
            for index in found:
                finer[group, step(paths[index])].append(index)
    return finer


def _is_nifti(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".nii")


def _length(path: Path) -> Hashable:
    """The length of a file's content; of one packed by gzip it stands at the end, modulo 4 GiB."""
    try:
        with path.open("rb") as file:
            if path.suffix != ".gz":
                return file.seek(0, os.SEEK_END) % (1 << 32)
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")
    except OSError:
        return str(path)  # its reader names what is wrong with it


def _hash(path: Path, length: int | None) -> Hashable:
    digest = hashlib.sha256()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if _is_nifti(path):
                file.read(NIFTI_HEADER)
            left = length if length is not None else 1 << 62
            while left and (block := file.read(min(left, HEAD))):
                digest.update(block)
                left -= len(block)
    except (OSError, EOFError, ValueError, zlib.error):
        return str(path)
    return digest.digest()
