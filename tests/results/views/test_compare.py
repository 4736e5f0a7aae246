"""Several sweeps in one table, and the README's table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_task import tiny_schema, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.verdict.published import REPORT, published
from raymae.results.views import compare as across
from raymae.tasks import TASKS, schema_of

Make = Callable[..., Store]
README = Path(__file__).parents[3] / "README.md"


def fill(store: Store, scores: dict[str, list[float]]) -> None:
    for arm, values in scores.items():
        store.add_trial(trial(f"{arm}-0", arm, val_mse=values[0]))
        for seed, value in enumerate(values):
            store.add_trial(trial(f"{arm}-0-seed{seed}", arm, stage="replicate", config_id=f"c{arm}-0", test_mse=value,
                                  seed=seed))


@pytest.fixture
def root(make_store: Make, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    schema = tiny_schema(name="forecasting")
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
    assert [arm["arm"] for arm in sweep["arms"]] == ["mae", "scratch", "gru", "persistence"]
    assert sweep["complete"]
    assert sweep["pair"]["verdict"] == "helps"
    assert [arm["report"] and arm["report"]["value"] for arm in sweep["arms"]] == [0.07546, 0.01538, 0.00071, None]
    assert sweep["arms"][2]["pair"]["b"] == "gru"


def test_the_markdown_table(root: Path) -> None:
    text = across.markdown(across.across(across.sweeps_in([str(root)])[0]))
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == (across.START, across.END)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:-1]]
    assert cells[0] == list(across.HEADER)
    assert {len(row) for row in cells} == {len(across.HEADER)}
    first = dict(zip(across.HEADER, cells[2], strict=True))
    assert first["mae"] == "0.110 ± 0.025"
    assert first["other arms"] == "gru 0.303 ± 0.014; persistence 0.4000"
    assert first["mae − scratch, 95 %"] == "−0.100 (−0.123 to −0.077)"
    assert first["verdict"] == "helps, p < 0.001"
    assert (first["report: mae"], first["report: no MAE"]) == ("0.07546 (best of three mask ratios)", "0.01538")
    assert first["test metric"] == "mse (less is better), 3 seeds"


def test_it_goes_between_the_markers(root: Path) -> None:
    sweeps = across.across([str(root / "first")])
    text = across.into(f"before\n{across.START}\nold\n{across.END}\nafter\n", sweeps, "x.md")
    assert text == f"before\n{across.markdown(sweeps)}after\n"
    assert across.into(text, sweeps, "x.md") == text
    for broken in ("", across.START, f"{across.END}\n{across.START}", text + across.START):
        with pytest.raises(ResultsError, match=r"x\.md: needs one"):
            across.into(broken, sweeps, "x.md")


def test_other_data_and_other_protocols_say_so(make_store: Make, tmp_path: Path) -> None:
    spec = tiny_spec(task="volumes", replicates=2, training={"label_fraction": 0.05})
    data = {"name": "a|<b>", "source": "synthetic", "fingerprint": "x"}
    store = make_store(spec=spec, schema=tiny_schema(name="volumes"), data=data)
    fill(store, {"mae": [0.1], "scratch": [0.2]})
    text = across.markdown(across.across([str(tmp_path / "ett")]))
    assert "| a\\|&lt;b> (SYNTHETIC), label_fraction=0.05, unfinished |" in text
    assert "0.7712 (dice on BTCV)" in text
    assert published("forecasting", "mae", "mse", {"horizon": 96}) is None
    assert published("forecasting", "mae", "mse", {"horizon": 1, "protocol": "field"}) is None
    assert published("forecasting", "mae", "mse", {"horizon": 1, "target": "OT"}) is not None
    assert published("volumes", "atlas", "dice", {}) is None


def test_the_reports_numbers_belong_to_tasks_arms_and_metrics() -> None:
    assert {one.task for one in REPORT} == set(TASKS)
    for one in REPORT:
        schema = schema_of(one.task)
        assert one.arm in schema.arms
        assert one.metric in schema.metrics


def test_the_readmes_table_is_one_that_compare_makes() -> None:
    text = README.read_text()
    assert (text.count(across.START), text.count(across.END)) == (1, 1)
    lines = text.partition(across.START)[2].partition(across.END)[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    assert cells[0] == list(across.HEADER)
    assert set(lines[1]) == {"|", "-"}
    assert len(cells) > 2
    for row in cells[2:]:
        assert len(row) == len(across.HEADER)
        assert row[0] in TASKS
        assert row[2].endswith("seeds")


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
    assert run(str(root / "second"), str(root / "first"), "--markdown").stdout.count("\n| forecasting |") == 2
    assert "left out" in run(str(root / "first"), str(root / "nothing")).stderr
    assert "no sweep in" in run(str(root / "nothing"), code=1).stderr
    readme = tmp_path / "README.md"
    readme.write_text(f"{across.START}\n{across.END}\n")
    assert run(str(root), "--into", str(readme)).stdout == ""
    assert readme.read_text().count("| forecasting |") == 2
