"""Odd forms of open doors, each refused with its reason, and their harmless neighbours, which are not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymae.launch.check import check_cluster
from tests.launch.test_check import CLUSTER, check, filled_in, put

COMPOSE = Path(__file__).parents[2] / "docker" / "compose.yaml"
GROUP = "provider/security_group"


def group(*ranges: str, **rule: Any) -> Any:
    listed = {"IpRanges": [{"CidrIp": one} for one in ranges if ":" not in one],
              "Ipv6Ranges": [{"CidrIpv6": one} for one in ranges if ":" in one]}
    return {"GroupName": "x", "IpPermissions": [{"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", **listed, **rule}]}


def docker(options: list[str], whose: str = "") -> Any:
    return {"image": "x:1", "container_name": "c", f"{whose}run_options": options}


REFUSED = [
    (GROUP, group("::/0"), "every address there is"),
    (GROUP, group("0:0:0:0:0:0:0:0/0"), "every address there is"),
    (GROUP, group("::0/0"), "every address there is"),
    (GROUP, group("203.0.113.7/0"), "every address there is"),  # with bits of a host: AWS takes it as 0.0.0.0/0
    (GROUP, group("0.0.0.0/1", "128.0.0.0/1"), "2.15e+09 addresses of the internet"),
    (GROUP, group("64.0.0.0/2"), "1.07e+09 addresses of the internet"),
    (GROUP, group("2000::/3"), "addresses of the internet"),
    (GROUP, group("8.0.0.0/8"), "1.68e+07 addresses of the internet"),
    (GROUP, group("203.0.113.7/32", IpProtocol="-1"), "opens every port (protocol -1)"),
    (GROUP, group("203.0.113.7/32", IpProtocol=-1), "opens every port (protocol -1)"),
    (GROUP, group("203.0.113.7/32", IpProtocol="udp"), "opens every port (protocol udp)"),
    (GROUP, group("203.0.113.7/32", FromPort=0, ToPort=65535), "opens ports 0 to 65535"),
    ("metadata/ssh_cidr", "0.0.0.0/1", "addresses of the internet"),
    ("metadata/ssh_cidr", "10.0.0.0/8", "at most 65536 addresses"),
    ("docker", docker(["--privileged"]), "must not be privileged"),
    ("docker", docker(["--network=host"]), "must not say --network=host"),
    ("docker", docker(["--net host"]), "must not say --net=host"),
    ("docker", docker(["-p 8265:8265"], "head_"), "publishes port 8265:8265"),
    ("docker", docker(["-p8265:8265"], "worker_"), "publishes port 8265"),
    ("docker", docker(["--publish=0.0.0.0:1:1"]), "to 0.0.0.0"),
    ("docker", docker(["-P"]), "publishes every port"),
    ("docker", docker(["--cap-add SYS_ADMIN"]), "as good as privileged"),
    ("docker", docker(["-v /:/host"]), "must not mount /"),
    ("docker", docker(["-v /var/run/docker.sock:/s"]), "must not mount"),
    ("docker", docker(["--env RAY_AUTH_MODE=disabled"]),
     "switches the token off"),
    ("setup_commands", ["docker run --rm -d -p 9000:9000 x:1"], "publishes port 9000:9000"),
    ("setup_commands", ["sudo docker run --privileged x:1"], "must not be privileged"),
    ("setup_commands", ["export RAY_AUTH_MODE='disabled'"], "switches the token off"),
    ("setup_commands", ["echo RAY_AUTH_MODE=disabled >> ~/.bashrc"], "switches the token off"),
    ("setup_commands", ["env -u RAY_AUTH_MODE ray status"], "switches the token off"),
    ("setup_commands", ["unset RAY_AUTH_MODE"], "switches the token off"),
]


@pytest.mark.parametrize(("key", "value", "said"), REFUSED, ids=[f"{key}-{n}" for n, (key, *_) in enumerate(REFUSED)])
def test_an_open_door_is_refused(key: str, value: Any, said: str, tmp_path: Path) -> None:
    problems = check(tmp_path, put(filled_in("aws.yaml"), key, value))
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(("key", "value"), [
    (GROUP, group("203.0.113.0/24", "2001:db8:1::/48", "10.0.0.0/8")),
    ("setup_commands", ["export RAY_AUTH_MODE=token", "export RAY_AUTH_MODE=\"token\"", "echo 1/2 3:4/5 a/8 v1.2/3"]),
    ("setup_commands", ["docker run --rm -p 127.0.0.1:9000:9000 -v /data:/data x:1", "mkdir -p 8265:8265"]),
    ("docker", docker(["--shm-size=2g --ulimit nofile=65536:65536", "--network=ray", "--cap-drop ALL"])),
])
def test_what_is_not_open_passes(key: str, value: Any, tmp_path: Path) -> None:
    assert check(tmp_path, put(filled_in("aws.yaml"), key, value)) == []


def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def test_the_shipped_compose_file_passes(tmp_path: Path) -> None:
    found = check_cluster(COMPOSE)
    assert (found.provider, found.problems) == ("compose", ())


@pytest.mark.parametrize(("key", "value", "said"), [
    ("services/head/ports", ["8265:8265"], "publishes port 8265:8265 to every address"),
    ("services/head/ports", ["0.0.0.0:8265:8265"], "to 0.0.0.0"),
    ("services/head/ports", ["8265"], "to every address"),
    ("services/head/ports", [{"target": 8265, "published": 8265}], "to every address"),
    ("services/head/privileged", True, "must not be true"),
    ("services/worker/network_mode", "host", "must not be host"),
    ("services/worker/pid", "host", "must not be host"),
    ("services/worker/cap_add", ["SYS_ADMIN"], "as good as privileged"),
    ("services/worker/volumes", ["/var/run/docker.sock:/var/run/docker.sock"], "must not mount"),
    ("services/head/environment", {"RAY_AUTH_MODE": "disabled"}, "switches the token off"),
    ("services/head/environment", ["RAY_AUTH_MODE=disabled"], "switches the token off"),
    ("services/head/environment", {}, "starts Ray without a token"),
    ("services/head/environment", {"RAY_AUTH_TOKEN_PATH": "/run/secrets/auth_token"}, "starts Ray without a token"),
    ("services/head/environment", ["RAY_AUTH_TOKEN_PATH=/token"], "starts Ray without a token"),
])
def test_an_open_door_in_a_compose_file(key: str, value: Any, said: str, tmp_path: Path) -> None:
    problems = check(tmp_path, put(compose(), key, value))
    assert any(said in problem for problem in problems), problems


ALLOWED = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::b/*"}


@pytest.mark.parametrize(("change", "said"), [
    ({"Action": "*"}, "gives every right, got '*'"),
    ({"Action": ["s3:GetObject", "ec2:*"]}, "gives every right of a service, got 'ec2:*'"),
    ({"Action": "s3:DeleteObject", "Resource": "*"}, "holds for every resource there is"),
    ({"Principal": "*"}, "gives it to everybody"),
    ({"Principal": {"AWS": "*"}}, "gives it to everybody"),
    ({"Principal": {"AWS": ["*"]}}, "gives it to everybody"),
    ({"NotAction": "iam:*"}, "allows all but what it lists"),
    ({"NotResource": "arn:x"}, "allows all but what it lists"),
])
def test_a_policy_for_everything_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{**ALLOWED, **change}]}
    (problem,) = check(tmp_path, policy)
    assert said in problem
    assert check(tmp_path, {**policy, "Statement": {**ALLOWED, **change, "Effect": "Deny"}}) == []


@pytest.mark.parametrize("name", ["aws-head.json", "aws-worker.json"])
def test_the_shipped_policies_pass(name: str) -> None:
    found = check_cluster(CLUSTER / name)
    assert (found.provider, found.problems) == ("policy", ())


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {
    "securityContext": {"runAsNonRoot": True}, "containers": [{
        "name": "c", "image": "x:1", "securityContext": {"allowPrivilegeEscalation": False},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}}]}}


def named(kind: str, **more: Any) -> Any:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, **more}


@pytest.mark.parametrize(("document", "said"), [
    (named("Service", spec={"type": "LoadBalancer"}), "LoadBalancer opens ports to the outside"),
    (named("Service", spec={"type": "NodePort"}), "NodePort opens ports to the outside"),
    (named("Service", spec={"externalIPs": ["203.0.113.1"]}), "opens ports to the outside"),
    (named("Ingress"), "an Ingress opens ports"),
    (named("HTTPRoute"), "an HTTPRoute opens ports"),
    (named("NetworkPolicy", spec={"ingress": [{}]}), "a rule without `from`"),
    (named("NetworkPolicy", spec={"ingress": [{"from": [{"namespaceSelector": {}}]}]}), "lets every pod in"),
    (named("NetworkPolicy", spec={"ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}), "every address there is"),
    (named("NetworkPolicy", spec={"ingress": [{"from": [{"ipBlock": {"cidr": "128.0.0.0/1"}}]}]}), "of the internet"),
    (named("ClusterRole", rules=[{"verbs": ["*"], "resources": ["pods"], "apiGroups": [""]}]), "a right to everything"),
    (named("Role", rules=[{"verbs": ["get"], "resources": ["*"], "apiGroups": [""]}]), "a right to everything"),
    (named("ClusterRoleBinding", roleRef={"kind": "ClusterRole", "name": "cluster-admin"}), "may do everything"),
    (put(POD, "spec/hostNetwork", True), "opens the machine to the pod"),
    (put(POD, "spec/containers/0/securityContext/privileged", True), "not privileged"),
    (put(POD, "spec/containers/0/securityContext/capabilities", {"add": ["SYS_ADMIN"]}), "as good as privileged"),
    (put(POD, "spec/containers/0/ports", [{"containerPort": 1, "hostPort": 1}]), "must not have a hostPort"),
    (put(POD, "spec/containers/0/env", [{"name": "RAY_AUTH_MODE", "value": "disabled"}]), "switches the token off"),
    (put(POD, "spec/containers/0/args", ["RAY_AUTH_MODE=disabled ray start --head"]), "switches the token off"),
    (put(POD, "spec/volumes", [{"name": "v", "hostPath": {"path": "/"}}]), "must not be a hostPath"),
    (put(POD, "spec/initContainers", [{"name": "i", "image": "x:latest"}]), "pinned to a version"),
    (named("Deployment", spec={"template": put(POD, "spec/hostPID", True)}), "opens the machine to the pod"),
])
def test_an_open_door_in_a_manifest(document: Any, said: str, tmp_path: Path) -> None:
    problems = check(tmp_path, document)
    assert any(said in problem for problem in problems), problems
    assert check(tmp_path, copy.deepcopy(POD)) == []
