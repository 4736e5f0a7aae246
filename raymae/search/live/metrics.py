"""A sweep's numbers as Ray's custom metrics: in Ray's dashboard, and on every node's Prometheus endpoint.

Ray puts `ray_` before each name. `docker/grafana/raymae.json` draws them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymae.results.store.columns import Row
    from raymae.results.views.progress import Progress
    from raymae.search.messages import Message

PREFIX = "ray_"
STATUSES = ("pending", "running", "completed", "stopped", "failed")
LATENCY_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "raymae_trials": ("Trials of a sweep, by arm, stage and status.", ("sweep", "arm", "stage", "status")),
    "raymae_trials_planned": ("Trials a sweep will have, by arm and stage.", ("sweep", "arm", "stage")),
    "raymae_best": ("Best validation score of an arm's search trials.", ("sweep", "arm", "metric")),
    "raymae_test_score": ("Test score of an arm's last replicate.", ("sweep", "arm", "metric")),
    "raymae_slots": ("Trials at once.", ("sweep",)),
    "raymae_seconds_left": ("Expected seconds until the sweep ends.", ("sweep",)),
    "raymae_reports_total": ("Reports that the driver has recorded.", ("sweep", "arm", "phase")),
    "raymae_report_latency_seconds": (
        "Seconds from a report in its worker until the driver has recorded it.", ("sweep",)),
}


class Metrics:
    """Tells Ray about a sweep, as an observer of its conductor. Make one while Ray is connected.

    Args:
        sweep: The sweep's name.
        warn: Told once of a failure, which ends the telling: a sweep must not suffer because its metrics do.
    """

    def __init__(self, sweep: str, warn: Callable[[str], None]) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._sweep, self._warn = {"sweep": sweep}, warn
        self._of: dict[str, Any] = {}
        self._test: dict[str, float] = {}
        self._works = True
        for name, (description, tags) in METRICS.items():
            if name.endswith("_total"):
                self._of[name] = Counter(name.removesuffix("_total"), description, tag_keys=tags)
            elif name.endswith("_seconds"):
                self._of[name] = Histogram(name, description, boundaries=LATENCY_S, tag_keys=tags)
            else:
                self._of[name] = Gauge(name, description, tag_keys=tags)

    def warned(self, text: str) -> None:
        """Count nothing."""

    def reported(self, row: Row, message: Message) -> None:
        """Count one report, and how long it took to come."""
        self._of["raymae_reports_total"].inc(1, {**self._sweep, "arm": row["arm"], "phase": row["phase"]})
        waited = max(time.time() - message.sent_at, 1e-6)  # the clocks of a cluster differ a little
        self._of["raymae_report_latency_seconds"].observe(waited, self._sweep)

    def ended(self, row: Row, progress: Progress) -> None:
        """Remember a replicate's test score."""
        value = row.get(progress.objective.test)
        if value is not None and math.isfinite(value):
            self._test[row["arm"]] = value

    def beat(self, progress: Progress) -> None:
        """Set what is a state and not an event; Ray forgets a gauge that nobody has set for 20 s."""
        if not self._works:
            return
        try:
            self._set(progress)
        except Exception as failure:  # a sweep must not look dead because its metrics are
            self._works = False
            self._warn(f"Ray is told no more metrics: {type(failure).__name__}: {failure}")

    def _set(self, progress: Progress) -> None:
        for arm in progress.arms:
            tags = {**self._sweep, "arm": arm.arm}
            for stage, count in (("search", arm.search), ("replicate", arm.replicates)):
                self._of["raymae_trials_planned"].set(count.planned, {**tags, "stage": stage})
                for status in STATUSES:
                    number = count.statuses.get(status, 0)
                    self._of["raymae_trials"].set(number, {**tags, "stage": stage, "status": status})
            if arm.best is not None:
                self._of["raymae_best"].set(arm.best, {**tags, "metric": progress.objective.val})
        for name, value in list(self._test.items()):
            tags = {**self._sweep, "arm": name, "metric": progress.objective.test}
            self._of["raymae_test_score"].set(value, tags)
        self._of["raymae_slots"].set(progress.slots, self._sweep)
        if progress.left_s is not None:
            self._of["raymae_seconds_left"].set(progress.left_s, self._sweep)
