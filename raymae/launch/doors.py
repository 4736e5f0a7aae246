"""Forms of an open door, in whatever file: ranges of addresses, containers with the machine's rights or ports, a token
that is switched off, rights to everything.

A rule yields (dotted key, message) for what it finds.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from raymae.launch import Document, Finding

MAX_ADDRESSES = 2**16  # of the internet that may reach a port
MAX_IPV6_BITS = 128 - 48  # of an IPv6 range: what a site is given
RANGE = re.compile(r"(?<![\w.:/])([0-9a-fA-F:.]{2,45})/(\d{1,3})(?![\w./])")
PRIVATE = [ipaddress.ip_network(text) for text in
           ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
            "fc00::/7", "fe80::/10", "::1/128")]
TOKEN_OFF = re.compile(r"""RAY_AUTH_MODE["']?\s*[=:]\s*["']?(?!["']?token\b)|(?:unset|-u)\s+RAY_AUTH_MODE""")
CONTAINER = re.compile(r"\b(?:docker|podman|nerdctl)\s+(?:container\s+)?(?:run|create)\b")
_SOCKET = re.compile(r"/(?:docker|containerd|podman)\.sock")


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a tree, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from strings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, f"{key}.{index}")


def open_ranges(document: Document) -> Iterator[Finding]:
    """Ranges of addresses that hold everybody, or a large part of the internet: halves of it are no less open."""
    for key, text in strings(document):
        for address, prefix in RANGE.findall(text):
            try:
                network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
            except ValueError:
                continue
            if network.prefixlen == 0:
                yield key, f"opens it to every address there is, got {text!r}; name your own addresses"
            elif is_wide(network):
                yield key, (f"opens it to {network.num_addresses:.3g} addresses of the internet, got {text!r}; name "
                            f"your own, at most {MAX_ADDRESSES} (IPv6: a /{128 - MAX_IPV6_BITS})")


def is_wide(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether a range holds more of the internet than one's own addresses can be."""
    if any(network.version == own.version and network.subnet_of(own) for own in PRIVATE):  # type: ignore[arg-type]
        return False
    most = MAX_ADDRESSES if network.version == 4 else 2**MAX_IPV6_BITS
    return network.num_addresses > most


def token_off(document: Document) -> Iterator[Finding]:
    """Commands and variables that start Ray without its token."""
    for key, text in strings(document):
        named = f"{key.rpartition('.')[2]}={text}" if key.endswith("RAY_AUTH_MODE") else text
        if TOKEN_OFF.search(named):
            yield key, f"switches the token off: {text!r}"


def container_options(document: Document) -> Iterator[Finding]:
    """Options of containers that give them the machine: in `docker: run_options`, and in commands that run one."""
    for key, text in strings(document):
        inside = CONTAINER.search(text)
        if inside is None and not re.search(r"(?:^|\.)\w*run_options\.\d+$", key):
            continue
        for message in options_opened(text[inside.end():] if inside else text):
            yield key, message


