from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny_task import DATA, tiny_schema, tiny_spec, trial

from raymae.results import Store, Verdict, headline, verdict_of
from raymae.results.verdict.statistics import Score, Side, statistics
from raymae.results.verdict.verdict import BestTrial, TrialCounts
from raymae.spec import Arm, Objective

Make = Callable[..., Store]
MAE = [0.50, 0.52, 0.51, 0.49, 0.53]
SCRATCH = [0.60, 0.65, 0.61, 0.62]


@pytest.fixture
def judge(make_store: Make) -> Callable[..., Verdict]:
    """The verdict over replicates with the given test scores."""

    def judge(scores: Mapping[str, Sequence[float | None]], mode: str = "min", source: str = "real",
              extra: Sequence[dict[str, Any]] = (), **spec: Any) -> Verdict:
        schema = tiny_schema(objective=Objective("mse", mode, ""))  # type: ignore[arg-type]
        schema = replace(schema, arms={**schema.arms, "forest": Arm("reference", "random trees", stochastic=True)})
        data = {**DATA, "source": source}
        store = make_store(spec=tiny_spec(arms=list(scores), space={}, **spec), schema=schema, data=data)
        for arm, values in scores.items():
            for number, value in enumerate(values):
                store.add_trial(trial(f"{arm}-r{number}", arm, stage="replicate", seed=number, test_mse=value,
                                      test_abs_error=0.1))
        for row in extra:
            store.add_trial(row)
        verdict = verdict_of(store)
        store.write_verdict(verdict.to_json())
        assert store.verdict() == verdict.to_json() == json.loads(json.dumps(verdict.to_json(), allow_nan=False))
        assert Verdict.from_json(verdict.to_json()) == verdict
        return verdict

    return judge


def test_the_shape_of_the_json(judge: Callable[..., Verdict]) -> None:
    found = judge({"mae": MAE, "scratch": SCRATCH, "persistence": [0.9]}).to_json()
    assert list(found) == ["sweep", "task", "objective", "data", "arms", "pairs", "complete", "rule"]
    assert (found["sweep"], found["task"], found["data"]) == ("ett", "tiny", DATA)
    assert found["objective"] == {"metric": "mse", "mode": "min", "unit": ""}
    assert list(found["arms"][0]) == ["arm", "kind", "n", "metrics", "val", "best_params", "compute_s", "num_trials",
                                      "replicate_s"]
    assert list(found["pairs"][0]) == ["a", "b", "metric", "difference", "ci95", "p", "p_holm", "n_a", "n_b",
                                       "verdict", "primary", "ci95_seeds", "ci_holm", "p_seeds", "p_otherwise"]
    assert [arm["arm"] for arm in found["arms"]] == ["mae", "scratch", "persistence"]
    assert found["arms"][2]["kind"] == "reference"


def test_a_pretraining_that_did_not_learn_is_said_beside_the_word(judge: Callable[..., Verdict]) -> None:
    def replicates(skills: Sequence[float]) -> list[dict[str, Any]]:
        return [trial(f"mae-s{number}", "mae", stage="replicate", seed=10 + number, test_mse=0.5 + 0.001 * number,
                      pretext_loss=1.0, pretext_skill=skill) for number, skill in enumerate(skills)]

    learned = judge({"mae": [], "scratch": SCRATCH}, extra=replicates([0.2, 0.1, 0.3]))
    skill = learned.arms[0].skill
    assert skill is not None
    assert (skill.mean, skill.least, skill.unlearned, skill.n) == (pytest.approx(0.2), 0.1, 0, 3)
    assert "did not learn" not in headline(learned)
    assert learned.arms[1].skill is None, "scratch does not pretrain"


def test_means_carry_t_intervals(judge: Callable[..., Verdict]) -> None:
    metric = judge({"mae": MAE, "scratch": SCRATCH}).arms[0].metrics["test_mse"]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(MAE), scale=stats.sem(MAE))
    assert metric.mean == pytest.approx(0.51)
    assert metric.sd == pytest.approx(math.sqrt(0.001 / 4))
    assert metric.ci95 == pytest.approx([low, high])


def test_a_single_replicate_has_no_interval() -> None:
    assert statistics(Side("mae", {0: 2.0}, fixed=False)) == Score(2.0, None, None)
    assert statistics(Side("mae", {0: 2.0, 1: 2.0}, fixed=False)) == Score(2.0, 0.0, None)


