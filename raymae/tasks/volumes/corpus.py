"""Volumes without labels, of other data sets, that pretraining sees."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from raymae.data.file_trees import HIDDEN, folder_files
from raymae.data.find.locate import Located
from raymae.data.groups import group_of
from raymae.data.leaks import kept
from raymae.data.shelf import WORKER
from raymae.data.volume_files import Scan, read_scan
from raymae.data.volume_lists import stem_of
from raymae.errors import DataError
from raymae.tasks.volumes.boxes import Volume, VolumeSplits, transformed

ENDINGS = (".nii", ".nii.gz")
LABELS = re.compile(r"(^|/)labels?([^a-z/]|Tr|Ts|/)")  # folders and files of label maps, see `raymae.data.volumes`


class VolumeCorpora(NamedTuple):
    """Volumes, their names, and what has to be said of them."""

    volumes: tuple[Volume, ...]
    names: tuple[str, ...]
    note: str


@WORKER.keeps(4)
def read_corpora(found: tuple[Located, ...], data: VolumeSplits, apart: frozenset[str], pattern: str) -> VolumeCorpora:
    """Every volume of the corpora but those that are scored, read once per process.

    Args:
        found: Where they are: a NIfTI file each, or folders of such files, without label maps.
        data: The labelled volumes, whose channels and preparation they get.
        apart: Groups that are scored.
        pattern: Says the group in a file's name, see `raymae.data.groups.group_of`; "" where none is known.

    Raises:
        DataError: One holds no volume, or one that is damaged or has other channels.
    """
    scored = set() if data.found is None else {
        _content(read_scan(scan, len(data.classes), data.found.values)[0])
        for split in ("val", "test") for scan in data.scans[split]}
    volumes: list[Volume] = []
    names: list[str] = []
    notes: list[str] = []
    for corpus in found:
        assert corpus.path is not None
        files = _files(corpus.path)
        if not files:
            raise DataError(f"{corpus.path} holds no NIfTI file ({' or '.join(ENDINGS)}) to pretrain on")
        read = [read_scan(Scan(stem_of(path), path, None), len(data.classes)) for path in files]
        for path, (image_CXYZ, _, _) in zip(files, read, strict=True):
            if len(image_CXYZ) != data.in_channels:
                raise DataError(f"{path}: has {len(image_CXYZ)} channels, but the labelled volumes have "
                                f"{data.in_channels}; pretraining needs the same")
        shown = [path.name if path == corpus.path else path.relative_to(corpus.path).as_posix() for path in files]
        guarded = kept(corpus.name, shown, [_content(image_CXYZ) for image_CXYZ, _, _ in read], scored,
                       lambda name: not pattern or group_of(pattern, stem_of(Path(name))) not in apart, "volumes")
        for row in guarded.rows.tolist():
            image_CXYZ, _, affine = read[row]
            ct = [data.is_ct(channel) for channel in range(len(image_CXYZ))]
            image = transformed(image_CXYZ, affine, data.how, ct).as_tensor().to(data.device)
            volumes.append(Volume(image, None, torch.empty(0, dtype=torch.int64)))
        names += guarded.names
        notes.append(guarded.note)
    return VolumeCorpora(tuple(volumes), tuple(names), " and ".join(notes))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [path / name for name in sorted(folder_files(path))
            if name.endswith(ENDINGS) and not HIDDEN.search(name) and not LABELS.search(name)]


def _content(image_CXYZ: np.ndarray) -> bytes:
    """A hash of decoded voxels, whatever their file is."""
    return hashlib.blake2b(repr(image_CXYZ.shape).encode() + image_CXYZ.tobytes(), digest_size=16).digest()
