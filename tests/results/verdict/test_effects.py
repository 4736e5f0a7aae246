"""For which settings an arm helps: found where it is known, silent where there is nothing, and held to scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import SPACE, common, flips, made_up, no_difference, spec_of
from tiny_task import tiny_schema, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.verdict.clear import clear_parts, sentence
from raymae.results.verdict.effects import Effect, Explanation, explain, explained
from raymae.results.verdict.features import Feature, feature
from raymae.results.verdict.surrogate import Design, Surrogate
from raymae.spec import Objective

LESS, MORE = Objective("mse", "min", ""), Objective("mse", "max", "")
Make = Callable[..., Store]


def found(trials: pd.DataFrame, objective: Objective = LESS, **changes: Any) -> Explanation:
    return explained(trials, spec_of(**changes), objective, "mae", "scratch")


def effect(explanation: Explanation, param: str) -> Effect:
    assert explanation.problem == ""
    return next(one for one in explanation.effects if one.param == param)


def held(one: Effect, truth: Callable[[Any], float]) -> list[bool]:
    return [low <= truth(value) <= high for value, (low, high) in zip(one.values, one.band, strict=True)]


def test_the_flip_is_found_and_the_band_holds_the_truth() -> None:
    inside, turns = [], []
    for seed in range(4):
        one = effect(found(made_up(30, flips, seed)), "mask_ratio")
        inside += held(one, lambda ratio: 2.0 * (0.6 - ratio))
        turns += [min(abs(at - 0.6) for at in one.turns)]
        assert one.clear[0] == "hurts"
        assert not one.shared
    assert np.mean(inside) >= 0.9
    assert max(turns) <= 0.1


def test_a_difference_against_a_shared_parameter_is_found_and_held() -> None:
    def of_rate(arm: str, params: Mapping[str, float]) -> float:
        return common(params) + (0.8 * (np.log10(params["lr"]) + 3) if arm == "mae" else 0.0)

    for seed in range(2):
        one = effect(found(made_up(30, of_rate, seed)), "lr")
        assert one.shared
        assert one.log
        assert np.mean(held(one, lambda rate: 0.8 * (np.log10(rate) + 3))) >= 0.9
        assert (one.clear[1], one.clear[-2]) == ("helps", "hurts")
        assert one.says.startswith("mae helps below lr 0.00")
        assert abs(np.log10(one.turns[0]) + 3) <= 0.2


def test_no_difference_makes_no_claims() -> None:
    """20 sweeps of 12 trials an arm: if 5 % of all claimed something, more than 3 of these had a chance of 1 in 60."""
    claims = sum(any(map(any, (one.clear for one in found(made_up(12, no_difference, seed)).effects)))
                 for seed in range(20))
    assert claims <= 3


def test_noise_alone_is_said_to_explain_nothing() -> None:
    explanation = found(made_up(20, lambda arm, params: 0.0, 1, noise=1.0))
    assert explanation.effects == ()
    assert explanation.problem.startswith("the parameters do not explain the scores")
    assert explanation.r2 is not None
    assert explanation.r2 < 0.1


def test_more_is_better_turns_the_words_alone() -> None:
    trials = made_up(30, flips, 1)
    less, more = effect(found(trials), "mask_ratio"), effect(found(trials, MORE), "mask_ratio")
    assert less.clear[0] == "hurts"
    assert more.clear[0] == "helps"
    assert less.difference[0] > 0
    assert more.difference == pytest.approx(less.difference, rel=0.2, abs=0.05)


@pytest.mark.parametrize(("band", "says"), [
    ([(-3, -1), (-2, 1), (-1, 2), (1, 3)], "mae helps below x 0.50, hurts above x 2.5; the difference turns at 1.5"),
    ([(-1, 2), (-2, 1), (-3, -1), (-4, -2)], "mae helps only above x 1.5"),
    ([(-1, 1), (-3, -1), (-3, -1), (-1, 1)], "mae helps only between x 0.50 and 2.5"),
    ([(-3, -1), (-1, 1), (-1, 1), (-3, -1)], "mae helps only below x 0.50 and above x 2.5"),
    ([(1, 2), (1, 2), (1, 2), (1, 2)], "mae hurts at every value of x that was tried"),
    ([(-1, 2), (-1, 1), (-1, 1), (-1, 1)], "no value of x at which mae clearly helps or hurts"),
])
def test_what_is_clear_in_a_sentence(band: list[tuple[float, float]], says: str) -> None:
    one, asked = Feature("x", low=0.0, high=3.0), [0.0, 1.0, 2.0, 3.0]
    difference = [(low + high) / 2 for low, high in band]
    clear, turns = clear_parts(one, asked, difference, band, "min")
    assert sentence(one, asked, band, clear, turns, "mae") == says


def test_choices_are_taken_one_by_one() -> None:
    def by_patch(arm: str, params: Mapping[str, float]) -> float:
        return common(params) + ({4: -0.8, 8: 0.0, 16: 0.8}[int(params["patch_size"])] if arm == "mae" else 0.0)

    one = effect(found(made_up(40, by_patch)), "patch_size")
    assert one.category
    assert one.values == (4, 8, 16)
    assert one.clear == ("helps", "", "hurts")
    assert one.says == "mae helps at patch_size 4, hurts at patch_size 16"
    assert one.turns == ()


def test_choices_without_an_order_and_one_that_the_other_arm_never_tried() -> None:
    protocols = ["short", "long"]
    space = {**SPACE, "protocol": {"choice": protocols}}
    trials = made_up(30, lambda arm, params: common(params))
    trials["protocol"] = [protocols[index % 2] for index in range(len(trials))]
    trials["val_mse"] += np.where((trials["arm"] == "mae") & (trials["protocol"] == "long"), -0.8, 0.0)
    one = effect(found(trials, space=space), "protocol")
    assert dict(zip(one.values, one.clear, strict=True)) == {"long": "helps", "short": ""}
    alone = feature("patch_size", {}, [4, 8, 16])
    assert alone.asked([4, 8], [8, 16]) == [8]
    assert alone.asked([4, 8], None) == [4, 8]


def test_too_few_trials_are_counted() -> None:
    explanation = found(made_up(9, flips))
    assert explanation.effects == ()
    assert explanation.r2 is None
    assert "mae has 9 of 10, scratch has 9 of 10" in explanation.problem
    assert found(made_up(10, flips)).problem == ""


def test_only_whole_trials_with_a_score_count_and_the_others_are_said() -> None:
    trials = made_up(12, flips)
    trials.loc[0, "status"], trials.loc[1, "status"], trials.loc[2, "val_mse"] = "stopped", "failed", np.nan
    explanation = found(trials)
    mae, scratch = explanation.trials
    assert (mae.used, mae.stopped, mae.failed, mae.unscored, scratch.used) == (9, 1, 1, 1, 12)
    assert "mae has 9 of 10" in explanation.problem
    assert "left out: 1 stopped early of mae, 1 failed of mae, 1 without a finite score of mae" in explanation.basis
    assert "scratch has" not in explanation.problem


def test_replicates_and_earlier_attempts_do_not_count() -> None:
    trials = made_up(12, flips)
    again = trials.assign(attempt=1)
    replicates = trials.assign(stage="replicate", trial_id=trials["trial_id"] + "-seed0", val_mse=9.0)
    both = pd.concat([trials.assign(val_mse=99.0), again, replicates], ignore_index=True)
    assert found(both).to_json() == found(again).to_json()


def test_a_trial_that_diverged_does_not_decide() -> None:
    trials = made_up(30, flips, 1)
    trials.loc[3, "val_mse"] = 1e6
    explanation = found(trials)
    assert explanation.trials[0].capped == 1
    assert "1 very bad score capped" in explanation.basis
    one = effect(explanation, "mask_ratio")
    assert {*one.clear} == {"hurts", ""}
    assert np.mean(held(one, lambda ratio: 2.0 * (0.6 - ratio))) >= 0.9
    assert max(map(abs, one.difference)) < 3


def test_scikit_learn_agrees_on_fit_and_partial_dependence() -> None:
    """One draw of sizes and lengths is a `GaussianProcessRegressor` with that kernel; the mean of `difference` is the
    difference of `sklearn.inspection`'s partial dependences."""
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern
    from sklearn.inspection import partial_dependence

    rng = np.random.default_rng(0)
    x_ND, side_N = rng.random((40, 3)), np.repeat([1.0, -1.0], 20)
    score_N = 5 + x_ND[:, 0] ** 2 + side_N * (x_ND[:, 1] - 0.5) + 0.05 * rng.standard_normal(40)
    surrogate = Surrogate(Design(x_ND, side_N), score_N, [0, 1, 2])

    class Model(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any = None) -> Any:
            self.fitted_ = True
            return self

        def predict(self, x: Any) -> Any:
            return surrogate.predict(Design(x[:, :3], x[:, 3]))

    at_G = np.linspace(0, 1, 5)
    asked_GPD = np.repeat(x_ND[None], 5, axis=0)
    asked_GPD[:, :, 1] = at_G[:, None]
    band = surrogate.difference(asked_GPD, asked_GPD, 1)
    model = Model().fit(None)
    curves = [partial_dependence(model, np.c_[x_ND, np.full(40, side)], [1], custom_values={1: at_G}, kind="average")
              for side in (1.0, -1.0)]
    expected_G = curves[0]["average"][0] - curves[1]["average"][0]
    assert band.mean_G == pytest.approx(expected_G, abs=0.02)  # the mean of 4,800 drawn curves
    assert np.all(np.abs(band.mean_G - 2 * (at_G - 0.5)) <= band.half_G + 0.02)

    size, noise, _, _, *lengths = np.exp(surrogate._samples[0].logs)
    first = Design(x_ND, np.ones(40))
    kernel = ConstantKernel(size) * Matern(lengths, nu=1.5)
    alone = np.exp(np.array([np.log(size), np.log(noise), -99.0, -99.0, *np.log(lengths)]))
    logs = np.log(np.maximum(alone, 1e-40))
    assert surrogate._kernel(logs, first, first) == pytest.approx(kernel(x_ND), abs=1e-9)
    z_N = (score_N - score_N.mean()) / score_N.std()
    theirs = GaussianProcessRegressor(kernel, alpha=noise + 1e-6, optimizer=None).fit(x_ND, z_N)
    constant = -40 / 2 * np.log(2 * np.pi)
    assert surrogate._likelihood(logs, z_N) + constant == pytest.approx(theirs.log_marginal_likelihood_value_)


