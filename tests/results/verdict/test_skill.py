"""That a pretraining did not learn is said beside the verdict's word, wherever a verdict is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_task import tiny_spec, trial

from raymae.results import Store, headline, query, render, summary, verdict_of
from raymae.results.report.content import collect
from raymae.results.report.figure import figure
from raymae.results.report.report import markdown_of, page_of
from raymae.results.verdict.verdict import CellAnswer
from raymae.results.views.compare import across
from raymae.results.views.compare_text import markdown, short, table
from raymae.results.views.show import cells
from raymae.results.views.terminal_table import Remarks

UNLEARNED = "the pretraining of mae did not learn (skill −0.20)"
IN_PART = "the pretraining of mae did not learn in 2 of 3 replicates (skill −0.30 at worst)"


@pytest.fixture
def swept(make_store: Callable[..., Store]) -> Callable[[list[float]], Store]:
    """A sweep whose pretrained replicates have these skills."""

    def make(skills: list[float]) -> Store:
        store = make_store(spec=tiny_spec(arms=["mae", "scratch"], space={}))
        for number, skill in enumerate(skills):
            score = 0.5 + 0.001 * number
            store.add_trial(trial(f"mae-{number}", "mae", stage="replicate", seed=number, test_mse=score,
                                  pretext_loss=1.0, pretext_skill=skill))
            store.add_trial(trial(f"scratch-{number}", "scratch", stage="replicate", seed=number,
                                  test_mse=score + 0.2))
        store.close()
        return store

    return make


def surfaces(store: Store) -> dict[str, str]:
    """Everything that shows a verdict to a person, as text in one line."""
    verdict, content, sweeps, console = verdict_of(store), collect(store), across([store.root]), Console(width=250)
    with console.capture() as terminal:
        console.print(render(summary(store)))
    with console.capture() as compared:
        console.print(table(sweeps))
    shown = {
        "headline": headline(verdict), "results": terminal.get(), "compared": compared.get(),
        "compare": markdown(sweeps), "short": short(sweeps),
        "page": page_of(content), "markdown": markdown_of(content),
        "figure": " ".join(re.findall(r"<text[^>]*>([^<]*)", figure(verdict, ["mae", "scratch"]))),
    }
    return {name: " ".join(text.split()) for name, text in shown.items()}


@pytest.mark.parametrize(("skills", "said"), [([-0.1, -0.2, -0.3], UNLEARNED), ([0.1, 0.0, -0.3], IN_PART)])
def test_it_is_said_on_every_surface(swept: Callable[[list[float]], Store], skills: list[float], said: str) -> None:
    for name, text in surfaces(swept(skills)).items():
        assert (said.removeprefix("the pretraining of mae ") if name == "short" else said) in text, name


def test_in_the_terminal_it_stands_once_below_the_table_and_a_mark_beside_each_word(
    swept: Callable[[list[float]], Store],
) -> None:
    shown, console = surfaces(swept([-0.1, -0.2, -0.3])), Console(width=250)
    for name in ("results", "compared"):
        assert re.search(r"helps(, p \S+ \S+)? †", shown[name])
        assert shown[name].count(f"† {UNLEARNED}") == 1
    verdict = verdict_of(swept([-0.1, -0.2, -0.3]))
    both = tuple(CellAnswer({"label_fraction": share}, verdict.arms, verdict.pairs, True) for share in (0.1, 1.0))
    with console.capture() as written:
        console.print(cells(replace(verdict, cells=both, cell=both[0].cell)))
    found = " ".join(written.get().split())
    assert found.count("helps †") == 2
    assert found.count(f"† {UNLEARNED}") == 1


def test_different_remarks_have_different_marks() -> None:
    remarks = Remarks()
    said = [remarks.mark(text) for text in ("a", "", "b", "a", "c", "d", "e")]
    assert said == [" †", "", " ‡", " †", " §", " ¶", " ††"]
    assert remarks.notes() == ["† a", "‡ b", "§ c", "¶ d", "†† e"]


def test_it_is_said_nowhere_of_a_pretraining_that_learned(swept: Callable[[list[float]], Store]) -> None:
    store = swept([0.1, 0.2, 0.3])
    for name, text in surfaces(store).items():
        assert "did not learn" not in text, name
        assert name in ("headline", "compared", "compare", "short", "figure") or "0.20" in text, "the skill is a column"
    arms = query(store.root, "SELECT arm, skill FROM arms").set_index("arm")["skill"]
    assert arms["mae"] == pytest.approx(0.2)
    assert arms.isna()["scratch"]


def test_a_sweep_of_an_earlier_version_has_no_skill(swept: Callable[[list[float]], Store]) -> None:
    store = swept([-0.1, -0.2, -0.3])
    trials = store.trials().drop(columns=["pretext_loss", "pretext_skill"])
    assert all(arm.skill is None for arm in verdict_of(store, trials).arms)
