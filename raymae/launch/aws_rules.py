"""What only concerns AWS: IMDSv2, encrypted volumes, security groups, instance profiles, images, misspelt keys."""

from __future__ import annotations

from collections.abc import Iterator

from raymae.errors import unknown
from raymae.launch import Document, Finding

PROVIDER_KEYS = {
    "type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group", "key_pair",
    "aws_credentials", "cloudwatch", "disable_node_updaters",
}
NODE_KEYS = {  # what EC2's RunInstances takes, and Ray's SubnetIds
    "BlockDeviceMappings", "CapacityReservationSpecification", "CpuOptions", "CreditSpecification",
    "DisableApiStop", "DisableApiTermination", "EbsOptimized", "EnaSrdSpecification", "EnclaveOptions",
    "HibernationOptions", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions", "InstanceType", "Ipv6AddressCount", "Ipv6Addresses", "KernelId", "KeyName",
    "LaunchTemplate", "LicenseSpecifications", "MaintenanceOptions", "MetadataOptions", "Monitoring",
    "NetworkInterfaces", "Placement", "PrivateDnsNameOptions", "PrivateIpAddress", "RamdiskId", "SecurityGroupIds",
    "SecurityGroups", "SubnetId", "SubnetIds", "TagSpecifications", "UserData",
}


def aws_rules(document: Document, filled: Document) -> Iterator[Finding]:
    """Everything wrong with a file for AWS. Arguments as for `broken_rules`."""
    provider = document["provider"]
    for key in provider:
        if key not in PROVIDER_KEYS:
            yield f"provider.{key}", unknown("key", key, PROVIDER_KEYS)
    if not provider.get("region"):
        yield "provider", "needs a region"
    for index, rule in enumerate((provider.get("security_group") or {}).get("IpPermissions") or []):
        at, ports = f"provider.security_group.IpPermissions.{index}", (rule.get("FromPort"), rule.get("ToPort"))
        if str(rule.get("IpProtocol", "tcp")) not in ("tcp", "6"):
            yield at, (f"opens every port (protocol {rule['IpProtocol']}); nothing but SSH (tcp, 22) may be open, the "
                       "dashboard is reached through `ray dashboard`")
        elif ports != (22, 22):
            yield at, (f"opens ports {ports[0]} to {ports[1]}; nothing but SSH (22) may be open, the dashboard is "
                       "reached through `ray dashboard`")
    for name, node in filled["available_node_types"].items():
        for key, message in _node(node["node_config"], head=name == filled["head_node_type"]):
            yield f"available_node_types.{name}.node_config{key}", message


def _node(config: Document, *, head: bool) -> Iterator[Finding]:
    for key in config:
        if key not in NODE_KEYS:
            yield f".{key}", unknown("key", key, NODE_KEYS)
    if "LaunchTemplate" in config:
        yield ".LaunchTemplate", "hides what is launched from this check; write it out"
    if not config.get("ImageId"):
        yield "", "needs an ImageId: Ray's own is an Ubuntu 18.04 with CUDA 11"
    tokens = (config.get("MetadataOptions") or {}).get("HttpTokens")
    if tokens != "required":
        yield (".MetadataOptions", f"must say HttpTokens: required (IMDSv2), got {tokens}: with IMDSv1 any request "
                                   "forged on the node reads its keys")
    disks = config.get("BlockDeviceMappings") or []
    if not disks:
        yield "", "needs BlockDeviceMappings with Ebs: {Encrypted: true}: without, its volume is not encrypted"
    for index, disk in enumerate(disks):
        if "Ebs" in disk and disk["Ebs"].get("Encrypted") is not True:
            yield f".BlockDeviceMappings.{index}", "its volume is not encrypted; say Ebs: {Encrypted: true}"
    groups = config.get("SecurityGroupIds") or (
        config.get("NetworkInterfaces") and all(one.get("Groups") for one in config["NetworkInterfaces"])
    )
    if not groups:
        yield "", "needs SecurityGroupIds: Ray would make a group with SSH open to every address"
    if not config.get("IamInstanceProfile"):
        yield "", ("needs an IamInstanceProfile: Ray would give the head full rights over EC2 and S3" if head
                   else "needs an IamInstanceProfile: without one it cannot write results to the bucket")
