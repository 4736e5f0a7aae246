"""What a plan refuses before anything is started."""

from __future__ import annotations

import pytest

from raymae.errors import ResourceError, SpecError
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


@pytest.mark.parametrize("price", ["null", "{head: 0.1, gpu: 0.5}"])
def test_a_budget_in_dollars_needs_the_price_of_this_machine(price: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    spec = parse_sweep(TEXT, "priced.yaml", [f"budget.price_per_node_hour={price}"], schema_of=schema_of)
    with pytest.raises(ResourceError) as caught:
        make_plan(spec)
    said = str(caught.value)
    assert said.startswith("budget.dollars=5 needs budget.price_per_node_hour, one number: what this machine costs")
    assert make_plan(spec, "auto").address == "auto", "a cluster's nodes say what they are"
    assert make_plan(parse_sweep(TEXT, "priced.yaml", schema_of=schema_of)).address is None


@pytest.mark.parametrize(("price", "said"), [
    ("0", "budget.price_per_node_hour: must be above 0.0, got 0"),
    ("cheap", "budget.price_per_node_hour: must be a number, got 'cheap'"),
    ("{}", "budget.price_per_node_hour: "),
    ("{gpu: -1}", "budget.price_per_node_hour.gpu: must be above 0.0, got -1"),
])
def test_a_price_that_is_none_is_said_with_its_key(price: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_sweep(TEXT, "priced.yaml", [f"budget.price_per_node_hour={price}"], schema_of=schema_of)
    assert said in str(caught.value)
