"""Scratch folders of killed sweeps go; those of living ones stay, whatever process ids can be seen from here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from raymae.search.engine.connection import _claim, _remove_leftovers


def test_a_lock_tells_living_from_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    unseen = 2**22 + 1  # no process here has this id: that of a sweep in another PID namespace
    living, dead, being_made = (tmp_path / f"raymae-{unseen}-{name}" for name in ("living", "dead", "new"))
    for folder in (living, dead, being_made):
        folder.mkdir()
    held = _claim(living)
    os.close(_claim(dead))
    _remove_leftovers()
    assert living.is_dir()
    assert being_made.is_dir()
    assert not dead.exists()
    os.close(held)
    _remove_leftovers()
    assert not living.exists()
