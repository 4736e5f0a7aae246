"""Ray, started or joined: an embedded one on this machine, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymae.errors import ResourceError, one_line
from raymae.search.engine.autoscaling import ClusterFile, Growth, find_file, find_growth, room, slots_when_grown
from raymae.search.engine.dashboard import LateDashboard
from raymae.search.engine.interrupt import signals_kept
from raymae.search.engine.patience import PATIENCE_S, WAITS, patient
from raymae.spec.limits import ResourceSpec

TRIAL_DRIVER = "trial_driver"
MAX_DRIVERS = 10_000
LOCK = "in-use"  # held by the driver of the sweep whose scratch folder it lies in
START_LOGS = "ray-start"  # beside a sweep's log: what Ray's processes wrote when they did not come up
LATE_S = 60.0  # a dashboard that is just starting is waited for at the end of a sweep
CLUSTER_PATIENCE_S = "86400"  # for a node to boot, or for another sweep's end; the sweep's own end cuts it short

# A value the user has set wins.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{PATIENCE_S}",  # a busy machine takes more than Ray's minute
    "RAY_worker_niceness": "0",  # Ray's 15 would starve a sweep beside other work; who wants that says `nice raymae`
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a submitted job's variables and ours may name the same one
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# Of an embedded Ray and its workers: every port on loopback. PyTorch's Gloo would look for the machine's name.
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}


def set_environment() -> None:
    """Set Ray's variables. Ray reads RAY_AUTH_MODE once, when it is imported: call this before."""
    for name, value in ENVIRONMENT.items():
        if name != "RAY_AUTH_MODE" or "ray" not in sys.modules:
            os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Cluster:
    """A connected Ray.

    Attributes:
        dashboard: Address of the dashboard, or "" where there is none, or none yet.
        cpus: CPUs of the whole cluster.
        gpus: GPUs of the whole cluster.
        scratch: Local folder that lives as long as the connection.
        driver: The custom resource that keeps a sweep's keeper on the machines that have it, normally the head; empty
            where a cluster has none.
        growth: What the cluster's autoscaler may start; None where it has none, or none that can be seen from here.
        late: Starts the dashboard of an embedded Ray.
        file: What its autoscaler was started with; None likewise.
        gcs_address: Where Ray's own state is.
    """

    dashboard: str
    cpus: float
    gpus: float
    scratch: Path
    driver: Mapping[str, float]
    growth: Growth | None = None
    late: LateDashboard | None = None
    file: ClusterFile | None = None
    gcs_address: str = ""

    def nodes(self, *, head_only: bool = False) -> list[Mapping[str, float]]:
        """Resources of every node that is there now."""
        import ray

        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [node for node in alive if "node:__internal_head__" in node] if head_only else alive

    def slots(self, resources: ResourceSpec, max_concurrent: int | None = None) -> int:
        """How many trials run at once, with the nodes that the autoscaler may start.

        Raises:
            ResourceError: Not even one trial fits.
        """
        if self.growth is not None:
            return slots_when_grown(resources, self.nodes(head_only=True), self.growth, max_concurrent)
        if max_concurrent is not None:  # nodes may join, or an autoscaler run elsewhere: the user knows
            return max_concurrent
        try:
            return slots(resources, cpus=self.cpus, gpus=self.gpus)
        except ResourceError as error:
            more = "if the cluster grows on demand, say how far: search.max_concurrent"
            raise ResourceError(f"{error}; {more}") from None

    def room(self, resources: ResourceSpec) -> int:
        """Trials that fit on the nodes that are there now."""
        return room(resources, self.nodes())

    def capacity(self, resources: ResourceSpec) -> int:
        """Trials that all sweeps together may run at once, if all are of this size; 0 if none fits yet."""
        return self.room(resources) if self.growth is None else self.slots(resources)


