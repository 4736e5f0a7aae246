"""The mechanism behind missing cells, and the price of moving imputed values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from raymae.data.missing import hide_cells
from raymae.data.tables import Table
from raymae.spec import TrialConfig
from raymae.tasks.columns.cells import IncompleteTable
from raymae.tasks.imputation.adjust import (
    HIDINGS,
    Adjustment,
    Predicted,
    hidden_together,
    num_rehidden,
    shares_by_cost,
    wanted_quantiles,
    ways,
)
from raymae.tasks.imputation.missingness import Odds, fit_odds, odds_of
from raymae.tasks.imputation.task import Imputation
from raymae.tasks.imputation.transport import shares_within, transport

LEVELS = 24  # values of a column, each its own bin


def column(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, where they are missing, and the exact p(value | another column, observed) of every row."""
    rng = np.random.default_rng(seed)
    hidden_part = rng.normal(size=30_000)
    values = np.clip(np.round(6 * hidden_part + 12), 0, LEVELS - 1).astype(int)
    other = np.clip(np.round(4 * (hidden_part + 0.7 * rng.normal(size=len(values))) + 8), 0, 15).astype(int)
    missing = hide_cells(values[:, None].astype(float), kind, 0.3, seed)[:, 0]  # type: ignore[arg-type]
    counts = np.zeros((16, LEVELS))
    np.add.at(counts, (other[~missing], values[~missing]), 1.0)
    chances = (counts + 1e-9) / (counts + 1e-9).sum(axis=1, keepdims=True)
    return values, missing, chances[other]


def fitted(kind: str, seed: int) -> tuple[Odds | None, np.ndarray, np.ndarray, np.ndarray]:
    values, missing, chances = column(kind, seed)
    odds = fit_odds(chances[:4000], missing[:4000], np.where(missing, np.nan, values), np.where(missing, 0, values))
    return odds, values, missing, chances


@pytest.mark.parametrize("seed", range(6))
def test_the_slope_that_took_cells_away_is_found(seed: int) -> None:
    odds, values, missing, _ = fitted("mnar", seed)
    sign = np.sign(values[missing].mean() - values[~missing].mean())
    assert odds is not None
    assert odds.slope == pytest.approx(3 * sign, abs=0.9)  # 3 logits per score: STEEPNESS
    for value in range(LEVELS):
        gone, kept = missing[values == value].sum(), (~missing[values == value]).sum()
        true = gone / kept
        if min(gone, kept) < 50:
            continue  # a rate of so few cells is not known itself
        assert np.log(odds.odds_K[value]) == pytest.approx(np.log(true), abs=0.6)


@pytest.mark.parametrize("seed", range(3))
def test_tilted_predictions_fit_missing_cells_and_the_wrong_sign_does_not(seed: int) -> None:
    odds, values, missing, chances = fitted("mnar", seed)
    assert odds is not None
    said = Predicted((chances @ np.arange(LEVELS))[missing][:, None], chances[missing][:, None])
    centres = np.arange(LEVELS, dtype=float)[None]

    def bias(changed: Odds | None) -> float:
        tilted = Adjustment([changed], [None], np.zeros(1)).tilt(said, centres)
        return float(abs((tilted.mean[:, 0] - values[missing]).mean()))

    wrong = odds._replace(odds_K=1 / odds.odds_K)
    assert bias(odds) < 0.25 * bias(None)
    assert bias(wrong) > 1.3 * bias(None)


@pytest.mark.parametrize("seed", range(4))
def test_no_slope_where_cells_are_missing_at_random(seed: int) -> None:
    assert fitted("mcar", seed)[0] is None


def test_odds_put_as_many_cells_in_as_are_missing_and_keep_their_slope() -> None:
    counts = np.full(200, 5)
    odds = odds_of(counts, 2.0, 700)
    assert counts @ odds == pytest.approx(700)
    share = counts * (1 + odds) / (counts * (1 + odds)).sum()
    score = np.cumsum(share) - share / 2
    score = (score - share @ score) / np.sqrt(share @ (score - share @ score) ** 2)
    assert np.diff(np.log(odds)) == pytest.approx(2.0 * np.diff(score), abs=1e-3)
    assert odds_of(counts, 0.0, 700) == pytest.approx(np.full(200, 0.7))


