"""What a file for `ray up` must not do: open ports, run without a token, train on the head, lose results, waste money.

A rule yields (dotted key, message) for what it finds. Ray's schema has passed by then, so the shapes it knows hold; it
knows nothing of what lies inside `provider` and `node_config`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from raymae.errors import unknown
from raymae.launch import Document, Finding
from raymae.launch.aws_rules import aws_rules
from raymae.launch.doors import MAX_ADDRESSES, container_options, is_wide, open_ranges, strings, token_off
from raymae.launch.price_list import price_lists
from raymae.launch.prices import TYPE_KEYS, is_spot, machine_of
from raymae.search.engine.connection import MAX_DRIVERS, TRIAL_DRIVER

Rule = Callable[[Document, Document], Iterator[Finding]]

PLACEHOLDERS = ("SET_ME", "SET_BY_PREPARE", "HEAD_IP", "WORKER_IP", "SSH_USER")
CLOUDS = tuple(TYPE_KEYS)
COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")


def broken_rules(
    document: Document, filled: Document, unset: Sequence[str] = ()
) -> list[Finding]:
    """Everything wrong with a file.

    Args:
        document: The file as written.
        filled: As Ray completes it with its defaults.
        unset: Placeholders that may still stand in it.
    """
    kind = document["provider"]["type"]
    found = [finding for finding in _placeholders(document) if finding[1].split("'")[1] not in unset]
    for rule in (_doors, _start_commands, _token, _drivers, _ssh_cidr):
        found += rule(document, filled)
    if kind in CLOUDS:
        for rule in (_head, _machines, _idle):
            found += rule(document, filled)
        found += {"aws": aws_rules, "gcp": _gcp, "azure": _azure}[kind](document, filled)
    elif kind == "local":
        found += _own_machines(document, filled)
    else:
        found.append(("provider.type", unknown("provider", kind, (*CLOUDS, "local"))))
    return found


def _placeholders(document: Document) -> Iterator[Finding]:
    aliased = set()
    for key, text in strings(document):
        if text in PLACEHOLDERS and text not in aliased:
            aliased |= {text} & {"SET_BY_PREPARE"}  # once is enough
            how = "`raymae cluster prepare` sets it" if text == "SET_BY_PREPARE" else "set it"
            yield key, f"'{text}' is still a placeholder; {how}"


def _doors(document: Document, filled: Document) -> Iterator[Finding]:
    for rule in (open_ranges, token_off, container_options):
        yield from rule(document)


def _ssh_cidr(document: Document, filled: Document) -> Iterator[Finding]:
    text = (document.get("metadata") or {}).get("ssh_cidr")
    if text is None or text in PLACEHOLDERS:
        return
    try:
        network = ipaddress.ip_network(str(text))
    except ValueError as error:
        yield "metadata.ssh_cidr", f"must be a range of addresses such as 203.0.113.7/32: {error}"
        return
    if not is_wide(network) and network.version == 4 and network.num_addresses > MAX_ADDRESSES:  # of a private network
        yield "metadata.ssh_cidr", f"may hold at most {MAX_ADDRESSES} addresses, {text} holds {network.num_addresses}"


def _commands(filled: Document, which: str) -> list[tuple[str, str]]:
    return [(f"{which}.{index}", command) for index, command in enumerate(filled.get(which) or [])
            if re.search(r"\bray start\b", command)]


def _start_commands(document: Document, filled: Document) -> Iterator[Finding]:
    for which in COMMANDS:
        if which not in document:
            yield which, "must be given: Ray's own defaults serve the dashboard to every address, without a token"
        elif not _commands(filled, which):
            yield which, "holds no `ray start`"
    for key, command in _commands(filled, COMMANDS[0]):
        hosts = re.findall(r"--dashboard-host[= ]+(\S+)", command)
        if "--include-dashboard=false" not in command.lower() and [*hosts] not in (["127.0.0.1"], ["localhost"]):
            yield key, (f"the dashboard, which runs any code it is sent, must listen on loopback alone, got "
                        f"{', '.join(hosts) or 'no --dashboard-host'}; say --dashboard-host=127.0.0.1 and reach it "
                        "through `ray dashboard`")
        if "--autoscaling-config" not in command:
            yield key, "without --autoscaling-config=~/ray_bootstrap_config.yaml no worker is ever started"


def _token(document: Document, filled: Document) -> Iterator[Finding]:
    options = [text for _, text in strings(document.get("docker") or {})]
    for which in COMMANDS:
        for key, command in _commands(filled, which) if which in document else ():
            if not any("RAY_AUTH_MODE=token" in text for text in [command, *options]):
                yield key, "starts Ray without a token: whoever reaches a port may run code; say RAY_AUTH_MODE=token"
    for key, text in strings(document):
        if re.search(r"RAY_AUTH_TOKEN=(?!\$)\S", text):
            yield key, "a secret does not belong in a file; mount ~/.ray/auth_token (file_mounts)"
    mounted = any(str(path).endswith(".ray/auth_token") for path in document.get("file_mounts") or {})
    if not mounted and not any("RAY_AUTH_TOKEN" in text for _, text in strings(document)):
        yield "file_mounts", "must bring the token to every node: {~/.ray/auth_token: ~/.ray/auth_token}"


def _drivers(document: Document, filled: Document) -> Iterator[Finding]:
    """What drives a sweep's trials dies with its node, so it lives on the head alone."""
    for key, command in _commands(filled, COMMANDS[0]) if COMMANDS[0] in document else ():
        if TRIAL_DRIVER not in command:
            yield key, (f"""must say --resources='{{"{TRIAL_DRIVER}": {MAX_DRIVERS}}}': """
                        "trials' drivers are kept on the head by it")
    for key, command in _commands(filled, COMMANDS[1]) if COMMANDS[1] in document else ():
        if TRIAL_DRIVER in command:
            yield key, f"puts trials' drivers on workers, which come and go; only the head has `{TRIAL_DRIVER}`"
    for name, node in filled["available_node_types"].items():
        if name != filled["head_node_type"] and TRIAL_DRIVER in node["resources"]:
            yield (f"available_node_types.{name}.resources.{TRIAL_DRIVER}",
                   f"puts trials' drivers on workers, which come and go; only the head has `{TRIAL_DRIVER}`")


