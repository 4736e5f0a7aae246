"""`raymae cluster prepare` against moto: what it makes is narrow, and a second run brings it back to that."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raymae.cli import main
from raymae.launch.check import check_cluster

CLUSTER = Path(__file__).parents[2] / "cluster"
boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the shipped file with its two lines set."""
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    path = tmp_path / "cluster" / "aws.yaml"
    text = path.read_text().replace("ssh_cidr: SET_ME", "ssh_cidr: 203.0.113.7/32")
    path.write_text(text.replace("bucket: SET_ME", "bucket: mae-results"))
    return path


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with moto.mock_aws():
        yield


def prepare(file: Path) -> Result:
    return CliRunner().invoke(main, ["cluster", "prepare", str(file)])


def ingress() -> list[dict[str, Any]]:
    groups = boto3.client("ec2", "us-east-1").describe_security_groups()["SecurityGroups"]
    (group,) = [group for group in groups if group["GroupName"] == "raymae-raymae"]
    return group["IpPermissions"]


def test_what_it_makes_is_narrow_and_the_file_then_passes(file: Path, cloud: None) -> None:
    done = prepare(file)
    assert done.exit_code == 0, done.output
    assert check_cluster(file).problems == ()
    assert re.search(r"security_group: &group sg-[0-9a-f]+ ", file.read_text())
    rules = ingress()
    assert [(rule["FromPort"], rule["ToPort"], rule["IpRanges"][0]["CidrIp"]) for rule in rules
            if rule["IpRanges"]] == [(22, 22, "203.0.113.7/32")]
    (inside,) = [rule for rule in rules if not rule["IpRanges"]]
    assert not inside["Ipv6Ranges"]
    assert inside["UserIdGroupPairs"][0]["GroupId"] in file.read_text()
    s3 = boto3.client("s3", "us-east-1")
    blocked = s3.get_public_access_block(Bucket="mae-results")["PublicAccessBlockConfiguration"]
    assert blocked == dict.fromkeys(blocked, True)
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket="mae-results")["Policy"]
    iam = boto3.client("iam", "us-east-1")
    assert [role for role in iam.list_roles()["Roles"] if role["Path"] == "/aws-service-role/spot.amazonaws.com/"]
    for name in ("raymae-head", "raymae-worker"):
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [name]
        assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
        policy = iam.get_role_policy(RoleName=name, PolicyName="raymae")["PolicyDocument"]
        assert "${" not in json.dumps(policy)
        for statement in policy["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [action for action in actions if "*" in action]
            if statement["Resource"] == "*":
                assert all(action.startswith("ec2:Describe") for action in actions), "what can't be narrowed reads only"
            if "ec2:TerminateInstances" in actions:
                assert statement["Condition"]["StringEquals"] == {"aws:ResourceTag/ray-cluster-name": "raymae"}
        if name == "raymae-worker":
            assert {one for statement in policy["Statement"] for one in statement["Action"]} == {
                "s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:PutObject", "s3:DeleteObject",
                "s3:AbortMultipartUpload",
            }
            assert "mae-results" in json.dumps(policy)


def test_a_second_run_closes_what_was_opened(file: Path, cloud: None) -> None:
    prepare(file)
    before, text = ingress(), file.read_text()
    group = re.search(r"sg-[0-9a-f]+", text)
    assert group
    boto3.client("ec2", "us-east-1").authorize_security_group_ingress(GroupId=group[0], IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    assert ingress() != before
    assert prepare(file).exit_code == 0
    assert ingress() == before
    assert file.read_text() == text


def test_a_file_that_breaks_a_rule_makes_nothing(file: Path, cloud: None) -> None:
    file.write_text(file.read_text().replace("203.0.113.7/32", "0.0.0.0/0"))
    done = prepare(file)
    assert done.exit_code == 2
    assert "every address there is" in done.stderr
    assert boto3.client("s3", "us-east-1").list_buckets()["Buckets"] == []
    done = prepare(CLUSTER / "local.yaml")
    assert done.exit_code == 2
    assert "only aws needs preparing, got 'local'" in done.stderr