def test_the_difference_is_welchs(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"mae": MAE, "scratch": SCRATCH}).pairs
    va, vb = np.var(MAE, ddof=1) / 5, np.var(SCRATCH, ddof=1) / 4
    df = (va + vb) ** 2 / (va**2 / 4 + vb**2 / 3)
    difference = np.mean(MAE) - np.mean(SCRATCH)
    half = stats.t.ppf(0.975, df) * math.sqrt(va + vb)
    assert pair.difference == pytest.approx(difference)
    assert pair.ci95 == pytest.approx([difference - half, difference + half])
    assert pair.p == pytest.approx(2 * stats.t.sf(abs(difference) / math.sqrt(va + vb), df))
    assert (pair.n_a, pair.n_b, pair.primary) == (5, 4, True)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_helps_and_hurts_follow_the_objective(judge: Callable[..., Verdict], mode: str) -> None:
    less, more = ("helps", "hurts") if mode == "min" else ("hurts", "helps")
    found = judge({"mae": MAE, "scratch": SCRATCH, "gru": [0.1, 0.11, 0.12]}, mode)
    assert {(pair.a, pair.b): pair.verdict for pair in found.pairs} == {
        ("mae", "scratch"): less, ("mae", "gru"): more}
    order = [arm.arm for arm in found.arms]
    assert order == (["gru", "mae", "scratch"] if mode == "min" else ["scratch", "mae", "gru"])


def test_overlapping_scores_leave_it_undecided(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"mae": [0.5, 0.6, 0.7], "scratch": [0.52, 0.6, 0.66]}).pairs
    assert pair.verdict == "undecided"
    assert pair.ci95[0] < 0 < pair.ci95[1]


def test_a_reference_is_a_constant(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"mae": MAE, "persistence": [0.9]}).pairs
    result = stats.ttest_1samp(MAE, 0.9)
    low, high = result.confidence_interval()
    assert pair.ci95 == pytest.approx([low - 0.9, high - 0.9])
    assert pair.p == pytest.approx(result.pvalue)
    assert pair.verdict == "helps"


def test_a_random_reference_is_no_constant(judge: Callable[..., Verdict]) -> None:
    once = judge({"mae": MAE, "forest": [0.9]})
    assert once.pairs[0].ci95 is None
    assert not once.complete, "one of five replicates"


def test_a_random_reference_varies(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"mae": MAE, "forest": [0.9, 0.91, 0.92, 0.9, 0.89]}).pairs
    assert pair.p == pytest.approx(stats.ttest_ind(MAE, [0.9, 0.91, 0.92, 0.9, 0.89], equal_var=False).pvalue)


def test_a_reference_as_the_first_arm(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"scratch": SCRATCH, "persistence": [0.1]}).pairs
    assert (pair.a, pair.b, pair.verdict) == ("persistence", "scratch", "helps")
    low, high = stats.ttest_1samp(SCRATCH, 0.1).confidence_interval()
    assert pair.ci95 == pytest.approx([0.1 - high, 0.1 - low])


@pytest.mark.parametrize(
    ("scores", "note"),
    [
        ({"mae": [0.5], "scratch": SCRATCH}, "mae has 1 scored replicate"),
        ({"mae": [0.5], "persistence": [0.9]}, "mae has 1 scored replicate"),
        ({"mae": [0.5, 0.5], "scratch": [0.6, 0.6]}, "neither side varies"),
        ({"mae": [0.5, 0.5], "persistence": [0.9]}, "neither side varies"),
    ],
)
def test_where_there_is_no_interval_it_says_why(judge: Callable[..., Verdict], scores: Any, note: str) -> None:
    [pair] = judge(scores).pairs
    assert (pair.ci95, pair.p, pair.p_holm, pair.verdict) == (None, None, None, "undecided")
    assert note in pair.note


def test_one_constant_side_is_enough(judge: Callable[..., Verdict]) -> None:
    [pair] = judge({"mae": MAE, "scratch": [0.6, 0.6, 0.6]}).pairs
    assert pair.ci95 is not None
    assert pair.verdict == "helps"