def _types(filled: Document) -> Iterator[tuple[str, str, Document, bool]]:
    """Key, name, content, and whether it is the head, of every node type."""
    for name, node in filled["available_node_types"].items():
        yield f"available_node_types.{name}", name, node, name == filled["head_node_type"]


def _head(document: Document, filled: Document) -> Iterator[Finding]:
    kind = document["provider"]["type"]
    for key, _, node, head in _types(filled):
        if not head:
            continue
        machine = machine_of(kind, node["node_config"])
        gpus = price_lists()[kind].machines.get(machine, (0.0, 0))[1] or node["resources"].get("GPU", 0)
        if gpus or node["node_config"].get("guestAccelerators"):
            yield f"{key}.node_config", f"the head runs all the time and trains nothing, but {machine} has GPUs"
        if node["resources"].get("CPU") != 0:
            yield f"{key}.resources", "the head must say CPU: 0: a trial there would starve the drivers of all"
        if is_spot(kind, node["node_config"]):
            yield f"{key}.node_config", "the head must not be on spot: the sweep ends with it"
    for key, command in _commands(filled, COMMANDS[0]) if COMMANDS[0] in document else ():
        if "--num-cpus=0" not in command:
            yield key, "must say --num-cpus=0: a trial on the head would starve the drivers of all"


def _machines(document: Document, filled: Document) -> Iterator[Finding]:
    kind = document["provider"]["type"]
    own, known = (document.get("metadata") or {}).get("usd_per_hour") or {}, price_lists()[kind].machines
    for key, _, node, _ in _types(filled):
        at = f"{key}.node_config.{TYPE_KEYS[kind]}"
        machine = machine_of(kind, node["node_config"])
        if not machine:
            yield at, "names no machine"
        elif machine not in known and not isinstance(own.get(machine), int | float):
            message = unknown("instance type", machine, known).partition(" allowed:")[0].rstrip(";")
            yield at, (f"{message}. If {kind} has it, say what an hour costs: "
                       f"metadata: {{usd_per_hour: {{{machine}: …}}}}")


def _idle(document: Document, filled: Document) -> Iterator[Finding]:
    if filled["idle_timeout_minutes"] > 60:
        yield "idle_timeout_minutes", f"idle nodes cost for {filled['idle_timeout_minutes']:g} minutes each; at most 60"
    default = document["provider"]["type"] in ("aws", "azure")
    if document["provider"].get("cache_stopped_nodes", default):
        yield "provider.cache_stopped_nodes", "must be false: a stopped node goes on to cost its volume"


def _own_machines(document: Document, filled: Document) -> Iterator[Finding]:
    """Ray learns what a machine of one's own has when it joins, so a trial that waits never makes it start one."""
    for node in filled["available_node_types"].values():
        fewest, most = node.get("min_workers", 0), node.get("max_workers", 0)
        if fewest < most:
            yield "min_workers", (f"{most - fewest} of {most} workers would never be started, since Ray does not know "
                                  "beforehand what they hold; leave min_workers out, or lower max_workers too")


def _gcp(document: Document, filled: Document) -> Iterator[Finding]:
    for key, _, node, head in _types(filled):
        config = node["node_config"]
        interfaces = config.get("networkInterfaces") or []
        if not interfaces:
            yield f"{key}.node_config", "needs networkInterfaces: the default network lets everybody in by SSH"
        if "serviceAccounts" not in config:
            wide = ("Ray would give the head one with compute.admin and storage.objectAdmin" if head
                    else "without one it cannot write results")
            yield f"{key}.node_config", f"needs serviceAccounts: {wide}"
        if not any(disk.get("boot") and (disk.get("initializeParams") or {}).get("sourceImage")
                   for disk in config.get("disks") or []):
            yield f"{key}.node_config", "needs disks with a boot disk and its sourceImage"
        if is_spot("gcp", config) and isinstance(config.get("scheduling"), Mapping):
            yield f"{key}.node_config.scheduling", "is a list of mappings in Ray's files, this is one mapping"


def _azure(document: Document, filled: Document) -> Iterator[Finding]:
    provider = document["provider"]
    if not provider.get("use_internal_ips") or provider.get("use_external_head_ip"):
        yield ("provider.use_internal_ips", "must be true, without use_external_head_ip: Ray's template opens SSH to "
                                            "every address, so no node may have a public one")
    for key, _, node, _ in _types(filled):
        arm = node["node_config"].get("azure_arm_parameters") or {}
        if not {"imagePublisher", "imageOffer", "imageSku"} <= set(arm) and "imageId" not in arm:
            yield f"{key}.node_config.azure_arm_parameters", "names no image"
