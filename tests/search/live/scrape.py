"""Where the Ray below a process offers its metrics."""

from __future__ import annotations

import json

import psutil


def exported_ports(pid: int) -> list[int]:
    """Ports for Prometheus of the Ray nodes that a process started, from the discovery files that Ray writes for it."""
    ports = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            command = child.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for argument in command:
            name, _, value = argument.partition("=")
            if name == "--metrics-export-port" and value.isdigit() and int(value):
                ports.append(int(value))
            if name == "--session-dir" or name == "--session_dir":
                ports += _discovered(value)
    return sorted(set(ports))


def _discovered(session: str) -> list[int]:
    try:
        with open(f"{session}/../prom_metrics_service_discovery.json") as file:
            return [int(target.rpartition(":")[2]) for group in json.load(file) for target in group["targets"]]
    except (OSError, ValueError):
        return []
