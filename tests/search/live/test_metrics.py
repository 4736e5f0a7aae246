"""Custom metrics: what the code exports, what Grafana asks for, and what Prometheus would scrape."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from raymae.results.verdict.verdict import TrialCounts
from raymae.results.views.progress import ArmProgress, Progress, StageCount
from raymae.search.live.metrics import LATENCY_S, METRICS, PREFIX, Metrics
from raymae.search.messages import Message
from raymae.spec.task import Objective
from tests.search.live.scrape import exported_ports

DASHBOARD = Path(__file__).parents[3] / "docker" / "grafana" / "raymae.json"


def asked() -> list[str]:
    """Every query of the dashboard: of its panels and of its variables."""
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return queries + [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def test_every_query_of_the_dashboard_names_exported_metrics_and_labels():
    queries = asked()
    assert len(queries) > 8
    for query in queries:
        names = re.findall(r"\b(?:ray_)?raymae_\w+", query)
        assert names, query
        for name in names:
            known = name.removeprefix(PREFIX)
            assert name.startswith(PREFIX), query
            if known.endswith("_bucket"):
                known = known.removesuffix("_bucket")
                assert known.endswith("_seconds")
            assert known in METRICS, query
        for name, labels in re.findall(r"\b(raymae_\w+?)(?:_bucket)?\{(.*?)\}", query):
            assert set(re.findall(r"(\w+)=", labels)) <= set(METRICS[name][1]), query
        for group in re.findall(r"by \((.*?)\)", query):
            known_labels = {label for name in names
                            for label in METRICS[name.removeprefix(PREFIX).removesuffix("_bucket")][1]} | {"le"}
            assert {label.strip() for label in group.split(",")} <= known_labels, query


def test_every_metric_is_drawn():
    text = " ".join(asked())
    assert [name for name in METRICS if PREFIX + name not in text] == []


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_buckets_grow():
    assert sorted(LATENCY_S) == LATENCY_S


def test_what_is_set(monkeypatch):
    """Every value with exactly the labels that are declared; states that no trial is in are 0, not absent."""
    values: dict[tuple[str, frozenset[str]], float] = {}

    class Fake:
        def __init__(self, name, description, tag_keys, boundaries=None):
            assert description.endswith(".")
            self.name, self.tag_keys = name, set(tag_keys)

        def set(self, value, tags):
            assert set(tags) == self.tag_keys
            values[self.name, frozenset(tags.values())] = value

        inc = observe = set

    for kind in ("Gauge", "Counter", "Histogram"):
        monkeypatch.setattr(f"ray.util.metrics.{kind}", Fake)
    arm = ArmProgress("mae", "pretrained", StageCount(1, 3, {"completed": 1}), StageCount(0, 2, {}),
                      TrialCounts(1, 0, 0), 0.5, "mae-0", None, 2.0)
    progress = replace(Progress.unreadable("x", ""), objective=Objective("mse", "min", ""), slots=2, left_s=4.0,
                       arms=(arm,))
    warnings: list[str] = []
    metrics = Metrics("x", warnings.append)
    metrics.beat(progress)
    assert values["raymae_trials", frozenset({"x", "mae", "search", "completed"})] == 1
    assert values["raymae_trials", frozenset({"x", "mae", "search", "running"})] == 0
    assert values["raymae_trials_planned", frozenset({"x", "mae", "replicate"})] == 2
    assert values["raymae_best", frozenset({"x", "mae", "val_mse"})] == 0.5
    assert values["raymae_seconds_left", frozenset({"x"})] == 4.0
    metrics.reported({"arm": "mae", "phase": "finetune"}, Message("mae-0", 0, sent_at=time.time() - 3))
    assert values["raymae_report_latency_seconds", frozenset({"x"})] == pytest.approx(3, abs=1)
    ahead = Message("mae-0", 0, sent_at=time.time() + 3)  # a worker's clock is
    metrics.reported({"arm": "mae", "phase": "finetune"}, ahead)
    assert 0 < values["raymae_report_latency_seconds", frozenset({"x"})] < 0.1
    metrics.ended({"arm": "mae", "test_mse": None}, progress)
    metrics.ended({"arm": "mae", "test_mse": 0.25}, progress)
    metrics.beat(progress)
    assert values["raymae_test_score", frozenset({"x", "mae", "test_mse"})] == 0.25
    for _ in range(2):
        metrics.beat(replace(progress, arms=None))
    assert warnings == ["Ray is told no more metrics: TypeError: 'NoneType' object is not iterable"], "once"


@pytest.mark.slow
def test_a_running_sweep_is_scraped(small):
    """A real sweep on a real Ray: its node's metrics endpoint has every metric, with true values."""
    small.text = small.text.replace("epochs: 4", "epochs: 30").replace("replicates: 2", "replicates: 4")
    process = small.start()
    latest: dict[str, str] = {}  # by metric, since Ray hands over a little at a time
    deadline = time.monotonic() + 480

    def missing() -> set[str]:
        for line in _scraped(process.pid):
            latest[line.rpartition(" ")[0]] = line
        names = {series.partition("{")[0].removesuffix("_bucket") for series in latest}
        return {name for name in METRICS if PREFIX + name not in names}

    try:
        while never_seen := missing():
            if process.poll() is not None:
                raise AssertionError(f"the sweep ended first; never seen: {never_seen}; {process.stdout.read()}")
            assert time.monotonic() < deadline, f"never seen: {never_seen}"
            time.sleep(0.5)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
    lines = list(latest.values())
    assert all('sweep="small"' in line for line in lines)
    planned = [line for line in lines if "_planned{" in line and 'arm="mae"' in line and 'stage="search"' in line]
    assert planned
    assert float(planned[0].rsplit(" ", 1)[1]) == 2.0
    assert [line for line in lines if line.startswith("ray_raymae_trials{") and 'status="completed"' in line]
    slots = [line for line in lines if line.startswith("ray_raymae_slots{")]
    assert float(slots[0].rsplit(" ", 1)[1]) >= 1


def _scraped(pid: int) -> list[str]:
    """Our lines of what the nodes below a process export now."""
    lines: list[str] = []
    for port in exported_ports(pid):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines += answer.read().decode().splitlines()
        except (urllib.error.URLError, OSError, http.client.HTTPException):  # not every port speaks HTTP
            continue
    return [line for line in lines if line.startswith(PREFIX + "raymae_")]