def options_opened(text: str) -> Iterator[str]:
    """What is wrong with the options of one `docker run`."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        value = value or (words[index + 1] if index + 1 < len(words) else "")
        if name == "--privileged" and value != "false":
            yield "must not be privileged: whoever gets into the container has the machine"
        elif name in ("--network", "--net", "--pid", "--ipc", "--uts", "--userns") and value == "host":
            yield f"must not say {name}=host: it opens the machine to the container"
        elif name in ("-P", "--publish-all"):
            yield "publishes every port to every address; name what is needed, as 127.0.0.1:8265:8265"
        elif name in ("-p", "--publish") or re.match(r"-p\d", name):
            yield from port_published(value if name in ("-p", "--publish") else word[2:])
        elif name == "--cap-add" and value.upper().removeprefix("CAP_") in ("ALL", "SYS_ADMIN", "NET_ADMIN"):
            yield f"must not add the capability {value}: it is as good as privileged"
        elif name in ("-v", "--volume", "--mount"):
            yield from volume_mounted(value)
        elif name == "--security-opt" and "unconfined" in value:
            yield f"must not say {name} {value}: it takes the container's confinement away"


def port_published(port: str) -> Iterator[str]:
    """What is wrong with a published port such as `8265:8265`."""
    host = port.rpartition(":")[0].rpartition(":")[0].strip("[]")
    if host not in ("127.0.0.1", "localhost", "::1"):
        yield (f"publishes port {port} to {host or 'every address'}; say 127.0.0.1:{port.split(':')[-1]}:"
               f"{port.split(':')[-1]} and reach it through a tunnel")


def volume_mounted(volume: str) -> Iterator[str]:
    """What is wrong with a mounted volume such as `/data:/data`."""
    source = volume.partition(":")[0]
    for part in volume.split(","):
        if part.startswith(("source=", "src=")):
            source = part.partition("=")[2]
    if source == "/" or _SOCKET.search(source):
        yield f"must not mount {source}: whoever gets into the container has the machine"


def compose_problems(document: Document) -> Iterator[Finding]:
    """Everything wrong with a file for `docker compose`."""
    yield from token_off(document)
    for name, service in (document.get("services") or {}).items():
        if not isinstance(service, Mapping):
            continue
        at = f"services.{name}"
        if service.get("privileged"):
            yield f"{at}.privileged", "must not be true: whoever gets into the container has the machine"
        for key in ("network_mode", "pid", "ipc", "userns_mode"):
            if service.get(key) == "host":
                yield f"{at}.{key}", "must not be host: it opens the machine to the container"
        for index, port in enumerate(service.get("ports") or []):
            text = port if not isinstance(port, Mapping) else f"{port.get('host_ip', '')}:{port.get('published', '')}:x"
            yield from ((f"{at}.ports.{index}", message) for message in port_published(str(text)))
        for index, volume in enumerate(service.get("volumes") or []):
            text = str(volume.get("source", "") if isinstance(volume, Mapping) else volume)
            yield from ((f"{at}.volumes.{index}", message) for message in volume_mounted(text))
        for index, capability in enumerate(service.get("cap_add") or []):
            opened = options_opened(f"--cap-add={capability}")
            yield from ((f"{at}.cap_add.{index}", message) for message in opened)
        starts, given = str(service.get("command") or ""), service.get("environment") or {}
        mode = given.get("RAY_AUTH_MODE") if isinstance(given, Mapping) else \
            "token" if "RAY_AUTH_MODE=token" in given else None
        if "ray start" in starts and mode != "token" and "RAY_AUTH_MODE=token" not in starts:
            yield (f"{at}.environment",
                   "starts Ray without a token: whoever reaches a port may run code; say RAY_AUTH_MODE: token")


def policy_problems(document: Document) -> Iterator[Finding]:
    """Everything wrong with a policy of AWS's: rights to everything, or for everybody."""
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, Mapping) else statements
    for index, statement in enumerate(statements or []):
        if not isinstance(statement, Mapping) or statement.get("Effect") != "Allow":
            continue
        at = f"Statement.{index}"
        for action in _listed(statement.get("Action")):
            if re.fullmatch(r"\*|[\w-]+:\*", action):
                yield f"{at}.Action", f"gives every right{'' if action == '*' else ' of a service'}, got {action!r}; " \
                                      "list what is needed"
        for key in ("NotAction", "NotResource", "NotPrincipal"):
            if key in statement:
                yield f"{at}.{key}", "allows all but what it lists; list what is needed"
        principal = statement.get("Principal")
        if "*" in _listed(principal) or (isinstance(principal, Mapping) and
                                         any("*" in _listed(value) for value in principal.values())):
            yield f"{at}.Principal", "gives it to everybody; name who needs it"
        only_reads = all(re.search(r":(Describe|List|Get)\w*$", action) for action in _listed(statement.get("Action")))
        if "*" in _listed(statement.get("Resource")) and not only_reads and not statement.get("Condition"):
            yield f"{at}.Resource", "holds for every resource there is; name those of the cluster, or a Condition"


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []
