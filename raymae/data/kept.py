"""Folders that are built once and kept in the cache: copies of remote data, decoded images.

Several processes of one machine want the same folder at the same moment, and any of them may be killed while it builds.
So a folder is built beside its place, under a lock that goes with its holder, and gets its name only when it is whole.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder unless it is there.

    Args:
        target: The folder. Its name holds a key of all that its content depends on: it is never built again.
        build: Fills a new, empty folder; called in one process at a time. What it raises is passed on, and nothing
            is kept.

    Returns:
        The folder, whole.

    Raises:
        OSError: The cache cannot be written.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock")):
        if target.is_dir():
            return target
        for left in target.parent.glob(f"{target.name}.part-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{target.name}.part-", dir=target.parent))
        try:
            build(part)
            part.chmod(0o755)  # mkdtemp leaves 700, which other users of a shared cache cannot read
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its holder, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
