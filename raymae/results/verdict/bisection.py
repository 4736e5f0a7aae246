"""Where the answer changes along a factor that is bisected: found in the cells that are open, and put into words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from raymae.results.verdict.numbers import with_interval
from raymae.results.verdict.place import End, Place, Side
from raymae.results.verdict.verdict import CellAnswer, Verdict
from raymae.spec import Objective, SweepSpec
from raymae.spec.bisect import BisectSpec
from raymae.spec.factors import said
from raymae.spec.space import Scalar

_ENDS: dict[End, str] = {
    "narrow": "which are as close together as is asked for",
    "no value": "since the rules of the task and of the sweep allow no value there",
    "not compared": "since the one that was has no comparison",
}


def place_of(
    cells: Sequence[CellAnswer], spec: SweepSpec, objective: Objective, may_open: Sequence[int | float]
) -> Place | None:
    """Find the change of a sweep's answer, and the value at which it is looked for next.

    Args:
        cells: The answer of every cell, in order of the factor's value.
        spec: The sweep.
        objective: What is compared.
        may_open: Values of the factor whose cells may be opened.

    Returns:
        None where no factor is bisected.
    """
    if spec.bisected is None:
        return None
    (factor, bisect), first = spec.bisected, next((one.pairs[0] for one in cells if one.pairs), None)
    a, b = (first.a, first.b) if first else ("", "")
    sides = [side for one in cells if (side := _side(one, factor, a, b, objective, spec.margin or 0.0)) is not None]
    place = Place(factor, a, b, None, None, 0, len(cells), bisect.cells)
    if not {*bisect.bisect} <= {side.value for side in sides}:
        return place
    changes = [(below, above) for below, above in pairwise(sides) if below.better != above.better]
    if not changes:
        return Place(factor, place.a, place.b, sides[0], sides[-1], 0, len(cells), bisect.cells)
    below, above = changes[0]
    found, end = _next(bisect, below.value, above.value, may_open, [one.cell[factor] for one in cells])
    return Place(factor, place.a, place.b, below, above, len(changes), len(cells), bisect.cells, found, end)


def _next(
    bisect: BisectSpec, low: int | float, high: int | float, may_open: Sequence[int | float], known: Sequence[Scalar]
) -> tuple[int | float | None, End]:
    """The value between two others whose cell is opened next, or why there is none.

    Args:
        bisect: How the factor is bisected.
        low: The lower one.
        high: The higher one.
        may_open: Values of the factor whose cells may be opened.
        known: Those whose cells are open; one that could not be compared is not opened again.
    """
    if len(known) >= bisect.cells:
        return None, "cells"
    if bisect.is_narrow(low, high):
        return None, "narrow"
    half = bisect.half(low, high, may_open)
    if half is None:
        return None, "no value"
    return (None, "not compared") if half in known else (half, "")


def found_already(verdict: Verdict, bisect: BisectSpec) -> str:
    """Why more cells would change nothing about a verdict, as a clause; "" where they may.

    Args:
        verdict: Of the sweep as it is.
        bisect: How its factor is bisected.
    """
    place = verdict.place
    if place is None or place.below is None or place.above is None or place.next is not None:
        return ""
    low, high = place.below.value, place.above.value
    if not place.changes:
        return f"the answer is the same at both ends of {place.factor}, {said(low)} and {said(high)}"
    end: End = "narrow" if bisect.is_narrow(low, high) else place.end
    return f"no cell is opened between {said(low)} and {said(high)}, {_ENDS[end]}" if end in _ENDS else ""


def _side(cell: CellAnswer, factor: str, a: str, b: str, objective: Objective, margin: float) -> Side | None:
    """A comparison in a cell; None where it has none."""
    value, pair = cell.cell[factor], next((one for one in cell.pairs if (one.a, one.b) == (a, b)), None)
    if pair is None or not isinstance(value, (int, float)):
        return None
    gain = -pair.difference if objective.mode == "min" else pair.difference
    return Side(value, pair.difference, pair.ci95, pair.verdict, gain > margin)


def place_text(verdict: Verdict) -> str:
    """Where the answer changes, in two sentences; "" where no factor is bisected."""
    place = verdict.place
    if place is None:
        return ""
    if place.below is None or place.above is None:
        return f"Where it changes along {place.factor} is not known: it takes a comparison at both ends."
    margin = verdict.rule.margin if verdict.rule is not None else None
    much = "" if margin is None else f" by more than {margin:g}"
    subject = f"{place.a} scores better than {place.b}{much}"
    ends = [f"{said(side.value)} ({with_interval(side.difference, side.ci95)}, {side.verdict})"
            for side in (place.below, place.above)]
    if not place.changes:
        how = subject if place.below.better else f"{place.a} scores no better than {place.b}{much}"
        found = f"{how} at both ends of {place.factor}, {ends[0]} and {ends[1]}: no change between them was looked for."
    elif place.below.better:
        found = f"{subject} up to {place.factor} {ends[0]} and no longer at {ends[1]}: it changes between the two."
    else:
        found = f"{subject} from {place.factor} {ends[1]} on and not yet at {ends[0]}: it changes between the two."
    return f"{found} {_how(place, verdict)}"


def _how(place: Place, verdict: Verdict) -> str:
    """By what rule it was found, and what that leaves open."""
    margin = verdict.rule.margin if verdict.rule is not None else None
    rule = "by the sign of the estimated difference" if margin is None else \
        f"by whether the estimated difference is above the margin of {margin:g}"
    parts = [f"{place.opened} of at most {place.most} cells, opened one after another where those before pointed, "
             f"{rule}; p-values are adjusted for all cells that were opened"]
    if place.changes > 1:
        parts.append(f"it changes {place.changes} times, and the first is named")
    elif place.changes:
        parts.append("a single change is taken for granted")
    if any(pair.verdict == "undecided" for one in verdict.cells for pair in one.pairs
           if (pair.a, pair.b) == (place.a, place.b)):
        parts.append("where a cell is undecided its sign may be chance, and so may the place that it points to")
    if place.next is not None:
        parts.append(f"the next cell is {said(place.next)}")
    elif place.end in _ENDS:
        parts.append(f"no cell is opened between the two, {_ENDS[place.end]}")
    return f"Bisected: {'; '.join(parts)}."
