"""A sweep with factors as users run it, on Ray."""

from __future__ import annotations

from collections import Counter

import pytest

from .conftest import Sweep


@pytest.mark.slow
def test_a_sweep_with_factors_ends_with_an_answer_in_every_cell(small: Sweep) -> None:
    small.text += "factors: {label_fraction: [0.25, 1]}\n"
    ran = small.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = small.store
    verdict = store.verdict()
    assert verdict is not None
    assert verdict["complete"]
    assert [cell["cell"] for cell in verdict["cells"]] == [{"label_fraction": 0.25}, {"label_fraction": 1}]
    trials = store.trials()
    counts = Counter((row["arm"], row["stage"], row["label_fraction"]) for row in trials.to_dict("records")
                     if row["arm"] != "persistence" and row["stage"] != "pretrain")
    assert set(counts.values()) == {2}
    assert len(counts) == 2 * 2 * 2
    made = trials[trials["stage"] == "pretrain"]
    assert not made["encoder_id"].duplicated().any()
    assert len(made) == 2 + 2, "cells share the encoders of the search and of the replicates"
    assert "in every cell" in ran.stdout.lower()


@pytest.mark.slow
def test_a_bisected_factor_opens_cells_while_it_runs(small: Sweep) -> None:
    small.text += "factors: {label_fraction: {bisect: [0.25, 1], cells: 3}}\nfair: {by: steps}\n"
    ran = small.run("--set", "search.at={label_fraction: 0.25}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = small.store
    verdict, opened = store.verdict(), store.manifest.opened
    assert verdict is not None
    assert verdict["complete"]
    assert len(verdict["cells"]) == 2 + len(opened)
    assert opened == (() if verdict["place"]["changes"] == 0 else (0.625,)), "by the sign, whatever it is here"
    assert not store.trials()["trial_id"].duplicated().any()
    again = small.run("--set", "search.at={label_fraction: 0.25}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "opens a cell" not in again.stdout + again.stderr
    assert store.verdict() == verdict
