"""Lists of names as one text, and back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def as_text(value: Any) -> Any:
    """A list of names as the text that names them; anything else as it is."""
    named = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    return joined(value) if named else value


def joined(names: Sequence[str]) -> str:
    """Names as one text, separated by commas, with quotes where a name holds one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def listed(text: str) -> tuple[str, ...]:
    """The names in a text that separates them by commas; a name with a comma in it stands in double quotes."""
    rows = csv.reader([text], skipinitialspace=True)
    return tuple(name.strip() for row in rows for name in row if name.strip())
