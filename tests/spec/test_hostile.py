"""What a sweep file can ask for without ever meaning it: refused at once, in a few lines, with the rule."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from base_sweep import BASE

from raymae.errors import MAX_LINE, MAX_LINES, DataError, SpecError
from raymae.spec.load import load_sweep, parse_sweep
from raymae.tasks import schema_of, task_class

NINE = ", ".join(["*{}"] * 9)
schema_of("forecasting")  # imports torch: not in the time below


def grows(item: str) -> str:
    """Nine levels, each of nine aliases of the one above."""
    head = "a: &a {k: 1}\n"
    return head + "".join(f"{b}: &{b} {item % NINE.replace('{}', a)}\n"
                          for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(("text", "rule"), [
    (grows("[%s]"), "at most 5000 values"), (grows("{<<: [%s]}"), "at most 5000 values"),
    (f"a: {'[' * 5000}{']' * 5000}", "nested deeper than 32"), ("? " * 20_000, "nested deeper"),
    ("".join(f"k{n}: 1\n" for n in range(6_000)), "at most 5000 values"), ("#\n" * 60_000, "at most 100000 bytes"),
    ("".join(f"k{n}: 1\n" for n in range(2_000)), "unknown key 'k0'"),
])
def test_a_file_that_grows_is_refused_at_once(text: str, rule: str) -> None:
    began = time.process_time()
    with pytest.raises(SpecError, match=rule) as caught:
        parse_sweep(BASE + text, "f.yaml", schema_of=schema_of)
    assert time.process_time() - began < 8  # the loader before took more than 12 s for most of them
    assert len(str(caught.value).splitlines()) <= MAX_LINES


@pytest.mark.parametrize(("override", "rule"), [
    ("settings.encoder_depth=1000000", "less than or equal to 128"),
    ("constraints=[\"'a' * 999999999999 != arm\"]", "arithmetic is for numbers, got 'a'"),
    ("constraints=[\"'%999999999d' % 1 != arm\"]", "arithmetic is for numbers"),
    ("constraints=[\"[1] * 999999999999 != arm\"]", "arithmetic is for numbers"),
    ("resources.cpus_per_worker=1e-320", "must be at least 0.001"),
    ("resources.gpus_per_worker=1e-320", "at least 0.001"),
    ("search.num_trials=9000000000000000000", "must be at most 100000"),
    ("replicates=9000000000000000000", "must be at most 10000"), ("search.seed=9000000000000000000", "must be at most"),
    ("task=raymae.tasks.base:Task", "raymae.tasks.base:Task is no task that can be run: it lacks"),
    ("a.b=" + "[" * 5000, "nested deeper"),
])
def test_a_value_beyond_reason_is_refused_with_the_rule(override: str, rule: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_sweep(BASE, "f.yaml", [override], schema_of=schema_of)
    assert rule in str(caught.value)


def test_a_device_is_no_file_of_data_and_no_endless_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(BASE)
    with pytest.raises(SpecError, match=r"data\.path: must be a file or a folder, got '/dev/zero'"):
        load_sweep(tmp_path / "f.yaml", ["data.path=/dev/zero"])
    with pytest.raises(SpecError, match="at most 100000 bytes"):
        load_sweep("/dev/zero")


def test_a_message_has_no_control_characters_and_fits_on_a_screen() -> None:
    with pytest.raises(SpecError) as caught:
        parse_sweep(BASE, "a\x1b[2J\nb.yaml", ["nope\x07=1"])
    assert "a\\x1b[2J\\nb.yaml" in str(caught.value) or "nope\\x07" in str(caught.value)
    lines = str(DataError("\x1b[31m" + "x" * 10_000 + "\nline" * 1_000)).splitlines()
    assert len(lines) == MAX_LINES
    assert all(line.isprintable() and len(line) <= MAX_LINE for line in lines)
    assert lines[-1] == "… and 962 more lines"


@pytest.mark.parametrize(("source", "said"), [
    ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ("def f(:\n    pass", "SyntaxError"), ("x = 1\ny = x / 0", "ZeroDivisionError: division by zero"),
    ("raise ValueError('a\\nb')", "ValueError: a"),
])
def test_an_error_inside_a_user_s_own_task_module_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "own_broken_task.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError) as caught:
        parse_sweep(BASE, "f.yaml", ["task=own_broken_task:Mine"], schema_of=schema_of)
    assert f"own_broken_task:Mine cannot be imported: {said}" in str(caught.value)
    assert "own_broken_task.py, line" in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [
    ("nowhere:Task", "nowhere:Task cannot be imported: there is no module nowhere, neither in the current folder nor"),
    ("raymae.tasks.nope:Task", "there is no module raymae.tasks.nope"), ("..:Task", "'..' is no name of a module"),
    ("raymae.tasks.forecasting:Forcasting", "did you mean `Forecasting`?"), ("os:path", "it is not derived from"),
])
def test_a_task_of_a_module_that_cannot_be_had_says_why(name: str, said: str) -> None:
    with pytest.raises(KeyError) as caught:
        task_class(name)
    assert caught.value.args[0][-1] == "your.module:Task"
    assert said in caught.value.args[1]


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_found_task.py").write_text("from raymae.tasks.forecasting import Forecasting as Mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert task_class("own_found_task:Mine").schema.name == "forecasting"


@pytest.mark.parametrize("name", ["", ":", "forecastin", "nowhere:", ":Task"])
def test_a_name_that_is_none_lists_the_names_there_are(name: str) -> None:
    with pytest.raises(KeyError) as caught:
        task_class(name)
    assert caught.value.args[0][-1] == "your.module:Task"
    assert len(caught.value.args) == 1
