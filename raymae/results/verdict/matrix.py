"""The answer of a sweep with factors as one small table, a row a cell, and as curves against a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymae.results.verdict.arms_table import mean_cells
from raymae.results.verdict.headline import unlearned_text
from raymae.results.verdict.numbers import interval_decimals, number, p_cell
from raymae.results.verdict.statistics import Interval
from raymae.results.verdict.verdict import Pair, Verdict
from raymae.spec.factors import said, told
from raymae.spec.space import Scalar

CHANGE = "◂▸"  # in a table, beside the values between which the answer changes


@dataclass(frozen=True)
class MatrixRow:
    """A cell.

    Attributes:
        values: Its value of each factor, in the order of `Matrix.factors`.
        a: Mean test score of the first arm with the half-width of its interval; "" where it has none.
        b: Likewise, of the second.
        difference: The first minus the second.
        interval: Its 95 % interval from end to end, or "".
        p: p-value, adjusted for all comparisons in all cells.
        plain: What is said of it; "" where there is no comparison yet.
        remark: What has to be said beside that, or "".
        skill: Mean skill of the first arm's pretraining, or "".
        shown: Whether it is the cell that everything else is about.
        beside: Whether the answer changes beside it, along a factor that is bisected.
    """

    values: tuple[str, ...]
    a: str
    b: str
    difference: str
    interval: str
    p: str
    plain: str
    remark: str
    skill: str
    shown: bool
    beside: bool = False

    @property
    def word(self) -> str:
        """What is said of it, with what has to be said beside it."""
        return "; ".join(filter(None, (self.plain or "no comparison yet", self.remark)))

    def named(self) -> tuple[str, ...]:
        """Its values in the table; a mark where the answer changes beside it."""
        return tuple(f"{CHANGE} {value}" for value in self.values) if self.beside else self.values

    def cells(self) -> tuple[str, ...]:
        """Its cells in the table, after its values."""
        return self.a, self.b, self.difference, self.interval, self.p, self.word, self.skill


@dataclass(frozen=True)
class Matrix:
    """All cells, for the comparison that the sweep is for.

    Attributes:
        factors: Their names.
        a: The arm that the verdict is about; "" before there is any comparison.
        b: The arm it is compared with.
        rows: One a cell.
    """

    factors: tuple[str, ...]
    a: str
    b: str
    rows: tuple[MatrixRow, ...]

    @property
    def note(self) -> str:
        """What the mark at its rows means; "" where there is none."""
        return f"{CHANGE} the answer changes between these two" if any(row.beside for row in self.rows) else ""


def matrix(verdict: Verdict) -> Matrix | None:
    """The cells of a verdict; None where the sweep has no factors."""
    if not verdict.cells:
        return None
    each = verdict.each()
    a, b = next(((pair.a, pair.b) for one in each for pair in one.pairs[:1]), ("", ""))
    pairs = [one.against(a).get(b) for one in each]
    means = []
    for name in (a, b):
        scores = [next((one.test(arm) for arm in one.arms if arm.arm == name), None) for one in each]
        means.append([mean + (f" ± {half}" if half else "") for mean, half in mean_cells(scores)])
    common = interval_decimals(pair.ci95 if pair else None for pair in pairs)
    bracket = verdict.place.bracket if verdict.place is not None else None
    rows = [MatrixRow(tuple(map(said, (one.cell or {}).values())), mean_a, mean_b, *_difference(pair, common),
                      p_cell(pair.p_holm) if pair else "–", pair.verdict if pair else "",
                      unlearned_text(pair, one) if pair else "", _skill(one, a), one.cell == verdict.cell,
                      bracket is not None and verdict.place is not None
                      and (one.cell or {})[verdict.place.factor] in bracket)
            for one, pair, mean_a, mean_b in zip(each, pairs, *means, strict=True)]
    return Matrix(tuple(verdict.cells[0].cell), a, b, tuple(rows))


def _difference(pair: Pair | None, common: int | None) -> tuple[str, str]:
    if pair is None:
        return "–", "–"
    decimals = interval_decimals([pair.ci95]) if common is None else common
    ends = "–" if pair.ci95 is None else " to ".join(number(end, decimals) for end in pair.ci95)
    return number(pair.difference, decimals), ends


def _skill(verdict: Verdict, arm: str) -> str:
    return next((number(one.skill.mean, 2) for one in verdict.arms if one.arm == arm and one.skill is not None), "")


@dataclass(frozen=True)
class Point:
    """A score or a difference at a value of a factor."""

    x: float
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class CurveLine:
    """One arm against a factor, or the difference to it.

    Attributes:
        arm: The arm.
        points: By value of the factor.
    """

    arm: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Curve:
    """Scores and differences against a numeric factor, at one value of each of the others.

    Attributes:
        factor: The factor.
        at: The others, in words; "" where there are none.
        log: Whether the factor's values are so far apart that their logarithm is drawn.
        scores: A line an arm, best first.
        a: The arm that differences are about; "" where there are none.
        differences: `a` minus each other arm.
        bracket: Two values of the factor between which the answer changes, where it is bisected.
    """

    factor: str
    at: str
    log: bool
    scores: tuple[CurveLine, ...]
    a: str
    differences: tuple[CurveLine, ...]
    bracket: tuple[float, float] | None = None


def curves(verdict: Verdict) -> tuple[Curve, ...]:
    """The answer against the first factor that has several numbers, a curve for each combination of the others."""
    each = verdict.each() if verdict.cells else ()
    names = list(verdict.cells[0].cell) if verdict.cells else []
    factor = next((name for name in names if _is_numeric([(one.cell or {})[name] for one in each])), None)
    if factor is None:
        return ()
    groups: dict[str, list[Verdict]] = {}
    for one in each:
        rest = {name: value for name, value in (one.cell or {}).items() if name != factor}
        groups.setdefault(told(rest), []).append(one)
    return tuple(_curve(factor, at, cells, verdict) for at, cells in groups.items())


def _is_numeric(values: Sequence[Scalar]) -> bool:
    return len(set(values)) > 1 and all(isinstance(value, (int, float)) and not isinstance(value, bool)
                                        for value in values)


def _curve(factor: str, at: str, cells: Sequence[Verdict], verdict: Verdict) -> Curve:
    def x(one: Verdict) -> float:
        return float((one.cell or {})[factor])  # type: ignore[arg-type]

    cells = sorted(cells, key=x)
    xs = [x(one) for one in cells]
    order = [arm.arm for arm in verdict.arms]
    scores = {name: tuple(Point(x(one), score.mean, score.ci95) for one in cells for arm in one.arms
                          if arm.arm == name and (score := one.test(arm)) is not None) for name in order}
    a = next((pair.a for one in cells for pair in one.pairs[:1]), "")
    differences = {name: tuple(Point(x(one), pair.difference, pair.ci95) for one in cells
                               if (pair := one.against(a).get(name)) is not None) for name in order}
    first = next((pair.b for one in cells for pair in one.pairs[:1]), "")
    return Curve(
        factor, at, min(xs) > 0 and max(xs) / min(xs) >= 8,
        tuple(CurveLine(name, points) for name, points in scores.items() if points), a,
        tuple(CurveLine(name, points) for name, points in sorted(differences.items(), key=lambda one: one[0] != first)
              if points), verdict.place.bracket if verdict.place is not None else None)
