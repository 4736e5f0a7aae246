"""An embedded Ray is started for this machine alone, and where it cannot be, that is a sentence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import ray_constants, services

from raymae.errors import ResourceError
from raymae.search.engine.connection import connected


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))


@pytest.mark.parametrize(("address", "own"), [(None, True), ("auto", False)])
def test_this_machine_s_address_is_loopback_for_a_ray_of_our_own_only(
    address: str | None, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def init(**options: Any) -> Any:
        seen.update(options, ip=services.get_node_ip_address(),
                    inherited=os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"))
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda address: "192.0.2.1")
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=""))
    monkeypatch.setattr("raymae.search.engine.connection.find_growth", lambda address: None)
    with connected(address=address) as cluster:
        assert cluster.cpus == 2.0
    assert seen["ip"] == ("127.0.0.1" if own else "192.0.2.1")
    assert seen["inherited"] == ("0" if own else None)
    assert ray_constants.ENABLE_RAY_CLUSTER, "a cluster that this process joins later has its machine's address"


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> Any:
        raise Exception("\nThe last 20 lines of dashboard.log:\nINFO")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ResourceError, match=r"Ray could not be started on this machine: The last 20 lines of "
                                            r"dashboard\.log:\. Where other work has most.*later$"), connected():
        pass


def test_what_rays_processes_wrote_outlives_a_start_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    def init(**options: Any) -> Any:
        logs = Path(options["_temp_dir"]) / "session_x" / "logs"
        (logs / "old").mkdir(parents=True)
        (logs / "raylet.out").write_text("no room")
        (logs / "gone").symlink_to("nowhere")
        raise RuntimeError("no raylet")

    monkeypatch.setattr(ray, "init", init)
    log, kept = tmp_path / "logs" / "driver.log", tmp_path / "logs" / "ray-start"
    log.parent.mkdir()
    for _ in range(2):  # of a second failure, what that wrote
        with pytest.raises(ResourceError, match=r"later; what Ray's processes wrote is in ") as failed, connected(log):
            pass
        assert str(failed.value).endswith(str(kept))
        assert [path.name for path in kept.iterdir()] == ["raylet.out"]
        assert (kept / "raylet.out").read_text() == "no room"
        (kept / "more").touch()
    with pytest.raises(ResourceError, match=r"later$"), connected():
        pass
