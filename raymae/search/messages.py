"""What travels between a sweep's driver and its workers."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

NOT_STARTED = "no workers came for it before the sweep's end"
