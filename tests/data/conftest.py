"""Every test gets its own empty cache and no $RAYMAE_DATA; a download may only reach this machine."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import pytest
from small_files import BODY, md5

from raymae.data import DATASETS, Dataset, File

REAL_ROOT = os.environ.get("RAYMAE_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    real = pooch.HTTPDownloader.__call__

    def loopback_only(self: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        if urlsplit(url).hostname != "127.0.0.1":
            raise OSError(f"no network in tests: {url}")
        return real(self, url, *args, **kwargs)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", loopback_only)
    return tmp_path / "cache" / "data"


@pytest.fixture
def real_etth1() -> Path:
    path = Path(REAL_ROOT or "") / "ett" / "ETTh1.csv"
    if not REAL_ROOT or not path.exists():
        pytest.skip("needs the real ETTh1: set RAYMAE_DATA to a folder that holds ett/ETTh1.csv")
    return path


class Server:
    """Serves one body to every GET; `promised` bytes are announced, `requests` counted."""

    def __init__(self) -> None:
        self.body, self.promised, self.status, self.requests = BODY, len(BODY), 200, 0
        self.gate: threading.Barrier | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                if outer.gate is not None:
                    outer.gate.wait(timeout=30)
                self.send_response(outer.status)
                self.send_header("Content-Length", str(outer.promised))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/small.csv"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A known data set `small` whose official file is BODY, served on this machine."""
    file = File("sub/small.csv", ("small.csv",), server.url, md5(BODY), len(BODY))
    dataset = Dataset("small", "series", "two rows", "CC0", (file,))
    monkeypatch.setitem(DATASETS, "small", dataset)
    return dataset


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A known data set of a file and a folder that only a person can get."""
    files = (File("pair/labels.csv", md5=md5(BODY)), File("pair/scans", alternatives=("scans",)))
    dataset = Dataset("pair", "volumes", "scans", "custom", files, manual="register at example.org and unpack it")
    monkeypatch.setitem(DATASETS, "pair", dataset)
    return dataset
