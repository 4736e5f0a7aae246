from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_task import DATA, ENVIRONMENT, tiny_schema, tiny_spec

from raymae.results import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """Create or continue the sweep `ett` below tmp_path."""

    def make(root: Any = None, spec: Any = None, schema: Any = None, data: Any = None, **changes: Any) -> Store:
        options = {"environment": ENVIRONMENT, "data": data or DATA, "flush_s": 0.0, **changes}
        return Store.create(root or tmp_path / "ett", spec or tiny_spec(), schema or tiny_schema(), **options)

    return make
