"""Several sweeps in one table, and the README's table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_task import tiny_schema, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import CellAnswer
from raymae.results.views import compare as across
from raymae.results.views import compare_text as tables
from raymae.spec.task import Published
from raymae.tasks import TASKS

Make = Callable[..., Store]
ROOT = Path(__file__).parents[3]


def fill(store: Store, scores: dict[str, list[float]]) -> None:
    for arm, values in scores.items():
        store.add_trial(trial(f"{arm}-0", arm, val_mse=values[0]))
        for seed, value in enumerate(values):
            store.add_trial(trial(f"{arm}-0-seed{seed}", arm, stage="replicate", config_id=f"c{arm}-0", test_mse=value,
                                  seed=seed))


@pytest.fixture
def root(make_store: Make, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    reported = {"mae": (0.07546, "best of three mask ratios"), "scratch": (0.01538, ""), "gru": (0.00071, "")}
    schema = tiny_schema(name="forecasting", published={
        arm: (Published("mse", value, "ETTh1", note),) for arm, (value, note) in reported.items()})
    for name, offset in (("first", 0.0), ("second", 0.5)):
        spec = tiny_spec(name=name, task="forecasting", replicates=3)
        fill(make_store(folder / name, spec=spec, schema=schema),
             {"mae": [0.1, 0.11, 0.12], "scratch": [0.2 - offset / 4, 0.21, 0.22], "gru": [0.3, 0.3, 0.31],
              "persistence": [0.4]})
    (folder / "nothing").mkdir()
    (folder / "first.old-1").mkdir()
    (folder / "first.old-1" / "sweep.json").write_text("{}")
    return folder


def test_which_sweeps(root: Path) -> None:
    both = [str(root / "first"), str(root / "second")]
    assert across.sweeps_in([str(root)]) == (both, [])
    assert across.sweeps_in([*reversed(both), str(root / "nothing")]) == (both[::-1], [str(root / "nothing")])


def test_one_row_an_arm_with_the_reports_number(root: Path) -> None:
    (sweep,) = across.across([str(root / "first")])
    assert [arm.arm for arm in sweep.arms] == ["mae", "scratch", "gru", "persistence"]
    assert sweep.complete
    assert sweep.pair.verdict == "helps"
    assert [arm.report and arm.report.value for arm in sweep.arms] == [0.07546, 0.01538, 0.00071, None]
    assert sweep.arms[2].pair.b == "gru"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_markdown_tables(root: Path) -> None:
    lines = tables.markdown(across.across(across.sweeps_in([str(root)])[0])).splitlines()
    assert (lines[0], lines[-1]) == tables.markers()
    assert [line for line in lines if line.startswith("**")] == [
        f"**{name}**: forecasting on etth1; test mse, less is better" for name in ("first", "second")]
    header = cells(lines[3])
    assert header == ["arm", "mean ± 95 %", "seeds", "mae minus it", "verdict", "published"]
    assert {len(cells(line)) for line in lines if line.startswith("|")} == {len(header)}
    rows = {cells(line)[0]: dict(zip(header, cells(line), strict=True)) for line in lines[5:9]}
    assert list(rows) == ["mae", "scratch", "gru", "persistence"]
    assert rows["mae"]["mean ± 95 %"] == "0.110 ± 0.025"
    assert rows["mae"]["published"] == "0.07546 (best of three mask ratios)"
    assert rows["gru"]["mean ± 95 %"] == "0.303 ± 0.014"
    assert (rows["persistence"]["mean ± 95 %"], rows["persistence"]["seeds"]) == ("0.4000", "1")
    assert rows["scratch"]["mae minus it"] == "−0.100 (−0.123 to −0.077)"
    assert (rows["scratch"]["verdict"], rows["scratch"]["published"]) == ("helps, p < 0.001", "0.01538")


def test_the_short_table_has_one_line_a_sweep_file(root: Path) -> None:
    both = across.sweeps_in([str(root)])[0]
    lines = tables.short(across.across(both)).splitlines()
    assert (lines[0], lines[-1]) == tables.markers(short=True)
    assert cells(lines[1]) == list(tables.SHORT)
    assert cells(lines[3]) == ["forecasting (first)", "etth1: mse ↓", "0.110 ± 0.025", "0.210 ± 0.025",
                               "helps, p < 0.001"]
    assert len(lines) == 6
    sweeps = across.across(both, {"sweeps/one.yaml": tiny_spec(task="forecasting")})
    assert {(one.file, len(one.changed)) for one in sweeps} == {("sweeps/one.yaml", 0)}
    lines = tables.short(sweeps).splitlines()
    assert [cells(line)[0] for line in lines[3:-1]] == ["forecasting"]
    sweeps[0] = replace(sweeps[0], changed={"horizon": 2})
    assert "0.17 ± 0.20" in tables.short(sweeps)  # the second is nearer to the file now
    assert len(tables.short([replace(sweep, pair=None) for sweep in sweeps]).splitlines()) == 4


def test_settings_are_those_that_differ_from_the_sweep_file(make_store: Make, tmp_path: Path) -> None:
    make_store(spec=tiny_spec(settings={"depth": 3, "patch_size": 8}, size="debug"))
    near = tiny_spec(settings={"depth": 3, "patch_size": 16}, training={"label_fraction": 0.5})
    files = {"near.yaml": near, "far.yaml": tiny_spec(arms=["mae", "scratch"]),
             "other.yaml": tiny_spec(name="far", data={"name": "other"})}
    root = str(tmp_path / "ett")
    (sweep,) = across.across([root], files)
    assert sweep.file == "near.yaml"
    assert sweep.changed == {"patch_size": 8, "size": "debug", "label_fraction": "default"}
    (sweep,) = across.across([root], {"other.yaml": files["other.yaml"]})
    assert (sweep.file, sweep.changed) == (None, sweep.settings)
    (tmp_path / "broken.yaml").write_text("name: [")
    assert across.sweep_files(tmp_path) == {}
    shipped = across.sweep_files(ROOT / "sweeps")
    assert len(shipped) == len(list((ROOT / "sweeps").glob("*.yaml")))


def test_a_front_page_says_no_more_than_the_sweep_itself(root: Path) -> None:
    (sweep,) = across.across([str(root / "first")])
    assert sweep.pair is not None
    assert sweep.p_all == sweep.pair.p_holm
    assert sweep.word_all == sweep.pair.verdict


@pytest.mark.parametrize("write", [tables.markdown, tables.short])
def test_it_goes_between_the_markers(root: Path, write: Callable[[Any], str]) -> None:
    written = write(across.across([str(root / "first")]))
    start, end = tables.markers(short=write is tables.short)
    text = tables.into(f"before\n{start}\nold\n{end}\nafter\n", written, "x.md")
    assert text == f"before\n{written}after\n"
    assert tables.into(text, written, "x.md") == text
    both = write(across.across([str(root / "first"), str(root / "second")]))
    only = write(across.across([str(root / "second")]))
    page = tables.into(f"{start}\n{end}\n", both, "x.md")
    assert page == both
    if write is tables.markdown:  # the first sweep's table stays, the second's is replaced
        alone = re.sub("Adjusted for the 2 sweeps here: [^.]*\\.[^.]*\\. ", "", both.partition("**second**")[2])
        assert tables.into(page.replace("0.17 ± 0.20", "old"), only, "x.md") == \
            both.partition("**second**")[0] + "**second**" + alone
        assert tables.into(page.replace("0.210 ± 0.025", "old"), only, "x.md").count("| old |") == 1
    for broken in ("", start, f"{end}\n{start}", text + start):
        with pytest.raises(ResultsError, match=r"x\.md: needs one"):
            tables.into(broken, written, "x.md")


def test_other_data_and_other_protocols_say_so(make_store: Make, tmp_path: Path) -> None:
    spec = tiny_spec(task="volumes", replicates=2, training={"label_fraction": 0.05})
    data = {"name": "a|<b>", "source": "synthetic", "fingerprint": "x"}
    published = {"mae": (Published("dice", 0.7712, "BTCV"),)}
    store = make_store(spec=spec, schema=tiny_schema(name="volumes", published=published), data=data)
    fill(store, {"mae": [0.1], "scratch": [0.2]})
    sweeps = across.across([str(tmp_path / "ett")])
    text = tables.markdown(sweeps)
    assert "on a\\|&lt;b> (SYNTHETIC), label_fraction=0.05; test mse, less is better, unfinished\n" in text
    assert "| a\\|&lt;b> (SYNTHETIC), label_fraction=0.05: mse ↓ |" in tables.short(sweeps)
    assert ", unfinished |" in tables.short(sweeps)
    assert "0.7712 (dice on BTCV)" in text


def test_a_sweep_is_of_the_file_that_has_its_name_whatever_is_nearer(root: Path) -> None:
    own = tiny_spec(name="first", task="forecasting", replicates=3, training={"label_fraction": 0.5})
    nearer = tiny_spec(name="other", task="forecasting", replicates=3)
    for files in ({"a.yaml": own, "b.yaml": nearer}, {"b.yaml": nearer, "a.yaml": own}):
        first, second = across.across([str(root / "first"), str(root / "second")], files)
        assert (first.file, dict(first.changed)) == ("a.yaml", {"label_fraction": "default"})
        assert (second.file, dict(second.changed)) == ("b.yaml", {})


def test_a_sweep_on_other_data_is_of_the_file_whose_name_its_name_begins_with(root: Path) -> None:
    file = tiny_spec(name="first", task="forecasting", replicates=3)
    elsewhere = file.model_copy(update={"data": file.data.model_copy(update={"name": "other"})})
    (second,) = across.across([str(root / "second")], {"first.yaml": elsewhere})
    assert (second.file, dict(second.changed)) == (None, second.settings)
    beginning = elsewhere.model_copy(update={"name": "sec"})
    (second,) = across.across([str(root / "second")], {"sec.yaml": beginning})
    assert second.file is None  # a part of a word is not a name
    (first,) = across.across([str(root / "first")], {"first.yaml": elsewhere})
    assert (first.file, dict(first.changed)) == ("first.yaml", {"data.name": "etth1"})
    assert "of `first.yaml`: forecasting on etth1; test mse" in tables.markdown([first])
    own, more = replace(first, changed={}, sweep="own"), replace(first, sweep="own-etth1")
    assert tables.short([more, own]) == tables.short([own])  # the file's own data stand for it
    for near in ({"a.yaml": elsewhere, "b.yaml": file}, {"b.yaml": file, "a.yaml": elsewhere}):
        assert across.across([str(root / "first")], near)[0].file == "b.yaml"


def test_a_number_is_published_for_a_metric_and_settings(make_store: Make) -> None:
    numbers = (Published("dice", 0.77, "BTCV"), Published("mse", 0.1, "ETTh1", settings={"horizon": 1}))
    task = make_store(schema=tiny_schema(published={"mae": numbers})).manifest.task
    assert task.published_for("mae", {"horizon": 96}) == numbers[0]
    assert task.published_for("mae", {"horizon": 1, "target": "OT"}) == numbers[1]
    assert task.published_for("mae", {}) == numbers[1]
    assert task.published_for("scratch", {}) is None


def cells_of(lines: list[str]) -> tuple[str, str, dict[str, str]] | None:
    """Of a sweep's part of the page, if it has factors: the factor, in how many cells which word is said of mae beside
    scratch, and each arm's scores in the first cell and the last."""
    start = next((number for number, line in enumerate(lines) if "beside it |" in line), None)
    if start is None:
        return None
    named = cells(lines[start])[1:]
    rows = {cells(line)[0]: cells(line)[1:]
            for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2:])}
    words = [cell.partition("; ")[2] for cell in rows["scratch"]]
    told = ", ".join(f"{word} in {words.count(word)}" for word in dict.fromkeys(words))
    ends = {arm: f"{scores[0].split(' ±')[0]} to {scores[-1].split(' ±')[0]}" for arm, scores in rows.items()}
    return named[0].split()[0], f"{told} of {len(named)} cells", ends


