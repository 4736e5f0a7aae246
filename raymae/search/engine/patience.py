"""Ray's own start on a machine that is busy with other work: its processes are waited for as long as they live.

Ray gives them 30 seconds, which beside other work, or under `nice`, they may need ten times over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 600
POLL_S = 0.2

WAITS = {  # of the processes that Ray starts on this machine for each other
    "RAY_gcs_server_port_wait_time_s": f"{PATIENCE_S}",
    "RAY_gcs_rpc_server_connect_timeout_s": f"{PATIENCE_S}",
    "RAY_gcs_rpc_server_reconnect_timeout_s": f"{PATIENCE_S}",
    "RAY_gcs_server_request_timeout_seconds": f"{PATIENCE_S}",
    "RAY_py_gcs_connect_timeout_s": f"{PATIENCE_S}",
    "RAY_agent_register_timeout_ms": f"{1000 * PATIENCE_S}",
    "RAY_worker_register_timeout_seconds": f"{PATIENCE_S}",
}


@contextmanager
def impatient() -> Iterator[None]:
    """What is started in this `with` block waits as Ray does, not for `PATIENCE_S`.

    For what comes late, when the others have long been there: of a driver that is killed meanwhile it would be left,
    and wait for a Ray that is gone.
    """
    held = {name: os.environ.pop(name) for name, value in WAITS.items() if os.environ.get(name) == value}
    try:
        yield
    finally:
        os.environ.update(held)


@contextmanager
def patient() -> Iterator[None]:
    """A node that is started in this `with` block waits for its raylet for `PATIENCE_S`, or until that ends."""
    from ray._private.node import Node

    real = Node.start_ray_processes

    def start(node: Any) -> None:
        real(node)
        _wait_for_raylet(node)

    Node.start_ray_processes = start
    try:
        yield
    finally:
        Node.start_ray_processes = real


def _wait_for_raylet(node: Any) -> None:
    """Wait until the cluster knows the node; whatever goes wrong Ray itself finds and says afterwards."""
    from ray._private import ray_constants, services

    raylets = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET]
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and all(one.process.poll() is None for one in raylets):
        try:
            services.get_node(node.gcs_address, node._node_id)
        except RuntimeError:
            time.sleep(POLL_S)
        else:
            return
