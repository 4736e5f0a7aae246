"""Sweeps as Ray Jobs: handed to a running cluster over its job server, and on their own from then on.

The client needs the job server's address alone, normally a forwarded port of the head (`ray dashboard FILE`); the
sweep's driver runs on the head with `--address auto`, and what it finds goes where the file's `results` says.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypedDict

from raymae.errors import Problem, ResourceError, SpecError, one_line
from raymae.search.engine.connection import set_environment
from raymae.search.environment import GIT, git_state
from raymae.spec.sweep import SweepSpec

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
SWEEP_FILE = "submitted-sweep.json"
STOP_SECONDS = 120  # a stopped sweep finishes its reports and writes its verdict so far
CONNECT_S = 10.0  # Ray's own client would wait for minutes where nobody answers
LOST_S = 300.0  # how long a connection that was there may be away: a laptop sleeps, a tunnel is opened again
MAX_BYTES = 32 * 2**20  # of source: more is data that nobody meant to send
ENDED = ("stopped", "succeeded", "failed")
IGNORED = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", "*.egg-info", ".*_cache", "build")


class JobRow(TypedDict):
    """One job, as `raymae jobs` shows it; the times are UTC, `sweep` and `results` None for a job that is no sweep."""

    job: str
    sweep: str | None
    status: str
    started: str | None
    ended: str | None
    results: str | None
    message: str | None


def check_portable(spec: SweepSpec, file: str) -> None:
    """Refuse what only means something on the submitter's machine.

    Args:
        spec: As `parse_sweep` reads it: `load_sweep` has resolved relative paths already.
        file: For messages.

    Raises:
        SpecError: `results`, a data path or an earlier sweep's folder is relative.
    """
    problems = []
    if not _elsewhere(spec.results):
        problems.append(Problem(file, "results", (
            f"{spec.results!r} is relative, and a job's working folder is deleted with the job; use a bucket "
            "(--set results=s3://bucket/sweeps) or an absolute path that the cluster's head keeps"
        )))
    places = {"data": spec.data, **{f"pretraining.data.{at}": one for at, one in enumerate(spec.pretraining.data)}}
    for place, key in itertools.product(places, ("path", "root")):
        value = getattr(places[place], key)
        if value is not None and not _elsewhere(str(value)):
            problems.append(Problem(file, f"{place}.{key}", (
                f"{str(value)!r} is relative to a folder that the cluster does not have; use a bucket or "
                "an absolute path that every node has"
            )))
    problems += [
        Problem(file, "search.warm_start", f"{folder!r} is relative to a folder that the cluster does not have; use a "
                "bucket or an absolute path there")
        for folder in spec.search.warm_start if not _elsewhere(folder)
    ]
    if problems:
        raise SpecError(problems)


def submit(spec: SweepSpec, *, address: str | None = None, code: str = "tree", python: str = "python",
           environment: Mapping[str, str] | None = None, fresh: bool = False) -> str:
    """Hand a sweep to a cluster, and return once it is queued.

    Args:
        spec: A checked sweep; see `check_portable`.
        address: The job server, `http://host:port`; `$RAY_API_SERVER_ADDRESS` or loopback by default.
        code: `tree` sends the source that this process runs (what git tracks or does not ignore, or the package where
            it is no checkout); `installed` sends none and uses the cluster's own installation.
        python: The interpreter on the head in whose environment Ray runs.
        environment: Variables for the job and its workers.
        fresh: Move existing results of the same name aside.

    Returns:
        The job's id.

    Raises:
        ResourceError: No job server answers there, or it refuses us; another job writes the same results; the source is
            too large.
    """
    job = f"{re.sub(r'[^A-Za-z0-9_-]', '-', spec.name)}-{secrets.token_hex(3)}"
    command = [python, "-m", "raymae.cli", "sweep", SWEEP_FILE, "--address", "auto", *(["--fresh"] if fresh else [])]
    results = spec.results.rstrip("/") + "/" + spec.name
    for row in jobs(address):
        if row["results"] == results and row["status"] not in ENDED:
            raise ResourceError(f"{results} is being written by job {row['job']} ({row['status']}); `raymae logs "
                                f"{row['job']} -f` follows it, `raymae stop {row['job']}` ends it")
    with tempfile.TemporaryDirectory(prefix="raymae-submit-") as staged:
        if code == "tree":
            _copy_source(Path(staged))
        (Path(staged) / SWEEP_FILE).write_text(json.dumps(spec.to_json(), indent=2))
        variables = {GIT: json.dumps(git_state()), **(environment or {}), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        with _client(address) as client:
            client.submit_job(
                entrypoint=shlex.join(command), submission_id=job,
                runtime_env={"working_dir": staged, "env_vars": variables},
                metadata={"raymae_sweep": spec.name, "raymae_results": results},
            )
    return job


def jobs(address: str | None = None, *, everything: bool = False) -> list[JobRow]:
    """The cluster's sweeps, newest first.

    Args:
        address: See `submit`.
        everything: Jobs that are no sweeps too.

    Raises:
        ResourceError: See `submit`.
    """
    with _client(address) as client:
        found = client.list_jobs()
    rows: list[JobRow] = []
    for detail in sorted(found, key=lambda detail: -(detail.start_time or 0)):
        metadata = detail.metadata or {}
        if detail.submission_id and (everything or "raymae_sweep" in metadata):
            rows.append({
                "job": detail.submission_id, "sweep": metadata.get("raymae_sweep"),
                "status": str(detail.status.value).lower(), "started": _utc(detail.start_time),
                "ended": _utc(detail.end_time), "results": metadata.get("raymae_results"), "message": detail.message,
            })
    return rows


def status(job: str, address: str | None = None) -> str:
    """One of pending, running, stopped, succeeded, failed.

    Raises:
        ResourceError: There is no such job; or see `submit`.
    """
    with _client(address) as client:
        return _status(client, _known(client, job, address))


def logs(job: str, address: str | None = None, *, follow: bool = False, every_s: float = 1.0) -> Iterator[str]:
    """What a job has printed; with `follow` what it prints until it ends, too.

    A connection that is lost while following is found again: the log is asked for as a whole, not as a stream.

    Args:
        job: Its id, or a sweep's name for its latest job.
        address: See `submit`.
        follow: Go on until the job ends.
        every_s: Seconds between two looks.

    Raises:
        ResourceError: See `status`; the server has been out of reach for minutes.
    """
    with _client(address) as client:
        job = _known(client, job, address)
        text, over = client.get_job_logs(job), not follow
    yield text
    shown, lost = len(text), None
    while not over:
        time.sleep(every_s)
        try:
            with _client(address) as client:
                over = _status(client, job) in ENDED  # before the log: its last lines are there once it has ended
                text = client.get_job_logs(job)
        except ResourceError:
            lost, over = lost or time.monotonic(), False
            if time.monotonic() - lost > LOST_S:
                raise
            continue
        lost = None
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)


def stop(job: str, address: str | None = None) -> bool:
    """Ask a job to end as Ctrl-C would: it finishes its reports and writes its verdict so far.

    Returns:
        False where it had ended already.

    Raises:
        ResourceError: See `status`.
    """
    with _client(address) as client:
        return bool(client.stop_job(_known(client, job, address)))


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """A client of the job server; what goes wrong on the way is one message."""
    set_environment()
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if "://" not in where:
        where = f"http://{where}"
    if not where.startswith(("http://", "https://")):
        raise ResourceError(f"--address {where}: sweeps are submitted to a job server, http://host:port; start "
                            f"`ray dashboard CLUSTER.yaml` and use {DEFAULT_ADDRESS}")
    try:
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{where}/api/version", timeout=CONNECT_S):
            pass  # somebody answers; who, and whether we may, is asked next
        yield JobSubmissionClient(where)
    except AuthenticationError as error:
        raise ResourceError(
            f"--address {where}: the cluster refuses this machine's token: {one_line(error).rstrip('.')}. Copy "
            "the cluster's token to ~/.ray/auth_token (mode 600), or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None
    except (OSError, HTTPException, requests.exceptions.RequestException) as error:  # time-outs are OSErrors
        raise ResourceError(
            f"--address {where}: no Ray job server answers: {one_line(error).rstrip('.')}. Keep "
            "`ray dashboard CLUSTER.yaml` running, which forwards the head's port 8265"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise ResourceError(f"--address {where}: the job server refused: {one_line(error).rstrip('.')}") from None


def _status(client: Any, job: str) -> str:
    return str(client.get_job_status(job).value).lower()


def _known(client: Any, job: str, address: str | None) -> str:
    """The id of a job, given that or the name of its sweep; the latest one of a sweep."""
    found = [detail for detail in client.list_jobs() if detail.submission_id]
    names = [detail.submission_id for detail in found]
    if job not in names:
        of_sweep = [detail for detail in found if (detail.metadata or {}).get("raymae_sweep") == job]
        if of_sweep:
            return str(max(of_sweep, key=lambda detail: detail.start_time or 0).submission_id)
        shown = ", ".join(sorted(names)[-5:]) or "none"
        raise ResourceError(f"there is no job {job!r} on {address or 'the cluster'}; `raymae jobs` lists them: {shown}")
    return job


def _copy_source(target: Path) -> None:
    """The source this process runs: a checkout's files that git tracks or does not ignore, else the package.

    Raises:
        ResourceError: It is larger than source is.
    """
    package = Path(__file__).parents[1]
    root = package.parent
    listed = None
    if (root / "pyproject.toml").is_file() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=False,
        )
    if listed is None or listed.returncode:
        shutil.copytree(package, target / package.name, ignore=IGNORED)
        return
    found = {name: root / name for name in listed.stdout.split("\0") if name}
    sizes = {name: path.stat().st_size for name, path in found.items() if path.is_file()}  # deleted ones are listed too
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        shown = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise ResourceError(
            f"{root}: the source of a job may have {MAX_BYTES / 2**20:g} MiB, this has "
            f"{sum(sizes.values()) / 2**20:.1f}; the largest files: {shown}. Name what is no source in .gitignore, or "
            "use --code installed"
        )
    for name in sizes:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found[name], target / name)


def _elsewhere(location: str) -> bool:
    return "://" in location or Path(location).is_absolute()


def _utc(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
