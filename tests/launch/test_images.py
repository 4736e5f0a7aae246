"""The images and the compose file, built and run: to the verdict, over a killed worker, with Prometheus looking on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymae import __version__
from tests.launch.image_rig import PATIENCE_S, ROOT, Rig, cpu_wheel, docker, missing

SWEEP = """
name: contained
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: [mae, scratch, persistence]
space: {lr: {loguniform: [1e-3, 1e-2]}}
search: {num_trials: 6, scheduler: none}
training: {epochs: 60, pretrain_epochs: 4}
replicates: 2
resources: {cpus_per_worker: 1}
"""
GPU_BYTES, CPU_BYTES = 6.2e9, 3.5e9

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    try:
        if shutil.disk_usage(folder).free < 40e9:
            pytest.skip("needs 40 GB of disk: both images lie there twice")
        with docker(folder) as started:
            base = next(line.split()[1] for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines()
                        if line.startswith("FROM python"))
            started.base(base)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cpu(rig: Rig) -> Rig:
    try:
        wheel = cpu_wheel()
    except LookupError as error:
        pytest.skip(str(error))
    rig.build("cpu", *wheel)
    return rig


def holds_nothing_it_should_not(rig: Rig, image: str, most_bytes: float) -> None:
    config = rig.config(image)
    assert config["User"] == "1000"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["bytes"] < most_bytes
    said = rig.inside(image, "raymae", "--version").strip()
    assert said == f"raymae, version {__version__} (commit {rig.commit[:7]})"
    assert rig.inside(image, "id", "-u").strip() == "1000"
    searched = rig.inside(image, "bash", "-c", (
        "find / -xdev \\( -path /src -o -name auth_token -o -name .git -o -path /root/.cache \\) -print 2>/dev/null; "
        "find /opt/venv -perm -o+w -not -type l; true"))
    assert searched.split() == [], "source, secrets, caches, or what everybody may write"
    print(f"{image}: {config['bytes'] / 1e9:.2f} GB, {said}")


def test_the_gpu_image_is_built_and_lacks_only_what_nobody_needs(rig: Rig) -> None:
    rig.build("gpu")
    holds_nothing_it_should_not(rig, "raymae:gpu", GPU_BYTES)
    seen = json.loads(rig.inside("raymae:gpu", "python", "-c", (
        "import json, torch, torchvision, timm, monai, scipy.stats, statsmodels.api, pandas\n"
        "import ctypes, pathlib\n"
        "lib = pathlib.Path(torch.__file__).parent / 'lib'\n"
        "for name in ('libtorch_cuda.so', 'libtorch_cuda_linalg.so'): ctypes.CDLL(str(lib / name))\n"
        "print(json.dumps({'cuda': torch.version.cuda, 'nccl': torch.distributed.is_nccl_available()}))")))
    assert seen["cuda"]
    assert seen["nccl"]
    printed = rig.inside("raymae:gpu", "bash", "-c", "cd /tmp && RAYMAE_OFFLINE=1 HOME=/tmp raymae train "
                         "/home/raymae/raymae/sweeps/debug.yaml --arm mae --json")
    last = json.loads(printed.splitlines()[-1])
    assert (last["phase"], last["epoch"]) == ("finetune", 2)


def test_a_sweep_in_containers_survives_a_worker_and_is_scraped(cpu: Rig) -> None:
    rig = cpu
    holds_nothing_it_should_not(rig, "raymae:cpu", CPU_BYTES)
    rig.to_docker("raymae:cpu")
    rig.prometheus("prometheus:rig")
    rig.to_docker("prometheus:rig", "prom/prometheus:v3.5.0")
    rig.prepare()
    rig.up(workers=2)
    rig.wait_for("healthy", lambda: (rig.healthy("head"), rig.healthy("worker")) == (1, 2))
    for row in rig.containers("head") + rig.containers("worker"):
        assert row["Config"]["User"] == "1000"
        assert row["HostConfig"]["CapDrop"] == ["ALL"]
    assert rig.status("/api/version", None) == 401
    assert rig.status("/api/version", "0" * 64) in (401, 403)
    assert rig.status("/api/version", rig.token) == 200

    (rig.folder / "sweep.yaml").write_text(SWEEP)
    log = rig.folder / "submit.log"
    with log.open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "raymae.cli", "submit", "sweep.yaml", "--address", rig.dashboard, "--set",
             "results=/home/raymae/results"], cwd=rig.folder, env=rig.environment, stdout=output, stderr=output)
    try:
        def completed() -> int:
            assert job.poll() in (None, 0), log.read_text()
            rows = rig.scraped('max by (arm, stage) (ray_raymae_trials{status="completed"})')
            return sum(int(row["value"][1]) for row in rows)

        rig.wait_for("two trials, seen by Prometheus", lambda: completed() >= 2)
        victim = rig.containers("worker")[0]
        rig.run("docker", "kill", victim["Id"])
        rig.wait_for("it is gone", lambda: rig.healthy("worker") == 1)
        rig.up(workers=3)
        rig.wait_for("a third worker", lambda: rig.healthy("worker") == 3)
        assert job.poll() is None, f"the sweep was over before the third worker came\n{log.read_text()}"
        (planned,) = rig.scraped("sum(max by (arm, stage) (ray_raymae_trials_planned))")
        assert job.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        job.kill()
        job.wait()
    printed = log.read_text()
    print(printed[-1500:])
    assert "Traceback" not in printed
    assert int(planned["value"][1]) == 18

    told = json.loads(rig.in_volume("results", "/home/raymae/results/contained", "--json"))
    print(json.dumps(told)[:1500])
    counted = json.loads(rig.in_volume(
        "query", "/home/raymae/results/contained",
        "SELECT stage, status, count(*) AS n FROM trials GROUP BY stage, status",
        "--json"))
    assert {row["status"] for row in counted} == {"completed"}
    assert sum(row["n"] for row in counted if row["stage"] == "search") == 13
    assert sum(row["n"] for row in counted if row["stage"] == "replicate") == 5

    rig.compose("down", "--volumes")
    assert rig.run("docker", "ps", "--all", "--quiet").split() == []
    assert rig.run("docker", "volume", "ls", "--quiet").split() == []
    assert not any("raymae" in line for line in rig.run("docker", "network", "ls").splitlines())

