"""What a plan refuses before anything is started."""

from __future__ import annotations

import pytest

from raymae.errors import ResourceError
from raymae.search.plan import make_plan
from raymae.spec import parse_sweep
from raymae.tasks import schema_of

TEXT = """
name: priced
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [persistence]
budget: {dollars: 5, price_per_node_hour: 0.5}
"""


def test_a_budget_in_dollars_is_refused_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    spec = parse_sweep(TEXT, "priced.yaml", schema_of=schema_of)
    with pytest.raises(ResourceError) as caught:
        make_plan(spec, "auto")
    said = str(caught.value)
    assert said.startswith("budget.dollars=5 counts the price of one node, and --address auto joins a cluster")
    assert "--set budget.dollars=null" in said
    assert "--set budget.wall_minutes=MINUTES" in said
    told = parse_sweep(TEXT, "priced.yaml", ["budget.dollars=null", "budget.wall_minutes=600"], schema_of=schema_of)
    assert make_plan(told, "auto").address == "auto"
    assert make_plan(spec).address is None
