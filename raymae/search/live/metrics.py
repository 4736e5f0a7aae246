"""A sweep's numbers as Ray's custom metrics: in Ray's dashboard, and on every node's Prometheus endpoint.

Ray puts `ray_` before each name. `docker/grafana/raymae.json` draws them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raymae.search.live.display import time_left

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor
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
    """Tells Ray about a conductor's sweep. Make one while Ray is connected; it is one of the conductor's recorders.

    Args:
        conductor: Whose sweep.
    """

    def __init__(self, conductor: Conductor) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._conductor, self._sweep = conductor, {"sweep": conductor.spec.name}
        self._of: dict[str, Any] = {}
        self._test: dict[str, float] = {}
        for name, (description, tags) in METRICS.items():
            if name.endswith("_total"):
                self._of[name] = Counter(name.removesuffix("_total"), description, tag_keys=tags)
            elif name.endswith("_seconds"):
                self._of[name] = Histogram(name, description, boundaries=LATENCY_S, tag_keys=tags)
            else:
                self._of[name] = Gauge(name, description, tag_keys=tags)

    def report(self, row: Mapping[str, Any], message: Message) -> None:
        """One report."""
        self._of["raymae_reports_total"].inc(1, {**self._sweep, "arm": row["arm"], "phase": row["phase"]})
        waited = max(time.time() - message.sent_at, 1e-6)  # the clocks of a cluster differ a little
        self._of["raymae_report_latency_seconds"].observe(waited, self._sweep)

    def trial(self, row: Mapping[str, Any]) -> None:
        """One trial ended."""
        metric = f"test_{self._conductor.objective.metric}"
        value = row.get(metric)
        if value is not None and math.isfinite(value):
            self._test[row["arm"]] = value

    def beat(self) -> None:
        """Set what is a state and not an event; Ray forgets a gauge that nobody has set for 20 s."""
        conductor = self._conductor
        counts = {(arm, stage, status): 0 for arm in conductor.plans for stage in ("search", "replicate")
                  for status in STATUSES}
        trials = list(conductor.trials.values())
        for trial in trials:
            counts[trial.config.arm, trial.stage, trial.status] += 1
        for (arm, stage, status), count in counts.items():
            tags = {**self._sweep, "arm": arm, "stage": stage, "status": status}
            self._of["raymae_trials"].set(count, tags)
        for arm in conductor.plans:
            tags = {**self._sweep, "arm": arm}
            self._of["raymae_trials_planned"].set(conductor.quota[arm], {**tags, "stage": "search"})
            self._of["raymae_trials_planned"].set(conductor.num_replicates(arm), {**tags, "stage": "replicate"})
            best = conductor.best(arm)
            if best is not None:
                self._of["raymae_best"].set(best.best[conductor.metric], {**tags, "metric": conductor.metric})
        for arm, value in list(self._test.items()):
            tags = {**self._sweep, "arm": arm, "metric": f"test_{conductor.objective.metric}"}
            self._of["raymae_test_score"].set(value, tags)
        self._of["raymae_slots"].set(conductor.slots, self._sweep)
        left = time_left(conductor, [t for t in trials if t.status not in ("running", "pending")])
        if left is not None:
            self._of["raymae_seconds_left"].set(left, self._sweep)
