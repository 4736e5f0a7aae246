"""The picture of a verdict: which side is better, per cent, far rows, well-formed whatever a name holds."""

from __future__ import annotations

import copy
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.results import Store, Verdict, verdict_of
from raymae.results.report.figure import curves_figure, figure
from raymae.results.report.intervals import DARK, LIGHT, arms_panel, differences_panel, ticks
from raymae.results.report.svg import INKS
from raymae.results.verdict.matrix import curves
from tests.benchmarks.made_sweep import HOSTILE, make_sweep

SVG = "{http://www.w3.org/2000/svg}"
ARMS = ("mae", "scratch", "gru", "persistence")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_sweep(tmp_path_factory.mktemp("made") / "made", 60, 2)


@pytest.fixture(scope="module")
def judged(made: Store) -> dict[str, Any]:
    return verdict_of(made).to_json()


@pytest.fixture
def verdict(judged: dict[str, Any]) -> dict[str, Any]:
    """The verdict, for a test to change."""
    return copy.deepcopy(judged)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_better_side_depends_on_the_objective(verdict: dict[str, Any]) -> None:
    less = differences_panel(Verdict.from_json(verdict))
    assert (less.left, less.right) == ("mae better", "mae worse")
    verdict["objective"]["mode"] = "max"
    more = differences_panel(Verdict.from_json(verdict))
    assert (more.left, more.right) == ("mae worse", "mae better")
    found = texts(figure(Verdict.from_json(verdict), ARMS))
    assert "← mae worse" in found
    assert "mae better →" in found
    verdict["pairs"][1]["a"] = "gru"
    assert differences_panel(Verdict.from_json(verdict)).left == "first arm worse"


def test_the_primary_difference_comes_first_and_0_is_inside(verdict: dict[str, Any]) -> None:
    panel = differences_panel(Verdict.from_json(verdict))
    assert panel.rows[0].label == "mae − scratch"
    assert [row.primary for row in panel.rows] == [True, False, False]
    assert panel.axis[0] < 0 < panel.axis[1]
    primary = panel.rows[0]
    assert primary.interval is not None
    assert panel.axis[0] < primary.interval[0] < primary.value < primary.interval[1] < panel.axis[1]


def test_differences_are_in_per_cent_of_the_other_arm(verdict: dict[str, Any]) -> None:
    pair = verdict["pairs"][0]
    (other,) = (arm for arm in verdict["arms"] if arm["arm"] == pair["b"])
    other["metrics"]["test_mse"]["mean"] = 0.5
    pair |= {"difference": -0.01, "ci95": [-0.025, 0.005]}
    assert differences_panel(Verdict.from_json(verdict)).rows[0].text == "−2.0 % (−5.0 to +1.0)"
    pair["ci95"] = None
    assert differences_panel(Verdict.from_json(verdict)).rows[0].text == "−2.0 %"
    other["metrics"]["test_mse"] |= {"mean": 0.5, "ci95": [0.1, 0.9]}
    assert differences_panel(Verdict.from_json(verdict)).title.endswith("and in % of the other arm's mean")
    for near_0 in ({"mean": 0.0}, {"mean": -0.5}, {"mean": 0.5, "ci95": [-0.1, 1.1]}):
        other["metrics"]["test_mse"] |= near_0
        panel = differences_panel(Verdict.from_json(verdict))
        assert "%" not in panel.rows[0].text
        assert "%" in panel.rows[1].text
        assert panel.title.endswith("and in % of the other arm's mean where that is clearly above 0")
    for arm in verdict["arms"]:
        arm["metrics"]["test_mse"]["mean"] = -1.0
    assert differences_panel(Verdict.from_json(verdict)).title.endswith("with its 95 % interval")


