"""The report's contents; `test_report_page.py` opens it in a browser."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny_task import report, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.report import figures
from raymae.results.report.content import Picture, ReportContent, collect
from raymae.results.report.figures import Param
from raymae.results.report.report import json_in_html, markdown_of, page_of, plotly, render_report, write_report
from raymae.results.verdict.effects import Effect, explained_if_two
from raymae.search.decide.importance import importances
from tests.benchmarks.made_sweep import HOSTILE, make_sweep

Make = Callable[..., Store]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_sweep(tmp_path_factory.mktemp("made") / "made", 120, 6, picture=True)


@pytest.fixture(scope="module")
def content(made: Store) -> ReportContent:
    return collect(made, importances(made))


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_verdict_comes_first_and_everything_is_there(content: ReportContent) -> None:
    text = page_of(content).partition("<body>")[2]
    parts = ["RayMAE report", content.headline, *(f">{title}</h" for title in (
        "Arms, best first", "Filter", "What the score depends on", "Importance of the parameters",
        "Parallel coordinates", "How the search went", "What the best trials do", "Trials", "Failed trials",
        "Repeat it")), "raymae sweep sweeps/made.yaml"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_nothing_is_loaded_from_anywhere(content: ReportContent) -> None:
    tags = Tags(page_of(content)).tags
    for _, attributes in tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert not {tag for tag, _ in tags} & {"link", "iframe", "object", "embed", "base"}
    (policy,) = (attributes["content"] for tag, attributes in tags
                 if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert re.search(r"script-src( 'sha256-[\w+/]+={0,2}'){2};", policy)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    store = make_sweep(tmp_path / "made", 30, 4, hostile=True)
    page = render_report(store, importance={"mae": {HOSTILE: 0.5, "lr": 0.5}, HOSTILE: {"lr": 1.0}})
    tags = Tags(page).tags
    assert sum(tag == "script" for tag, _ in tags) == 4  # data, importance, plotly, ours
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert "<script>document.title" not in page.replace(plotly(), "")
    assert HOSTILE in Tags(page).text
    markdown = markdown_of(collect(store))
    assert "<script>" not in markdown.replace("\\<script\\>", "").split("## Again")[0]


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "\u2028", "&lt;", ["<", {"a": ">"}]])
def test_json_ends_no_tag(value: Any) -> None:
    text = json_in_html(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_line_through_the_trials(content: ReportContent) -> None:
    responses = content.plots["responses"]
    assert list(responses)[:3] == ["mask_ratio", "patch_size", "lr"]
    values, medians = responses["mask_ratio"]["mae"]
    assert values == sorted(values)
    assert min(medians) < medians[0]  # the formula's best is at .6
    assert responses["patch_size"]["scratch"][0] == [8, 12, 16, 24]
    assert "mae" in responses["norm_target"]
    assert content.plots["params"] == [
        Param("mask_ratio", number=True, category=False, log=False),
        Param("patch_size", number=True, category=True, log=False),  # a choice, although it is made of numbers
        Param("lr", number=True, category=False, log=True),
        Param("norm_target", number=False, category=True, log=False),
        Param("depth", number=True, category=False, log=False),
    ]


def test_progress_counts_every_attempt_as_compute(make_store: Make) -> None:
    store = make_store()
    for name, score, more in [("a", 0.5, {}), ("b", 0.6, {}), ("c", 0.4, {"status": "stopped"}), ("d", 0.3, {}),
                              ("e", None, {"status": "failed"}), ("e", 0.2, {"attempt": 1})]:
        store.add_trial(trial(name, val_mse=score, **more))
    content = collect(store)
    assert content.plots["progress"]["mae"] == {"trials": [1, 4, 5, 5], "compute": [2, 8, 12, 12],
                                                 "best": [0.5, 0.3, 0.2, 0.2]}
    assert vars(content.num_trials) == {"completed": 4, "stopped": 1, "failed": 0}
    assert content.failed == ()


def test_learning_curves_are_few_and_name_their_role(content: ReportContent) -> None:
    curves = content.plots["learning"]
    assert {curve.phase for curve in curves} == {"pretrain", "pretext", "finetune"}
    for arm in ("mae", "scratch", "gru"):
        mine = [curve for curve in curves if curve.arm == arm and curve.phase == "finetune"]
        assert [curve.role for curve in mine].count("best") == 1
        assert 2 < len(mine) <= figures.CURVES_PER_ARM + 1
    best = next(arm for arm in content.verdict.arms if arm.arm == "mae").val.trial_id
    assert {curve.trial for curve in curves if curve.role == "best" and curve.arm == "mae"} == {best}


def test_a_long_curve_is_thinned_with_both_ends(make_store: Make) -> None:
    store = make_store(flush_s=1e9)
    for step in range(500):
        store.add_report(report("a", step, val_mse=float(step)))
    store.add_trial(trial("a"))
    (curve,) = collect(store).plots["learning"]
    assert len(curve.y) == figures.POINTS_PER_CURVE
    assert (curve.epoch[0], curve.epoch[-1], curve.y[-1]) == (1, 500, 499)


def test_an_interrupted_trial_has_one_curve(make_store: Make) -> None:
    store = make_store()
    for attempt, steps in ((0, (0, 1, 2)), (1, (2, 3))):
        for step in steps:
            store.add_report(report("a", step, attempt=attempt, val_mse=10.0 * attempt + step))
    store.add_trial(trial("a", attempt=1))
    (curve,) = collect(store).plots["learning"]
    assert (curve.epoch, curve.y) == ((1, 2, 3, 4), (0, 1, 12, 13))


def test_pictures_of_each_arms_best(content: ReportContent, make_store: Make, tmp_path: Path) -> None:
    ((shows, (picture,)),) = content.pictures.items()
    assert (shows, picture.arm) == ("reconstruction", "mae")
    store = make_store()
    store.add_trial(trial("mae-0-seed0", stage="replicate"))
    folder = tmp_path / "ett" / "pictures"
    folder.mkdir()
    (folder / "mae-0-seed0-big.png").write_bytes(b"x" * 4_000_000)
    (folder / "mae-0-seed0-small.png").write_bytes(b"x")
    (folder / "other.png").write_bytes(b"x")
    assert list(collect(store).pictures) == ["small"]


def test_pictures_of_one_kind_are_one_figure(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes([0, 0, 0, 3, 0, 0, 0, 2])
    data = base64.b64encode(png).decode()
    folder = tmp_path / "ett" / "pictures"
    folder.mkdir()
    for arm, score in (("scratch", 0.5), ("mae", 0.25)):
        store.add_trial(trial(f"{arm}-0", arm=arm, val_mse=score))
        store.add_trial(trial(f"{arm}-0-seed0", arm=arm, stage="replicate", val_mse=score, test_mse=score))
        (folder / f"{arm}-0-seed0-forecast.png").write_bytes(png)
    (folder / "mae-0-seed0-before.png").write_bytes(png)
    content = collect(store)
    assert content.pictures == {
        "forecast": (Picture("mae", "mae-0-seed0", data, 3, 2), Picture("scratch", "scratch-0-seed0", data, 3, 2)),
        "before": (Picture("mae", "mae-0-seed0", data, 3, 2),),
    }
    page = page_of(content)
    assert page.count(">forecast</h3>") == 1
    assert page.count('class="pictures"') == 2
    assert "mean test mse 0.2500" in Tags(page).text


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    shares = importances(make_sweep(tmp_path / "made", 240, 1))
    assert set(shares) == {"mae", "scratch", "gru"}
    assert "mask_ratio" not in shares["scratch"]
    for mine in shares.values():
        assert sum(mine.values()) == pytest.approx(1)
        assert mine["depth"] < 0.2  # the formula does not know it
        assert mine["lr"] + mine["patch_size"] > 0.5


def test_importance_needs_trials(make_store: Make) -> None:
    store = make_store()
    for number in range(3):
        store.add_trial(trial(f"a{number}", lr=1e-3 * (number + 1), val_mse=0.1 * number))
    assert importances(store) == {}
    store.add_trial(trial("same", lr=5e-4, val_mse=math.nan))
    assert importances(store) == {}
    store.add_trial(trial("b", lr=9e-3, val_mse=0.9))
    assert importances(store).keys() == {"mae"}
    assert "it takes 4 search trials" in render_report(store, importance={})
    assert "scratch has 0" in render_report(store, importance={"mae": {"lr": 1.0}})
    assert collect(store, {"mae": {"lr": 1.0}, "scratch": {"lr": 1.0}, "gru": {"lr": 1.0}}).importance_missing == ""
    assert "Computed by `raymae report`" in render_report(store)


def test_for_which_settings_it_helps_or_why_nobody_can_say(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    none = explained_if_two(store)
    assert none is not None
    assert "Nothing can be said: too few completed search trials: mae has 0 of 10" in render_report(
        store, explanation=none)
    assert 'id="effects"' not in render_report(store)
    some = replace(none, problem="", effects=(Effect(
        HOSTILE, (0.25,), (-1.0,), ((-2.0, -0.5),), ("helps",), (), f"mae helps at {HOSTILE}", False, False, False),))
    page = render_report(store, explanation=some)
    assert sum(tag == "script" for tag, _ in Tags(page).tags) == 4
    assert "<script>document.title" not in page.replace(plotly(), "")
    assert '"y":[-1],"low":[-2],"high":[-0.5],"clear":["helps"]' in page
    assert "## For which settings it helps" in markdown_of(collect(store, None, some))
    assert explained_if_two(make_store(tmp_path / "one", tiny_spec(arms=["mae", "persistence"]))) is None


def test_an_empty_and_an_unfinished_sweep(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    assert "No verdict yet" in Tags(render_report(store).replace(plotly(), "")).text
    store.add_trial(trial("a", status="failed", val_mse=None, error=""))
    page, markdown = write_report(store)
    assert Path(page) == tmp_path / "ett" / "report.html"
    assert "mae" in Path(markdown).read_text()
    assert "no reason kept" in Path(markdown).read_text()


def test_synthetic_data_has_a_banner(make_store: Make, tmp_path: Path) -> None:
    data = {"name": "ETTh1", "source": "synthetic", "fingerprint": "synthetic:0"}
    content = collect(make_store(data=data))
    assert content.synthetic.startswith("SYNTHETIC DATA")
    assert 'class="banner" role="note"' in page_of(content)
    assert "SYNTHETIC DATA" in markdown_of(content)
    other = make_store(tmp_path / "other", spec=tiny_spec(name="other"))
    assert 'class="banner" role="note"' not in page_of(collect(other))


def test_the_summary_in_markdown(content: ReportContent) -> None:
    text = markdown_of(content)
    assert text.startswith("# made\n\n**MAE pretraining helps here")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {8}  # arms with a column for their skill, differences
    assert re.search(r"^\| mae − scratch \| .* % \(.* to .*\) \| .* \| helps \|$", text, re.MULTILINE)
    assert "* mae: " in text
    assert "mae-0003: TrialError: the loss is NaN at step 7" in text
    assert "    raymae sweep sweeps/made.yaml" in text


def test_where_it_cannot_be_written(made: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot write the report.*--to"):
        write_report(made, to=str(tmp_path / "file"))
