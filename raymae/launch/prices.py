"""What a cluster costs: about, on demand, in one region of each provider; check before you trust it.

The list (`raymae.launch.price_list`) holds the machines one would take for sweeps, not all there are. A file may name
others once it says what they cost, under `metadata.usd_per_hour`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymae.launch import Document
from raymae.launch.price_list import price_lists

TYPE_KEYS = {"aws": "InstanceType", "gcp": "machineType", "azure": "azure_arm_parameters.vmSize"}


@dataclass(frozen=True)
class Node:
    """One node type of a cluster file.

    Attributes:
        name: Its name in the file.
        machine: The provider's name of the machine.
        gpus: GPUs per node.
        spot: Whether the provider may take it back.
        fewest: Nodes that always run; 1 for the head.
        most: Nodes there can be.
        usd_per_hour: On-demand price, or None if neither the table nor the file knows it.
    """

    name: str
    machine: str
    gpus: int
    spot: bool
    fewest: int
    most: int
    usd_per_hour: float | None


def price_range(nodes: Sequence[Node], max_workers: int) -> tuple[float, float] | None:
    """US dollars per hour with no trial waiting, and with as many of the dearest workers as the file allows.

    Spot counts in full: its price follows demand and may reach the on-demand price. Volumes, traffic and storage are
    not in it. None if a machine's price is not known.
    """
    if not nodes or any(node.usd_per_hour is None for node in nodes):
        return None
    least = sum(node.fewest * (node.usd_per_hour or 0.0) for node in nodes)
    head, workers = nodes[0], sorted(nodes[1:], key=lambda node: node.usd_per_hour or 0.0, reverse=True)
    most, left = head.usd_per_hour or 0.0, max_workers
    for node in workers:
        count = min(left, node.most)
        most, left = most + count * (node.usd_per_hour or 0.0), left - count
    return round(least, 4), round(most, 4)


def by_type(config: Document) -> dict[str, float]:
    """US dollars per hour on demand of a node of each type of a cluster file that Ray has filled in, also of those on
    spot; types whose machine has no known price are left out."""
    try:
        return {node.name: node.usd_per_hour for node in nodes_of(config) if node.usd_per_hour is not None}
    except (KeyError, TypeError, AttributeError, ValueError):  # another kind of file
        return {}


def nodes_of(config: Document) -> list[Node]:
    """The node types of a cluster file that Ray has filled in, the head first; empty where machines have no price."""
    kind = config["provider"]["type"]
    if kind not in price_lists():
        return []
    own = (config.get("metadata") or {}).get("usd_per_hour") or {}
    nodes = []
    head_name, types = config["head_node_type"], config["available_node_types"]
    for name in sorted(types, key=lambda name: name != head_name):
        machine = machine_of(kind, types[name]["node_config"])
        price, gpus = price_lists()[kind].machines.get(machine, (None, int(types[name]["resources"].get("GPU", 0))))
        if isinstance(own.get(machine), int | float):
            price = float(own[machine])
        head = name == head_name
        nodes.append(Node(
            name, machine, gpus, is_spot(kind, types[name]["node_config"]),
            1 if head else types[name].get("min_workers", 0),
            1 if head else min(types[name].get("max_workers", config["max_workers"]), config["max_workers"]), price,
        ))
    return nodes


def machine_of(kind: str, node_config: Document) -> str:
    """The provider's name of a node's machine; empty if the file gives none."""
    value: Any = node_config
    for key in TYPE_KEYS[kind].split("."):
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
    return str(value).rpartition("/")[2] if value else ""


def is_spot(kind: str, node_config: Document) -> bool:
    """Whether the provider may take a node back."""
    if kind == "aws":
        return bool((node_config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot")
    if kind == "gcp":
        schedulings = node_config.get("scheduling") or []
        schedulings = [schedulings] if isinstance(schedulings, Mapping) else schedulings
        return any(one.get("preemptible") or one.get("provisioningModel") == "SPOT" for one in schedulings)
    return (node_config.get("azure_arm_parameters") or {}).get("priority") == "Spot"