def test_a_far_reference_is_an_arrow_and_squeezes_nothing(verdict: dict[str, Any]) -> None:
    before = arms_panel(Verdict.from_json(verdict))
    assert [row.label for row in before.rows if row.beyond] == ["persistence"]
    assert max(row.value for row in before.rows if not row.beyond) < before.axis[1] < 0.95
    assert before.rows[-1].text.startswith("0.95")  # the number is there all the same
    differences = differences_panel(Verdict.from_json(verdict))
    ends = figure(Verdict.from_json(verdict), ARMS).count("v10z")
    assert ends == sum(row.beyond != 0 for panel in (before, differences) for row in panel.rows) == 2


def test_numbers_under_an_axis_stand_apart() -> None:
    kept = json.loads((Path(__file__).resolve().parents[3] / "sweeps/results/series-labels/verdict.json").read_text())
    drawn = ElementTree.fromstring(figure(Verdict.from_json(kept), ARMS))
    under = [node for node in drawn.iter(f"{SVG}text")
             if node.get("text-anchor") == "middle" and (node.text or "").strip("−0.125") == ""]
    rows = itertools.groupby(under, lambda node: node.get("y"))
    for y, nodes in rows:
        ends = [(float(node.get("x", 0)), 3.5 * len(node.text or "") + 3) for node in nodes]
        assert all(b - a > half_a + half_b for (a, half_a), (b, half_b) in itertools.pairwise(ends)), y
    assert len(under) > 2


@pytest.mark.parametrize("sweep", ["table-labels", "label-efficiency", "series-labels"])
def test_no_line_of_a_sweep_with_cells_is_cut(sweep: str) -> None:
    kept = json.loads((Path(__file__).resolve().parents[3] / "sweeps/results" / sweep / "verdict.json").read_text())
    found = texts(figure(Verdict.from_json(kept), ARMS))
    assert sum(text.startswith("Difference in test") for text in found) == 1
    assert max(map(len, found)) <= 98
    assert any(re.search(r"\d\xa0(min|h|%)", text) for text in found)
    assert not [text for text in found if re.match(r"(h|min|s|%|0\d\s(min|s))\b", text)], "a duration is not broken"


@pytest.mark.parametrize(("sweep", "arrows", "named"), [
    ("scene-labels", 4, ["majority: 0.03405", "− majority: 0.2271"]),  # at both label fractions of both panels
    ("volumes-labels", 3, ["− atlas: 0.1527"]), ("label-efficiency", 0, []), ("table-labels", 0, []),
])
def test_what_lies_beyond_an_axis_is_an_arrow_with_its_number_and_no_dot(
    sweep: str, arrows: int, named: list[str]
) -> None:
    kept = json.loads((Path(__file__).resolve().parents[3] / "sweeps/results" / sweep / "verdict.json").read_text())
    verdict = Verdict.from_json(kept)
    drawn = curves_figure(verdict, [arm.arm for arm in verdict.arms])
    root = ElementTree.fromstring(drawn)
    paths = [str(node.get("d")) for node in root.iter(f"{SVG}path")]
    assert sum("h10z" in path for path in paths) == arrows
    shown = [node.text for node in root.iter(f"{SVG}text") if re.search(r": −?[\d.]+$", node.text or "")]
    assert shown == named
    points = sum(len(line.points) for curve in curves(verdict) for line in (*curve.scores, *curve.differences))
    lines = sum(len(curve.scores) + len(curve.differences) for curve in curves(verdict))
    assert len(list(root.iter(f"{SVG}circle"))) == points - arrows + lines, "one beside each name"


def test_an_unfinished_sweep_says_what_is_missing(verdict: dict[str, Any]) -> None:
    verdict["pairs"] = []
    for arm in verdict["arms"]:
        arm["metrics"], arm["n"] = {}, 0
    found = texts(figure(Verdict.from_json(verdict), ARMS))
    assert "No arm has a test score yet." in found
    assert "No difference yet: it takes the test scores of two arms." in found


