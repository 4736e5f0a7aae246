"""`raymae cluster prepare`: what `cluster/aws.yaml` needs on AWS and Ray would make too wide, made once and narrowly.

A bucket for results (encrypted, private, TLS only), a security group that lets in SSH from the user's addresses and
the cluster's own nodes, and two instance profiles with the rights in `aws-head.json` and `aws-worker.json` beside the
file. Running it again brings all of them back to this state.
"""

from __future__ import annotations

import json
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raymae.errors import Problem, ResourceError, SpecError
from raymae.launch.check import check_cluster, read_text

MADE_HERE = "SET_BY_PREPARE"
ROLES = {"raymae-head": "aws-head.json", "raymae-worker": "aws-worker.json"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
NEEDS_BOTO3 = "needs boto3, as `ray up` on AWS does: pip install boto3"


@dataclass(frozen=True)
class Prepared:
    """What there is now.

    Attributes:
        bucket: Name of the bucket.
        security_group: Id of the group, which also stands in the file now.
        profiles: Names of the instance profiles.
    """

    bucket: str
    security_group: str
    profiles: tuple[str, ...]


def prepare_aws(path: str | os.PathLike[str]) -> Prepared:
    """Make or correct what a cluster file for AWS needs, and write the security group's id into the file.

    Raises:
        SpecError: The file breaks a rule.
        ResourceError: boto3 is missing, or AWS refuses.
    """
    checked = check_cluster(path, unset=(MADE_HERE,))
    if checked.provider != "aws":
        raise SpecError([Problem(checked.file, "provider.type", f"only aws needs preparing, got {checked.provider!r}")])
    if checked.problems:
        raise SpecError(checked.problems)
    text = read_text(path)
    config = yaml.safe_load(text)
    metadata = config.get("metadata") or {}
    for key in ("ssh_cidr", "bucket", "security_group"):
        if not metadata.get(key):
            raise SpecError([Problem(checked.file, f"metadata.{key}", "is missing; see cluster/aws.yaml")])
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ResourceError(f"raymae cluster prepare {NEEDS_BOTO3}") from None
    region = config["provider"]["region"]
    session = boto3.Session(region_name=region)
    try:
        account = session.client("sts").get_caller_identity()["Account"]
        _bucket(session.client("s3"), metadata["bucket"], region)
        group = _security_group(session.client("ec2"), config["cluster_name"], metadata["ssh_cidr"])
        values = {"BUCKET": metadata["bucket"], "REGION": region, "ACCOUNT": account, "GROUP": group,
                  "CLUSTER": config["cluster_name"]}
        for role, policy in ROLES.items():
            _profile(session.client("iam"), role, _policy(Path(path).parent / policy, values))
        _spot_role(session.client("iam"))
    except (BotoCoreError, ClientError) as error:
        raise ResourceError(f"{os.fspath(path)}: AWS refuses: {error}") from None
    Path(path).write_text(text.replace(str(metadata["security_group"]), group), encoding="utf-8")
    return Prepared(metadata["bucket"], group, tuple(ROLES))


def _policy(path: Path, values: Mapping[str, str]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError([Problem(str(path), "", f"cannot read the rights of a profile: {error.strerror}")]) from None
    return json.dumps(json.loads(string.Template(text).substitute(values)))


def _bucket(s3: Any, name: str, region: str) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **where)
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration={
        "BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True,
    })
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={
        "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}],
    })
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [{
        "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }]}))


def _security_group(ec2: Any, cluster: str, cidr: str) -> str:
    """The group's id. It admits SSH from `cidr` and everything from itself; whatever else it admitted is revoked."""
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise ResourceError("this region has no default VPC; make one: aws ec2 create-default-vpc")
    vpc, name = vpcs[0]["VpcId"], f"raymae-{cluster}"
    found = ec2.describe_security_groups(Filters=[
        {"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]},
    ])["SecurityGroups"]
    if found:
        group, admitted = found[0]["GroupId"], found[0]["IpPermissions"]
        if admitted:
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=admitted)
    else:
        group = ec2.create_security_group(
            GroupName=name, Description="RayMAE: SSH from one range, and the cluster itself", VpcId=vpc
        )["GroupId"]
    ranges = ({"Ipv6Ranges": [{"CidrIpv6": cidr}]} if ":" in cidr else {"IpRanges": [{"CidrIp": cidr}]})
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
    ])
    return str(group)


def _spot_role(iam: Any) -> None:
    """An account that never had a spot instance lacks EC2's own role for them, and the head may not make it."""
    from botocore.exceptions import ClientError

    try:
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("InvalidInput", "EntityAlreadyExists"):
            raise


def _profile(iam: Any, name: str, policy: str) -> None:
    from botocore.exceptions import ClientError

    def unless_there(function: Any, **arguments: Any) -> None:
        try:
            function(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("EntityAlreadyExists", "LimitExceeded"):
                raise

    unless_there(iam.create_role, RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName=name, PolicyName="raymae", PolicyDocument=policy)
    unless_there(iam.create_instance_profile, InstanceProfileName=name)
    # a profile holds one role
    unless_there(iam.add_role_to_instance_profile, InstanceProfileName=name, RoleName=name)