def test_the_readmes_tables_are_such_as_compare_makes_and_agree() -> None:
    """Each line of the README's short table says what the long tables say of a sweep."""
    def between(page: str, short: bool) -> list[str]:
        text, (start, end) = (ROOT / page).read_text(), tables.markers(short)
        assert (text.count(start), text.count(end)) == (1, 1)
        return text.partition(start)[2].partition(end)[0].strip().splitlines()

    said: set[tuple[str, ...]] = set()
    lines = between("sweeps/README.md", short=False)
    starts = [number for number, line in enumerate(lines) if line.startswith("**")]
    title = re.compile(r"\*\*.+\*\*, of `(.*)`: (.*) on (.*); test (.*), (less|more) is better(?:, unfinished)?")
    for number, after in zip(starts, [*starts[1:], len(lines)], strict=True):
        about = title.fullmatch(lines[number])
        assert about is not None, lines[number]
        assert (ROOT / about[1]).exists()
        header = cells(lines[number + 2])
        first = itertools.takewhile(lambda line: line.startswith("|"), lines[number + 4 : after])  # cells come later
        rows = [cells(line) for line in first]
        assert rows
        assert all(len(row) == len(header) == len(tables.HEADER) for row in rows), lines[number]
        arms = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
        arrow = {"less": "↓", "more": "↑"}[about[5]]
        adjusted = re.findall(r"Adjusted for the \d+ sweeps here: (.+?)\.(?= |$)", " ".join(lines[number:after]))
        verdict, _, unlearned = arms.get("scratch", {}).get("verdict", "").partition("; the pretraining of mae ")
        if found := cells_of(lines[number:after]):
            factor, words, scores = found
            remark = f"; {unlearned}" if unlearned else ""
            problem = ", ".join(part for part in about[3].split(", ") if not part.startswith(f"{factor}="))
            said.add((about[2], f"{problem} by {factor}: {about[4]} {arrow}", scores["mae"],
                      scores["scratch"], words + remark))
            continue
        for word in (*adjusted, verdict) if verdict else ():
            said.add((about[2], f"{about[3]}: {about[4]} {arrow}", arms["mae"]["mean ± 95 %"],
                      arms["scratch"]["mean ± 95 %"], f"{word}; {unlearned}" if unlearned else word))
    lines = between("README.md", short=True)
    assert cells(lines[0]) == list(tables.SHORT)
    assert {cells(line)[0] for line in lines[2:]} == {task for task, *_ in said} == {*TASKS}
    assert {tuple(cells(line)) for line in lines[2:]} <= said


