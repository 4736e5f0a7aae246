"""Ray's start is waited for on a busy machine, and not where its raylet is dead."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from raymae.search.engine import patience


class Raylet:
    """A process that ends after it was asked so many times, or never."""

    def __init__(self, ends_after: float) -> None:
        self.asked, self._ends_after = 0, ends_after

    def poll(self) -> int | None:
        self.asked += 1
        return 1 if self.asked > self._ends_after else None


def started(monkeypatch: pytest.MonkeyPatch, raylet: Raylet, known_after: int, seconds: float = 10.0) -> int:
    """Ray's node is started; how often the cluster was asked for it."""
    from ray._private import services
    from ray._private.node import Node

    asked: list[str] = []

    def get_node(address: str, node_id: str) -> dict[str, Any]:
        asked.append(node_id)
        if len(asked) <= known_after:
            raise RuntimeError("no such node")
        return {}

    node = SimpleNamespace(gcs_address="127.0.0.1:1", _node_id="it", all_processes={})

    def start(one: Any) -> None:
        one.all_processes["raylet"] = [SimpleNamespace(process=raylet)]

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr(patience, "POLL_S", 0.001)
    monkeypatch.setattr(patience, "PATIENCE_S", seconds)
    monkeypatch.setattr(Node, "start_ray_processes", start)
    with patience.patient():
        Node.start_ray_processes(node)
    assert Node.start_ray_processes is start
    return len(asked)


def test_a_node_is_waited_for_until_the_cluster_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch, Raylet(float("inf")), known_after=40) == 41


def test_a_raylet_that_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch, Raylet(3), known_after=1_000_000) == 3


def test_nor_is_any_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch, Raylet(float("inf")), known_after=1_000_000, seconds=0.05) > 1


def test_what_comes_late_waits_as_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    own, *ours = patience.WAITS
    monkeypatch.setenv(own, "7")  # somebody's, which stays
    for name in ours:
        monkeypatch.setenv(name, patience.WAITS[name])
    with patience.impatient():
        assert [name for name in patience.WAITS if name in os.environ] == [own]
    assert {name: os.environ[name] for name in patience.WAITS} == {**patience.WAITS, own: "7"}
