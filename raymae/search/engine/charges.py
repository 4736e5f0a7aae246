"""What the nodes of a cluster cost now: those that are up or boot, by their types, as the autoscaler knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymae.errors import ResourceError
from raymae.search.background import repeatedly
from raymae.search.engine.autoscaling import ClusterFile, Resources
from raymae.spec.limits import BudgetSpec

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor

PERIOD_S = 5.0
HEAD = "node:__internal_head__"  # a resource that the head alone has
Prices = Callable[[ClusterFile], Mapping[str, float]]
"""From a cluster's file to the dollars that a node of each type costs for an hour."""


@dataclass(frozen=True)
class UpNode:
    """A node that is paid for.

    Attributes:
        kind: Its type in the cluster's file; "" where nobody has said.
        resources: What it has; empty while it boots.
    """

    kind: str
    resources: Resources


class NodePrices:
    """What a node costs for an hour.

    That is one number of the sweep file, or by type the sweep file's, else that of the list of machines' prices, by the
    file that the cluster's autoscaler was started with.

    Args:
        budget: The sweep's budget section.
        file: The cluster's file; None where it cannot be seen from here.
        listed: By type of node, from the list of machines' prices.
    """

    def __init__(
        self, budget: BudgetSpec, file: ClusterFile | None = None, listed: Mapping[str, float] | None = None
    ) -> None:
        given, self._file = budget.price_per_node_hour, file or {}
        self._each = given if isinstance(given, float) else None
        self.by_type = {**(listed or {}), **(given if isinstance(given, Mapping) else {})}

    def kind_of(self, node: UpNode) -> str:
        """A node's type: what it says itself, the head's, or the first in the file with its CPUs and GPUs."""
        if node.kind:
            return node.kind
        if HEAD in node.resources:
            return str(self._file.get("head_node_type") or "head")
        kinds = self._file.get("available_node_types") or {}
        alike = [str(name) for name, kind in kinds.items() if name != self._file.get("head_node_type") and all(
            (kind.get("resources") or {}).get(key, 0) == node.resources.get(key, 0) for key in ("CPU", "GPU"))]
        return max(alike, key=lambda name: self.by_type.get(name, 0.0), default="")

    def of(self, node: UpNode) -> float | None:
        """Dollars that a node costs for an hour; None where that is not known."""
        return self._each if self._each is not None else self.by_type.get(self.kind_of(node))

    def rate(self, nodes: list[UpNode]) -> float:
        """Dollars that nodes cost for an hour, all together; one without a price counts as the dearest type."""
        dearest = self._each or max(self.by_type.values(), default=0.0)
        return sum(dearest if (price := self.of(node)) is None else price for node in nodes)

    def unknown(self, nodes: list[UpNode]) -> list[str]:
        """Types of nodes whose price is not known."""
        return sorted({self.kind_of(node) or "a node of no type" for node in nodes if self.of(node) is None})

    def check(self, nodes: list[UpNode]) -> None:
        """Refuse a budget in dollars where a price is missing, of what is up or may come to be.

        Raises:
            ResourceError: See above; says which types, and how to give their prices.
        """
        kinds: Mapping[str, Any] = {} if self._each is not None else self._file.get("available_node_types") or {}
        may_come = [str(name) for name, kind in kinds.items() if name != self._file.get("head_node_type")
                    and int(kind.get("max_workers", 1)) and name not in self.by_type]
        missing = sorted({*self.unknown(nodes), *may_come})
        if missing:
            given = ", ".join(f"{name}: DOLLARS" for name in [*self.by_type, *missing])
            raise ResourceError(
                f"budget.dollars: what these nodes cost is not known: {', '.join(missing)}. Give dollars for an hour "
                f"by type, --set 'budget.price_per_node_hour={{{given}}}', or one number for all; or limit the time, "
                "--set budget.dollars=null --set budget.wall_minutes=MINUTES")

    def told(self) -> str:
        """The prices for an hour, for people."""
        if self._each is not None:
            return f"{self._each:g} $ each"
        return ", ".join(f"{name} {price:g} $" for name, price in self.by_type.items())


def nodes_up(gcs_address: str) -> list[UpNode]:
    """The nodes that are up, and those that the cloud has given and that boot (Ray's second autoscaler names them).

    Args:
        gcs_address: The cluster's.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(gcs_address)
    found = []
    for node in (*status.active_nodes, *status.idle_nodes, *status.pending_nodes):
        # one that was started by hand has its own id for a type
        kind = "" if node.node_id and node.ray_node_type_name == f"node_{node.node_id}" else node.ray_node_type_name
        found.append(UpNode(kind, node.total_resources()))
    return found


@contextmanager
def charged(
    conductor: Conductor, prices: NodePrices, look: Callable[[], list[UpNode]], period_s: float = PERIOD_S
) -> Iterator[None]:
    """Charge a sweep for the nodes that are up, for the length of a `with` block.

    Args:
        conductor: Of the sweep; its budget has a meter.
        prices: What a node costs.
        look: Lists the nodes that are up.
        period_s: Seconds between two looks.

    Raises:
        ResourceError: What a node costs is not known.
    """
    meter = conductor.budget.meter
    assert meter is not None
    nodes = look()
    prices.check(nodes)
    meter.look(prices.rate(nodes))
    told: set[str] = set()

    def again() -> None:
        try:
            now = look()
        except Exception:  # the cluster's head is busy or gone, which others will say; the next look counts for this
            return
        meter.look(prices.rate(now))
        if new := set(prices.unknown(now)) - told:
            told.update(new)
            conductor.warn(f"nodes without a price, charged as the dearest: {', '.join(sorted(new))}")

    with repeatedly(again, period_s, "charges"):
        yield
