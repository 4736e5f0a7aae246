"""Sweep files as hands, editors and attackers leave them, with `--set`: a spec or a few lines, within two seconds."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from base_sweep import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import HOSTILE, NAMES, NUMBERS, PARAMS, QUICK, SHIPPED, check, places, trees

from raymae.errors import MAX_LINE, MAX_LINES, SpecError
from raymae.spec.load import load_sweep
from raymae.tasks import schema_of

SECONDS = 2
TEXTS = [path.read_bytes() for path in sorted((ROOT / "sweeps").rglob("*.yaml"))]
PIECES = [piece.encode("utf-8", "surrogatepass") for piece in [
    "&a ", "*a", "<<: *a\n", "&a [*a, *a]", "!!python/object:os.system x", "!!binary aaaa", "!!set {a}",
    "!!omap [a: 1]", "!<x> ", "? ", "- ", ": ", "{", "}", "[", "]", ",", "|\n", ">-\n", "%YAML 1.1\n---\n", "---\n",
    "...\n", "\t", "#", "'", '"', "\\", "\x1b[2J", "\x85", "\u2028", "\ufeff", "\u202e", "\0", "\r", "\ud800", "🦆",
    "~", "null", "{}", "[]", ".nan", "-.inf", "1e999", "0x10", "0o7", "1_000", "010", "9" * 5_000, "2026-01-01",
    "2026-99-99", "12:30:45", "=", "<<", "a: " * 300, "[" * 300, "- " * 300, "x" * 5_000, "a: 1\n" * 400, "\n" * 2_000,
    "{{a}}", "@", "`", "y", "on", "mae", "scratch", "when: {arm: mae}", "{loguniform: [0, 0]}",
    "{int: [1, 9], step: 0}", "constraints: [\"1 + \"]", "constraints: [\"" + "(" * 90 + "\"]",
    "constraints: [\"" + "not " * 400 + "lr\"]", "constraints: [\"lr < \" ]",
]] + [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", *(str(number).encode() for number in NUMBERS), *map(str.encode, HOSTILE)]
KEYS = sorted({".".join(map(str, path)) for tree in SHIPPED for path in places(tree)} | set(NAMES) | set(PARAMS)
              | {"data.path", "settings.encoder_depth", "resources.cpus_per_worker", "constraints", "budget.dollars",
                 "a" * 3_000, ".".join("a" * 900), "..", "", " ", "\x1b", "space.\0", "arms.mae.lr", "arms.\n",
                 "__class__"})


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A shipped sweep file after a few accidents."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(0, 4))):
        lines = text.splitlines(keepends=True) or [b""]
        line, at = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["insert", "insert", "value", "cut", "drop", "twice", "indent", "move", "end"])):
            case "insert":
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case "value":
                key, colon, _ = lines[line].partition(b":")
                lines[line] = key + colon + b" " + draw(st.sampled_from(PIECES)) + b"\n"
                text = b"".join(lines)
            case "cut":
                text = text[:at] + text[at + draw(st.integers(1, 30)):]
            case "drop":
                text = b"".join(lines[:line] + lines[line + 1:])
            case "twice":
                text = b"".join(lines[:line] + lines[line:line + 3] * draw(st.integers(2, 40)) + lines[line + 3:])
            case "indent":
                lines[line] = b" " * draw(st.integers(1, 9)) + lines[line]
                text = b"".join(lines)
            case "move":
                text = b"".join([*lines[:line], *lines[line + 1:], lines[line]])
            case "end":
                text = text[:at]
    return text


values = st.one_of(
    trees.map(repr), st.sampled_from([piece.decode(errors="surrogateescape") for piece in PIECES]),
    st.text(max_size=20), st.sampled_from(["", " ", "null", "{}", "[]", "[a, b]", "{uniform: [0, 1]}"]),
)
override = st.one_of(st.tuples(st.sampled_from(KEYS), values).map("=".join), st.text(max_size=30))
overrides = st.lists(override, max_size=3)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail, with the place in a traceback, where the block computes for longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"computes for more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def is_borne(file: Path, text: bytes, changes: list[str]) -> None:
    """Load it; a message must fit on a screen, and what loads must be a sweep."""
    file.write_bytes(text)
    with at_most(SECONDS):
        try:
            spec = load_sweep(file, changes, schema_of=schema_of)
        except SpecError as error:
            lines = str(error).encode().decode().split("\n")  # can be printed
            assert len(lines) <= MAX_LINES
            assert all(line.isprintable() and len(line) <= MAX_LINE for line in lines)
            return
    assert spec.arms
    check(text.decode("utf-8-sig"), *changes)


@settings(max_examples=300, **QUICK)
@given(text=files(), changes=overrides)
def test_mutated_files_and_overrides(tmp_path_factory: pytest.TempPathFactory, text: bytes, changes: list[str]) -> None:
    is_borne(tmp_path_factory.getbasetemp() / "mutated.yaml", text, changes)


@pytest.mark.slow
@settings(max_examples=10_000, **QUICK)
@given(text=files(), changes=overrides)
def test_ten_thousand_of_them(tmp_path_factory: pytest.TempPathFactory, text: bytes, changes: list[str]) -> None:
    is_borne(tmp_path_factory.getbasetemp() / "mutated.yaml", text, changes)


def test_a_hang_would_be_seen() -> None:
    with pytest.raises(AssertionError, match=r"computes for more than 0\.05 s"):
        _hang()


def _hang() -> None:
    with at_most(0.05):
        while True:
            pass
