"""Machines for a sweep: cluster files, prices, clouds prepared, jobs submitted, spot notices. Runs no trial."""

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]  # a cluster file or manifest, or a part of one: YAML of whatever shape its tool knows
Finding = tuple[str, str]  # dotted key, what is wrong there
