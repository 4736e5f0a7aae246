"""The front door is small; on every page links lead somewhere, commands parse, files exist; headers of sweep files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.contract import Check, Outcome
from raymae.contract.new import source_of, sweep_of
from raymae.spec import parse_sweep
from raymae.tasks import schema_of
from tests.test_cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / folder / "README.md" for folder in ("", "sweeps", "cluster", "docker", "raymae", "tests/benchmarks")]
SWEEPS = sorted((ROOT / "sweeps").rglob("*.yaml"))
FIELDS = ("question", "run", "device and time", "measured", "compared", "looks")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
every_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str = "") -> list[str]:
    """The code blocks of a page, of one language or of all."""
    return re.findall(rf"^```{language or '[a-z]*'}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """Every `raymae …` in the shell blocks, with the lines that a backslash joins."""
    for block in [*blocks(text, "bash"), *blocks(text, "console")]:
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.findall(r"(?:^\$ |^|&& )raymae ([^|&#>]*)", line.strip())


def tables(text: str) -> Iterator[list[list[str]]]:
    """Every table as rows of cells."""
    for found in re.findall(r"(?:^\|.*\|\n)+", prose(text), re.MULTILINE):
        yield [re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in found.splitlines()]


def anchors(text: str) -> set[str]:
    """The headings' names in links, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_no_other_pages() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {ROOT / name for name in listed.stdout.split() if not name.startswith("tests/results/stored/")} <= set(PAGES)


def test_the_front_door_is_small() -> None:
    lines = PAGES[0].read_text().splitlines()
    assert len(lines) <= 160
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []  # a row cannot be folded
    assert max(len(row) for table in tables(PAGES[0].read_text()) for row in table) <= 5


@every_page
def test_tables_have_as_many_cells_in_every_row(page: Path) -> None:
    for table in tables(page.read_text()):
        assert {len(row) for row in table} == {len(table[0])}, table[0]
        assert set("".join(table[1])) <= set("-: "), table[0]


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors((target / "README.md" if target.is_dir() else target).read_text()), link
    if page != PAGES[0]:
        assert f"({page.relative_to(ROOT)}" in PAGES[0].read_text(), "the front door leads to every page"


@every_page
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks with a folder that is in the repository, seen from its root or from `raymae/`."""
    for name in re.findall(r"`([\w./-]+/[\w./-]*)`", prose(page.read_text())):
        first = name.split("/")[0]
        if "*" not in name and any((base / first).is_dir() for base in (ROOT, ROOT / "raymae")):
            made = name.startswith("results/") and not (ROOT / "raymae" / name).exists()
            secret = name in ("docker/auth_token", "docker/grafana_password")
            assert made or secret or any((base / name).exists() for base in (ROOT, ROOT / "raymae")), name


@every_page
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed option would otherwise live on in a page."""
    monkeypatch.chdir(ROOT)
    text = page.read_text()
    for command in commands(text):
        words = shlex.split(command)
        if words[0].startswith("-"):
            assert CliRunner().invoke(main, words).exit_code == 0, command
            continue
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert name in COMMANDS, command
        given = words[len(name.split()):]
        for param in COMMANDS[name].params:
            monkeypatch.setattr(param.type, "exists", False, raising=False)  # a page names files of its reader's own
        COMMANDS[name].make_context(name, given)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(text, "bash"):
        assert set(re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)) <= targets
        for module in re.findall(r"python -m ((?:raymae|tests)[\w.]*)", block):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_front_door_shows_every_command() -> None:
    shown = list(commands(PAGES[0].read_text()))
    assert [name for name in COMMANDS if not any(re.match(rf"{name}(\s|$)", command) for command in shown)] == []


def test_the_front_doors_sweep_is_the_shipped_one() -> None:
    (block,) = blocks(PAGES[0].read_text(), "yaml")
    lines = (ROOT / "sweeps" / "debug.yaml").read_text().splitlines()
    assert block.splitlines() == [line for line in lines if not line.startswith("#")]


@every_page
def test_sweep_files_on_a_page_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waves.py").write_text(source_of("waves:Waves"))  # as the page writes it
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "waves", raising=False)
    for block in blocks(page.read_text(), "yaml"):
        if "task:" in block:
            parse_sweep(block, page.name, schema_of=schema_of)


def test_the_task_to_start_from_is_shown_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows its two files whole, and what both commands print; tests/test_own_tasks.py runs it."""
    text = (ROOT / "raymae" / "README.md").read_text()
    (code,), (sweep,), (new, check) = blocks(text, "python"), blocks(text, "yaml"), blocks(text, "console")
    assert (code, sweep) == (source_of("waves:Waves"), sweep_of("waves:Waves"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "waves", raising=False)
    for shown in (new, check):
        command, _, printed = shown.partition("\n")
        with monkeypatch.context() as patched:
            patched.setattr(Check, "outcome", lambda self, subject: Outcome(self.name, self.rule))
            result = CliRunner().invoke(main, shlex.split(command)[2:])
        assert result.output == printed


@every_sweep
def test_sweeps_open_with_the_same_fields(path: Path) -> None:
    """At most 12 lines, whose numbers are those of sweeps/README.md."""
    lines = path.read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert len(header) <= 12
    assert [line for line in header if len(line) > 120] == []
    fields = re.findall(r"^# (\w[\w ]*?): ", "\n".join(header), re.MULTILINE)
    assert tuple(field for field in fields if field in FIELDS) == FIELDS
    assert all(line.startswith(("#   ", *(f"# {field}: " for field in FIELDS))) for line in header)
    text = "\n".join(header)
    assert "+-" not in text
    assert not re.search(r"(?<![\d.])\.\d", text), "0.5, not .5"
    page = (ROOT / "sweeps" / "README.md").read_text()
    results = " ".join(re.findall(r"^# (?:measured|compared): .*(?:\n#   .*)*", text, re.MULTILINE))
    assert [number for number in re.findall(r"\d+\.\d+", results) if number not in page] == []
    for command in re.findall(r"raymae (sweep sweeps/\S+.*?)(?:    .*)?$", text, re.MULTILINE):
        name, *given = shlex.split(command)
        context = COMMANDS[name].make_context(name, given)
        assert context.params["file"] == path.relative_to(ROOT).as_posix()