def test_left_out_is_leaving_out() -> None:
    rng = np.random.default_rng(1)
    x_ND, side_N = rng.random((14, 1)), np.repeat([1.0, -1.0], 7)
    score_N = x_ND[:, 0] + 0.1 * rng.standard_normal(14)
    surrogate = Surrogate(Design(x_ND, side_N), score_N, [0])
    z_N, missed_N = (score_N - score_N.mean()) / score_N.std(), np.zeros(14)
    for sample in surrogate._samples:
        block = surrogate._noisy(sample.logs)
        for row in range(14):
            rest = np.arange(14) != row
            missed_N[row] += (z_N[row] - block[row, rest] @ np.linalg.solve(block[np.ix_(rest, rest)], z_N[rest])) / 24
    others_N = np.array([z_N[np.arange(14) != row].mean() for row in range(14)])
    assert surrogate.r2 == pytest.approx(1 - (missed_N**2).sum() / ((z_N - others_N) ** 2).sum())


def test_json_is_plain_and_the_same_again() -> None:
    plain = found(made_up(12, flips)).to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain.keys() >= {"a", "b", "metric", "mode", "trials", "effects", "r2", "basis", "mind"}
    assert [one["param"] for one in plain["effects"]] == list(SPACE)  # type: ignore[attr-defined]
    assert found(made_up(12, flips)).to_json() == plain
    assert "neither confirms nor overrules the verdict" in str(plain["mind"])


