"""Ray's fake provider, with nodes that vanish from its list when they die, as machines do that a cloud takes back."""

from __future__ import annotations

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import STATUS_UP_TO_DATE, TAG_RAY_NODE_STATUS


class Provider(FakeMultiNodeProvider):
    """The original keeps a killed raylet for ever, as a machine that is still being set up."""

    def non_terminated_nodes(self, tag_filters):
        with self.lock:
            for node_id, node in list(self._nodes.items()):
                node["tags"][TAG_RAY_NODE_STATUS] = STATUS_UP_TO_DATE
                if "node" in node and any(kind == "raylet" for kind, _ in node["node"].dead_processes()):
                    del self._nodes[node_id]
        return super().non_terminated_nodes(tag_filters)
