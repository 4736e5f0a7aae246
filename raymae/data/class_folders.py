"""Labelled images as a folder per class, `<class>/image`, or the same below folders of splits.

What is no image is left out, counted and said; what may mean something else than classes is an error that shows the
tree.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from raymae.data.file_trees import FileTree
from raymae.data.pixels import FORMATS, SUFFIXES, is_picture
from raymae.data.split_names import shown, split_of, splits_of_folders
from raymae.errors import DataError

LARGEST_SNIFFED = 1 << 26  # bytes of a file without a picture's ending that is looked into


class LabelledFile(NamedTuple):
    """One image of a data set: its name in the tree, its split and its class."""

    member: str
    split: str
    label: str


def class_folders(tree: FileTree) -> tuple[list[LabelledFile], tuple[str, ...], str]:
    """Find the images of a folder per class; where val is there without test, it is the test.

    Returns:
        The images, the classes' names, and what was left out, or "".

    Raises:
        DataError: There are no images, or it is not known what the classes are; names the file or shows the tree.
    """
    pictures = {name for name in tree.members if is_picture(name)}
    empty = {name for name in tree.members if name.endswith("/")}
    others = [name for name in tree.members if name not in pictures and name not in empty]
    pictures |= {name for name in others if "/" in name and _is_image_inside(tree, name)}
    left = [name for name in others if name not in pictures]
    if not pictures:
        raise DataError(f"{tree.place} holds no image ({', '.join(SUFFIXES[:8])}, …); expected a folder per class, or "
                        "train/, val/ and test/ with a folder per class each")
    found = [name for name in tree.members if name in pictures or name in empty]
    folders = [*dict.fromkeys(name.split("/")[0] for name in tree.members if "/" in name)]
    splits = splits_of_folders(folders, tree.place, tree.members)
    _check_depth(tree, found, splits)
    depth = 1 if splits else 0
    images, classes = [], set()
    for name in found:
        *parents, file = name.split("/")
        if len(parents) <= depth:
            if not file:
                continue
            raise DataError(f"{tree.place}/{name} lies in no class folder; expected "
                            f"{f'{folders[0]}/' if splits else ''}<class>/{file}")
        split = splits[parents[0]] if splits else "train"
        if split == "train":
            classes.add(parents[depth])
        if file:
            images.append(LabelledFile(name, split, parents[depth]))
    _check_lost(tree, left, depth, {image.label for image in images} | classes)
    if "test" not in {image.split for image in images}:
        images = [image._replace(split="test") if image.split == "val" else image for image in images]
    for image in images:
        if image.label not in classes:
            raise DataError(f"{tree.place}/{image.member}: unknown class {image.label}: train/ does not have it")
    return images, tuple(sorted(classes)), left_out(left)


def _is_image_inside(tree: FileTree, name: str) -> bool:
    """Whether a file whose ending says nothing begins as an image does."""
    from PIL import Image

    content = tree.read(name)
    if len(content) > LARGEST_SNIFFED:
        return False
    Image.init()
    try:
        with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN]):
            return True
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... on what is none
        return False


def _check_depth(tree: FileTree, found: Sequence[str], splits: dict[str, str]) -> None:
    """Refuse trees whose lower folders look like the classes or like splits."""
    depth = 1 if splits else 0
    below: dict[str, set[str]] = {}
    direct: set[str] = set()
    for name in found:
        parents = name.split("/")[:-1]
        if len(parents) > depth + 1:
            below.setdefault(parents[depth], set()).add(parents[depth + 1])
        elif len(parents) == depth + 1:
            direct.add(parents[depth])
    named = sorted(name for names in below.values() for name in names if split_of(name))
    if named:
        raise DataError(f"{tree.place}: {named[0]}/ below a class is named like a split; put the classes below train/, "
                        f"val/ and test/. It holds{shown(tree.members)}")
    if len(below) > 1 and not direct and len(set.intersection(*below.values())) > 1:
        both = ", ".join(sorted(set.intersection(*below.values()))[:3])
        raise DataError(f"{tree.place}: {', '.join(sorted(below)[:3])} would be the classes, but each holds the same "
                        f"folders {both}; put the classes uppermost, or below train/, val/ and test/. It holds"
                        f"{shown(tree.members)}")


def _check_lost(tree: FileTree, left: Sequence[str], depth: int, classes: set[str]) -> None:
    """Refuse a folder in a class's place of which no file is an image."""
    for name in left:
        parents = name.split("/")[:-1]
        if len(parents) > depth and parents[depth] not in classes:
            folder = "/".join(parents[: depth + 1])
            lost = [PurePosixPath(other).name for other in left if other.startswith(f"{folder}/")]
            raise DataError(f"{tree.place}/{folder} holds no image, only {lost[0]} and the like ({len(lost):,}), so a "
                            f"class would be gone; images end in {', '.join(SUFFIXES[:8])}, …; convert them, or move "
                            "the folder away")


def left_out(names: Sequence[str]) -> str:
    """Say in a dry run which files of a data set are not images, by their endings; "" where there are none."""
    if not names:
        return ""
    endings = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in names)
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(4))
    return f"left out as no images: {kinds}, such as {names[0]}"