def test_compare_on_the_command_line(root: Path, tmp_path: Path) -> None:
    import json

    from click.testing import CliRunner

    from raymae.cli import main

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, ["compare", *arguments])
        assert result.exit_code == code, result.output
        return result

    assert "helps" in run(str(root)).stdout
    assert [one["sweep"] for one in json.loads(run(str(root), "--json").stdout)] == ["first", "second"]
    assert run(str(root / "second"), str(root / "first"), "--markdown").stdout.count(": forecasting on") == 2
    assert run(str(root), "--short").stdout.count("\n| forecasting (") == 2
    assert "left out" in run(str(root / "first"), str(root / "nothing")).stderr
    assert "no sweep in" in run(str(root / "nothing"), code=1).stderr
    readme = tmp_path / "README.md"
    readme.write_text("\n".join([*tables.markers(), *tables.markers(short=True)]))
    assert run(str(root), "--into", str(readme)).stdout == run(str(root), "--short", "--into", str(readme)).stdout == ""
    assert readme.read_text().count("| forecasting (") == readme.read_text().count(": forecasting on") == 2


def test_a_sweep_with_factors_has_its_cells_in_a_table_of_their_own(root: Path) -> None:
    (sweep,) = across.across([str(root / "first")])
    verdict = verdict_now(Store.open(str(root / "first")))
    cells = tuple(CellAnswer({"label_fraction": share}, verdict.arms, verdict.pairs, True) for share in (0.1, 1.0))
    with_cells = replace(sweep, cells=cells)
    rows = list(tables.rows_of_cells(with_cells))
    names = [row[1] for row in rows if row[0] == "label_fraction 0.1"]
    assert "mae − scratch" in names
    assert len(names) == len(rows) / 2 == 2  # of three arms that learn, with the first; persistence is a reference
    shown = next(row for row in rows if row[1] == "mae − scratch")
    assert shown[2:4] == ("0.110 ± 0.025", "0.210 ± 0.025")
    assert shown[4].startswith("−0.100 (−0.1")
    assert "helps" in shown[5]
    written = tables.markdown([with_cells])
    assert f"| {' | '.join(tables.CELLS)} |" in written
    assert f"| {' | '.join(tables.CELLS)} |" not in tables.markdown([sweep])


