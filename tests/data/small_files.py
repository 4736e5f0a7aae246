"""Small files, and what is known of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

BODY = b"date,a\n2020-01-01,1\n2020-01-02,2\n"
OTHER = BODY + b"2020-01-03,3\n"


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def fingerprint(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()[:16]


def put(path: Path, body: bytes = BODY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