def test_nothing_is_said_of_a_column_without_missing_or_without_observed_rows() -> None:
    chances, values = np.full((10, 2), 0.5), np.arange(10.0)
    assert fit_odds(chances, np.zeros(10, bool), values, np.zeros(10, np.int64)) is None
    gone = np.where(values < 5, np.nan, values)
    assert fit_odds(chances[:5], np.ones(5, bool), gone, np.zeros(10, np.int64)) is None


def test_weights_of_missing_cells_shape_what_is_wanted() -> None:
    own = np.array([[0.0], [1.0], [2.0], [3.0], [np.nan]])
    bins = np.array([[0], [0], [1], [1], [0]])
    plain = wanted_quantiles(np.array([[1.0, 3.0]]), [None], own, bins)[0]
    assert plain[[0, 200, 400]] == pytest.approx([0.0, 13 / 6, 3.0], abs=0.01)
    tilted = Odds(1.0, np.ones(2), np.ones(2), np.array([1.0, 1, 0, 9, np.nan]))
    assert wanted_quantiles(np.array([[1.0, 3.0]]), [tilted], own, bins)[0][200] == pytest.approx(2.6, abs=0.5)
    assert wanted_quantiles(None, [None], own, bins)[0][200] == pytest.approx(1.5)


@pytest.mark.parametrize("cost", [0.003, 0.01, 0.05])
def test_what_moving_costs_stays_within_the_bound_and_uses_it(cost: float) -> None:
    rng = np.random.default_rng(0)
    said = rng.normal(size=(20_000, 2)) * [0.8, 1.5]  # the best guess of a truth that scatters about it
    truth = said + rng.normal(size=(20_000, 2)) * [1.0, 0.7]
    missing = np.arange(20_000)[:, None] >= 10_000 * np.ones(2, int)
    paths = ways(said, missing, [np.quantile(column, np.linspace(0, 1, 401)) for column in truth.T])
    half = np.where(missing, np.nan, truth)
    share = shares_by_cost(cost, said, missing, paths, said, half, np.ones_like(truth), np.ones(2))
    moved = Adjustment([None] * 2, paths, share).move(said)

    def error(imputed: np.ndarray) -> float:
        return float(((imputed - truth)[missing] ** 2).sum())

    assert (share > 0).any()
    assert (share < 1).any()
    assert error(moved) / error(said) - 1 < 1.25 * cost + 0.002  # estimated on the other half


def test_shares_are_the_best_within_the_bound() -> None:
    gains, crossed, squares = np.array([1.0, 4.0, 1.0, 2.0]), np.array([0.0, 0.2, 0.1, -0.3]), np.array([1, 2, 0, 0.4])
    share = shares_within(0.1, gains, crossed, squares, 10.0)

    def price(s: np.ndarray) -> float:
        return float((2 * s * crossed + s**2 * squares).sum())

    assert price(share) == pytest.approx(1.0, rel=1e-3)
    rng = np.random.default_rng(0)
    others = [s for s in rng.random((20_000, 4)) * [1, 1, 0, 1] if price(s) <= 1.0]
    assert len(others) > 1000
    assert max(gains @ s for s in others) <= gains @ share + 1e-3
    assert shares_within(100.0, gains, crossed, squares, 10.0).tolist() == [1, 1, 0, 1]
    assert shares_within(0.0, gains, np.abs(crossed), squares, 10.0) == pytest.approx(0, abs=1e-3)


def test_a_network_s_imputations_are_adjusted(make_config: Callable[..., TrialConfig]) -> None:
    def columns(**changes: object) -> np.ndarray:
        task = Imputation(make_config("imputation", "mae", missing_kind="mnar", **changes), torch.device("cpu"))
        torch.manual_seed(0)
        model = task.build().eval()
        return task.predict(model, task.load("test").batch(torch.arange(200), None)).numpy()[:, :9]

    plain, moved = columns(), columns(match_cost=0.02)
    assert moved.std(axis=0).sum() > 1.02 * plain.std(axis=0).sum()
    assert np.isfinite(columns(match_cost=0.02, mechanism="own_value")).all()
    params = {**make_config("imputation", "mae").params, "match": 0.3, "match_cost": 0.1}
    assert Imputation.schema.check("mae", params)[0][1].endswith(
        "both say how far imputed values are moved; set one of them to 0")


