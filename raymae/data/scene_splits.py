"""Scenes in splits that keep a drive's images together.

The official validation images are the test split; part of the training images is held out for selection. Where the
official lists have a drive in two splits, the images are split anew, drive by drive, into splits of about those sizes.

CamVid's names say the drive. Its lists have 0016E5 in both: the 21 official validation images are one shot of 6.7 s
(frames 7959 to 8159 of 30 a second) between training frames 1.3 s before and 5 s after it. There are three drives, so
each is a split: train 0016E5 (62 images), val 0001TP (13, at dusk), test 0006R0 (20). That is the harder and the
smaller question, but the one that is asked: how well is a drive segmented that nothing was learned from?

Where there are fewer drives than splits, the largest is cut into contiguous blocks, train's first; only their ends are
alike, but it is still one drive, which the note says.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from raymae.data.groups import group_of, named_groups, shared, split_anew
from raymae.data.scene_labels import ADE20K, IGNORED, Labelling, read_classes
from raymae.data.scenes import Scenes, not_pictures, pairs, read_pairs
from raymae.data.shelf import WORKER
from raymae.data.twins import copies_note, file_keys, kept_apart
from raymae.errors import DataError

HELD_OUT = 0.18  # of the training images, for selection
CAMVID = r"^(\d{4}[A-Z][A-Z0-9]|Seq\d\d[A-Z]{2})_f?\d+$"  # 0001TP_006690, 0006R0_f01020, Seq05VD_f00000


@dataclass(frozen=True)
class SceneSplits:
    """A data set, split.

    Attributes:
        classes: Their K names.
        train: To learn from.
        val: For selection.
        test: For the score.
        pattern: Says the group in a file's name; "" where none is known.
        scored: Groups of which an image is in val or test.
        note: What has to be said of the splits, or "".
    """

    classes: tuple[str, ...]
    train: Scenes
    val: Scenes
    test: Scenes
    pattern: str = ""
    scored: frozenset[str] = frozenset()
    note: str = ""


@WORKER.keeps(4)
def read_scenes(
    folder: Path, image_size: int, group: str = "", labelling: Labelling = ADE20K,
) -> SceneSplits:
    """Read a data set once per process.

    Args:
        folder: Holds `images`, `annotations` and `objectInfo*.txt`.
        image_size: Length of every image's shorter side, in pixels, to which it is resized.
        group: A pattern of file names without their endings that says which belong together; see `named_groups`.
        labelling: What the numbers in label maps mean.

    Raises:
        DataError: A file is missing, damaged, of the wrong size or holds an impossible label, or a name has no group;
            names the file.
    """
    classes = read_classes(folder, labelling)
    files = [pairs(folder, split) for split in ("training", "validation")]
    names = [image.stem for listed in files for image, _ in listed.values()]
    pattern = group or (CAMVID if all(group_of(CAMVID, name) for name in names) else "")
    if pattern:
        named_groups(pattern, names, str(folder))  # fails before anything is decoded
    official = [read_pairs([*listed.values()], image_size, len(classes), labelling, names=tuple(listed))
                for listed in files]
    splits = _without_copies(split_scenes(classes, *official, name=str(folder), pattern=pattern), str(folder))
    _check_labelled(splits, str(folder))
    return replace(splits, note="; ".join(filter(None, (splits.note, not_pictures(folder)))))


def _without_copies(splits: SceneSplits, where: str) -> SceneSplits:
    """Leave out of each split the images of which a later one has a copy, and say so."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    keys = iter(file_keys([path for part in parts.values() for path in part.sources]))
    content = {name: [next(keys) for _ in part.sources] for name, part in parts.items()}
    note = copies_note(content, {name: part.names for name, part in parts.items()})
    if not note:
        return splits
    kept = {name: part.take(kept_apart(content)[name]) for name, part in parts.items()}
    empty = [name for name, part in kept.items() if not len(part)]
    if empty:
        raise DataError(f"{where}: no image is left for {empty[0]}: {note}; give every split images of its own")
    return replace(splits, train=kept["train"], val=kept["val"], test=kept["test"],
                   note="; ".join(filter(None, (splits.note, note))))


def _check_labelled(splits: SceneSplits, where: str) -> None:
    """Refuse a split of which no pixel counts: its scores would be the mean of nothing."""
    for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        if part.labels and not any((label != IGNORED).any() for label in part.labels):
            raise DataError(f"{where}: no pixel of {name} is labelled: every one is {part.labelling.ignore}, which is "
                            "ignored; correct the label maps, or settings.ignore_label and settings.first_label")


