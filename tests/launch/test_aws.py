"""`ray up cluster/aws.yaml`, a submitted sweep, idling and `ray down`, end to end against moto."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import moto_command

ROOT = Path(__file__).parents[2]
NAMESPACES = ["unshare", "-p", "-n", "-m", "-f", "--mount-proc"]
PATIENCE_S = 3000


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the rig saw."""
    if moto_command() is None:
        pytest.skip("needs moto's server")
    try:
        allowed = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unshare (Debian: util-linux)")
    if allowed.returncode:
        pytest.skip(f"needs the right to make namespaces: {allowed.stderr.strip()}")
    folder = tmp_path_factory.mktemp("aws")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "tests.launch.aws_rig", str(folder)], cwd=ROOT,
        capture_output=True, text=True, timeout=PATIENCE_S,
    )
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return json.loads((folder / "seen.json").read_text())


def shipped(name: str) -> Any:
    return yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())["available_node_types"][name]["node_config"]


def kinds(instances: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in instances if one["tags"].get("ray-node-type") == kind]


def is_as_the_file_says(one: dict[str, Any], node: str, profile: str) -> None:
    assert one["type"] == shipped(node)["InstanceType"]
    assert one["image"] == shipped(node)["ImageId"]
    assert one["profile"].endswith(f":instance-profile/{profile}")
    assert (one["metadata"]["HttpTokens"], one["metadata"]["HttpPutResponseHopLimit"]) == ("required", 1)
    assert one["encrypted"] == [True]
    assert one["tags"]["ray-cluster-name"] == "raymae"
    assert one["tags"]["ray-user-node-type"] == node


@pytest.mark.slow
def test_the_head_is_up_as_the_file_says(seen: dict[str, Any]) -> None:
    (head,) = seen["after up"]
    is_as_the_file_says(head, "head", "raymae-head")
    assert head["state"] == "running"
    assert not head["spot"]
    assert head["tags"]["ray-node-status"] == "up-to-date"
    mine = [group for group in seen["security groups"] if group["GroupName"] != "default"]
    assert [group["GroupName"] for group in mine] == ["raymae-raymae"], "Ray made none of its own"
    assert head["groups"] == [mine[0]["GroupId"]]
    outside = [(rule["FromPort"], rule["ToPort"], [one["CidrIp"] for one in rule["IpRanges"]])
               for rule in mine[0]["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    assert outside == [(22, 22, ["203.0.113.7/32"])]


@pytest.mark.slow
def test_a_submitted_sweep_makes_a_spot_worker_appear_and_runs_there(seen: dict[str, Any]) -> None:
    (worker,) = kinds(seen["while it runs"], "worker")
    is_as_the_file_says(worker, "small_spot", "raymae-worker")
    assert worker["spot"], "on demand is the fallback"
    assert seen["job returned"] == 0
    rows = json.loads(seen["results"])
    assert sorted((row["stage"], row["status"]) for row in rows) == [
        ("replicate", "completed"), ("search", "completed"), ("search", "completed"),
    ]
    (end,) = [one for one in seen["after idling"] if one["id"] == worker["id"]]
    assert end["state"] == "terminated"
    (head,) = kinds(seen["after idling"], "head")
    assert head["state"] == "running", "only what is idle goes"


@pytest.mark.slow
def test_ray_down_leaves_nothing(seen: dict[str, Any]) -> None:
    assert {one["state"] for one in seen["after down"]} == {"terminated"}
