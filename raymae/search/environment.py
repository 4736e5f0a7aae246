"""What a sweep ran on: versions, commit, machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

GIT = "RAYMAE_GIT"
PACKAGES = ("raymae", "ray", "torch", "timm", "monai", "optuna", "numpy", "pandas", "pyarrow", "scikit-learn")


def describe_environment() -> dict[str, Any]:
    """Plain values: time, command, python, package versions, git commit, host and device."""
    import torch

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions,
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout the code runs from, and whether it has changes; None outside a checkout.

    A submitted job runs from a copy, and is told what it is a copy of.
    """
    if os.environ.get(GIT):
        told: dict[str, Any] | None = json.loads(os.environ[GIT])
        return told
    folder = os.path.dirname(os.path.abspath(__file__))

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
