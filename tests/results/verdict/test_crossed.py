"""Seeds and test examples are both chance: intervals, words, power and looks, on made scores of known variance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raymae.results.verdict import anytime
from raymae.results.verdict.judge import judged
from raymae.results.verdict.statistics import Evidence, Side, adjusted, evidence, holm_level, statistics
from raymae.results.verdict.units import UnitSample, resample_units
from raymae.spec import Objective

LESS = Objective("mse", "min", "")
RESAMPLES = 300


def frame(arms: dict[str, np.ndarray], groups: np.ndarray | None = None) -> pd.DataFrame:
    """The `scores` dataset of arms with scores `[S, U]`."""
    rows = []
    for arm, score_SU in arms.items():
        seeds, units = score_SU.shape
        rows.append(pd.DataFrame({
            "arm": arm, "seed": np.repeat(np.arange(seeds), units),
            "unit": np.tile(np.arange(units), seeds).astype(str),
            "group": None if groups is None else np.tile(groups, seeds).astype(str), "part": "",
            "score": score_SU.ravel(), "weight": 1.0}))
    return pd.concat(rows, ignore_index=True)


def sides(arms: dict[str, np.ndarray], groups: np.ndarray | None = None) -> tuple[list[Side], UnitSample]:
    by_seed = {arm: dict(enumerate(score_SU.mean(axis=1).tolist())) for arm, score_SU in arms.items()}
    sample = resample_units(frame(arms, groups), by_seed, root=False, resamples=RESAMPLES)
    assert sample is not None
    return [Side(arm, by_seed[arm], False, sample.resampled[arm]) for arm in arms], sample


def made(rng: np.random.Generator, *, seeds: int, groups: int, per_group: int, difference: float = 0.0,
         seed_sd: float = 1.0, group_sd: float = 6.0, noise_sd: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms' scores: a level of each seed, a level of each group that differs by arm, and noise."""
    level = rng.normal(0, 10, groups)
    arms = []
    for shift in (difference, 0.0):
        own = level + rng.normal(0, group_sd / math.sqrt(2), groups)
        score = shift + rng.normal(0, seed_sd, (seeds, 1)) + np.repeat(own, per_group)[None]
        arms.append(score + rng.normal(0, noise_sd, score.shape))
    return arms[0], arms[1]


@pytest.mark.parametrize(("seed_sd", "group_sd"), [(1.0, 6.0), (2.0, 0.5), (0.1, 8.0)])
def test_coverage_of_the_crossed_interval(seed_sd: float, group_sd: float) -> None:
    rng, hits, seeds_alone, times = np.random.default_rng(7), 0, 0, 400
    groups = np.repeat(np.arange(40), 3)
    for _ in range(times):
        a, b = made(rng, seeds=6, groups=40, per_group=3, difference=0.7, seed_sd=seed_sd, group_sd=group_sd)
        (x, y), sample = sides({"a": a, "b": b}, groups)
        found = evidence(x, y, num_groups=sample.num_groups)
        low, high = found.interval() or (math.nan, math.nan)
        hits += low <= 0.7 <= high
        low, high = found.interval(units=False) or (math.nan, math.nan)
        seeds_alone += low <= 0.7 <= high
    assert 0.93 <= hits / times <= 0.97
    if group_sd > seed_sd:  # what an interval over seeds alone says of other test examples
        assert seeds_alone / times < 0.9


def test_the_variance_over_examples_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(3)
    a, b = made(rng, seeds=8, groups=60, per_group=1)
    (x, y), sample = sides({"a": a, "b": b})
    found = evidence(x, y, num_groups=sample.num_groups)
    mean_U = a.mean(axis=0) - b.mean(axis=0)
    # a crossed analysis of variance, by its formulas: units, and what each arm's seeds and units have together
    shared = 0.0
    for score_SU in (a, b):
        rest = score_SU - score_SU.mean(axis=0) - score_SU.mean(axis=1, keepdims=True) + score_SU.mean()
        shared += (rest**2).sum() / (7 * 59) / (8 * 60)
    units = mean_U.var(ddof=1) / 60 - shared
    seeds = (a.mean(axis=1).var(ddof=1) + b.mean(axis=1).var(ddof=1)) / 8
    assert found.seeds == pytest.approx(seeds)
    assert found.units == pytest.approx(units, rel=0.25)
    assert found.p(units=False) == pytest.approx(
        stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False).pvalue)


def test_a_deterministic_reference_has_the_interval_over_examples() -> None:
    score_U = np.random.default_rng(0).normal(3, 2, 200)
    sample = resample_units(frame({"last": score_U[None]}), {"last": {0: float(score_U.mean())}}, root=False,
                            resamples=2000)
    assert sample is not None
    score = statistics(Side("last", {0: float(score_U.mean())}, True, sample.resampled["last"]), 200)
    low, high = stats.t.interval(0.95, 199, score_U.mean(), stats.sem(score_U))
    assert score.ci95 == pytest.approx((low, high), rel=0.03)
    assert score.ci95_seeds is None


