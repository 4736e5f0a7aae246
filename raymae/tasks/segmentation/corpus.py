"""The photographs that pretraining sees beside the data set's own."""

from __future__ import annotations

from typing import NamedTuple

from raymae.data.find.locate import Located
from raymae.data.leaks import guard
from raymae.data.pictures import content_of_files, read_pictures
from raymae.data.scene_splits import SceneSplits
from raymae.data.scenes import Scenes
from raymae.errors import DataError


class Corpora(NamedTuple):
    """Photographs without labels, each of its own size, and what has to be said of them."""

    scenes: Scenes
    note: str


def read_corpora(found: tuple[Located, ...], splits: SceneSplits, image_size: int) -> Corpora:
    """The corpora without what the labelled data selects or scores on.

    Args:
        found: Where they are.
        splits: Of the labelled data.
        image_size: Length of every image's shorter side, in pixels, to which it is resized.

    Raises:
        DataError: One cannot be read.
    """
    sources = splits.val.sources + splits.test.sources  # none of generated images
    scored = {*content_of_files(sources).tolist()} if sources else set()
    scenes, notes = Scenes((), ()), []
    for corpus in found:
        pictures = read_pictures(corpus, image_size, square=False)
        kept = guard(corpus.name, pictures, scored, splits.scored, splits.pattern)
        images = pictures.images
        scenes = Scenes(scenes.names + kept.names, scenes.images + tuple(images[row] for row in kept.rows.tolist()))
        notes.append(kept.note)
    return Corpora(scenes, " and ".join(notes))


def joined(parts: list[Scenes], where: str) -> Scenes:
    """Scenes of several places without their labels; what is of no group is its own where groups are known.

    Raises:
        DataError: There is none.
    """
    known = any(part.groups for part in parts)
    scenes = Scenes(
        tuple(name for part in parts for name in part.names), tuple(image for part in parts for image in part.images),
        groups=tuple(group for part in parts for group in (part.groups or part.names)) if known else ())
    if not len(scenes):
        raise DataError(f"{where}: nothing is left to pretrain on, for val or test has all of it; name other data")
    return scenes
