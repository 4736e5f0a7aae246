"""Docker on this machine, without a registry: daemon, base image, the images of docker/ and its compose file.

Everything lies in one folder and answers on a socket of its own: `docker.io`, `docker-compose`, `buildah` and
`debootstrap` are Debian's, the base image is Debian's smallest with this machine's certificates and the settings of its
pip, and Prometheus is Debian's in the place of the official image. Grafana's cannot be had so.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = ("dockerd", "docker", "docker-compose", "buildah", "debootstrap", "iptables-save", "ip", "apt-get",
            "dpkg-deb")
PATIENCE_S = 1800
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CPU_WHEELS = ("2.14.1+cpu", "2.13.0+cpu")  # of PyTorch; the first that can be had here
PIP = ("index-url", "extra-index-url", "find-links", "constraint", "default-timeout")
NO_RULES = "".join(f"*{table}\n{chains}COMMIT\n" for table, chains in {
    "filter": ":INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n",
    "nat": ":PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n"}.items())
Row = dict[str, Any]


def missing() -> str | None:
    """What the rig lacks here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return (f"needs {', '.join(absent)} (Debian: apt-get install --no-install-recommends docker.io docker-compose "
                "buildah debootstrap iptables iproute2)")
    return "needs to be root: so is the daemon" if os.geteuid() else None


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Rig:
    """A daemon, and copies of docker/'s files that name what can be had here.

    Args:
        folder: An empty one, with room for 25 GB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.token = secrets.token_hex(32)
        self.dashboard = f"http://127.0.0.1:{free_port()}"  # not 8265, which a Ray of this machine may have
        self.commit = self.run("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()

    @property
    def environment(self) -> dict[str, str]:
        ours = ("RAY_", "RAYMAE_", "TUNE_", "DOCKER_", "COMPOSE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PATH": _path(), "HOME": str(self.folder), "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
                "COMPOSE_PROJECT_NAME": "raymae", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token,
                "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}

    def run(self, *command: str, ok: bool = True) -> str:
        """What a command printed; raises AssertionError where it failed, unless that is expected."""
        done = subprocess.run(command, env=self.environment, cwd=self.folder,
                              capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0 or not ok, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    # -- images --------------------------------------------------------------------------------------------------------

    def buildah(self, *arguments: str) -> str:
        return self.run("buildah", "--root", f"{self.folder}/images", "--runroot", f"{self.folder}/run",
                        "--storage-driver", "overlay", *arguments)

    def base(self, name: str) -> None:
        """Debian with Python, under the name that the Dockerfile asks for."""
        sources = "\n".join(path.read_text() for path in [
            Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))] if path.is_file())
        suite = dict(re.findall(r"^(\w+)=\"?([^\"\n]*)", Path("/etc/os-release").read_text(), re.M))["VERSION_CODENAME"]
        mirror = re.search(r"^[^#\n]*?(https?://\S+/debian)/?\s", sources, re.M)
        assert mirror is not None, "this machine's sources name no mirror of Debian"
        system = self.folder / "base"
        self.run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", suite,
                 str(system), mirror[1])
        shutil.rmtree(system / "var/cache/apt", ignore_errors=True)
        (system / "usr/bin/python").symlink_to("python3")
        shutil.copy(CERTIFICATES, system / CERTIFICATES.relative_to("/"))
        settings = {key: value for key, value in _of_pip().items() if key in PIP}
        if "constraint" in settings:
            shutil.copy(settings["constraint"], system / "etc" / "pip-constraints.txt")
            settings["constraint"] = "/etc/pip-constraints.txt"
        lines = [f"{key} = {value}" for key, value in {**settings, "cert": str(CERTIFICATES)}.items()]
        (system / "etc" / "pip.conf").write_text("\n".join(["[global]", *lines]) + "\n")
        self.image(name, system)

    def prometheus(self, name: str) -> None:
        """Debian's, in the place of the official image."""
        package, system = self.folder / "package", self.folder / "base"
        package.mkdir()
        self.run("bash", "-c", f"cd {package} && apt-get download prometheus && dpkg-deb -x prometheus_*.deb {package}")
        shutil.copy(package / "usr/bin/prometheus", system / "usr/bin/prometheus")
        self.image(name, system, 'ENTRYPOINT ["/usr/bin/prometheus"]', "WORKDIR /prometheus")

    def image(self, name: str, system: Path, *lines: str) -> None:
        """An image of a folder."""
        file = self.folder / "Dockerfile.system"
        file.write_text("\n".join(["FROM scratch", "COPY . /", *lines]) + "\n")
        self.buildah("bud", "--isolation", "chroot", "--format", "docker", "-f", str(file), "-t", name, str(system))

    def build(self, target: str, *arguments: str) -> None:
        """One of docker/Dockerfile's targets, from what git tracks."""
        wheels = [place for place in _places_of_wheels() if Path(place).is_dir()]
        self.buildah("bud", "--isolation", "chroot", "--network", "host", "--pull-never", "--format", "docker",
                     *(f"--volume={place}:{place}:ro" for place in ["/etc/resolv.conf", *wheels]), "-f",
                     "docker/Dockerfile", "--target", target, "--build-arg", f"COMMIT={self.commit}", *arguments, "-t",
                     f"raymae:{target}", str(self.tree))

    def inside(self, image: str, *command: str) -> str:
        """What a command prints in a container of an image that buildah holds."""
        container = self.buildah("from", "--pull-never", image).strip()
        try:
            return self.buildah("run", "--isolation", "chroot", "--network", "host", container, "--", *command)
        finally:
            self.buildah("rm", container)

    def config(self, image: str) -> Row:
        """User, environment, health check and size of an image; the size in bytes, as it lies on a disk."""
        looked = json.loads(self.buildah("inspect", "--type", "image", image))
        sizes = {name: row["size"] for row in json.loads(self.buildah("images", "--json")) for name in row["names"]}
        return {**looked["Docker"]["config"], "bytes": _bytes_of(next(
            size for name, size in sizes.items() if name.endswith(image)))}

    def to_docker(self, image: str, name: str | None = None) -> None:
        archive = self.folder / "image.tar"
        self.buildah("push", image, f"docker-archive:{archive}:{name or image}")
        self.run("docker", "load", "-i", str(archive))
        archive.unlink()

    # -- the compose file ----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The compose file as it is shipped, but for `name`, which Debian's 1.29 does not know, and the port that it
        publishes; and its secrets."""
        file = self.tree / "docker" / "compose.yaml"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("name:")]
        published = f"{self.dashboard.removeprefix('http://')}:8265"
        assert any("127.0.0.1:8265:8265" in line for line in lines)
        file.write_text("\n".join(lines).replace("127.0.0.1:8265:8265", published) + "\n")
        for name, value in (("auth_token", self.token), ("grafana_password", "x")):
            (self.tree / "docker" / name).write_text(value)
            (self.tree / "docker" / name).chmod(0o600)
            os.chown(self.tree / "docker" / name, 1000, 1000)

    def compose(self, *arguments: str) -> str:
        return self.run("docker-compose", "-f", str(self.tree / "docker" / "compose.yaml"), *arguments)

    def up(self, workers: int) -> None:
        self.compose("up", "--detach", "--no-build", "--scale", f"worker={workers}", "head", "worker", "prometheus")

    def containers(self, service: str) -> list[Row]:
        """Those of a service, running or not, as `docker inspect` has them."""
        names = self.run("docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.service={service}")
        return json.loads(self.run("docker", "inspect", *names.split())) if names.split() else []

    def healthy(self, service: str) -> int:
        return sum(row["State"].get("Health", {}).get("Status") == "healthy" for row in self.containers(service))

    def status(self, path: str, token: str | None) -> int:
        """What the published job server answers."""
        request = urllib.request.Request(self.dashboard + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def scraped(self, query: str) -> list[Row]:
        """What Prometheus answers, over the compose network: its port is not published."""
        (row,) = self.containers("prometheus")
        (network,) = row["NetworkSettings"]["Networks"].values()
        where = f"http://{network['IPAddress']}:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(where, timeout=30) as answer:
            found: list[Row] = json.load(answer)["data"]["result"]
        return found

    def in_volume(self, *command: str) -> str:
        """What `raymae` prints in a container of its own that has the volume of results alone."""
        return self.run("docker", "run", "--rm", "--volume=raymae_results:/home/raymae/results", "raymae:cpu", "raymae",
                        *command)

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}\n{self.run('docker', 'ps', '--all')}\n{self.logs()}"
            time.sleep(1)
        return found

    def logs(self) -> str:
        return "\n".join(self.run("docker", "logs", "--tail", "40", row["Id"], ok=False)
                         for service in ("head", "worker") for row in self.containers(service))


def _of_pip() -> dict[str, str]:
    """This machine's settings of pip by name, of its files and of the environment."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", said.stdout, re.M))


