"""What machines cost: about, on demand, in one region of each provider; check before you trust it.

The tables hold the machines one would take for sweeps, not all there are. A file may name others once it says what they
cost, under `metadata.usd_per_hour`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymae.launch import Document

Machine = tuple[float, int]  # US dollars per hour on demand, GPUs

AWS: dict[str, Machine] = {  # us-east-1
    "t3.large": (0.0832, 0), "t3.xlarge": (0.1664, 0),
    "m6i.large": (0.096, 0), "m6i.xlarge": (0.192, 0), "m6i.2xlarge": (0.384, 0), "m6i.4xlarge": (0.768, 0),
    "m6i.8xlarge": (1.536, 0),
    "m7i.large": (0.1008, 0), "m7i.xlarge": (0.2016, 0), "m7i.2xlarge": (0.4032, 0), "m7i.4xlarge": (0.8064, 0),
    "m7i.8xlarge": (1.6128, 0),
    "c7i.xlarge": (0.1785, 0), "c7i.2xlarge": (0.357, 0), "c7i.4xlarge": (0.714, 0), "c7i.8xlarge": (1.428, 0),
    "r7i.xlarge": (0.2646, 0), "r7i.2xlarge": (0.5292, 0),
    "g4dn.xlarge": (0.526, 1), "g4dn.2xlarge": (0.752, 1), "g4dn.4xlarge": (1.204, 1), "g4dn.8xlarge": (2.176, 1),
    "g4dn.12xlarge": (3.912, 4), "g4dn.16xlarge": (4.352, 1),
    "g5.xlarge": (1.006, 1), "g5.2xlarge": (1.212, 1), "g5.4xlarge": (1.624, 1), "g5.8xlarge": (2.448, 1),
    "g5.12xlarge": (5.672, 4), "g5.16xlarge": (4.096, 1), "g5.24xlarge": (8.144, 4), "g5.48xlarge": (16.288, 8),
    "g6.xlarge": (0.8048, 1), "g6.2xlarge": (0.9776, 1), "g6.4xlarge": (1.3232, 1), "g6.8xlarge": (2.0144, 1),
    "g6.12xlarge": (4.6016, 4), "g6.16xlarge": (3.3968, 1), "g6.24xlarge": (6.6752, 4), "g6.48xlarge": (13.3504, 8),
    "g6e.xlarge": (1.861, 1), "g6e.2xlarge": (2.24208, 1), "g6e.4xlarge": (3.00424, 1), "g6e.8xlarge": (4.52856, 1),
    "g6e.12xlarge": (10.49264, 4), "g6e.24xlarge": (15.06559, 4), "g6e.48xlarge": (30.13118, 8),
}
GCP: dict[str, Machine] = {  # us-central1; the L4s of g2 machines are in the price
    "e2-standard-2": (0.067, 0), "e2-standard-4": (0.134, 0), "e2-standard-8": (0.268, 0),
    "n2-standard-2": (0.097, 0), "n2-standard-4": (0.194, 0), "n2-standard-8": (0.388, 0), "n2-standard-16": (0.777, 0),
    "g2-standard-4": (0.707, 1), "g2-standard-8": (0.853, 1), "g2-standard-12": (0.999, 1),
    "g2-standard-16": (1.146, 1), "g2-standard-24": (1.998, 2), "g2-standard-32": (1.732, 1),
    "g2-standard-48": (3.995, 4), "g2-standard-96": (7.991, 8),
    "a2-highgpu-1g": (3.673, 1),
}
AZURE: dict[str, Machine] = {  # eastus
    "Standard_D2s_v5": (0.096, 0), "Standard_D4s_v5": (0.192, 0), "Standard_D8s_v5": (0.384, 0),
    "Standard_D16s_v5": (0.768, 0),
    "Standard_NC4as_T4_v3": (0.526, 1), "Standard_NC8as_T4_v3": (0.752, 1), "Standard_NC16as_T4_v3": (1.204, 1),
    "Standard_NC64as_T4_v3": (4.352, 4),
    "Standard_NC24ads_A100_v4": (3.673, 1), "Standard_NC48ads_A100_v4": (7.346, 2),
}
TABLES: dict[str, dict[str, Machine]] = {"aws": AWS, "gcp": GCP, "azure": AZURE}
REGIONS = {"aws": "us-east-1", "gcp": "us-central1", "azure": "eastus"}
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


def nodes_of(config: Document) -> list[Node]:
    """The node types of a cluster file that Ray has filled in, the head first; empty where machines have no price."""
    kind = config["provider"]["type"]
    if kind not in TABLES:
        return []
    own = (config.get("metadata") or {}).get("usd_per_hour") or {}
    nodes = []
    head_name, types = config["head_node_type"], config["available_node_types"]
    for name in sorted(types, key=lambda name: name != head_name):
        machine = machine_of(kind, types[name]["node_config"])
        price, gpus = TABLES[kind].get(machine, (None, int(types[name]["resources"].get("GPU", 0))))
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
