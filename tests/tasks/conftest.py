"""A part of a real table."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def housing(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three thousand lines of the real file."""
    path = real_data / "california_housing" / "housing.csv"
    if not path.exists():
        pytest.skip(f"needs {path}")
    some = tmp_path_factory.mktemp("housing") / "some.csv"
    lines = path.read_text().splitlines(keepends=True)
    some.write_text("".join(lines[:1] + lines[1::7]))
    return some
