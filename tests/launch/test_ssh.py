""""Machines you own" of cluster/README.md, literally over SSH: an sshd on loopback is the machine, moto's server is S3.

Replaced are what one machine cannot have twice: placeholders, ports, the venv (this process's own stands for the one
that `setup_commands` would install) and `ray stop`, which would end every Ray on this machine and here ends the
remote one alone.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from raymae.errors import ResultsError
from raymae.results.store.store import Store
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)
TIMEOUT_S = 900
SECTION = re.compile(r"## Machines you own\n.*?```bash\n(.*?)```", re.DOTALL)
SMALL = ("--set size=debug --set 'arms=[scratch, persistence]' --set 'space={lr: {loguniform: [1e-3, 1e-2]}}' "
         "--set search.num_trials=1 --set replicates=2")
RAY = """#!{python}
import os, signal, sys
import psutil
if sys.argv[1:2] != ["stop"]:
    os.execv({ray!r}, ["ray", *sys.argv[1:]])
mine = {{process.pid for process in [psutil.Process(), *psutil.Process().parents()]}}
for process in psutil.process_iter():
    try:
        ours = process.pid not in mine and process.environ().get("HOME") == {home!r}
        if ours and "ray" in " ".join(process.cmdline()):
            process.kill()
    except psutil.Error:
        pass
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None or not shutil.which("rsync") or not shutil.which("ssh"),
                       reason="needs sshd, ssh and rsync (Debian: openssh-server, rsync)"),
]


