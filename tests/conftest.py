"""One thread per process, the real data where it is, and debug-size trials for the suites that train."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import chromium  # noqa: F401
from tests.ports import free_port

if TYPE_CHECKING:
    from raymae.spec import TrialConfig

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it
# a shell starts background jobs with Ctrl-C ignored, and the programs that tests interrupt would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
REAL_ROOT = os.environ.get("RAYMAE_DATA")  # as it was before any test changed it
SYNTHETIC = {"name": "synthetic", "source": "synthetic"}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    if not REAL_ROOT or not Path(REAL_ROOT).is_dir():
        pytest.skip("needs real data: set RAYMAE_DATA to a folder that holds ett/ETTh1.csv")
    return Path(REAL_ROOT)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrialConfig]:
    """A trial of size `debug` with some parameters changed; those the arm does not have are left out."""
    from raymae.spec import TrialConfig, TrialData
    from raymae.spec.task import applies
    from raymae.tasks import schema_of

    def make(task: str, arm: str, *, stage: Any = "search", seed: int = 0, data: Any = None,
             **changes: Any) -> TrialConfig:
        schema = schema_of(task)
        defaults = {name: field.get_default() for name, field in schema.params.model_fields.items()}
        merged = {**defaults, **schema.sizes["debug"], **changes}
        params = {name: value for name, value in merged.items()
                  if applies(schema.params, name, arm, schema.arms[arm].kind)}
        return TrialConfig(task, arm, params, TrialData.from_json(data or SYNTHETIC), seed, stage)

    return make


def moto_command() -> list[str] | None:
    if find_spec("moto") and find_spec("flask"):
        return [sys.executable, "-m", "moto.server"]
    found = shutil.which("moto_server")
    return [found] if found else None


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 on loopback, with a bucket `bucket`."""
    command = moto_command()
    if command is None:
        pytest.skip("needs moto's server: neither importable nor `moto_server` on PATH")
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    process = subprocess.Popen([*command, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            try:
                request = urllib.request.Request(f"{url}/bucket", method="PUT")
                with urllib.request.urlopen(request, timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    pytest.skip("moto's server does not start here")
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()
        log.close()
