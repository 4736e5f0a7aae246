"""How far a cluster can grow: what its autoscaler may add decides how many trials ask for workers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymae.errors import ResourceError
from raymae.spec.limits import ResourceSpec

Resources = Mapping[str, float]
ClusterFile = Mapping[str, Any]  # as Ray's cluster launcher reads it


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler may start.

    Attributes:
        name: As in the cluster file.
        resources: What one has, as Ray counts it.
        most: How many there may be.
        priority: Higher ones are started first.
    """

    name: str
    resources: Resources
    most: int
    priority: int = 0


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may start beside the head.

    Attributes:
        types: The kinds of nodes.
        most: Nodes of all kinds together.
    """

    types: Sequence[NodeType]
    most: int


def growth_of(config: ClusterFile) -> Growth | None:
    """What a cluster file, filled in by Ray, lets the autoscaler start; None if it does not say what the nodes have."""
    head, kinds = config.get("head_node_type"), config.get("available_node_types") or {}
    most = int(config.get("max_workers", 0))
    types = [
        NodeType(name, kind["resources"], int(kind.get("max_workers", most)), int(kind.get("priority", 0)))
        for name, kind in kinds.items() if name != head and kind.get("resources")
    ]
    return Growth(types, most) if types else None


def find_file(gcs_address: str) -> ClusterFile | None:
    """The file that the autoscaler of the cluster was started with; None where there is none, or not on this machine.

    Nothing in the cluster itself knows its limits, nor its machines: they are in that file, and the autoscaler runs on
    the head, as sweeps do.

    Args:
        gcs_address: The cluster's, which tells its autoscaler from another one's.
    """
    import yaml

    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended
            continue
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if "--autoscaling-config" in options and options.get("--gcs-address") == gcs_address:
            try:
                found = yaml.safe_load(Path(options["--autoscaling-config"]).expanduser().read_text())
            except (OSError, ValueError, yaml.YAMLError):
                return None
            return found if isinstance(found, Mapping) else None
    return None


def find_growth(file: ClusterFile | None) -> Growth | None:
    """What the autoscaler of a cluster may start; None where it has none, or its file says nothing of it.

    Args:
        file: The one that `find_file` has found.
    """
    try:
        return None if file is None else growth_of(file)
    except (ValueError, TypeError, AttributeError):
        return None


def workers_on(node: Resources, resources: ResourceSpec) -> int:
    """How many workers of a trial one node holds."""
    fit = node.get("CPU", 0.0) / resources.cpus_per_worker
    if resources.gpus_per_worker:
        gpus = node.get("GPU", 0.0)
        share = resources.gpus_per_worker
        # a fraction of a GPU cannot be taken from two devices
        fit = min(fit, gpus * math.floor(1 / share + 1e-9) if share < 1 else gpus // share)
    return math.floor(fit + 1e-9)


def room(resources: ResourceSpec, nodes: Iterable[Resources]) -> int:
    """Trials that fit on some nodes at once."""
    return sum(workers_on(node, resources) for node in nodes) // resources.workers


def slots_when_grown(
    resources: ResourceSpec, head: Iterable[Resources], growth: Growth, max_concurrent: int | None = None
) -> int:
    """How many trials run at once in a cluster that grows on demand.

    Without the user's number: as many as are sure to find room, whichever nodes are started. Of nodes with the same
    priority the small ones are counted, because they may be what is started.

    Args:
        resources: What one trial gets.
        head: Nodes that are there in any case.
        growth: What may be started.
        max_concurrent: The user's number; taken as far as the cluster could ever grow.

    Raises:
        ResourceError: Not even one trial fits, however far the cluster grows: it would wait for ever.
    """
    head = list(head)

    def grown(order: Callable[[NodeType], Any]) -> int:
        workers, left = sum(workers_on(node, resources) for node in head), growth.most
        for kind in sorted(growth.types, key=order):
            if fit := workers_on(kind.resources, resources):
                workers += fit * min(kind.most, left)
                left -= min(kind.most, left)
        return workers // resources.workers

    most = grown(lambda kind: -workers_on(kind.resources, resources))
    if most < 1:
        kinds = "; ".join(f"{kind.most} x {kind.name} with {_words(kind.resources)}" for kind in growth.types)
        raise ResourceError(
            f"resources: a trial needs {resources.workers} workers with {resources.cpus_per_worker:g} CPUs and "
            f"{resources.gpus_per_worker:g} GPUs each, but this cluster never grows to hold that: at most "
            f"{growth.most} nodes, of {kinds}; lower resources, or use a cluster with other nodes"
        )
    if max_concurrent is not None:
        return min(max_concurrent, most)
    return max(1, grown(lambda kind: (-kind.priority, workers_on(kind.resources, resources))))


def _words(resources: Resources) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