def test_an_arm_keeps_its_colour_whatever_its_rank(verdict: dict[str, Any]) -> None:
    verdict["arms"].reverse()
    root = ElementTree.fromstring(figure(Verdict.from_json(verdict), ("other", *ARMS)))
    dots = [dot.get("class") for dot in root.iter(f"{SVG}circle")]
    assert {arm["arm"] for arm in verdict["arms"][1:]} == {"mae", "scratch", "gru"}
    assert dots[:3] == [f"arm{('other', *ARMS).index(arm['arm'])}" for arm in verdict["arms"][1:]]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_is_readable_on_the_pictures_own_background(scheme: int) -> None:
    def luminance(color: str) -> float:
        parts = [int(color[place:place + 2], 16) / 255 for place in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(first: str, second: str) -> float:
        low, high = sorted((luminance(first), luminance(second)))
        return (high + 0.05) / (low + 0.05)

    for ground in ("page", "band"):
        behind = INKS[ground][scheme]
        assert min(contrast(INKS[ink][scheme], behind) for ink in ("ink", "quiet")) >= 4.5
        assert min(contrast(color, behind) for color in (LIGHT, DARK)[scheme]) >= 3  # WCAG's for graphics


def test_nothing_is_loaded_or_run_and_the_same_verdict_gives_the_same_bytes(verdict: dict[str, Any]) -> None:
    text = figure(Verdict.from_json(verdict), ARMS)
    assert text == figure(Verdict.from_json(copy.deepcopy(verdict)), ARMS)
    assert not {"script", "image", "use", "foreignObject", "a"} & {
        node.tag.removeprefix(SVG) for node in ElementTree.fromstring(text).iter()}
    assert "url(" not in text
    assert text.count("http") == 1  # the name space


@pytest.mark.parametrize("name", [HOSTILE, "]]>--><!--", "a\x00b\x1bc", "x" * 500],
                         ids=["html", "xml", "control", "long"])
def test_hostile_names_stay_text(verdict: dict[str, Any], name: str) -> None:
    verdict["sweep"] = name
    for arm in verdict["arms"]:
        if arm["arm"] == "gru":
            arm["arm"] = name
    for pair in verdict["pairs"]:
        pair |= {key: name for key in ("a", "b") if pair[key] == "gru"}
    root = ElementTree.fromstring(figure(Verdict.from_json(verdict), ("mae", "scratch", name)))
    assert {node.tag.removeprefix(SVG) for node in root.iter()} == {
        "svg", "title", "desc", "style", "rect", "text", "line", "path", "circle"}
    if name == HOSTILE:
        assert any(name in text for text in texts(figure(Verdict.from_json(verdict), ("mae", "scratch", name))))


@pytest.mark.parametrize(("low", "high", "expected"), [
    (-1.0, 1.0, ["−1.0", "−0.5", "0", "0.5", "1.0"]),
    (0.00061, 0.00065, ["0.00061", "0.00062", "0.00063", "0.00064", "0.00065"]),
    (3.0, 17.0, ["5", "10", "15"]),
    (-3e-5, 1e-5, ["−0.00003", "−0.00002", "−0.00001", "0", "0.00001"]),
])
def test_ticks_are_round_numbers_in_full(low: float, high: float, expected: list[str]) -> None:
    found = ticks(low, high)
    assert [text for _, text in found] == expected
    assert all(float(text.replace("−", "-")) == pytest.approx(value) for value, text in found)


def test_the_command_writes_it_and_lists_it(made: Store, tmp_path: Path) -> None:
    to = tmp_path / "verdict.svg"
    done = CliRunner().invoke(main, ["report", made.root, "--to", str(tmp_path), "--figure", str(to), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["figure"] == str(to)
    assert "MAE pretraining" in " ".join(texts(to.read_text()))
    for wrong, words in ((tmp_path / "verdict.png", "must end with .svg"), (tmp_path / "no" / "v.svg", "cannot write")):
        done = CliRunner().invoke(main, ["report", made.root, "--to", str(tmp_path), "--figure", str(wrong)])
        assert done.exit_code != 0
        assert words in done.stderr