def split_scenes(
    classes: tuple[str, ...], training: Scenes, validation: Scenes, *, name: str, pattern: str = ""
) -> SceneSplits:
    """Split by names: the same images for every trial and seed.

    Args:
        classes: Their names.
        training: The official training images.
        validation: The official validation images.
        name: The data set, for messages.
        pattern: Says the group in an image's name; "" where none is known.

    Raises:
        DataError: Fewer than two training images.
    """
    if len(training) < 2:
        raise DataError(f"{name}: {len(training)} training image; at least 2 are needed, one to select on")
    if not pattern:
        order = sorted(range(len(training)), key=lambda i: hashlib.sha256(training.names[i].encode()).hexdigest())
        held = max(1, round(HELD_OUT * len(training)))
        return SceneSplits(classes, training.take(sorted(order[held:])), training.take(sorted(order[:held])),
                           validation)
    training, validation = (replace(scenes, groups=named_groups(pattern, _stems(scenes), name))
                            for scenes in (training, validation))
    both = shared(training.groups, validation.groups)
    sizes = {"train": (1 - HELD_OUT) * len(training), "val": HELD_OUT * len(training)}
    if both:
        sizes["test"] = float(len(validation))
    parts = _shared_out(_joined(training, validation) if both else training, sizes)
    parts.setdefault("test", validation)
    scored = frozenset((*parts["val"].groups, *parts["test"].groups))
    notes = [split_anew(both)] if both else []
    again = shared(*(part.groups for part in parts.values()))
    if again:
        where = " and ".join(split for split in ("val", "test") if again & {*parts[split].groups})
        notes.append(f"WARNING: {where} hold other images of a drive that is in train ({min(again)}): their scores say "
                     "nothing of another drive")
        parts = {split: _as_blocks(part, again) for split, part in parts.items()}
    return SceneSplits(classes, **parts, pattern=pattern, scored=scored, note="; ".join(notes))


def _stems(scenes: Scenes) -> list[str]:
    """The names of files, without folders, in which a drive is looked for."""
    return [PurePosixPath(name).name for name in scenes.names]


def _joined(training: Scenes, validation: Scenes) -> Scenes:
    """Both lists as one, drive by drive in the order of names; names that both have get their folder's."""
    alike = {*training.names} & {*validation.names}
    names = tuple(f"{split}/{name}" if name in alike else name
                  for split, scenes in (("training", training), ("validation", validation)) for name in scenes.names)
    every = replace(
        training, names=names, images=training.images + validation.images, labels=training.labels + validation.labels,
        groups=training.groups + validation.groups, files=training.files + validation.files,
        sources=training.sources + validation.sources)
    return every.take(sorted(range(len(every)), key=lambda i: (every.groups[i], every.names[i].rpartition("/")[2], i)))


def _shared_out(scenes: Scenes, sizes: Mapping[str, float]) -> dict[str, Scenes]:
    """Split whole groups, the largest first, each to the split that most is missing from; none is left empty.

    Args:
        scenes: A group's in order.
        sizes: Images wanted in every split.
    """
    counts = Counter(scenes.groups)
    order = sorted(counts, key=lambda group: (-counts[group], group))
    rows: dict[str, list[int]] = {split: [] for split in sizes}
    index_of = {group: [i for i, other in enumerate(scenes.groups) if other == group] for group in order}
    blocks = [*sizes][:max(len(sizes) - len(order) + 1, 0)]
    if len(blocks) > 1:  # fewer groups than splits: the largest is cut, the smaller ones are the last splits
        share = np.cumsum([sizes[split] for split in blocks]) / sum(sizes[split] for split in blocks)
        largest = index_of[order[0]]
        borders = [min(max(round(part * len(largest)), at + 1), len(largest) - len(blocks) + at + 1)
                   for at, part in enumerate(share[:-1])]
        rows |= {split: list(part) for split, part in zip(blocks, np.split(largest, borders), strict=True)}
        rows |= {split: index_of[group] for split, group in zip([*sizes][len(blocks):], order[1:], strict=True)}
        return {split: scenes.take(part) for split, part in rows.items()}
    for place, group in enumerate(order):
        empty = [split for split in sizes if not rows[split]]
        allowed = empty if len(order) - place <= len(empty) else [*sizes]
        rows[max(allowed, key=lambda split: sizes[split] - len(rows[split]))] += index_of[group]
    return {split: scenes.take(sorted(part)) for split, part in rows.items()}


def _as_blocks(scenes: Scenes, cut: set[str]) -> Scenes:
    """A group that was cut is one of its own in every split, by the name of its first image there."""
    first: dict[str, str] = {}
    for name, group in zip(scenes.names, scenes.groups, strict=True):
        first.setdefault(group, name)
    return replace(scenes, groups=tuple(f"{group} from {first[group]}" if group in cut else group
                                        for group in scenes.groups))