def test_p_values_are_adjusted_by_holm(judge: Callable[..., Verdict]) -> None:
    found = judge({"mae": MAE, "gru": [0.50, 0.53, 0.55], "scratch": SCRATCH, "persistence": [0.52]})
    pairs = {pair.b: pair for pair in found.pairs}
    first, second, third = sorted(pair.p for pair in pairs.values())
    expected = [3 * first, max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
    assert sorted(pair.p_holm for pair in pairs.values()) == pytest.approx([min(1, p) for p in expected])
    assert found.pairs[0].b == "scratch"
    assert [pair.primary for pair in found.pairs] == [True, False, False]


def test_without_a_pretrained_arm_all_pairs_are_compared(judge: Callable[..., Verdict]) -> None:
    found = judge({"scratch": SCRATCH, "gru": MAE, "persistence": [0.9]})
    assert [(pair.a, pair.b) for pair in found.pairs] == [
        ("gru", "scratch"), ("gru", "persistence"), ("scratch", "persistence")]


def test_failed_replicates_are_excluded_but_counted(judge: Callable[..., Verdict]) -> None:
    failed = trial("mae-r9", stage="replicate", status="failed", test_mse=99.0, wall_s=3.0)
    found = judge({"mae": [*MAE, math.nan], "scratch": SCRATCH}, extra=[failed])
    arm = found.arms[0]
    assert arm.n == 5
    assert arm.num_trials == TrialCounts(completed=6, stopped=0, failed=1)
    assert arm.metrics["test_mse"].mean == pytest.approx(0.51)
    assert arm.compute_s == pytest.approx(6 * 2.0 + 3.0)
    assert "1 completed replicates have no finite test_mse" in arm.note


def test_a_retried_trial_counts_once_and_its_compute_twice(judge: Callable[..., Verdict]) -> None:
    first = trial("mae-r0", stage="replicate", attempt=-1, status="failed", wall_s=5.0)
    arm = judge({"mae": MAE}, extra=[first]).arms[0]
    assert arm.num_trials == TrialCounts(completed=5, stopped=0, failed=0)
    assert arm.compute_s == pytest.approx(5 * 2.0 + 5.0)


def test_the_best_configuration_comes_from_completed_search_trials(judge: Callable[..., Verdict]) -> None:
    extra = [
        trial("good", val_mse=0.2, lr=3e-3, mask_ratio=0.6), trial("worse", val_mse=0.3),
        trial("stopped", val_mse=0.1, status="stopped"), trial("nan", val_mse=math.nan),
    ]
    arm = judge({"mae": [], "scratch": []}, extra=extra).arms[0]
    assert arm.val == BestTrial("val_mse", 0.2, "good")
    assert arm.best_params == {"lr": 3e-3, "mask_ratio": 0.6, "norm_target": True, "epochs": 4}
    assert type(arm.best_params["norm_target"]) is bool


def test_where_no_trial_completed_the_best_stopped_one_is_what_was_replicated(judge: Callable[..., Verdict]) -> None:
    extra = [trial("s1", val_mse=0.3, status="stopped"), trial("s2", val_mse=0.2, status="stopped"),
             trial("f", val_mse=0.1, status="failed")]
    assert judge({"mae": []}, extra=extra).arms[0].val.trial_id == "s2"


def test_the_best_configuration_follows_the_objective(judge: Callable[..., Verdict]) -> None:
    extra = [trial("low", val_mse=0.2), trial("high", val_mse=0.3)]
    assert judge({"mae": []}, "max", extra=extra).arms[0].val.trial_id == "high"


def test_without_replicates_there_is_no_comparison(judge: Callable[..., Verdict]) -> None:
    found = judge({"mae": [], "scratch": []}, extra=[trial("s1", "scratch")], replicates=0)
    assert found.pairs == ()
    assert [arm.metrics for arm in found.arms] == [{}, {}]
    assert [arm.arm for arm in found.arms] == ["scratch", "mae"]
    assert found.complete is False
    assert headline(found).startswith("No test score was asked for (replicates: 0); best on validation is scratch")


def test_complete_means_all_replicates_have_ended(judge: Callable[..., Verdict]) -> None:
    found = judge({"mae": MAE[:3], "persistence": [0.9]}, replicates=3)
    assert found.complete is True
    assert "not finished" not in headline(found)


def test_one_missing_replicate_is_not_complete(judge: Callable[..., Verdict]) -> None:
    found = judge({"mae": MAE[:2], "persistence": [0.9]}, replicates=3)
    assert found.complete is False
    assert headline(found).endswith("The sweep is not finished: this can change.")


def test_headline_helps(judge: Callable[..., Verdict]) -> None:
    scores = {"mae": [v + 6.17e-4 for v in (-4e-6, 0, 4e-6, 1e-6, -1e-6)],
              "scratch": [v + 6.3e-4 for v in (-4e-6, 0, 4e-6, 1e-6, -1e-6)]}
    assert headline(judge(scores)) == (
        "MAE pretraining helps here: test mse 0.0006170 against 0.0006300 from scratch (difference −0.0000130, "
        "95 % interval −0.0000173 to −0.0000087 over seeds alone, p < 0.001, 5 seeds each). "
        "Rule: equal epochs (mae 2.0 s, scratch 2.0 s a replicate). Mind: there are no test scores by example."
    )


def test_headline_of_other_outcomes(judge: Callable[..., Verdict]) -> None:
    hurts = headline(judge({"mae": SCRATCH, "scratch": MAE}, source="synthetic"))
    assert hurts.startswith("SYNTHETIC DATA: a generated stand-in for etth1, so this says nothing about real data. "
                            "MAE pretraining hurts here: test mse 0.62")
    assert "4 and 5 seeds" in hurts


def test_headline_without_pretraining(judge: Callable[..., Verdict]) -> None:
    assert headline(judge({"gru": MAE, "scratch": SCRATCH})).startswith("gru does better here: test mse 0.510 against")


def test_headline_credits_pretraining_only_beside_the_same_network_without_it(judge: Callable[..., Verdict]) -> None:
    assert headline(judge({"mae": MAE, "gru": SCRATCH})).startswith("mae does better here: test mse 0.510 against")


def test_headline_without_an_interval(judge: Callable[..., Verdict]) -> None:
    assert headline(judge({"mae": [0.5], "scratch": [0.625]}, replicates=1)) == (
        "Undecided whether MAE pretraining helps: test mse 0.5000 against 0.6250 from scratch (difference −0.1250; "
        "mae has 1 scored replicate; an interval needs at least 2). Rule: equal epochs (mae 2.0 s, scratch 2.0 s a "
        "replicate). Mind: there are no test scores by example."
    )
