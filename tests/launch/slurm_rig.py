"""A Slurm of two nodes on this machine: Debian's daemons, run as root with folders, ports and a key of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from raymae.results.store.store import Store
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
PATIENCE_S = 1200
CONF = """
ClusterName=rig
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE
"""


def missing() -> str | None:
    """What the rig lacks here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: slurmctld, slurmd, slurm-client, munge)"
    return "needs to be root: so are the daemons" if os.geteuid() else None


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass
class Rig:
    """Two nodes, n1 and n2, and a user's folder that both see."""

    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        ours = ("RAY_", "RAYMAE_", "TUNE_", "SLURM_", "SBATCH_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PATH": _path(), "HOME": str(self.home), "SLURM_CONF": str(self.folder / "slurm.conf"),
                "PYTHONPATH": str(ROOT), "RAYMAE_OFFLINE": "1", "RAYMAE_CACHE": str(self.folder / "cache"),
                "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "RAY_worker_niceness": "0"}

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True,
                              timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def cli(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "raymae.cli", *arguments)

    def submit(self, name: str, text: str, *options: str) -> str:
        """The id of a job that runs a sweep of this name."""
        (self.home / f"{name}.yaml").write_text(text)
        return str(json.loads(self.cli("cluster", "slurm", f"{name}.yaml", "--submit", "--json", *options))["job"])

    def show(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "--oneliner", "show", "job", job)))

    def printed(self, job: str) -> str:
        return "\n".join(path.read_text() for path in self.home.glob(f"*-{job}.log"))

    def wait_for(self, condition: Callable[[], bool], job: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.show(job)}\n{self.printed(job)}\n{self.logs()}"
            time.sleep(0.5)

    def ended(self, job: str) -> bool:
        return self.show(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def store(self, name: str) -> Store:
        return Store.open(str(self.home / "results" / name))

    def query(self, name: str, sql: str) -> Any:
        return json.loads(self.cli("query", str(self.home / "results" / name), sql, "--json"))

    def left_behind(self, job: str) -> list[str]:
        """Processes of a job that are still there, and its folders."""
        found = [str(path) for path in Path("/tmp").glob(f"raymae-{job}-*")]
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_JOB_ID") == job and process.environ().get("HOME") == str(self.home):
                    found.append(" ".join(process.cmdline())[:200])
            except psutil.Error:
                continue
        return found

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as log:
            self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))


@contextmanager
def slurm(folder: Path) -> Iterator[Rig]:
    """Both nodes, idle, for the length of a `with` block."""
    rig = Rig(folder)
    for name in ("home", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, ports=[free_port() for _ in range(3)]))
    try:
        rig.start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
                  f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
                  f"--seed-file={folder}/munged.seed")
        deadline = time.monotonic() + 60
        while not (folder / "munge.socket").exists():
            assert time.monotonic() < deadline, rig.logs()
            time.sleep(0.1)
        conf = str(folder / "slurm.conf")
        rig.start("slurmctld", "-D", "-f", conf)
        for node in ("n1", "n2"):
            rig.start("slurmd", "-D", "-f", conf, "-N", node)
        while "idle idle" not in " ".join(_states(rig)):
            assert time.monotonic() < deadline, f"{_states(rig)} {rig.logs()}"
            time.sleep(0.5)
        yield rig
    finally:
        for job in subprocess.run(["squeue", "--noheader", "--format=%A"], env=rig.environment, capture_output=True,
                                  text=True, check=False).stdout.split():
            subprocess.run(["scancel", "--full", "--signal=KILL", job], env=rig.environment, check=False)
        for daemon in reversed(rig.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in rig.daemons:
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _states(rig: Rig) -> list[str]:
    """The state of each node; none while nobody answers."""
    done = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%t"], env=rig.environment, capture_output=True,
                          text=True, check=False)
    return done.stdout.split()
