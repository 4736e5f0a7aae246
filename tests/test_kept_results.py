"""`sweeps/results/` keeps the answers that the tables of the pages were written from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from raymae.cli import main

ROOT = Path(__file__).parents[1]
KEPT = sorted(path.parent for path in (ROOT / "sweeps" / "results").glob("*/verdict.json"))


@pytest.mark.parametrize(("page", "options"), [("sweeps/README.md", []), ("README.md", ["--short"])])
def test_the_tables_are_what_compare_writes_of_the_kept_answers(
    page: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT
    monkeypatch.chdir(ROOT)  # the sweep files that settings are compared with lie there
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / page).read_text())
    done = CliRunner().invoke(main, ["compare", *map(str, KEPT), *options, "--into", str(copy)])
    assert done.exit_code == 0, done.output
    assert copy.read_text() == (ROOT / page).read_text(), f"write {page} anew: raymae compare sweeps/results/* --into"


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_what_is_kept_is_small_and_names_no_machine(folder: Path) -> None:
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert files.keys() == {"sweep.json", "verdict.json"}
    assert sum(map(len, files.values())) < 100_000
    for name, text in files.items():
        assert not re.search(r"\"(file:/|[A-Z]:\\)?/\w", text), f"{name} has a path"
    shown = CliRunner().invoke(main, ["results", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert folder.name in shown.output
