from __future__ import annotations

from typing import Any

import pytest
from base_sweep import BASE, Load, Refuse

from raymae.errors import SpecError
from raymae.spec import SweepSpec, parse_sweep
from raymae.tasks import schema_of


@pytest.fixture
def load() -> Load:
    """Read a sweep file, checked against its task."""

    def read(text: str = BASE, *overrides: str) -> SweepSpec:
        return parse_sweep(text, "f.yaml", overrides, schema_of=schema_of)

    return read


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """What is wrong with a sweep file, one line per problem; it must not load."""

    def read(text: str = BASE, *overrides: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load(text, *overrides)
        assert [str(problem) for problem in caught.value.problems] == str(caught.value).split("\n")
        return str(caught.value).split("\n")

    return read


@pytest.fixture
def searched(load: Load) -> Any:
    """The distribution that a line of YAML under `space` gives."""

    def read(line: str, name: str = "dropout") -> Any:
        return load(BASE.replace("  lr:", f"  {name}: {line}\n  lr:")).space[name]

    return read
