"""A sweep that asks for no test score ends complete, and says what it did not ask for."""

from __future__ import annotations

from collections.abc import Callable

from tiny_task import tiny_spec, trial

from raymae.results import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import conclude, verdict_now

Make = Callable[..., Store]


def test_without_replicates_a_sweep_is_complete_once_its_search_is_over(make_store: Make) -> None:
    store = make_store(spec=tiny_spec(replicates=0))
    store.add_trial(trial("t1", val_mse=0.25))
    assert not conclude(store).complete, "interrupted in its search"
    assert "not finished" in headline(verdict_now(store))
    found = conclude(store, searched=True)
    assert found.complete
    assert headline(found) == "No test score was asked for (replicates: 0); best on validation is mae with mse 0.2500."
    assert headline(verdict_now(Store.open(store.root))) == headline(found), "in `results` and `watch` too"


def test_with_replicates_the_end_of_the_search_completes_nothing(make_store: Make) -> None:
    store = make_store(spec=tiny_spec(replicates=2))
    store.add_trial(trial("t1", val_mse=0.25))
    assert not conclude(store, searched=True).complete


def test_no_test_score_has_been_looked_at_where_none_was_asked_for(make_store: Make) -> None:
    with make_store(spec=tiny_spec(replicates=0)) as store:
        store.add_trial(trial("t1", val_mse=0.25))
        conclude(store, searched=True)
    assert not make_store(spec=tiny_spec(replicates=2), extend=True).manifest.looked_before
