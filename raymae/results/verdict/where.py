"""Where on the test set an arm wins: the primary comparison by test example, or by group of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymae.results.verdict.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

MOST_SHOWN = 5


@dataclass(frozen=True)
class Place:
    """A test example or a group of them.

    Attributes:
        name: Its name.
        units: Examples in it.
        a: Mean score of the primary pair's first arm there, over its replicates.
        b: The second arm's.
        difference: `a` minus `b`.
    """

    name: str
    units: int
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class Where:
    """The primary comparison over the test set.

    Attributes:
        kind: What is counted: `groups` or `examples`.
        a: The first arm.
        b: The second.
        wins: Places where the first is better.
        losses: Where it is worse.
        best: Where it is better by most, at most five.
        worst: Where it is worse by most, at most five.
    """

    kind: str
    a: str
    b: str
    wins: int
    losses: int
    best: tuple[Place, ...]
    worst: tuple[Place, ...]


def by_place(scores: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The mean score of each arm in each group of test examples, or for each example where no group is known.

    Parts of the objective (classes, columns) are averaged by their weights, replicates equally.

    Args:
        scores: The `scores` dataset, of the replicates that count.
        arms: Which arms.

    Returns:
        One row per place, in the order of the test set: `place`, `units`, and a column for each arm.
    """
    frame = scores[scores["arm"].isin(list(arms))]
    frame = frame.assign(place=(frame["group"] if frame["group"].notna().all() else frame["unit"]).astype(str),
                         total=frame["score"] * frame["weight"])
    sums = frame.groupby(["place", "arm", "seed"], sort=False, observed=True)[["total", "weight"]].sum()
    means = (sums["total"] / sums["weight"]).groupby(level=["place", "arm"], sort=False).mean().unstack("arm")
    units = frame.groupby("place", sort=False, observed=True)["unit"].nunique()
    return means.reindex(units.index).assign(units=units).reset_index()[["place", "units", *arms]]


def where(verdict: Verdict, scores: pd.DataFrame) -> Where | None:
    """Where on the test set the primary pair's first arm wins; None without scores of both arms.

    Args:
        verdict: What was found.
        scores: The `scores` dataset, of the replicates that count.
    """
    if not verdict.pairs or scores.empty:
        return None
    pair, sign = verdict.pairs[0], -1.0 if verdict.objective.mode == "min" else 1.0
    if not {pair.a, pair.b} <= set(scores["arm"]):
        return None
    table = by_place(scores, (pair.a, pair.b)).dropna()
    table = table.assign(difference=table[pair.a] - table[pair.b])
    table = table.assign(gain=sign * table["difference"]).sort_values("gain", ascending=False, kind="stable")
    places = [Place(str(row["place"]), int(row["units"]), float(row[pair.a]), float(row[pair.b]),
                    float(row["difference"])) for row in table.to_dict("records")]
    wins, losses = int((table["gain"] > 0).sum()), int((table["gain"] < 0).sum())
    kind = "groups" if scores["group"].notna().all() else "examples"
    worst = places[::-1][:min(MOST_SHOWN, losses)]
    return Where(kind, pair.a, pair.b, wins, losses, tuple(places[:min(MOST_SHOWN, wins)]), tuple(worst))
