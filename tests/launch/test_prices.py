"""The price list: every obvious machine is in it, it is dated, and it is refreshed by what providers really answer."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import ResourceError
from raymae.launch import price_list
from raymae.launch.price_list import PriceList, ask_aws, ask_azure, own_file, price_lists, refresh
from raymae.launch.prices import by_type
from tests.launch.test_check import check, filled_in, put


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    price_lists.cache_clear()
    yield
    price_lists.cache_clear()


def test_what_one_would_take_for_sweeps_is_there_and_dated() -> None:
    lists = price_lists()
    wanted = {"aws": ["g6.xlarge", "p4d.24xlarge", "p5.4xlarge", "p5.48xlarge", "p5en.48xlarge"],
              "gcp": ["g2-standard-4", "a2-ultragpu-1g", "a3-highgpu-1g", "a3-highgpu-8g", "a3-ultragpu-8g"],
              "azure": ["Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5", "Standard_ND96isr_H100_v5"]}
    for kind, names in wanted.items():
        assert set(names) <= lists[kind].machines.keys()
        assert dt.date.fromisoformat(lists[kind].dated) >= dt.date(2025, 12, 21)
        assert all(usd > 0 and gpus >= 0 for usd, gpus in lists[kind].machines.values())
        eight = [name for name, (_, gpus) in lists[kind].machines.items() if gpus == 8]
        assert all(lists[kind].machines[name][0] > 5 for name in eight)


def test_an_h100_is_no_unknown_machine(tmp_path: Path) -> None:
    config = filled_in("aws.yaml")
    worker = next(name for name in config["available_node_types"] if name != "head")
    key = f"available_node_types/{worker}/node_config/InstanceType"
    assert check(tmp_path, put(config, key, "p5.48xlarge")) == []


def product(usd: str) -> str:
    return json.dumps({"product": {}, "terms": {"OnDemand": {"a.b": {"priceDimensions": {
        "a.b.c": {"unit": "Hrs", "pricePerUnit": {"USD": usd}}}}}}})


def test_nodes_of_a_cluster_file_cost_what_the_list_says_also_on_spot() -> None:
    config, machines = filled_in("aws.yaml"), price_lists()["aws"].machines
    found = by_type(config)
    assert set(found) == set(config["available_node_types"])
    assert found["head"] == machines["m7i.xlarge"][0]
    assert found["small_spot"] == machines["g6.xlarge"][0], "on demand: a spot price may reach it"
    other = put(config, "available_node_types/small_spot/node_config/InstanceType", "z9.huge")
    assert set(found) - set(by_type(other)) == {"small_spot"}
    assert by_type({"provider": {"type": "external"}}) == by_type({}) == by_type({"provider": {"type": "aws"}}) == {}


def test_aws_is_asked_through_its_price_list() -> None:
    import boto3
    from botocore.stub import ANY, Stubber

    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stub:
        for answer in (["1.5"], [], ["0.0000000000", "7.25"]):
            stub.add_response("get_products", {"PriceList": [product(usd) for usd in answer]},
                              {"ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "Filters": ANY})
        machines = {"a": (1.0, 0), "b": (1.0, 1), "c": (1.0, 8)}
        assert ask_aws(PriceList("us-east-1", "2026-01-01", machines), client) == {"a": 1.5, "c": 7.25}
        stub.assert_no_pending_responses()


def test_azure_is_asked_through_its_public_list() -> None:
    asked = []

    def get(url: str) -> Any:
        asked.append(url)
        item = {"productName": "NCads H100 v5 Series", "meterName": "NC40ads H100 v5", "retailPrice": 6.5}
        return {"Items": [{**item, "meterName": "NC40ads H100 v5 Spot", "retailPrice": 1.0},
                          {**item, "productName": "NCads H100 v5 Series Windows", "retailPrice": 9.0}, item,
                          {**item, "meterName": "NC40ads H100 v5 Low Priority", "retailPrice": 2.0}]}

    assert ask_azure(PriceList("eastus", "2026-01-01", {"Standard_X": (1.0, 1)}), get) == {"Standard_X": 6.5}
    assert "armSkuName%20eq%20%27Standard_X%27" in asked[0]


def test_refreshed_prices_are_kept_and_others_stay() -> None:
    before = price_lists()

    def broken(_: PriceList) -> dict[str, float]:
        raise OSError("no network\nat all")

    told = refresh({"aws": lambda _: {"g6.xlarge": 9.0, "nosuch": 1.0}, "azure": broken, "gcp": lambda _: {}})
    after = price_lists()
    assert after["aws"].machines["g6.xlarge"] == (9.0, 1)
    assert after["aws"].machines["p5.48xlarge"] == before["aws"].machines["p5.48xlarge"]
    assert after["aws"].dated == dt.datetime.now(dt.UTC).date().isoformat()
    assert after["azure"] == before["azure"]
    assert told["aws"] == f"1 of {len(before['aws'].machines)} prices asked for today, 1 changed"
    assert told["azure"].startswith(f"not refreshed, prices of {before['azure'].dated} stay: no network")
    assert "\n" not in told["azure"]
    assert "none of its machines" in told["gcp"]


@pytest.mark.parametrize("text", ["", "[]", "{\"aws\": 1}", "{\"aws\": {\"region\": \"x\", \"dated\": \"soon\"}}"])
def test_a_damaged_file_of_ones_own_is_passed_over(text: str) -> None:
    own_file().parent.mkdir(parents=True)
    own_file().write_text(text)
    assert "g6.xlarge" in price_lists()["aws"].machines


def test_a_folder_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="prices cannot be kept"):
        refresh({"aws": lambda _: {"g6.xlarge": 9.0}})


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(main, ["cluster", "prices"])
    assert shown.exit_code == 0
    assert "p5.48xlarge" in shown.stdout
    plain = json.loads(CliRunner().invoke(main, ["cluster", "prices", "--json"]).stdout)
    assert plain["aws"]["region"] == "us-east-1"
    monkeypatch.setattr(price_list, "ask_aws", lambda _: {"g6.xlarge": 9.0})
    monkeypatch.setattr(price_list, "ask_azure", lambda _: {})
    done = CliRunner().invoke(main, ["cluster", "prices", "--refresh"])
    assert "1 of " in done.stderr
    assert "9.00" in done.stdout
