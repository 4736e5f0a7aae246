"""Cluster files checked offline: the shipped ones pass, and each thing one would regret is refused with its reason."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import SpecError
from raymae.launch.check import check_cluster
from raymae.launch.prices import Node, price_range

CLUSTER = Path(__file__).parents[2] / "cluster"
FILLED_IN = {
    "SET_ME": "set", "SET_BY_PREPARE": "sg-0123", "HEAD_IP": "192.0.2.1", "WORKER_IP": "192.0.2.2", "SSH_USER": "me",
}


def filled_in(name: str) -> Any:
    """A shipped file with what its user must set."""
    text = (CLUSTER / name).read_text().replace("ssh_cidr: SET_ME", "ssh_cidr: 203.0.113.7/32")
    for placeholder, value in FILLED_IN.items():
        text = text.replace(placeholder, value)
    return yaml.safe_load(text)


def check(tmp_path: Path, config: Any) -> list[str]:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return [str(problem) for problem in check_cluster(path).problems]


def put(config: Any, key: str, value: Any) -> Any:
    """A copy with a value at a dotted key; `...` removes it."""
    changed = at = copy.deepcopy(config)
    *path, last = key.split("/")
    for part in path:
        at = at[int(part) if isinstance(at, list) else part]
    last = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return changed


SHIPPED = sorted(path.name for path in CLUSTER.glob("*.yaml"))
LAUNCHER = [name for name in SHIPPED if name != "kuberay.yaml"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_open_with_commands_and_costs(name: str) -> None:
    opening = (CLUSTER / name).read_text().partition("\n\n")[0] + (CLUSTER / name).read_text()[:2500]
    assert "raymae cluster check" in opening
    assert "osts" in opening


@pytest.mark.parametrize("name", LAUNCHER)
def test_shipped_files_pass_once_their_user_has_filled_them_in(name: str, tmp_path: Path) -> None:
    before = check_cluster(CLUSTER / name).problems
    assert before
    assert all("is still a placeholder" in problem.message for problem in before)
    assert check(tmp_path, filled_in(name)) == []


AWS = [  # key, value, what is said
    ("provider/security_group", {"GroupName": "x", "IpPermissions": [
        {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}]},
     "opens ports 8265 to 8265"),
    ("provider/security_group", {"GroupName": "x", "IpPermissions": [
        {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
     "every address there is"),
    ("metadata/ssh_cidr", "0.0.0.0/0", "every address there is"),
    ("metadata/ssh_cidr", "::/0", "every address there is"),
    ("metadata/ssh_cidr", "203.0.113.7/8", "must be a range of addresses"),
    ("metadata/ssh_cidr", "10.0.0.0/8", "at most 65536 addresses"),
    ("metadata/ssh_cidr", "SET_ME", "still a placeholder"),
    ("head_start_ray_commands/1", "ray start --head --num-cpus=0 --autoscaling-config=x --dashboard-host=127.0.0.1 "
     "--resources='{\"trial_driver\": 1}'", "starts Ray without a token"),
    ("worker_start_ray_commands/1", "ray start --address=$RAY_HEAD_IP:6379", "starts Ray without a token"),
    ("worker_start_ray_commands/1", "RAY_AUTH_MODE=disabled ray start", "switches the token off"),
    ("worker_start_ray_commands/1", "RAY_AUTH_TOKEN=abc RAY_AUTH_MODE=token ray start", "does not belong in a file"),
    ("file_mounts/~~.ray~auth_token", ..., "bring the token to every node"),
    ("head_start_ray_commands", ..., "Ray's own defaults serve the dashboard to every address"),
    ("available_node_types/head/node_config/InstanceType", "m7i.xlage", "did you mean `m7i.xlarge`"),
    ("available_node_types/head/node_config/InstanceType", "g6.xlarge", "g6.xlarge has GPUs"),
    ("available_node_types/head/resources/CPU", 4, "must say CPU: 0"),
    ("available_node_types/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}, "not be on spot"),
    ("available_node_types/head/node_config/MetadataOptions", {"HttpTokens": "optional"}, "got optional: with IMDSv1"),
    ("available_node_types/small_spot/node_config/MetadataOptions", ..., "got None: with IMDSv1"),
    ("available_node_types/small_spot/node_config/BlockDeviceMappings/0/Ebs/Encrypted", False, "not encrypted"),
    ("available_node_types/small_spot/node_config/BlockDeviceMappings", ..., "its volume is not encrypted"),
    ("available_node_types/small_spot/node_config/SecurityGroupIds", ..., "SSH open to every address"),
    ("available_node_types/head/node_config/IamInstanceProfile", ..., "full rights over EC2 and S3"),
    ("available_node_types/small_spot/node_config/IamInstanceProfile", ..., "cannot write results"),
    ("available_node_types/small_spot/node_config/ImageId", ..., "Ubuntu 18.04"),
    ("available_node_types/small_spot/node_config/Imageld", "x", "did you mean `ImageId`"),
    ("available_node_types/small_spot/node_config/LaunchTemplate", {}, "hides what is launched"),
    ("available_node_types/small_spot/resources/trial_driver", 1, "trials' drivers on workers"),
    ("available_node_types/small_spot/resources/GPU", 0.5, "Ray refuses it: 0.5 is not of type 'integer'"),
    ("available_node_types/small_spot/mx_workers", 1, "Ray refuses it: Additional properties are not allowed"),
    ("provider/regoin", "us-east-1", "did you mean `region`"),
    ("provider/region", ..., "needs a region"),
    ("provider/cache_stopped_nodes", ..., "goes on to cost its volume"),
    ("provider/type", "asw", "Ray refuses it"),
    ("idle_timeout_minutes", 90, "idle nodes cost for 90 minutes"),
    ("head_node_type", "had", "Ray refuses it"),
    ("max_worker", 4, "Ray refuses it"),
]


@pytest.mark.parametrize(("key", "value", "said"), AWS, ids=[f"{key}={value}"[:60] for key, value, _ in AWS])
def test_what_one_would_regret_is_refused(key: str, value: Any, said: str, tmp_path: Path) -> None:
    config = filled_in("aws.yaml")
    if key.startswith("file_mounts"):
        changed = put(config, "file_mounts", {"~/raymae": "."})
    else:
        changed = put(config, key, value)
    problems = check(tmp_path, changed)
    assert any(said in problem for problem in problems), problems
    assert check(tmp_path, config) == []


def test_the_start_of_the_head_is_looked_at(tmp_path: Path) -> None:
    config = filled_in("aws.yaml")
    start = config["head_start_ray_commands"][1]
    for part, instead, said in [
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "must listen on loopback alone, got 0.0.0.0"),
        ("--dashboard-host=127.0.0.1", "", "got no --dashboard-host"),
        ("--num-cpus=0", "", "must say --num-cpus=0"),
        ("--autoscaling-config=~/ray_bootstrap_config.yaml", "", "no worker is ever started"),
        ("""--resources='{"trial_driver": 10000}'""", "", "trials' drivers are kept on the head by it"),
    ]:
        assert part in start
        problems = check(tmp_path, put(config, "head_start_ray_commands/1", start.replace(part, instead)))
        assert [said in problem for problem in problems] == [True], problems


def test_problems_name_their_line(tmp_path: Path) -> None:
    text = (CLUSTER / "aws.yaml").read_text()
    path = tmp_path / "aws.yaml"
    path.write_text(text.replace("HttpTokens: required", "HttpTokens: optional"))
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "HttpTokens" in line)
    where = [problem.where for problem in check_cluster(path).problems if "IMDSv2" in problem.message]
    assert where[0] == f"{path}:{line}"
    assert len(where) == 5, "once for each node type that uses the anchor"


def test_a_machine_the_table_lacks_is_accepted_with_its_price(tmp_path: Path) -> None:
    config = put(filled_in("aws.yaml"), "available_node_types/head/node_config/InstanceType", "x9.huge")
    assert any("unknown instance type 'x9.huge'" in problem for problem in check(tmp_path, config))
    config["metadata"]["usd_per_hour"] = {"x9.huge": 3.0}
    assert check(tmp_path, config) == []
    assert check_cluster(tmp_path / "cluster.yaml").usd_per_hour == (3.0, round(3.0 + 4 * 4.6016, 4))


def test_price_range() -> None:
    head = Node("head", "a", 0, False, 1, 1, 0.5)
    cheap, dear = Node("c", "b", 1, True, 1, 5, 1.0), Node("d", "c", 4, False, 0, 2, 7.0)
    assert price_range([head, cheap, dear], 4) == (1.5, 0.5 + 2 * 7 + 2 * 1)
    assert price_range([head, Node("x", "?", 1, True, 0, 1, None)], 1) is None
    assert price_range([], 3) is None


@pytest.mark.parametrize(("text", "said"), [
    ("a: [", "is not YAML"), ("", "is a mapping of keys"), ("- 1", "is a mapping of keys"),
    ("a: 1\n---\nb: 2\n", "one document, this holds 2"), (None, "no such file"),
])
def test_files_that_cannot_be_read(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=said):
        check_cluster(path)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "aws.yaml"
    path.write_text(yaml.safe_dump(filled_in("aws.yaml"), sort_keys=False))
    done = CliRunner().invoke(main, ["cluster", "check", str(path)])
    assert done.exit_code == 0, done.output
    assert "Costs 0.20 $/h with no trial waiting, at most 18.61 $/h" in done.stdout
    told = json.loads(CliRunner().invoke(main, ["cluster", "check", str(path), "--json"]).stdout)
    assert told["ok"]
    assert told["usd_per_hour"]["idle"] == 0.2016
    assert [node["machine"] for node in told["nodes"] if node["spot"]] == ["g6.xlarge", "g6.12xlarge"]
    done = CliRunner().invoke(main, ["cluster", "check", str(CLUSTER / "aws.yaml")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "metadata.ssh_cidr: 'SET_ME' is still a placeholder" in done.stderr
    done = CliRunner().invoke(main, ["cluster", "check", str(CLUSTER / "aws.yaml"), "--json"])
    assert done.exit_code == 2
    assert not json.loads(done.stdout)["ok"]


def test_every_machine_one_owns_is_started(tmp_path: Path) -> None:
    """Asked of the autoscaler itself: one that knows no resources starts the fewest workers and not one more."""
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    def started(config: Any) -> int:
        (name, kind), = prepare_config(copy.deepcopy(config))["available_node_types"].items()
        waiting = [ResourceRequestUtil.make({"CPU": 1})] * 4
        reply = ResourceDemandScheduler(None).schedule(SchedulingRequest(
            node_type_configs={name: NodeTypeConfig(name=name, min_worker_nodes=kind["min_workers"],
                                                    max_worker_nodes=kind["max_workers"], resources=kind["resources"])},
            max_num_nodes=4, resource_requests=ResourceRequestUtil.group_by_count(waiting), gang_resource_requests=[],
            cluster_resource_constraints=[], current_instances=[], disable_launch_config_check=True,
        ))
        return sum(one.count for one in reply.to_launch)

    config = put(filled_in("local.yaml"), "provider/worker_ips", ["192.0.2.2", "192.0.2.3"])
    assert started(config) == 2
    assert check(tmp_path, config) == []
    fewer = {**config, "min_workers": 0}
    assert started(fewer) == 0
    (problem,) = check(tmp_path, fewer)
    assert "min_workers: 2 of 2 workers would never be started" in problem
    assert check(tmp_path, {**fewer, "max_workers": 0}) == []