def test_arms_are_chosen_and_wrong_ones_refused(make_store: Make) -> None:
    store = make_store()
    assert explain(store).a == "mae"
    assert explain(store).b == "scratch"
    assert (explain(store, "gru").a, explain(store, "gru").b) == ("gru", "scratch")
    assert explain(store, against="gru").b == "gru"
    with pytest.raises(ResultsError, match="--against: persistence is a reference, which has nothing to search"):
        explain(store, against="persistence")
    with pytest.raises(ResultsError, match="--arm: unknown arm 'mea'; did you mean `mae`"):
        explain(store, "mea")
    with pytest.raises(ResultsError, match="two different arms"):
        explain(store, "mae", "mae")
    with pytest.raises(ResultsError, match="the sweep has no factors"):
        explain(store, cell={"epochs": 1})


def test_a_cell_is_explained_by_its_own_trials(make_store: Make) -> None:
    space = {name: one for name, one in SPACE.items() if name != "depth"}
    spec = tiny_spec(space=space, factors={"depth": [1, 2]}, arms=["mae", "scratch"])
    store = make_store(spec=spec, schema=tiny_schema())
    for depth, number in ((1, 12), (2, 3)):
        for row in made_up(number, flips, depth).to_dict("records"):
            plain = {name: None if pd.isna(value) else value for name, value in row.items()}
            store.add_trial({**plain, "trial_id": f"{row['trial_id']}-{depth}", "depth": depth})
    store.flush()
    assert [one.used for one in explain(store).trials] == [12, 12]
    assert explain(store).cell == {"depth": 1}
    assert "depth" not in [one.param for one in explain(store).effects]
    assert "mae has 3 of 10" in explain(store, cell={"depth": 2}).problem
    with pytest.raises(ResultsError, match="no cell with depth 3; there are those of depth 1, 2"):
        explain(store, cell={"depth": 3})


def test_scores_that_are_all_the_same_and_parameters_that_never_differ() -> None:
    same = pd.DataFrame([trial(f"{arm}-{index}", arm) for arm in ("mae", "scratch") for index in range(12)])
    assert "no parameter of mae differs" in found(same).problem
    same["lr"] = np.linspace(1e-4, 1e-2, len(same))
    assert found(same).problem == "all scores are the same"
