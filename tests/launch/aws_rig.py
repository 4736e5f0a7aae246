"""`ray up cluster/aws.yaml` without AWS: moto answers for EC2, IAM and S3, stand-ins for ssh and rsync run locally.

Run inside process, network and mount namespaces of its own (`ray stop`, which the launcher calls, ends every Ray it can
see), with one folder as the only argument. Writes what was seen there as `seen.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ENDPOINT = "http://127.0.0.1:5055"
DASHBOARD = "http://127.0.0.1:8265"
PATIENCE_S = 600
TAGS = ("ray-node-type", "ray-node-kind", "ray-cluster-name", "ray-user-node-type", "ray-node-status")

SSH = """#!/bin/bash
# runs the command here instead of on the host that is named
while [ $# -gt 0 ]; do case "$1" in -o|-i|-L|-p|-l) shift 2;; -*) shift;; *) break;; esac; done
echo "$*" >> "$RIG/ssh.log"
shift
exec bash -c "$*"
"""
RSYNC = """#!/bin/bash
# copies here: excludes and filters are left to a real rsync
src="${@: -2:1}"; dst="${@: -1}"; src="${src#*@*:}"; dst="${dst#*@*:}"
src="${src/#\\~/$HOME}"; dst="${dst/#\\~/$HOME}"
[ "$src" -ef "$dst" ] && exit 0
mkdir -p "$(dirname "$dst")"; [ -d "$src" ] && { mkdir -p "$dst"; exit 0; }
[ -e "$src" ] && cp -a "$src" "$dst"; exit 0
"""
SWEEP = """
name: on-aws
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [scratch]
space: {lr: {loguniform: [1e-3, 1e-2]}}
search: {num_trials: 2, scheduler: none, max_concurrent: 1}
training: {epochs: 2}
replicates: 1
resources: {gpus_per_worker: 1}
results: s3://mae-results/results
"""


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh", fcntl.ioctl(control, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", flags | 1))


def shipped_file(folder: Path) -> Path:
    """The shipped file with the user's two lines set; after `prepare`, what needs a real machine is replaced."""
    shutil.copytree(ROOT / "cluster", folder / "cluster")
    path = folder / "cluster" / "aws.yaml"
    text = path.read_text().replace("ssh_cidr: SET_ME", "ssh_cidr: 203.0.113.7/32")
    path.write_text(text.replace("bucket: SET_ME", "bucket: mae-results"))
    return path


def without_machines(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    for key in ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"):
        config[key] = []  # apt and pip
    head, worker = config["head_start_ray_commands"][1], config["worker_start_ray_commands"][1]
    here = "--node-ip-address=127.0.0.1"
    config["head_start_ray_commands"] = [head.replace("ray start", f"ray start {here}")]
    # every node is this machine: no `ray stop`, which would end the head, GPUs that are only claimed, and a /tmp/ray of
    # its own, since a node that goes takes the job's working folder there with it
    worker = worker.replace("$RAY_HEAD_IP", "127.0.0.1") + f" {here} --num-cpus=2 --num-gpus=1"
    config["worker_start_ray_commands"] = [
        f"unshare -m bash -c 'mount -t tmpfs -o size=2g tmpfs /tmp/ray && {worker}'"
    ]
    config["idle_timeout_minutes"] = 0.3
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def instances() -> list[dict[str, Any]]:
    import boto3

    found = []
    for reservation in boto3.client("ec2").describe_instances()["Reservations"]:
        for one in reservation["Instances"]:
            disks = boto3.client("ec2").describe_volumes(
                Filters=[{"Name": "attachment.instance-id", "Values": [one["InstanceId"]]}])["Volumes"]
            found.append({
                "id": one["InstanceId"], "type": one["InstanceType"], "state": one["State"]["Name"],
                "image": one["ImageId"], "spot": one.get("InstanceLifecycle") == "spot",
                "profile": one.get("IamInstanceProfile", {}).get("Arn"), "metadata": one.get("MetadataOptions"),
                "groups": [group["GroupId"] for group in one["SecurityGroups"]],
                "tags": {tag["Key"]: tag["Value"] for tag in one.get("Tags", []) if tag["Key"] in TAGS},
                "encrypted": [disk["Encrypted"] for disk in disks],
            })
    return found


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(1)
    raise TimeoutError(f"{what}: not in {PATIENCE_S} s; instances: {instances()}")


def run(*command: str, **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, **more)
    output = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{output}")
    return output


def main(folder: Path) -> None:
    """Up, a sweep, idle, down; what was seen at each goes into `seen.json`."""
    loopback_up()
    for where in ("/dev/shm", "/tmp/ray"):
        Path(where).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", where], check=True)
    home, tools = folder / "home", folder / "bin"
    for path in (home / ".ssh", home / ".ray", tools):
        path.mkdir(parents=True)
    for name, text in (("ssh", SSH), ("rsync", RSYNC)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (home / ".ray" / "auth_token").write_text("0" * 64)
    (home / ".ray" / "auth_token").chmod(0o600)
    environment = {
        "HOME": str(home), "RIG": str(folder), "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAYMAE_OFFLINE": "1",
        "RAYMAE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    (home / ".bashrc").write_text("".join(f"export {name}='{value}'\n" for name, value in environment.items()))
    os.environ.update(environment)
    seen: dict[str, Any] = {}
    with (folder / "moto.log").open("wb") as log:
        moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "5055"], stdout=log, stderr=log)
    try:
        wait_for("moto", _moto_answers)
        file = shipped_file(folder)
        run(sys.executable, "-m", "raymae.cli", "cluster", "prepare", str(file))
        run(sys.executable, "-m", "raymae.cli", "cluster", "check", str(file))
        import boto3

        # the bucket admits TLS only, which this endpoint does not speak
        boto3.client("s3").delete_bucket_policy(Bucket="mae-results")
        without_machines(file)
        seen["up"] = run("ray", "up", str(file), "-y", "--no-config-cache", cwd=ROOT)
        seen["after up"] = instances()
        seen["security groups"] = _security_groups()
        (folder / "sweep.yaml").write_text(SWEEP)
        with (folder / "job.log").open("wb") as log:
            job = subprocess.Popen(
                [sys.executable, "-m", "raymae.cli", "submit", str(folder / "sweep.yaml"), "--address", DASHBOARD],
                stdout=log, stderr=log, cwd=folder,
            )
        seen["while it runs"] = wait_for(
            "a worker", lambda: job.poll() is not None or [
                one for one in instances() if one["tags"].get("ray-node-type") == "worker"]
        )
        seen["job returned"] = job.wait(PATIENCE_S)
        seen["results"] = run(sys.executable, "-m", "raymae.cli", "query", "s3://mae-results/results/on-aws",
                              "SELECT stage, status, device FROM trials", "--json")
        wait_for("the idle worker's end", lambda: all(
            one["state"] == "terminated" for one in instances() if one["tags"].get("ray-node-type") == "worker"))
        seen["after idling"] = instances()
        seen["down"] = run("ray", "down", str(file), "-y", cwd=ROOT)
        seen["after down"] = instances()
    finally:
        (folder / "seen.json").write_text(json.dumps(seen, default=str))
        moto.kill()
        for name in ("monitor.log", "dashboard.log", "gcs_server.out"):
            path = Path("/tmp/ray/session_latest/logs", name)
            if path.exists():
                (folder / name).write_text(path.read_text()[-20_000:])


def _moto_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{ENDPOINT}/moto-api/", timeout=2):
            return True
    except OSError:
        return False


def _security_groups() -> Any:
    import boto3

    return boto3.client("ec2").describe_security_groups()["SecurityGroups"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
