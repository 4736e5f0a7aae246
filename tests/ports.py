"""Ports for servers that tests start."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on; the kernel does not hand it out again soon."""
    with socket.socket() as listening:
        listening.bind((host, 0))
        return int(listening.getsockname()[1])
