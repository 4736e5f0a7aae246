"""What nodes cost: by their type, whoever says it, and what happens where nobody does."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from raymae.errors import ResourceError
from raymae.search.decide.meter import Meter
from raymae.search.engine.charges import HEAD, NodePrices, UpNode, charged, nodes_up
from raymae.spec.limits import BudgetSpec

FILE = {
    "head_node_type": "head", "max_workers": 3, "available_node_types": {
        "head": {"resources": {"CPU": 0}}, "spot": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 2},
        "demand": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 2},
        "never": {"resources": {"CPU": 99}, "max_workers": 0}},
}
HEAD_NODE = UpNode("", {HEAD: 1.0, "trial_driver": 100.0})
LISTED = {"head": 0.2, "spot": 0.8, "demand": 1.1}


def budget(price: Any = None) -> BudgetSpec:
    return BudgetSpec.model_validate({"dollars": 5.0, "price_per_node_hour": price})


def test_a_node_costs_what_its_type_does() -> None:
    prices = NodePrices(budget(), FILE, LISTED)
    assert prices.of(UpNode("spot", {})) == 0.8, "as it boots"
    assert prices.of(HEAD_NODE) == 0.2
    assert prices.of(UpNode("", {"CPU": 4.0, "GPU": 1.0})) == 1.1, "either of two alike may be the dearer"
    assert prices.rate([HEAD_NODE, UpNode("spot", {}), UpNode("spot", {})]) == pytest.approx(1.8)
    prices.check([HEAD_NODE, UpNode("demand", {})])
    assert prices.told() == "head 0.2 $, spot 0.8 $, demand 1.1 $"


def test_a_sweep_file_s_price_goes_before_the_list_s() -> None:
    assert NodePrices(budget({"spot": 0.3}), FILE, LISTED).by_type == {**LISTED, "spot": 0.3}
    one = NodePrices(budget(0.5), FILE, LISTED)
    one.check([HEAD_NODE, UpNode("anything", {})])
    assert one.rate([HEAD_NODE, UpNode("anything", {})]) == 1.0
    assert one.told() == "0.5 $ each"


@pytest.mark.parametrize(("file", "price", "nodes", "missing", "given"), [
    (FILE, {"head": 0.2}, [HEAD_NODE], "demand, spot", "head: DOLLARS, demand: DOLLARS, spot: DOLLARS"),
    (FILE, {"spot": 0.2, "demand": 1}, [HEAD_NODE], "head", "spot: DOLLARS, demand: DOLLARS, head: DOLLARS"),
    (None, None, [HEAD_NODE, UpNode("", {"CPU": 2.0})], "a node of no type, head", "a node of no type: DOLLARS"),
])
def test_a_price_that_is_missing_is_asked_for(
    file: Any, price: Any, nodes: list[UpNode], missing: str, given: str
) -> None:
    with pytest.raises(ResourceError) as caught:
        NodePrices(budget(price), file).check(nodes)
    said = str(caught.value)
    assert f"what these nodes cost is not known: {missing}. Give dollars for an hour by type" in said
    assert given in said
    assert "or one number for all" in said


class Charged:
    """As much of a conductor as charging needs."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warn = self.said.append
        self.budget = SimpleNamespace(meter=Meter(time.monotonic))


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_looks_go_on_whatever_the_cluster_says() -> None:
    conductor: Any = Charged()
    meter, up, looks = conductor.budget.meter, [HEAD_NODE], []

    def look() -> list[UpNode]:
        looks.append(len(up))
        if not up:
            raise ConnectionError("the head is busy")
        return list(up)

    with charged(conductor, NodePrices(budget(), FILE, LISTED), look, period_s=0.01):
        assert meter.seconds_left(1.0) == pytest.approx(3600 / 0.2, rel=1e-3)
        up += [UpNode("spot", {}), UpNode("odd", {})]
        wait_for(lambda: conductor.said)
        wait_for(lambda: meter.seconds_left(1.0) == pytest.approx(3600 / (0.2 + 0.8 + 1.1), rel=1e-3))
        up.clear()
        number = len(looks)
        wait_for(lambda: len(looks) > number + 2)
    assert conductor.said == ["nodes without a price, charged as the dearest: odd"]
    assert meter.spent > 0


def test_ray_s_own_status_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types as Ray tells them: of a node that was started by hand none, of one that boots its own."""
    from ray.autoscaler.v2.schema import ClusterStatus, NodeInfo, NodeUsage, ResourceUsage

    def node(kind: str, node_id: str | None, **resources: float) -> NodeInfo:
        usage = NodeUsage([ResourceUsage(name, total) for name, total in resources.items()], 0) if resources else None
        return NodeInfo("", kind, "i-1", "10.0.0.1", node_id=node_id, resource_usage=usage)

    status = ClusterStatus(
        active_nodes=[node("node_ab", "ab", CPU=2.0)], idle_nodes=[node("gpu", "cd", CPU=4.0, GPU=1.0)],
        pending_nodes=[node("gpu", None)], failed_nodes=[node("gpu", "ef")])
    monkeypatch.setattr("ray.autoscaler.v2.sdk.get_cluster_status", lambda address: status)
    assert nodes_up("10.0.0.1:6379") == [UpNode("", {"CPU": 2.0}), UpNode("gpu", {"CPU": 4.0, "GPU": 1.0}),
                                         UpNode("gpu", {})]