def slots(resources: ResourceSpec, *, cpus: float, gpus: float, max_concurrent: int | None = None) -> int:
    """How many trials run at once.

    Args:
        resources: What one trial gets.
        cpus: CPUs there are.
        gpus: GPUs there are.
        max_concurrent: The user's limit.

    Raises:
        ResourceError: Not even one trial fits.
    """
    need_cpus = resources.workers * resources.cpus_per_worker
    need_gpus = resources.workers * resources.gpus_per_worker
    if need_cpus > cpus:
        raise ResourceError(
            f"resources: a trial needs {resources.workers} x {resources.cpus_per_worker:g} = {need_cpus:g} CPUs, "
            f"but there are {cpus:g}; lower resources.workers or resources.cpus_per_worker"
        )
    if need_gpus > gpus:
        raise ResourceError(
            f"resources: a trial needs {resources.workers} x {resources.gpus_per_worker:g} = {need_gpus:g} GPUs, "
            f"but there are {gpus:g}; set resources.gpus_per_worker=0 to train on CPUs"
        )
    fit = cpus // need_cpus
    if need_gpus:
        # a fraction of a GPU cannot be taken from two devices
        per_gpu = int(1 / resources.gpus_per_worker + 1e-9) if resources.gpus_per_worker < 1 else 1
        workers = gpus * per_gpu if resources.gpus_per_worker < 1 else gpus // resources.gpus_per_worker
        fit = min(fit, workers // resources.workers)
    fit = int(fit)
    if fit < 1:
        raise ResourceError(
            f"resources: {resources.workers} workers with {resources.gpus_per_worker:g} of a GPU each do not fit on "
            f"{gpus:g} GPUs; a share of a GPU cannot be spread over two"
        )
    return min(fit, max_concurrent) if max_concurrent else fit


def local_resources() -> tuple[float, float]:
    """CPUs and GPUs of this machine, as Ray would count them, without starting it."""
    set_environment()
    from ray._private.accelerators import NvidiaGPUAcceleratorManager
    from ray._private.utils import get_num_cpus

    return float(get_num_cpus()), float(NvidiaGPUAcceleratorManager.get_current_node_num_accelerators())


@contextmanager
def connected(
    log_file: Path | None = None, environment: Mapping[str, str] | None = None, address: str | None = None,
    about: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Ray for the length of a `with` block: an embedded one on this machine, or a cluster that runs already.

    Everything an embedded Ray writes lies in a folder of its own that is removed afterwards: a stale address file of
    another Ray cannot confuse it. All its ports are on loopback.

    Args:
        log_file: Where Ray's, Tune's and Train's own messages go, instead of the terminal; None drops them.
        environment: Variables for the workers.
        address: A cluster to join, as `ray.init` takes it: `auto`, or `host:port`; None starts an embedded Ray.
        about: What the dashboard says of the job.

    Raises:
        ResourceError: There is no cluster at that address, or it refuses us, or Ray does not start here.
    """
    set_environment()
    _remove_leftovers()
    scratch = Path(tempfile.mkdtemp(prefix=f"raymae-{os.getpid()}-"))
    claim = _claim(scratch)
    # a Ray of our own inherits variables; passed as a runtime environment, they would cost its prestarted workers
    waits = {name: value for name, value in WAITS.items() if name not in os.environ}
    variables = {**LOOPBACK, **waits, "RAY_TMPDIR": str(scratch), "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
                 **(environment or {})}
    with _quiet(log_file):
        import ray  # before LOOPBACK, which it would keep for a cluster that this process joins later
    late = LateDashboard() if address is None else None
    with _quiet(log_file), _variables(variables if address is None else {}):
        try:
            # Ray takes SIGTERM for itself when it connects, in Python and in C: without our handler a `kill` would
            # abort the process instead of ending the sweep with its verdict so far
            with signals_kept():
                context = (_embedded(scratch, about or {}, late, log_file) if late is not None
                           else _joined(str(address), environment or {}, about or {}))
            _protect_token()
            total = ray.cluster_resources()
            url, gcs_address = context.dashboard_url or "", str(ray.get_runtime_context().gcs_address)
            file = None if address is None else find_file(gcs_address)
            yield Cluster(
                f"http://{url}" if url else "", total.get("CPU", 0.0), total.get("GPU", 0.0), scratch,
                {TRIAL_DRIVER: 1.0} if TRIAL_DRIVER in total else {},
                find_growth(file), late, file, gcs_address,
            )
        finally:
            if late is not None:
                late.wait(LATE_S)
            ray.shutdown()
            if late is not None:
                late.end()
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(claim)


def _embedded(scratch: Path, about: Mapping[str, str], late: LateDashboard, log_file: Path | None) -> Any:
    """Start Ray as it starts where it knows no clusters (macOS, Windows): this machine's address is 127.0.0.1.

    `ray.init(_node_ip_address="127.0.0.1")` would put the address of the network in its place.

    Raises:
        ResourceError: Ray does not start.
    """
    import ray
    from ray._private import ray_constants
    from ray.job_config import JobConfig

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with late.put_off(), patient():
            return ray.init(
                address="local", include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False,
                configure_logging=False, resources={TRIAL_DRIVER: MAX_DRIVERS}, _temp_dir=str(scratch / "ray"),
                runtime_env=_quoted_interpreter(), job_config=JobConfig(metadata=dict(about)),
            )
    except Exception as error:  # Ray raises just that where a process of its own is not up in time
        logs = _kept_logs(scratch, log_file)
        raise ResourceError(
            f"Ray could not be started on this machine: {one_line(error)}. Where other work has most of the processors "
            "or of the memory, start the sweep again later"
            + (f"; what Ray's processes wrote is in {logs}" if logs else "")
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _kept_logs(scratch: Path, log_file: Path | None) -> Path | None:
    """Copy what Ray's processes wrote beside `log_file`, before the folder that they wrote in goes; None if nothing."""
    found = [path for path in scratch.glob("ray/session_*/logs/*") if path.is_file() and not path.is_symlink()]
    if log_file is None or not found:
        return None
    to = log_file.with_name(START_LOGS)
    shutil.rmtree(to, ignore_errors=True)
    try:
        to.mkdir(parents=True)
        for path in found:
            shutil.copyfile(path, to / path.name)
    except OSError:  # a full disk, say, which may be why Ray does not start: that is the error to tell of
        return None
    return to


def _joined(address: str, environment: Mapping[str, str], about: Mapping[str, str]) -> Any:
    import ray
    from ray.job_config import JobConfig

    train = {name: value for name, value in ENVIRONMENT.items() if name.startswith(("RAY_TRAIN", "TUNE"))}
    train["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = CLUSTER_PATIENCE_S
    train["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # the mailbox looks for all groups; Train would start one each
    try:
        return ray.init(
            address=address, log_to_driver=False, configure_logging=False,
            runtime_env={"env_vars": {**train, **environment}, **(_quoted_interpreter() or {})},
            job_config=JobConfig(metadata=dict(about)),
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ResourceError(
            f"--address {address}: cannot join a Ray cluster there: {one_line(error)}. On one of its machines "
            "`--address auto` joins it; from elsewhere submit a job"
        ) from None


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of a `with` block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quoted_interpreter() -> dict[str, Any] | None:
    """Ray starts workers through `bash -c` without quoting the interpreter: a space in its path needs our quotes."""
    quoted = shlex.quote(sys.executable)
    return {"py_executable": quoted} if quoted != sys.executable else None


def _claim(folder: Path) -> int:
    """Mark a scratch folder as in use for as long as the descriptor is open: the system lets go when we die."""
    held = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def _remove_leftovers() -> None:
    """Delete scratch folders of sweeps that were killed.

    A lock tells, not a process id: a process in another PID namespace with the same /tmp, such as a container, sees
    other ids, and took live sweeps for dead ones.
    """
    for folder in Path(tempfile.gettempdir()).glob("raymae-*-*"):
        try:
            held = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # being made just now, or somebody else's
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)


@contextmanager
def _quiet(log_file: Path | None) -> Iterator[None]:
    """Send Ray's chatter to a file, logged or printed: it is not for whoever reads the sweep's progress.

    The progress display holds the real streams.
    """
    logger = logging.getLogger("ray")
    with open(log_file or os.devnull, "a", buffering=1) as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        before, propagate = list(logger.handlers), logger.propagate
        logger.handlers, logger.propagate = [handler], False
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        finally:
            logger.handlers, logger.propagate = before, propagate


def _protect_token() -> None:
    """Ray writes its authentication token readable by everybody; only its owner needs it."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")).expanduser()
    if token.is_file() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        with contextlib.suppress(OSError):  # a secret that is mounted read-only, whose mode its cluster answers for
            token.chmod(0o600)
