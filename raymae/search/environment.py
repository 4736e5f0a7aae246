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

from raymae import __version__

GIT = "RAYMAE_GIT"
PACKAGES = ("raymae", "ray", "torch", "timm", "monai", "optuna", "numpy", "pandas", "pyarrow", "scikit-learn")


def describe_environment() -> dict[str, Any]:
    """Plain values: time, command, python, package versions, git commit, host and device."""
    import torch

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions(*PACKAGES),
        "git": git_state(),
    }


def versions(*names: str) -> dict[str, str | None]:
    """The installed version of each package; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout the code runs from, and whether it has changes; None where it was installed elsewhere.

    A submitted job runs from a copy, and an image has no checkout: both are told in `$RAYMAE_GIT`, a job as JSON, an
    image as the commit alone.
    """
    if told := os.environ.get(GIT):
        if told[0] not in "{n":  # as a build argument said it, a tag for that matter
            return {"commit": told, "dirty": False}
        state: dict[str, Any] | None = json.loads(told)
        return state
    file = os.path.abspath(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", os.path.dirname(file), *arguments], capture_output=True, text=True,
                                  timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", file) is None:  # such as a virtual environment inside somebody's repository
        return None
    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain"))}


def version_line() -> str:
    """The version, with the commit where there is one: `0.1.0 (commit 0123abc, with changes)`."""
    state = git_state()
    if state is None:
        return __version__
    return f"{__version__} (commit {state['commit'][:7]}{', with changes' if state['dirty'] else ''})"
