"""A second verdict over the same Parquet, by other code: pandas, scipy and statsmodels alone, and analysis of variance
in place of the bootstrap."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from tiny_task import tiny_schema, tiny_spec, trial

from raymae.results import Store, verdict_of
from raymae.results.store.folder import Folder
from raymae.results.store.scores import keep_scores
from raymae.results.verdict.where import by_place, where
from raymae.spec import Objective, TrialConfig
from raymae.spec.sweep import DataSpec
from raymae.spec.trial import TrialData, UnitTable

Make = Callable[..., Store]
SEEDS, GROUPS, EACH = 6, 24, 4


@pytest.fixture
def stored(make_store: Make) -> Store:
    """A finished sweep of three arms on 24 groups of 4 test examples."""
    store = make_store(spec=tiny_spec(arms=["mae", "scratch", "persistence"], space={}, replicates=SEEDS),
                       schema=tiny_schema(objective=Objective("mse", "min", "")))
    rng, names = np.random.default_rng(12), [f"u{index}" for index in range(GROUPS * EACH)]
    groups = tuple(f"g{index // EACH}" for index in range(GROUPS * EACH))
    level = rng.gamma(4, 1, GROUPS)
    for arm, shift in (("mae", -0.2), ("scratch", 0.0), ("persistence", 1.0)):
        own = np.repeat(level + rng.normal(0, 0.3, GROUPS), EACH)
        for seed in range(1 if arm == "persistence" else SEEDS):
            score = own + shift + rng.normal(0, 0.1) + rng.normal(0, 0.5, len(own))
            name = f"{arm}-seed{seed}"
            store.add_trial(trial(name, arm, config_id=arm, stage="replicate", seed=seed, test_mse=score.mean()))
            config = TrialConfig("tiny", arm, {}, TrialData(DataSpec(name="etth1"), "real"), seed, "replicate")
            keep_scores(Folder(store.root), name, config,
                        UnitTable(tuple(names), groups, ("",), score[:, None], np.ones((len(own), 1))))
    return store


def by_formulas(folder: Path) -> dict[str, tuple[float, tuple[float, float], float]]:
    """From the arm that mae is compared with to difference, 95 % interval and p, read from the Parquet alone."""
    scores = pd.read_parquet(folder / "scores")
    table = scores.groupby(["arm", "seed", "group"], observed=True)["score"].mean().unstack("group")  # groups are equal
    found = {}
    for other in ("scratch", "persistence"):
        parts = [table.loc[arm].to_numpy() for arm in ("mae", other)]
        value = parts[0].mean() - parts[1].mean()
        seeds = [part.mean(axis=1).var(ddof=1) / len(part) if len(part) > 1 else 0.0 for part in parts]
        seeds_df = sum(seeds)**2 / sum(v**2 / (len(part) - 1) for v, part in zip(seeds, parts, strict=True) if v)
        shared = 0.0
        for part in parts:
            if len(part) > 1:
                rest = part - part.mean(axis=0) - part.mean(axis=1, keepdims=True) + part.mean()
                shared += (rest**2).sum() / ((len(part) - 1) * (GROUPS - 1)) / part.size
        over_groups = (parts[0].mean(axis=0) - parts[1].mean(axis=0)).var(ddof=1) / GROUPS
        units = max(over_groups - min(shared, sum(seeds)), 0)
        variance = sum(seeds) + units
        df = variance**2 / (sum(seeds)**2 / seeds_df + units**2 / (GROUPS - 1))
        half = stats.t.ppf(0.975, df) * math.sqrt(variance)
        found[other] = (value, (value - half, value + half), 2 * stats.t.sf(abs(value) / math.sqrt(variance), df))
    return found


def test_a_second_verdict_by_other_code_agrees(stored: Store, tmp_path: Path) -> None:
    verdict, second = verdict_of(stored), by_formulas(Path(stored.location))
    (tmp_path / "second.json").write_text(json.dumps(second))
    assert verdict.rule is not None
    assert (verdict.rule.units, verdict.rule.groups, verdict.rule.grouped) == (GROUPS * EACH, GROUPS, True)
    adjusted = dict(zip(second, multipletests([p for _, _, p in second.values()], method="holm")[1], strict=True))
    for other, (value, interval, p) in json.loads((tmp_path / "second.json").read_text()).items():
        pair = verdict.against("mae")[other]
        width = interval[1] - interval[0]
        assert pair.difference == pytest.approx(value)
        assert pair.ci95 == pytest.approx(interval, abs=0.06 * width)  # the bootstrap's own error
        assert pair.p == pytest.approx(p, abs=0.02)
        assert (pair.verdict == "helps") == (adjusted[other] < 0.05)
        assert pair.ci95_seeds is not None
        assert pair.ci95_seeds[1] - pair.ci95_seeds[0] < width


def test_where_an_arm_wins(stored: Store) -> None:
    table = by_place(stored.scores(), ["mae", "scratch"])
    scores = stored.scores().groupby(["arm", "group"], observed=True)["score"].mean().unstack("arm")
    assert table["units"].tolist() == [EACH] * GROUPS
    assert table.set_index("place")["mae"].to_dict() == pytest.approx(scores["mae"].to_dict())
    found = where(verdict_of(stored), stored.scores())
    assert found is not None
    assert found.wins == (scores["mae"] < scores["scratch"]).sum()
    assert found.wins + found.losses == GROUPS
    assert found.best[0].name == (scores["mae"] - scores["scratch"]).idxmin()
    assert found.worst[0].name == (scores["mae"] - scores["scratch"]).idxmax()


def test_a_damaged_file_of_scores_says_what_to_do(stored: Store) -> None:
    from raymae.errors import ResultsError

    Path(stored.location, "scores", "mae-seed0.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ResultsError, match=r"mae-seed0\.parquet: cannot be read: .* Delete it"):
        verdict_of(stored)
    Path(stored.location, "scores", "mae-seed0.parquet").unlink()
    rule = verdict_of(stored).rule
    assert rule is not None
    assert "of mae do not add up" in rule.note


def test_scores_can_be_queried(stored: Store) -> None:
    from raymae.results.views.query import query

    stored.flush()
    found = query(stored.root, "SELECT arm, count(*) AS n FROM scores GROUP BY arm ORDER BY arm")
    assert found["n"].tolist() == [SEEDS * GROUPS * EACH, GROUPS * EACH, SEEDS * GROUPS * EACH]
    places = query(stored.root, "SELECT place FROM places ORDER BY mae - scratch LIMIT 1")["place"].tolist()
    found_where = where(verdict_of(stored), stored.scores())
    assert found_where is not None
    assert places == [found_where.best[0].name]


def test_replicates_of_an_overtaken_configuration_count_nowhere(stored: Store) -> None:
    """A longer search has found a better configuration of mae: the scores of the one before stay, but apart."""
    from raymae.results.verdict.cells import counted
    from raymae.results.views.query import query

    stored.add_trial(trial("worse", "mae", config_id="mae", val_mse=0.6))
    stored.add_trial(trial("better", "mae", config_id="new", val_mse=0.3))
    score = np.full((GROUPS * EACH, 1), 9.0)
    names = tuple(f"u{index}" for index in range(GROUPS * EACH))
    groups = tuple(f"g{index // EACH}" for index in range(GROUPS * EACH))
    for seed in range(2):
        name = f"better-seed{seed}"
        config = TrialConfig("tiny", "mae", {}, TrialData(DataSpec(name="etth1"), "real"), seed, "replicate")
        stored.add_trial(trial(name, "mae", config_id="new", stage="replicate", seed=seed, test_mse=9.0))
        keep_scores(Folder(stored.root), name, config, UnitTable(names, groups, ("",), score, np.ones_like(score)))
    stored.flush()
    found = counted(stored.trials(), stored.spec(), stored.manifest)
    assert {name for name in found if not name.startswith(("scratch", "persistence"))} == {
        "better-seed0", "better-seed1"}
    assert query(stored.root, "SELECT min(mae) AS low FROM places")["low"].tolist() == [9.0]
    assert verdict_of(stored).rule.note == ""