def test_groups_widen_the_interval_of_examples_that_are_alike() -> None:
    rng = np.random.default_rng(1)
    a, b = made(rng, seeds=5, groups=20, per_group=10)
    alone, grouped = (evidence(*sides({"a": a, "b": b}, groups)[0], num_groups=20)
                      for groups in (None, np.repeat(np.arange(20), 10)))
    assert grouped.units is not None
    assert alone.units is not None
    assert grouped.units > 2 * alone.units


def test_scores_that_do_not_add_up_to_the_report_are_left_out() -> None:
    a, b = made(np.random.default_rng(1), seeds=3, groups=9, per_group=1)
    reported = {"a": dict(enumerate(a.mean(axis=1))), "b": dict(enumerate(b.mean(axis=1) + 0.01))}
    sample = resample_units(frame({"a": a, "b": b}), reported, root=False, resamples=50)
    assert sample is not None
    assert set(sample.resampled) == {"a"}
    assert "of b do not add up" in sample.note


def test_one_group_says_nothing_about_others() -> None:
    a, b = made(np.random.default_rng(1), seeds=3, groups=9, per_group=1)
    reported = {"a": dict(enumerate(a.mean(axis=1))), "b": dict(enumerate(b.mean(axis=1)))}
    sample = resample_units(frame({"a": a, "b": b}, np.zeros(9)), reported, root=False, resamples=50)
    assert sample is not None
    assert sample.resampled == {}
    assert "one group" in sample.note


def test_the_root_of_a_mean() -> None:
    score_SU = np.random.default_rng(1).uniform(1, 3, (4, 80)) ** 2
    reported = {"a": dict(enumerate(np.sqrt(score_SU.mean(axis=1))))}
    sample = resample_units(frame({"a": score_SU}), reported, root=True, resamples=2000)
    assert sample is not None
    spread = sample.resampled["a"].mean(axis=1).std()
    mean_U = score_SU.mean(axis=0)
    assert spread == pytest.approx(mean_U.std(ddof=1) / math.sqrt(80) / (2 * math.sqrt(mean_U.mean())), rel=0.1)


def test_two_seeds_do_not_get_a_narrower_interval_by_test_examples() -> None:
    few = Evidence(-4.2, 2, 1.0, 1.9, 1.0, 72.0)
    (low, high), (alone_low, alone_high) = few.interval() or (0, 0), few.interval(units=False) or (0, 0)
    assert (low, high) == (alone_low, alone_high)
    assert few.p() == few.p(units=False)


# -- looks -------------------------------------------------------------------------------------------------------------


def test_false_verdicts_at_every_look_are_rare() -> None:
    """Under the null, with looks at 5, 6, … 40 replicates; unadjusted t-tests at three looks err in 10 % of sweeps."""
    times, looks = 2000, range(5, 41)
    x = np.random.default_rng(5).normal(0, 1, (times, 40))
    wrong, wrong_fixed = np.zeros(times, bool), np.zeros(times, bool)
    for n in looks:
        mean, variance = x[:, :n].mean(axis=1), x[:, :n].var(axis=1, ddof=1)
        wrong |= [anytime.p_value(n, *each) < 0.05 for each in zip(mean.tolist(), variance.tolist(), strict=True)]
        wrong_fixed |= 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance / n), n - 1) < 0.05
    assert wrong.mean() <= 0.05
    assert wrong_fixed.mean() > 0.12


def test_false_verdicts_at_every_look_where_the_examples_are_a_sample() -> None:
    rng, times, wrong = np.random.default_rng(11), 150, 0
    for _ in range(times):
        a, b = made(rng, seeds=20, groups=30, per_group=1, group_sd=3.0)
        found = False
        for n in (5, 10, 15, 20):
            (x, y), sample = sides({"a": a[:n], "b": b[:n]})
            p = evidence(x, y, num_groups=sample.num_groups, sequential=True).p()
            found = found or (p is not None and p < 0.05)
        wrong += found
    assert wrong / times <= 0.05


def test_the_confidence_sequence_is_the_inverse_of_its_p_value() -> None:
    for n, mean, variance in ((5, 1.3, 0.2), (12, 0.4, 1.0), (40, 0.1, 0.3)):
        p = anytime.p_value(n, mean, variance)
        if p < 1:
            assert anytime.half_width(n, variance, p) == pytest.approx(abs(mean))
    assert math.isinf(anytime.half_width(2, 1.0, 0.05))


# -- words -------------------------------------------------------------------------------------------------------------