def test_that_moving_mends_errors_is_not_counted_on() -> None:
    values = np.linspace(0, 1, 500)
    way = transport(values * 0.5, np.quantile(values, np.linspace(0, 1, 401)))
    missing = np.ones((500, 1), bool)
    truth = np.where(np.arange(500) % 2 == 0, values, np.nan)[:, None]
    imputed = (values * 0.5)[:, None]
    share = shares_by_cost(0.01, imputed, missing, [way], imputed, truth, np.ones((500, 1)), np.ones(1))
    assert share[0] == pytest.approx(0.1, rel=0.02)  # though it would take every cell to its truth
    wrong = shares_by_cost(0.01, imputed, missing, [way], imputed, 0.5 - truth, np.ones((500, 1)), np.ones(1))
    assert 0 <= wrong[0] < 0.09  # and what it worsens beyond the step itself is


@pytest.mark.parametrize("columns", [1, 10, HIDINGS, 37, 200])
def test_every_column_is_hidden_once_and_alone_where_there_are_few(columns: int) -> None:
    groups = hidden_together(columns)
    assert sorted(np.concatenate(groups)) == list(range(columns))
    assert len(groups) == min(columns, HIDINGS)
    assert all(len(group) == 1 for group in groups) == (columns <= HIDINGS)
    assert all((np.diff(group) > 1).all() for group in groups), "neighbours are alike"


@pytest.mark.parametrize(("columns", "rows"), [(1, 4096), (10, 4096), (HIDINGS, 4096), (40, 1638), (200, 327),
                                               (5000, 256)])
def test_of_a_wide_table_fewer_rows_are_rehidden_unless_every_column_needs_its_own(columns: int, rows: int) -> None:
    assert num_rehidden(columns, tilted=False) == rows
    assert num_rehidden(columns, tilted=True) == 4096


@pytest.mark.parametrize("mechanism", ["random", "own_value"])
def test_an_evaluation_passes_over_a_wide_table_no_more_often_than_over_one_of_sixteen_columns(
    make_config: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    values = np.random.default_rng(0).normal(size=(60, 40))
    table = Table(values, tuple(map(str, range(40))), ((),) * 40, "wide")
    every = np.arange(60)
    data = IncompleteTable(table, values > 1, dict.fromkeys(("fit", "train", "val", "test"), every),
                           torch.device("cpu"))
    config = make_config("imputation", "mae", match_cost=0.02, mechanism=mechanism)
    task = Imputation(config, torch.device("cpu"), data)
    torch.manual_seed(0)
    model, imputing = task.build().eval(), task.imputing
    hidden, predicted = [], imputing._predicted
    monkeypatch.setattr(imputing, "_predicted", lambda model, tokens, hidden_BC: hidden.append(hidden_BC)
                        or predicted(model, tokens, hidden_BC))
    rehidden = imputing._rehidden(model, every, chances=True)
    assert len(hidden) == HIDINGS
    whole = task.load("val").batch(torch.arange(60), None)
    for column in (0, 7, 39):
        group = next(group for group in hidden_together(40) if column in group)
        mask_BC = whole["missing"].clone()
        mask_BC[:, group] = True
        alone = predicted(model, whole["tokens"], mask_BC)
        assert alone.chances is not None
        assert rehidden.chances is not None
        np.testing.assert_allclose(rehidden.mean[:, column], alone.mean[:, column], rtol=1e-6)
        np.testing.assert_allclose(rehidden.chances[:, column], alone.chances[:, column], rtol=1e-5)
    hidden.clear()
    task.predict(model, whole)
    assert len(hidden) == HIDINGS + 2, "once for the table's own missing cells, once for the batch"
