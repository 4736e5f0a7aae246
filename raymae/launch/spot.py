"""A watcher for one node: when the cloud announces that it takes the machine back, the node is drained.

AWS tells a spot instance two minutes ahead, Google Cloud and Azure half a minute. A drained node gets no new work, and
trials on it hand themselves back, inside an epoch if need be; see `raymae.search.engine.watch`. Started by the cluster
files' worker commands:

    python -m raymae.launch.spot --cloud aws
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

METADATA = {
    "aws": "http://169.254.169.254", "gcp": "http://169.254.169.254", "azure": "http://169.254.169.254",
}
NOTICE_S = {"aws": 120, "gcp": 30, "azure": 30}  # what is left when a notice does not say
TIMEOUT_S = 2.0
TOKEN_S = 21600


@dataclass(frozen=True)
class Notice:
    """The cloud takes this machine back.

    Attributes:
        action: What it will do, in its words.
        seconds: How long is left.
    """

    action: str
    seconds: int


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """A metadata server's answer; None if it has none (404)."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def _aws(server: str) -> Notice | None:
    """IMDSv2: a session token first. `spot/instance-action` does not exist until there is a notice."""
    token = _ask(f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}, "PUT")
    text = _ask(f"{server}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""})
    if text is None:
        return None
    told = json.loads(text)
    return Notice(told.get("action", "terminate"), _seconds_until(told.get("time"), "aws"))


def _gcp(server: str) -> Notice | None:
    text = _ask(f"{server}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("preempt", NOTICE_S["gcp"]) if text is not None and text.strip() == "TRUE" else None


def _azure(server: str) -> Notice | None:
    text = _ask(f"{server}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
    for event in json.loads(text or "{}").get("Events", []):
        if event.get("EventType") == "Preempt":
            return Notice("preempt", NOTICE_S["azure"])
    return None


ASK: dict[str, Callable[[str], Notice | None]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}


def _seconds_until(when: str | None, cloud: str) -> int:
    try:
        at = datetime.fromisoformat(str(when).replace("Z", "+00:00"))
    except ValueError:
        return NOTICE_S[cloud]
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(1, int((at - datetime.now(UTC)).total_seconds()))


def wait_for_notice(cloud: str, server: str | None = None, interval_s: float = 5.0) -> Notice:
    """Ask the metadata server again and again until it announces the end. Does not mind when it cannot be reached.

    Args:
        cloud: `aws`, `gcp` or `azure`.
        server: Address of the metadata server, if it is not the cloud's own.
        interval_s: Seconds between two questions.
    """
    said = ""
    while True:
        try:
            notice = ASK[cloud](server or METADATA[cloud])
        except (OSError, ValueError) as error:
            if said != (said := f"the metadata server does not answer as it should: {error}"):
                print(said, flush=True)
        else:
            if notice is not None:
                return notice
        time.sleep(interval_s)


def drain(notice: Notice, node_id: str | None = None, address: str | None = None) -> None:
    """Tell Ray that a node goes: nothing new starts there, and what runs there is told.

    Args:
        notice: What was announced.
        node_id: The node; this one by default.
        address: Of the cluster; by default the one this machine belongs to.

    Raises:
        subprocess.CalledProcessError: Ray refused, or could not be reached.
    """
    if node_id is None:
        import ray

        ray.init(address=address or "auto", log_to_driver=False, configure_logging=False)
        node_id = ray.get_runtime_context().get_node_id()
        ray.shutdown()
    command = [
        str(Path(sys.executable).with_name("ray")), "drain-node", "--node-id", node_id,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", f"spot: {notice.action}",
        "--deadline-remaining-seconds", str(notice.seconds),
    ]
    subprocess.run([*command, "--address", address] if address else command, check=True)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--cloud", type=click.Choice(sorted(ASK)), default="aws", show_default=True)
@click.option("--metadata", "server", metavar="URL", help="Metadata server, if it is not the cloud's own.")
@click.option("--interval", "interval_s", type=float, default=5.0, show_default=True, metavar="SECONDS",
              help="Between two questions.")
@click.option("--node-id", help="Ray's id of the node; default: this one.")
@click.option("--address", help="Of the cluster; default: the one this machine belongs to.")
def main(cloud: str, server: str | None, interval_s: float, node_id: str | None, address: str | None) -> None:
    """Wait for the notice, drain the node, and go."""
    notice = wait_for_notice(cloud, server, interval_s)
    print(f"{notice.action} in {notice.seconds} s: draining this node", flush=True)
    drain(notice, node_id, address)


if __name__ == "__main__":
    main(prog_name="python -m raymae.launch.spot")
