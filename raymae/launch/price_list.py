"""The list of prices: `prices.json`, dated, and a newer one that `raymae cluster prices --refresh` has written.

AWS is asked through its price list (boto3), Azure through its public one; Google's wants a key, and stays as shipped.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from raymae.errors import ResourceError, one_line

Machine = tuple[float, int]  # US dollars per hour on demand, GPUs
SHIPPED = Path(__file__).with_name("prices.json")
AZURE_PRICES = "https://prices.azure.com/api/retail/prices"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PriceList:
    """What a provider's machines cost.

    Attributes:
        region: Where.
        dated: When, ISO.
        machines: By its name what each costs in an hour on demand, in US dollars, and how many GPUs it has.
    """

    region: str
    dated: str
    machines: Mapping[str, Machine]


def own_file() -> Path:
    """Where refreshed prices are kept."""
    import platformdirs

    return Path(os.environ.get("RAYMAE_CACHE") or platformdirs.user_cache_dir("raymae")) / "prices.json"


@cache
def price_lists() -> dict[str, PriceList]:
    """By provider, the newer of what is shipped and what was refreshed here; a file that cannot be read is passed over.
    """
    lists = _read(SHIPPED)
    try:
        mine = _read(own_file())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        mine = {}
    return {kind: max(mine.get(kind, one), one, key=lambda each: each.dated) for kind, one in lists.items()}


def _read(path: Path) -> dict[str, PriceList]:
    lists = {}
    for kind, plain in json.loads(path.read_text()).items():
        machines = {str(name): (float(usd), int(gpus)) for name, (usd, gpus) in plain["machines"].items()}
        lists[kind] = PriceList(str(plain["region"]), dt.date.fromisoformat(plain["dated"]).isoformat(), machines)
    return lists


def refresh(ask: Mapping[str, Callable[[PriceList], dict[str, float]]] | None = None) -> dict[str, str]:
    """Ask the providers for today's prices of the machines in the list, and keep them for later.

    Args:
        ask: By provider what asks it; AWS and Azure by default.

    Returns:
        By provider what came of it, for people.

    Raises:
        ResourceError: The file cannot be written.
    """
    lists, told = dict(price_lists()), {}
    for kind, asked in (ask or {"aws": ask_aws, "azure": ask_azure}).items():
        before = lists[kind]
        try:
            found = asked(before)
        except Exception as error:  # whatever a network, an account or a library has against it
            told[kind] = f"not refreshed, prices of {before.dated} stay: {one_line(error)}"
            continue
        known = {name: usd for name, usd in found.items() if name in before.machines and usd > 0}
        if not known:
            told[kind] = f"not refreshed, prices of {before.dated} stay: none of its machines was in the answer"
            continue
        machines = {name: (known.get(name, usd), gpus) for name, (usd, gpus) in before.machines.items()}
        lists[kind] = replace(before, dated=dt.datetime.now(dt.UTC).date().isoformat(), machines=machines)
        changed = sum(machines[name] != before.machines[name] for name in known)
        told[kind] = f"{len(known)} of {len(machines)} prices asked for today, {changed} changed"
    path = own_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({kind: asdict(one) for kind, one in lists.items()}, indent=1))
    except OSError as error:
        raise ResourceError(f"{path}: prices cannot be kept: {error}; set RAYMAE_CACHE to a folder that can be "
                            "written") from None
    price_lists.cache_clear()
    return told


def ask_aws(prices: PriceList, client: Any = None) -> dict[str, float]:
    """US dollars per hour of AWS's machines on demand, with Linux and nothing installed on it.

    Args:
        prices: Whose machines are asked for.
        client: boto3's for `pricing`; made by default, with whatever credentials there are.
    """
    if client is None:
        import boto3

        client = boto3.client("pricing", region_name="us-east-1")  # where the list is served from
    fixed = {"regionCode": prices.region, "operatingSystem": "Linux", "preInstalledSw": "NA", "tenancy": "Shared",
             "capacitystatus": "Used", "marketoption": "OnDemand"}
    found = {}
    for name in prices.machines:
        filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value}
                   for key, value in {**fixed, "instanceType": name}.items()]
        answer = client.get_products(ServiceCode="AmazonEC2", Filters=filters, FormatVersion="aws_v1")
        for product in answer["PriceList"]:
            terms = json.loads(product)["terms"]["OnDemand"].values()
            usd = [float(each["pricePerUnit"]["USD"]) for term in terms for each in term["priceDimensions"].values()]
            if usd and max(usd) > 0:
                found[name] = max(usd)
    return found


def ask_azure(prices: PriceList, get: Callable[[str], Mapping[str, Any]] | None = None) -> dict[str, float]:
    """US dollars per hour of Azure's machines on demand, with Linux.

    Args:
        prices: Whose machines are asked for.
        get: Reads JSON from an address; through the network by default.
    """
    from urllib.parse import quote

    found = {}
    for name in prices.machines:
        wanted = (f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq "
                  f"'{prices.region}' and armSkuName eq '{name}'")
        for item in (get or _get)(f"{AZURE_PRICES}?$filter={quote(wanted)}")["Items"]:
            if not any(word in f"{item['productName']} {item['meterName']}" for word in ("Windows", "Spot", "Low Pri")):
                found[name] = float(item["retailPrice"])
    return found


def _get(url: str) -> Mapping[str, Any]:
    import requests

    answer = requests.get(url, timeout=TIMEOUT_S)
    answer.raise_for_status()
    read: Mapping[str, Any] = answer.json()
    return read
