"""A cluster on this machine that grows on demand: Ray's fake provider starts raylets as nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.ports import free_port

MB = 1_000_000


def _own_address() -> str:
    from ray.util import get_node_ip_address

    return get_node_ip_address()


@dataclass
class Autoscaled:
    """The running cluster: its processes are those that name its folder.

    Attributes:
        address: For `--address`.
        folder: Ray's temporary folder.
        seen: Numbers of worker nodes in the order in which `look` saw them change.
    """

    address: str
    folder: Path
    seen: list[int] = field(default_factory=lambda: [0])

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.folder) in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Raylets beside the head's, oldest first."""
        found = []
        for process in self.processes():
            try:
                words = process.cmdline()
                if words[0].endswith("/raylet") and "--head" not in words and process.status() != "zombie":
                    found.append((process, process.ppid()))
            except (psutil.Error, IndexError):
                continue
        pids = {process.pid for process, _ in found}  # a raylet that is just starting a worker is there twice
        return sorted((process for process, parent in found if parent not in pids),
                      key=lambda process: process.create_time())

    def look(self) -> int:
        now = len(self.workers())
        if now != self.seen[-1]:
            self.seen.append(now)
        return now


@contextmanager
def autoscaled(environment: Mapping[str, str], *, gpu_nodes: int, idle_s: float) -> Iterator[Autoscaled]:
    """Start a head that trains nothing, with an autoscaler for nodes of 1 CPU and 1 (pretended) GPU; end it all."""
    folder = Path(tempfile.mkdtemp(prefix="rm-"))  # short: Ray makes sockets below it
    address = f"{_own_address()}:{free_port('')}"
    host, port = address.rsplit(":", 1)
    config = {
        "cluster_name": "fake", "max_workers": gpu_nodes, "idle_timeout_minutes": idle_s / 60, "upscaling_speed": 10.0,
        "provider": {"type": "external", "module": "tests.search.vanishing_nodes.Provider", "gcs_address": address,
                     "use_node_id_as_ip": True, "disable_node_updaters": True,
                     "disable_launch_config_check": True, "foreground_node_launch": True},
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "initialization_commands": [],
        "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [],
        "worker_start_ray_commands": [], "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0, "trial_driver": 100}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100 * MB}, "node_config": {},
                    "min_workers": 0, "max_workers": gpu_nodes},
        },
    }
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(config))
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}",
        f"--node-ip-address={host}", f"--temp-dir={folder / 'ray'}", f"--autoscaling-config={file}", "--num-cpus=0",
        "--num-gpus=0", '--resources={"trial_driver": 100}', f"--object-store-memory={100 * MB}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={free_port()}", "--disable-usage-stats",
        f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
    ]
    more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "0",
            "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "5", "RAY_TMPDIR": str(folder)}
    log = (folder / "log").open("wb")
    head = subprocess.Popen(command, env={**environment, **more}, stdout=log, stderr=log, start_new_session=True)
    cluster = Autoscaled(address, folder)
    try:
        deadline = time.monotonic() + 180
        while not _listens(host, int(port)):
            if head.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text())
            time.sleep(0.2)
        yield cluster
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(15)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        for process in cluster.processes():
            try:
                process.kill()
            except psutil.Error:
                continue
        log.close()
        if "KEEP_CLUSTER_LOGS" in os.environ:
            print(f"kept {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((host, port)) == 0
