"""The test set as a sample: how much a score would vary with other test examples, by a bootstrap over their groups.

S replicates, G groups, P parts of the objective (see `raymae.tasks.base.UnitScores`), B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

RESAMPLES = 2000
MAX_GROUPS = 1000  # more are joined at random into so many: the variance stays, the work does not grow
DISAGREE = 1e-6


@dataclass(frozen=True)
class UnitSums:
    """An arm's test scores by example, summed over each group.

    Attributes:
        seeds: Of the replicates, in order.
        total_SGP: Sums of weighted scores.
        weight_SGP: Sums of weights.
        root: Whether the objective is the square root of the mean.
    """

    seeds: tuple[int, ...]
    total_SGP: np.ndarray
    weight_SGP: np.ndarray
    root: bool

    def objective(self, counts_BG: np.ndarray) -> np.ndarray:
        """The objective of every replicate, `[B, S]`, where each group occurs so often among the examples."""
        replicates, groups, parts = self.total_SGP.shape
        total_BSP, weight_BSP = (
            (counts_BG @ sums_SGP.transpose(1, 0, 2).reshape(groups, -1)).reshape(-1, replicates, parts)
            for sums_SGP in (self.total_SGP, self.weight_SGP))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_BS = np.nanmean(np.where(weight_BSP > 0, total_BSP / weight_BSP, np.nan), axis=2)
        return np.sqrt(mean_BS) if self.root else mean_BS


@dataclass(frozen=True)
class UnitSample:
    """The test examples of a sweep, and its arms' scores of them.

    Attributes:
        num_units: Test examples.
        num_groups: Groups that they belong to; each is its own where none is known.
        grouped: Whether groups are known.
        resampled: By arm the objective of its replicates on resampled groups, `[B, S]`; arms without scores lack.
        seeds: By arm the seeds of those replicates.
        note: Why an arm lacks, or there is no variance over groups, or "".
    """

    num_units: int
    num_groups: int
    grouped: bool
    resampled: Mapping[str, np.ndarray]
    seeds: Mapping[str, tuple[int, ...]]
    note: str = ""


def resample_units(
    scores: pd.DataFrame, reported: Mapping[str, Mapping[int, float]], *, root: bool, resamples: int = RESAMPLES,
) -> UnitSample | None:
    """Resample the test examples of a sweep, whole groups at a time, the same ones for every arm and replicate.

    G - 1 groups are drawn with replacement out of G, which makes the variance of a mean unbiased (Rao and Wu 1988,
    doi:10.1080/01621459.1988.10478591).

    Args:
        scores: The `scores` dataset, of the replicates that count.
        reported: By arm and seed the objective that the replicate reported: scores that do not add up to it are left
            out.
        root: Whether the objective is the square root of the mean.
        resamples: B.

    Returns:
        None where there are no scores.
    """
    if scores.empty:
        return None
    named = scores["group"].notna().all()
    group_N, _ = _codes(scores["group"] if named else scores["unit"])
    num_units, num_groups = scores["unit"].nunique(), int(group_N.max()) + 1
    if num_groups > MAX_GROUPS:
        group_N = np.random.default_rng(0).permutation(num_groups)[group_N] % MAX_GROUPS
    part_N, parts = _codes(scores["part"])
    sums, notes = {}, []
    for arm in reported:
        of_arm = (scores["arm"] == arm).to_numpy()
        found = _sums(scores[of_arm], group_N[of_arm], part_N[of_arm], int(group_N.max()) + 1, len(parts), root)
        if found is None:
            notes.append(f"{arm} has no test scores by example")
            continue
        whole_S = found.objective(np.ones((1, found.total_SGP.shape[1])))[0]
        wanted_S = np.array([reported[arm].get(seed, np.nan) for seed in found.seeds])
        if np.allclose(whole_S, wanted_S, rtol=DISAGREE, atol=0) and len(wanted_S) == len(reported[arm]):
            sums[arm] = found
        else:
            notes.append(f"the test scores by example of {arm} do not add up to what it reported")
    if num_groups < 2:
        kind = "group" if named else "example"
        notes.append(f"the test split is one {kind}, so nothing is known of others")
        sums = {}
    counts_BG = _resampled(int(group_N.max()) + 1, resamples)
    return UnitSample(
        num_units, num_groups, bool(named), {arm: found.objective(counts_BG) for arm, found in sums.items()},
        {arm: found.seeds for arm, found in sums.items()}, "; ".join(notes))


def _codes(column: pd.Series) -> tuple[np.ndarray, Sequence[str]]:
    """Every value as a number from 0, and the values, in the order of their names."""
    import pandas as pd

    codes, values = pd.factorize(column.astype(str), sort=True)
    return np.asarray(codes), list(values)


def _sums(
    scores: pd.DataFrame, group_N: np.ndarray, part_N: np.ndarray, groups: int, parts: int, root: bool
) -> UnitSums | None:
    if scores.empty:
        return None
    seeds, seed_N = np.unique(scores["seed"].to_numpy(np.int64), return_inverse=True)
    place_N = (seed_N * groups + group_N) * parts + part_N
    weight_N, size = scores["weight"].to_numpy(float), len(seeds) * groups * parts
    total, weight = (np.bincount(place_N, values, minlength=size).reshape(len(seeds), groups, parts)
                     for values in (weight_N * scores["score"].to_numpy(float), weight_N))
    return UnitSums(tuple(map(int, seeds)), total, weight, root)


def _resampled(groups: int, resamples: int) -> np.ndarray:
    """How often each group is drawn, `[B, G]`; the same for equal arguments."""
    rng = np.random.default_rng(0)
    return rng.multinomial(max(groups - 1, 1), np.full(groups, 1 / groups), size=resamples).astype(float)