def words(found: list[Evidence], margin: float | None = None) -> list[str]:
    pairs = [("mae", f"arm{index}", one) for index, one in enumerate(found)]
    return [pair.verdict for pair in judged(pairs, LESS, margin, units=0, seconds={}, primary=None)]


def known(value: float, sd: float, n: int = 8) -> Evidence:
    return Evidence(value, n, sd**2, 2.0 * (n - 1))


def test_words_rest_on_adjusted_p_values() -> None:
    almost = known(-2.3, 1.0)  # p = .037
    assert words([almost]) == ["helps"]
    assert words([almost, known(0.1, 1.0)]) == ["undecided", "undecided"]
    assert words([known(9.0, 1.0), almost]) == ["hurts", "helps"]  # Holm, not Bonferroni


def test_the_adjusted_interval_excludes_zero_where_the_word_says_so() -> None:
    found = [known(-3.0, 1.0), known(-2.6, 1.0), known(0.2, 1.0)]
    pairs = judged([("a", str(index), one) for index, one in enumerate(found)], LESS, None, units=0, seconds={},
                   primary=None)
    for pair in pairs:
        assert pair.ci_holm is not None
        assert (pair.ci_holm[1] < 0) == (pair.verdict == "helps")


def test_practically_equal_needs_a_margin_and_the_difference_within_it() -> None:
    assert words([known(0.1, 1.0)]) == ["undecided"]
    assert words([known(0.1, 1.0)], margin=1.0) == ["undecided"]
    assert words([known(0.1, 0.2)], margin=1.0) == ["practically equal"]
    assert words([known(-3.0, 0.2)], margin=1.0) == ["helps"]
    assert words([known(-0.5, 0.1)], margin=1.0) == ["practically equal"]  # a difference that does not matter


def test_holm_is_that_of_the_paper() -> None:
    assert adjusted([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm_level([0.01, None, 0.04, 0.03], 0) == pytest.approx(0.05 / 3)
    assert holm_level([0.01, None, 0.04, 0.03], 2) == pytest.approx(0.05)


# -- power -------------------------------------------------------------------------------------------------------------


def test_power_at_the_number_of_seeds_that_is_needed() -> None:
    sd, difference = 1.0, 0.8
    observed = Evidence(-difference, 6, 2 * sd**2 / 6, 10.0)
    n = observed.more_seeds(0.05)
    assert n is not None
    rng, times = np.random.default_rng(2), 2000
    a, b = rng.normal(-difference, sd, (times, n)), rng.normal(0, sd, (times, n))
    power = (stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_power_at_the_least_difference_that_would_have_been_shown() -> None:
    now = Evidence(0.0, 10, 2 / 10, 18.0)
    least = now.detectable(0.05)
    assert least is not None
    rng, times = np.random.default_rng(4), 2000
    a, b = rng.normal(least, 1, (times, 10)), rng.normal(0, 1, (times, 10))
    assert (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_no_number_of_seeds_helps_where_the_test_examples_are_too_few() -> None:
    few = Evidence(-0.5, 8, 0.01, 14.0, 0.25, 20.0)
    assert few.more_seeds(0.05) is None
    assert (few.more_units(0.05, 21) or 0) > 21
    [pair] = judged([("mae", "scratch", few)], LESS, None, units=21, seconds={"mae": 60.0, "scratch": 30.0},
                    primary=None)
    assert pair.needed is not None
    assert (pair.needed.replicates, pair.needed.minutes) == (None, None)


def test_minutes_are_those_of_the_missing_replicates() -> None:
    [pair] = judged([("mae", "scratch", known(-1.0, 1.0))], LESS, None, units=0, primary=None,
                    seconds={"mae": 60.0, "scratch": 30.0})
    assert pair.needed is not None
    assert pair.needed.replicates is not None
    assert pair.needed.minutes == pytest.approx((pair.needed.replicates - 8) * 1.5)


def test_paired_replicates_share_what_their_seed_does() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 8)
    a = Side("a", dict(enumerate(shared + rng.normal(0.2, 0.1, 8))), False)
    b = Side("b", dict(enumerate(shared + rng.normal(0.0, 0.1, 8))), False)
    paired, independent = evidence(a, b, paired=True), evidence(a, b)
    assert paired.p() == pytest.approx(stats.ttest_rel(a.values, b.values).pvalue)
    assert (independent.p() or 0) > 0.3 > 0.05 > (paired.p() or 1)


def test_rounds_that_are_too_few_to_show_anything_say_so() -> None:
    few = Evidence(-0.1, 2, 0.01, 1.0, sequential=True)
    assert few.interval() is None
    [pair] = judged([("mae", "scratch", few)], LESS, None, units=0, seconds={"mae": 1.0, "scratch": 1.0}, primary=None)
    assert (pair.verdict, pair.p) == ("undecided", 1.0)
    assert pair.needed is not None
    assert pair.needed.least is None
    assert (pair.needed.replicates or 0) > 10
