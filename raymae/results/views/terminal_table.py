"""Rows as a table no wider than a terminal: whole, turned on its side, or in blocks of columns. Remarks below one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from raymae.errors import printable

_WIDEST = 60  # a longer cell goes on in the next line
_GAP = 2
_DIGITS = (7, 9, 12, 15)  # 32-bit floats have 7
_MARKS = "†‡§¶"


class Remarks:
    """What has to be said beside words of a table, once below it: each has a mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, remark: str) -> str:
        """What stands behind the word, such as ` †`; nothing without a remark."""
        if not remark:
            return ""
        number = len(self._marks)
        return f" {self._marks.setdefault(remark, _MARKS[number % len(_MARKS)] * (number // len(_MARKS) + 1))}"

    def notes(self) -> list[str]:
        """A line for each remark."""
        return [f"{mark} {remark}" for remark, mark in self._marks.items()]


def text_table(names: Sequence[str], columns: Sequence[Sequence[Any]], width: int) -> str:
    """Draw columns of equal length, in lines of at most `width` characters.

    A table that does not fit has its columns as rows where it has more columns than rows. Otherwise it comes in blocks
    of columns, each of which begins with the first column where that tells rows apart. Cells are folded, never cut.

    Args:
        names: A name for each column.
        columns: Their values; None is missing.
        width: Characters in a line.
    """
    cells = [[printable(name), *_cells(values)] for name, values in zip(names, columns, strict=True)]
    right = [_is_number(values) for values in columns]
    if sum(map(_width, cells)) + _GAP * (len(cells) - 1) <= width and max(map(_width, cells)) <= max(_WIDEST, width):
        return _block(cells, right, [_width(column) for column in cells])
    rows = [f"row {i}" for i in range(1, len(cells[0]))]
    if len(cells) >= len(rows):
        keys, cells = ["", *(column[0] for column in cells)], [
            [row, *(column[i] for column in cells)] for i, row in enumerate(rows, 1)]
        right = [False] * len(rows)
    elif len(set(cells[0])) == len(cells[0]) and _width(cells[0]) <= width // 3:
        keys, cells, right = cells[0], cells[1:], right[1:]
    else:
        keys = ["", *rows]
    return "\n".join(_blocks(keys, cells, right, max(width, 20)))


def _blocks(keys: list[str], cells: list[list[str]], right: list[bool], width: int) -> Iterator[str]:
    """Tables of as many columns each as fit beside the keys."""
    key = min(_width(keys), width // 2)
    widths = [min(_width(column), _WIDEST, width - key - _GAP) for column in cells]
    start = 0
    while start < len(cells):
        end, used = start, key
        while end < len(cells) and (end == start or used + _GAP + widths[end] <= width):
            used += _GAP + widths[end]
            end += 1
        yield _block([keys, *cells[start:end]], [False, *right[start:end]], [key, *widths[start:end]])
        start = end


def _block(cells: list[list[str]], right: list[bool], widths: list[int]) -> str:
    """A table of columns so wide each; a number stands at the right of its column."""
    lines = []
    for row in zip(*cells, strict=True):
        folded = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
        for i in range(max(map(len, folded))):
            parts = [_padded(part[i] if i < len(part) else "", width, at_right)
                     for part, width, at_right in zip(folded, widths, right, strict=True)]
            lines.append((" " * _GAP).join(parts).rstrip() + "\n")
    return "".join(lines)


def _folded(text: str, width: int) -> list[str]:
    from rich.cells import chop_cells

    return [text] if len(text) <= width and text.isascii() else chop_cells(text, width) or [""]


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _length(text))
    return space + text if right else text + space


def _width(texts: Sequence[str]) -> int:
    return max(map(_length, texts))


def _length(text: str) -> int:
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def _is_number(values: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _cells(values: Sequence[Any]) -> list[str]:
    """A column's values; its floats with so many digits that different numbers differ."""
    numbers = [value + 0.0 for value in values if isinstance(value, float) and math.isfinite(value)]  # no -0.0
    show = dict(zip(numbers, _floats(numbers), strict=True)) if numbers else {}
    return ["NULL" if value is None else show.get(value) or str(value) if isinstance(value, float)
            else printable(str(value)) for value in values]


def _floats(values: Sequence[float]) -> list[str]:
    """Finite numbers with as few of 7 to 17 significant digits as keep them apart, and their points in line."""
    different = len(set(values))
    for digits in _DIGITS:
        shown = [_significant(value, digits) for value in values]
        if len(set(shown)) >= different:
            break
    else:
        return list(map(repr, values))
    if any("e" in text for text in shown):
        return shown
    decimals = max(1, *(len(text.partition(".")[2]) for text in shown))
    return [f"{value:.{decimals}f}" for value in values]


def _significant(value: float, digits: int) -> str:
    """A number to so many significant digits, and to all in front of its point."""
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{max(digits, before) if before <= 15 else digits}g}"
