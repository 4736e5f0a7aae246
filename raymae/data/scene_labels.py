"""What the numbers of label maps mean: which is the first class, which is ignored, and how the classes are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raymae.errors import DataError

IGNORED = 255  # what an ignored label becomes; the classes become 0..K-1
LAYOUT = "expected the layout of ADE20K: images/{training,validation} and annotations/{training,validation}"
ROW = re.compile(r"\s*(\d{1,5})[\t ,;]\s*(.*)")


class Labelling(NamedTuple):
    """How classes are numbered in label maps; ADE20K's way unless a setting says otherwise.

    Attributes:
        first: The number of the first class.
        ignore: The number of pixels that nobody labelled.
    """

    first: int = 1
    ignore: int = 0

    def coded(self, values_HX: np.ndarray) -> np.ndarray:
        """Turn numbers of a label map into uint8 `[H, X]`: 0..K-1, or `IGNORED`."""
        return np.where(values_HX == self.ignore, IGNORED, values_HX - self.first).astype(np.uint8)

    def check(self, values_HX: np.ndarray, num_classes: int, mask: Path) -> None:
        """Refuse a label map with numbers that are no class.

        Raises:
            DataError: Names the file, a number and the settings.
        """
        last = self.first + num_classes - 1
        bad = values_HX[(values_HX != self.ignore) & ((values_HX < self.first) | (values_HX > last))]
        if len(bad):
            hint = ": where 255 is ignored and 0 is a class, 255 and 0" if 255 in bad else ""
            raise DataError(f"{mask} holds label {int(bad.max())}; allowed are {self.ignore} (ignored) and "
                            f"{self.first} to {last}, the classes of objectInfo*.txt; settings.ignore_label and "
                            f"settings.first_label say which is ignored and which is the first class{hint}")


ADE20K = Labelling()


def read_classes(folder: Path, labelling: Labelling = ADE20K) -> tuple[str, ...]:
    """The names in `objectInfo*.txt`, by the number that each line begins with, or by place where none has numbers.

    A line is a number and, behind the last tab, a name; before them there may be a header. A number that no line has
    between others is called `label 7`.

    Raises:
        DataError: There is no such file, or it is not text, it names a number twice or one that is no class, or no
            class or more than 254.
    """
    found = sorted(folder.glob("objectInfo*.txt"))
    if not found:
        raise DataError(f"{folder} has no objectInfo*.txt, which says how many classes there are: a header line, then "
                        f"a line `1<tab>wall` for every class; {LAYOUT}")
    try:
        lines = [line for line in found[0].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{found[0]} cannot be read: {error}") from None
    if lines and not ROW.match(lines[0]):
        lines = lines[1:]  # the header
    rows = [(ROW.match(line), line.rpartition("\t")[2].strip()) for line in lines]
    numbered = [(int(match[1]), name if "\t" in match[0] else match[2].strip()) for match, name in rows if match]
    if numbered and len(numbered) < len(rows):
        line = next(line for line, (match, _) in zip(lines, rows, strict=True) if match is None)
        raise DataError(f"{found[0]}: the line {line[:80]!r} does not begin with a number, as others do; give every "
                        "class its number in the label maps")
    classes = _by_number(found[0], numbered, labelling) if numbered else tuple(name for _, name in rows)
    if not 0 < len(classes) < IGNORED:
        raise DataError(f"{found[0]} names {len(classes)} classes after its header line; 1 to {IGNORED - 1} are "
                        "possible")
    return classes


def _by_number(path: Path, numbered: list[tuple[int, str]], labelling: Labelling) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for number, name in numbered:
        if number in names:
            raise DataError(f"{path} names {number} twice, {names[number]!r} and {name!r}; a number is one class")
        names[number] = name
    names.pop(labelling.ignore, None)
    if names and min(names) < labelling.first:
        raise DataError(f"{path} names {min(names)} ({names[min(names)]!r}), but the first class is "
                        f"{labelling.first} and {labelling.ignore} is ignored; set settings.first_label and "
                        "settings.ignore_label")
    return tuple(names.get(number, f"label {number}") for number in range(labelling.first, max(names, default=0) + 1))
