"""Several raylets on this machine, told on standard input to `add` a node, say its `id`, or `kill` one (SIGKILL)."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

PATIENCE_S = 300


class Patient(Cluster):
    """Ray gives a node 30 seconds to come up, which a busy machine exceeds."""

    def _wait_for_node(self, node, timeout=PATIENCE_S):
        super()._wait_for_node(node, timeout)


if __name__ == "__main__":
    cluster = Patient(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"trial_driver": 100}})
    print(cluster.address, flush=True)
    nodes = []
    try:
        for line in sys.stdin:
            if line.strip() == "add":
                nodes.append(cluster.add_node(num_cpus=1))
            elif line.startswith("id"):
                print(nodes[int(line.split()[1])].node_id, flush=True)
                continue
            else:
                which = line.split()[1:] or ["-1"]
                cluster.remove_node(nodes.pop(int(which[0])), allow_graceful=False)
            print("done", flush=True)
    finally:
        cluster.shutdown()