@dataclass
class Machines:
    """The laptop's HOME and working folder, and how its shell commands run."""

    laptop: Path
    remote: Path
    key: Path
    ssh_port: int
    dashboard: int
    forwarded: int
    s3: str

    @property
    def environment(self) -> dict[str, str]:
        ours = ("RAY_", "RAYMAE_", "TUNE_", "AWS_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        return {**kept, **self.aws, "HOME": str(self.laptop), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(ROOT),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}

    @property
    def aws(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.s3, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def shell(self, command: str) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=self.laptop / "checkout", env=self.environment, text=True,
                              capture_output=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture
def machines(s3_endpoint: str) -> Iterator[Machines]:
    tmp_path = Path(tempfile.mkdtemp(prefix="ssh-"))  # pytest's own is too long for Ray's sockets
    laptop, remote = tmp_path / "laptop", tmp_path / "remote"
    (remote / "raymae-venv" / "bin").mkdir(parents=True)
    (laptop / ".ssh").mkdir(parents=True)
    key = laptop / ".ssh" / "raymae"
    host_key = tmp_path / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    found = Machines(laptop, remote, key, free_port(), free_port(), free_port(), s3_endpoint)
    (laptop / "checkout").mkdir()
    for name in ("raymae", "cluster", "sweeps", "pyproject.toml", "README.md", ".gitignore"):
        source, target = ROOT / name, laptop / "checkout" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    stand_in_venv(remote)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {found.ssh_port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {key}.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={remote}\nMaxStartups 100\nMaxSessions 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where its unprivileged child is locked up
    log = tmp_path / "sshd.log"
    sshd = subprocess.Popen([str(SSHD), "-D", "-E", str(log), "-f", str(config)])
    try:
        yield found
    finally:
        end_processes_of(remote, laptop)
        sshd.send_signal(signal.SIGTERM)
        sshd.wait(20)
        shutil.rmtree(tmp_path, ignore_errors=True)


def stand_in_venv(remote: Path) -> None:
    """A venv in the remote HOME with this one's packages, and a `ray` whose `stop` ends this HOME's Ray alone."""
    prefix, target = Path(sys.prefix), remote / "raymae-venv"
    (target / "lib").symlink_to(prefix / "lib")
    shutil.copy(prefix / "pyvenv.cfg", target)
    for program in (prefix / "bin").iterdir():
        (target / "bin" / program.name).symlink_to(program)
    (target / "bin" / "ray").unlink()
    text = RAY.format(python=sys.executable, ray=str(prefix / "bin" / "ray"), home=str(remote))
    (target / "bin" / "ray").write_text(text)
    (target / "bin" / "ray").chmod(0o755)
    (remote / ".profile").write_text(". ~/.bashrc\n")
    (remote / ".bashrc").touch()


def end_processes_of(*homes: Path) -> None:
    wanted = {str(home) for home in homes}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HOME") in wanted:
                process.kill()
        except psutil.Error:
            continue


def fill_in(file: Path, machines: Machines) -> None:
    """What the page asks the user to set, and this test's ports."""
    text = file.read_text()
    for placeholder, value in {"HEAD_IP": "127.0.0.1", "[WORKER_IP]": "[]", "SSH_USER": getpass.getuser()}.items():
        assert placeholder in text
        text = re.sub(rf"(?<!\$RAY_){re.escape(placeholder)}", value, text)
    proxy = f"{sys.executable} {machines.laptop / 'proxy.py'} {machines.ssh_port}"
    (machines.laptop / "proxy.py").write_text(PROXY)
    text = text.replace("  ssh_private_key: ~/.ssh/raymae", (  # ssh reads ~ from the account, not from $HOME
        f"  ssh_proxy_command: {proxy}\n  ssh_private_key: {machines.key}"
    ))
    text = text.replace("cluster_name: raymae-local", f"cluster_name: raymae-{machines.ssh_port}")
    assert "--port=6379" in text
    text = text.replace("--head --port=6379", (
        f"--head --port={free_port()} --dashboard-port={machines.dashboard} --node-ip-address=127.0.0.1 --num-cpus=2 "
        f"--dashboard-agent-listen-port={free_port()} --dashboard-agent-grpc-port={free_port()} "
        f"--ray-client-server-port={free_port()} --temp-dir={machines.remote}/r"
    ))
    kept = [line for line in text.splitlines() if "-m venv" not in line and "pip install" not in line]
    assert len(kept) < len(text.splitlines())
    file.write_text("\n".join(kept) + "\n")


PROXY = """import select, socket, sys, os
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    for ready in select.select([0, s], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else s.recv(65536)
        if not data:
            sys.exit()
        s.sendall(data) if ready == 0 else os.write(1, data)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(2)


def test_the_page_over_ssh(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    block = SECTION.search((ROOT / "cluster" / "README.md").read_text())
    assert block is not None
    commands = [line.partition("  #")[0].strip() for line in block[1].splitlines() if line.strip()]
    names = ["ray get-auth-token", "ssh-keygen", "cp cluster/local.yaml", "raymae cluster check", "ray up",
             "ray dashboard", "raymae submit", "raymae jobs", "raymae results", "ray down"]
    assert [command for command, name in zip(commands, names, strict=True) if not command.startswith(name)] == []
    forwarding: subprocess.Popen[str] | None = None
    sweep = f"s3://bucket/ssh-{machines.ssh_port}"
    server = f"http://localhost:{machines.forwarded}"
    job = ""
    for command in commands:
        if command.startswith("ssh-keygen"):
            continue  # the fixture made the key that its sshd knows
        if command.startswith("ray dashboard"):  # kept running beside the others
            forwarding = subprocess.Popen(
                [*command.split(), f"--port={machines.forwarded}", f"--remote-port={machines.dashboard}"],
                cwd=machines.laptop / "checkout", env=machines.environment, text=True,
            )
            wait_for(lambda: answers(machines.forwarded))
            continue
        command = command.replace("s3://my-bucket/sweeps", sweep).replace("http://localhost:8265", server)
        if command.startswith("raymae submit"):
            passed = " ".join(f"--env {name}={value}" for name, value in machines.aws.items())
            data = os.environ.get("RAYMAE_DATA")
            passed += f" --env RAYMAE_DATA={data}" if data else " --env RAYMAE_OFFLINE=1"
            job = json.loads(machines.shell(f"{command} {SMALL} {passed} --json"))["job"]
            assert forwarding is not None
            forwarding.kill()  # the laptop is closed ...
            forwarding.wait()
            wait_for(lambda: ended(f"{sweep}/timeseries-mask", machines, monkeypatch))
            forwarding = subprocess.Popen(  # ... and opened again
                ["ray", "dashboard", "my-cluster.yaml", f"--port={machines.forwarded}",
                 f"--remote-port={machines.dashboard}"],
                cwd=machines.laptop / "checkout", env=machines.environment, text=True,
            )
            wait_for(lambda: answers(machines.forwarded))
            continue
        printed = machines.shell(command)
        if command.startswith("cp "):
            fill_in(machines.laptop / "checkout" / "my-cluster.yaml", machines)
        if command.startswith("raymae jobs"):
            assert job in printed
            wait_for(partial(succeeded, machines, f"{command} --json", job))
        if command.startswith("raymae results"):
            assert "scratch" in printed
            assert "real data" in printed or "RAYMAE_DATA" not in os.environ
    assert forwarding is not None
    forwarding.kill()
    forwarding.wait()
    assert not running_under(machines.remote)


def succeeded(machines: Machines, command: str, job: str) -> bool:
    status = next(row["status"] for row in json.loads(machines.shell(command)) if row["job"] == job)
    assert status in ("running", "succeeded")
    return bool(status == "succeeded")


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ended(root: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> bool:
    for name, value in machines.aws.items():
        monkeypatch.setenv(name, value)
    try:
        verdict = Store.open(root).verdict()
    except ResultsError:
        return False
    return bool(verdict and verdict["complete"])


def running_under(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(home) and "raylet" in " ".join(process.cmdline()):
                found.append(process.name())
        except psutil.Error:
            continue
    return found