def test_a_sweep_with_factors_has_every_arm_in_every_cell(root: Path) -> None:
    (sweep,) = across.across([str(root / "first")])
    verdict, later = (verdict_now(Store.open(str(root / name))) for name in ("first", "second"))
    other = tuple(replace(pair, verdict="undecided") for pair in later.pairs if "persistence" not in (pair.a, pair.b))
    both = (CellAnswer({"label_fraction": 0.1}, verdict.arms, verdict.pairs, True),
            CellAnswer({"label_fraction": 1.0}, later.arms[:-1], other, True))
    with_cells = replace(sweep, cells=both)
    assert tables.arms_header(with_cells) == ("arm; mae beside it", "label_fraction 0.1", "label_fraction 1")
    assert list(tables.arms_in_cells(with_cells)) == [
        ("mae", "0.110 ± 0.025", "0.110 ± 0.025"), ("scratch", "0.210 ± 0.025; helps", "0.17 ± 0.20; undecided"),
        ("gru", "0.303 ± 0.014; helps", "0.303 ± 0.014; undecided"), ("persistence", "0.4000; helps", "–")]
    assert "| gru | 0.303 ± 0.014; helps | 0.303 ± 0.014; undecided |" in tables.markdown([with_cells])
    many = replace(sweep, cells=both * 5)
    assert list(tables.arms_in_cells(many)) == list(tables.arms_in_cells(sweep)) == []
    assert "beside it |" not in tables.markdown([many])
    line = tables.short([with_cells]).splitlines()[3]
    assert cells(line) == ["forecasting", "etth1 by label_fraction: mse ↓", "0.110 to 0.110", "0.210 to 0.17",
                              "helps in 1, undecided in 1 of 2 cells"]
