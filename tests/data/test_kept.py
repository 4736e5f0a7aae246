"""Folders built once: whole or not at all, by one process at a time, whoever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raymae.data.kept import built_once

SLOW = """
import sys, time
from pathlib import Path
from raymae.data.kept import built_once

def build(folder):
    (folder / "half").write_text("x")
    print("building", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "whole").write_text("x")

built_once(Path(sys.argv[1]), build)
"""


def start(target: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOW, str(target), str(seconds)], stdout=subprocess.PIPE, text=True,
                            cwd=Path(__file__).parents[2])


def left_beside(target: Path) -> set[str]:
    return {item.name for item in target.parent.iterdir()} - {f"{target.name}.lock"}


def test_built_once(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        folder = built_once(tmp_path / "cache" / "key", lambda part: calls.append((part / "a").write_text("1")))
        assert (folder / "a").read_text() == "1"
    assert len(calls) == 1
    assert folder.stat().st_mode & 0o777 == 0o755, "others can read a shared cache"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        (part / "half").write_text("x")
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        built_once(tmp_path / "key", build)
    assert left_beside(tmp_path / "key") == set()


def test_two_processes_build_it_once_and_a_killed_one_is_cleared_away(tmp_path: Path) -> None:
    target = tmp_path / "key"
    killed = start(target, 60)
    assert killed.stdout
    assert killed.stdout.readline() == "building\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not target.exists()
    first = start(target, 1)
    assert first.stdout
    assert first.stdout.readline() == "building\n"
    second = start(target, 1)
    said = second.communicate(timeout=60)[0]
    first.communicate(timeout=60)
    assert said == "", "it waited, and found it built"
    assert left_beside(target) == {"key"}
    assert (target / "whole").exists()