def _places_of_wheels() -> list[str]:
    """Folders of this machine that its pip looks into, where there are any."""
    named = " ".join(_of_pip().get(key, "") for key in ("find-links", "extra-index-url", "index-url"))
    places = re.findall(r"(?:^|\s|file://)(/\S+)", named)
    return sorted({str(Path(place).parent if place.endswith("/simple") else Path(place)) for place in places})


def _bytes_of(size: str) -> float:
    number, unit = size.split()
    return float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def cpu_wheel() -> list[str]:
    """Build arguments for the first of PyTorch's CPU builds that pip finds here; none where the shipped one is there.

    Raises:
        LookupError: None is.
    """
    for version in CPU_WHEELS:
        found = subprocess.run([sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps",
                                f"torch=={version}"], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return ["--build-arg", f"TORCH_CPU={version}", "--build-arg", "TORCH_CPU_INDEX="]
    raise LookupError(f"pip finds none of {', '.join(CPU_WHEELS)}")


@contextmanager
def docker(folder: Path) -> Iterator[Rig]:
    """A daemon for the length of a `with` block, and what git tracks as `tree`; then the network is as it was."""
    rig = Rig(folder)
    rules, bridged = rig.run("iptables-save"), Path("/sys/class/net/docker0").exists()
    rig.tree.mkdir()
    rig.run("bash", "-c", f"git -C {ROOT} ls-files -z | (cd {ROOT} && tar --null -T - -c) | tar -x -C {rig.tree}")
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--storage-driver", "overlay2", "--data-root", f"{folder}/docker", "--exec-root",
             f"{folder}/exec", "--pidfile", f"{folder}/docker.pid", "-H", f"unix://{folder}/docker.sock"],
            env=rig.environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while "Server Version" not in rig.run("docker", "info", ok=False):
            starting = daemon.poll() is None and time.monotonic() < deadline
            assert starting, (folder / "dockerd.log").read_text()[-4000:]
            time.sleep(0.5)
        yield rig
    finally:
        for container in rig.run("docker", "ps", "--all", "--quiet", ok=False).split():
            rig.run("docker", "rm", "--force", "--volumes", container, ok=False)
        rig.run("docker", "network", "prune", "--force", ok=False)
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        for mount in sorted((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
                             if line.split()[1].startswith(str(folder))), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        subprocess.run(["iptables-restore"], input=NO_RULES + rules, text=True, env=rig.environment, check=False)
        if not bridged:
            rig.run("ip", "link", "delete", "docker0", ok=False)

