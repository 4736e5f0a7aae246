"""Where a difference is clear, and that in a sentence: at values whose band does not hold 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Literal

from raymae.results.verdict.features import Feature
from raymae.results.verdict.numbers import significant
from raymae.results.verdict.statistics import Interval
from raymae.spec.factors import said
from raymae.spec.space import Scalar

Clear = Literal["helps", "hurts", ""]


def clear_parts(
    one: Feature, asked: Sequence[Scalar], difference: Sequence[float], band: Sequence[Interval], mode: str
) -> tuple[tuple[Clear, ...], tuple[float, ...]]:
    """At each value whether the first arm clearly helps, and where the difference passes 0.

    Args:
        one: The parameter.
        asked: Its values.
        difference: The difference at each.
        band: The band at each.
        mode: Whether less (`min`) or more is better.
    """
    below, above = ("helps", "hurts") if mode == "min" else ("hurts", "helps")
    clear = tuple(below if high < 0 else above if low > 0 else "" for low, high in band)
    if one.levels:
        return clear, ()  # type: ignore[return-value]
    pairs = pairwise(zip(asked, difference, strict=True))
    turns = tuple(_passes(one, x, y, v, w) for (x, v), (y, w) in pairs if v * w < 0)
    return clear, turns  # type: ignore[return-value]


def sentence(
    one: Feature, asked: Sequence[Scalar], band: Sequence[Interval], clear: Sequence[Clear], turns: Sequence[float],
    arm: str,
) -> str:
    """What is clear, such as `mae helps only above mask_ratio 0.62`.

    Args:
        one: The parameter.
        asked: Its values.
        band: The band at each.
        clear: What `clear_parts` said.
        turns: Likewise.
        arm: The first arm.
    """
    words = [word for word in ("helps", "hurts") if word in clear]
    if not words:
        return f"no value of {one.name} at which {arm} clearly helps or hurts"
    if all(word == words[0] for word in clear):
        return f"{arm} {words[0]} at every value of {one.name} that was tried"
    parts = [f"{word} {'only ' if len(words) == 1 else ''}{_where(one, asked, band, clear, word)}" for word in words]
    turn = f"; the difference turns at {_said(turns[0])}" if len(turns) == 1 and len(words) == 2 else ""
    return f"{arm} {', '.join(parts)}{turn}"


def _where(
    one: Feature, asked: Sequence[Scalar], band: Sequence[Interval], clear: Sequence[Clear], word: str
) -> str:
    if one.levels:
        return f"at {one.name} {_listed([said(value) for value, is_ in zip(asked, clear, strict=True) if is_ == word])}"
    places = []
    for is_, group in groupby(range(len(clear)), lambda index: clear[index]):
        run = list(group)
        if is_ != word:
            continue
        first, last = run[0], run[-1]
        low = _edge(one, asked, band, first - 1, first) if first else None
        high = _edge(one, asked, band, last, last + 1) if last + 1 < len(clear) else None
        if low is None or high is None:
            places.append(f"below {one.name} {_said(high)}" if high is not None else f"above {one.name} {_said(low)}")
        else:
            places.append(f"between {one.name} {_said(low)} and {_said(high)}")
    return _listed(places)


def _edge(one: Feature, asked: Sequence[Scalar], band: Sequence[Interval], left: int, right: int) -> float:
    """Where the end of the band that decides passes 0 between two neighbours, of which one is clear."""
    end = next(end for end in (0, 1) if band[left][end] * band[right][end] <= 0
               and band[left][end] != band[right][end])
    return _passes(one, asked[left], asked[right], band[left][end], band[right][end])


def _passes(one: Feature, x: Scalar, y: Scalar, v: float, w: float) -> float:
    """Where a line from (x, v) to (y, w) passes 0, on the parameter's own axis."""
    assert x is not None
    assert y is not None
    share, low, high = v / (v - w), float(x), float(y)
    return math.exp((1 - share) * math.log(low) + share * math.log(high)) if one.log else low + share * (high - low)


def _said(value: float | None) -> str:
    return significant(value, 2)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
