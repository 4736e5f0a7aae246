"""A sweep as a job of Slurm's: one script that starts Ray on the job's nodes, runs the sweep on it and, before the time
limit, queues itself again.

What is the same for every job is in slurm.sh, beside this file; made here are the lines above it.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raymae.errors import Problem, ResourceError, SpecError, one_line
from raymae.search.engine.autoscaling import room
from raymae.spec.limits import ResourceSpec

BODY = Path(__file__).with_suffix(".sh")
MAX_NODES = 10_000
SPARE_S = 60  # of a job's time before the notice: with less, Ray would not even be up
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?(\d{1,3})")
WORDS = {  # what may stand in an option, and how that is said
    "job_name": (re.compile(r"[A-Za-z0-9][\w.+-]{0,99}"), "at most 100 letters, digits and . _ + -"),
    "partition": (re.compile(r"[\w.+-]+(,[\w.+-]+)*"), "names of letters, digits and . _ + -, separated by commas"),
    "account": (re.compile(r"[\w.@+-]+"), "a name of letters, digits and . _ @ + -"),
    "qos": (re.compile(r"[\w.@+-]+"), "a name of letters, digits and . _ @ + -"),
    "output": (re.compile(r"[^\x00-\x1f\x7f\"'\\#]+"), "a path without quotes, backslashes, # and control characters"),
    "folder": (re.compile(r"/[^\x00-\x1f\x7f\"'\\#]*"), "a path without quotes, backslashes, # and control characters"),
}
OURS = {  # sbatch's options that are made from ours, or would break what the script relies on
    "nodes": "--nodes", "N": "--nodes", "time": "--time", "t": "--time", "cpus-per-task": "--cpus-per-node",
    "c": "--cpus-per-node", "gpus-per-node": "--gpus-per-node", "gpus": "--gpus-per-node", "G": "--gpus-per-node",
    "gpus-per-task": "--gpus-per-node", "gres": "--gpus-per-node", "partition": "--partition", "p": "--partition",
    "account": "--account", "A": "--account", "qos": "--qos", "q": "--qos", "job-name": "--job-name",
    "J": "--job-name", "output": "--output", "o": "--output", "signal": "--signal-before",
    "ntasks": "", "n": "", "ntasks-per-node": "", "array": "", "a": "", "chdir": "", "D": "", "requeue": "",
    "no-requeue": "", "open-mode": "", "wrap": "", "parsable": "", "test-only": "", "wait": "", "W": "",
}


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """What a job asks Slurm for, and what it does before the sweep.

    Attributes:
        file: The sweep file, as seen from `folder`; it is read when the job starts.
        job_name: As `squeue` shows it.
        resources: What one trial gets.
        time: The limit of one run, as Slurm writes it.
        folder: Where the job runs, and relative paths lead from: absolute.
        overrides: `key.path=value` laid over the sweep file.
        nodes: Machines.
        gpus_per_node: `4`, or with their type `a100:4`.
        cpus_per_node: None for as many as the trials need that fit on a node's GPUs, or one trial without GPUs.
        partition: None for the cluster's default, as for `account` and `qos`.
        account: Whose time it is.
        qos: Its quality of service.
        modules: What `module load` brings in, in this order.
        setup: Lines of bash that run once, before Ray.
        python: The interpreter on every node.
        signal_before: Seconds before the time limit at which the sweep is told to hand its trials back.
        output: Where what it prints goes, in Slurm's patterns.
        sbatch: Further options of sbatch's.
    """

    file: str
    job_name: str
    resources: ResourceSpec
    time: str
    folder: str
    overrides: Sequence[str] = ()
    nodes: int = 1
    gpus_per_node: str = "0"
    cpus_per_node: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    modules: Sequence[str] = ()
    setup: Sequence[str] = ()
    python: str = sys.executable
    signal_before: int = 120
    output: str = "%x-%j.log"
    sbatch: Sequence[str] = ()

    @property
    def gpus(self) -> int:
        """GPUs of a node, whatever their type."""
        return int(self.gpus_per_node.rpartition(":")[2])

    @property
    def cpus(self) -> int:
        """CPUs of a node."""
        if self.cpus_per_node is not None:
            return self.cpus_per_node
        workers, share = self.resources.workers, self.resources.gpus_per_worker
        if share:  # a fraction of a GPU cannot be taken from two devices
            workers = self.gpus * math.floor(1 / share + 1e-9) if share < 1 else int(self.gpus // share)
        return max(1, math.ceil(workers * self.resources.cpus_per_worker))

    @property
    def trials_at_once(self) -> int:
        """Trials that fit on the nodes."""
        return room(self.resources, [{"CPU": self.cpus, "GPU": self.gpus}] * self.nodes)


def render(job: SlurmJob) -> str:
    """The script of a job, for `sbatch`.

    Raises:
        SpecError: With everything that Slurm or bash would misread.
        ResourceError: Not even one trial fits on the nodes, or their GPUs would lie idle.
    """
    if problems := [Problem(option, "", message) for option, message in _problems(job)]:
        raise SpecError(problems)
    _check_room(job)
    options = {
        "job-name": job.job_name, "nodes": job.nodes, "ntasks-per-node": 1, "cpus-per-task": job.cpus,
        "gpus-per-node": job.gpus_per_node if job.gpus else None, "time": job.time, "partition": job.partition,
        "account": job.account, "qos": job.qos, "signal": f"B:USR1@{job.signal_before}", "requeue": "",
        "open-mode": "append", "output": job.output, "chdir": job.folder,
    }
    asked = [f"--{name}" + (f"={_worded(str(value))}" if value != "" else "") for name, value in options.items()
             if value is not None]
    sweep = [job.python, "-m", "raymae.cli", "sweep", *(word for text in job.overrides for word in ("--set", text))]
    known = {"nodes": job.nodes, "cpus": job.cpus, "gpus": job.gpus, "notice_s": job.signal_before,
             "limit_s": seconds_of(job.time),
             "gres": job.gpus_per_node if job.gpus else "", "python": job.python, "file": job.file}
    return "\n".join([
        "#!/bin/bash",
        *(f"#SBATCH {text}" for text in (*asked, *job.sbatch)),
        f"# Made by `raymae cluster slurm`: room for {job.trials_at_once} trials at once.",
        *_preparations(job),
        *(f"{name}={shlex.quote(str(value))}" for name, value in known.items()),
        f"sweep=({shlex.join(sweep)})",
        "",
    ]) + "\n" + BODY.read_text(encoding="utf-8")


def submit(script: str) -> str:
    """Hand a script to Slurm.

    Returns:
        The job's id.

    Raises:
        ResourceError: There is no Slurm here, or it refuses the job.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    except OSError as error:
        reason = "is not on PATH" if isinstance(error, FileNotFoundError) else str(error)
        raise ResourceError(f"sbatch {reason}: run this on a login node of the cluster, or leave --submit out and "
                            "give the script that is printed to sbatch there") from None
    job = done.stdout.strip().partition(";")[0]  # after it the cluster's name, where there are several
    if done.returncode or not job.isdigit():
        said = done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}"
        raise ResourceError(f"sbatch refuses the job: {one_line(said, -1).removeprefix('sbatch: error: ')}")
    return job


def seconds_of(time: str) -> int | None:
    """A time limit of Slurm's in seconds, which takes minutes, minutes:seconds, hours:minutes:seconds, days-hours and
    so on; None where it is none."""
    found = TIME.fullmatch(time)
    if found is None:
        return None
    days, *parts = (None if part is None else int(part) for part in found.groups())
    first, second, third = (part or 0 for part in parts)
    if days is not None:
        return ((days * 24 + first) * 60 + second) * 60 + third
    if parts[2] is not None:
        return (first * 60 + second) * 60 + third
    return first * 60 + second


def _problems(job: SlurmJob) -> Iterator[tuple[str, str]]:
    """Option and what is wrong with it."""
    for name, (form, rule) in WORDS.items():
        value = getattr(job, name)
        if value is not None and not form.fullmatch(value):
            option = "the folder" if name == "folder" else f"--{name.replace('_', '-')}"
            yield option, f"must be {rule}, got {value!r}"
    seconds = seconds_of(job.time)
    if seconds is None:
        yield "--time", f"must be a time of Slurm's, such as 90 (minutes), 12:00:00 or 2-00:00:00, got {job.time!r}"
    elif seconds < job.signal_before + SPARE_S:
        yield "--time", (f"must be at least {SPARE_S} s longer than --signal-before={job.signal_before}, or the job "
                         f"would be told to end before Ray is up; {job.time!r} is {seconds} s")
    if not 1 <= job.nodes <= MAX_NODES:
        yield "--nodes", f"must be 1 to {MAX_NODES}, got {job.nodes}"
    if not GPUS.fullmatch(job.gpus_per_node):
        yield "--gpus-per-node", f"must be a number, or a type and a number as a100:4, got {job.gpus_per_node!r}"
    for text in job.modules:
        if not re.fullmatch(r"\w[\w./+@=-]*", text):
            yield "--module", f"must be one module's name, such as cuda/12.4, got {text!r}; repeat the option for more"
    for text in job.sbatch:
        yield from (("--sbatch", message) for message in _refused(text))


def _refused(text: str) -> Iterator[str]:
    """What is wrong with a further option of sbatch's; Slurm takes the beginning of a name for the name."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        words = []
        yield f"cannot be read: {error}, got {text!r}"
    if not text.isprintable() or (words and not words[0].startswith("-")):
        yield f"must be options of sbatch's such as --mem=64G, in one line, got {text!r}"
    for word in words:
        if not word.startswith("-"):
            continue
        name = word[2:].partition("=")[0] if word.startswith("--") else word[1:2]
        for ours, option in OURS.items():
            if ours == name or (word.startswith("--") and len(ours) > 1 and len(name) > 1 and ours.startswith(name)):
                yield f"must not hold {word!r}, {f'which is {option} here' if option else 'which the script needs'}"
                break


def _check_room(job: SlurmJob) -> None:
    resources = job.resources
    if job.gpus and not resources.gpus_per_worker:
        raise ResourceError(f"resources.gpus_per_worker=0: trials would leave the GPUs of --gpus-per-node="
                            f"{job.gpus_per_node} idle; add --set resources.gpus_per_worker=1, or leave the GPUs out")
    if not job.trials_at_once:
        raise ResourceError(
            f"resources: a trial of {resources.workers} workers with {resources.cpus_per_worker:g} CPUs and "
            f"{resources.gpus_per_worker:g} GPUs each does not fit on --nodes={job.nodes} of {job.cpus} CPUs and "
            f"{job.gpus} GPUs each; ask for more (--nodes, --gpus-per-node, --cpus-per-node) or lower "
            "resources.workers, resources.cpus_per_worker, resources.gpus_per_worker"
        )


def _preparations(job: SlurmJob) -> Iterator[str]:
    """Modules and lines of the user's own, each of which has to succeed."""
    if job.modules:
        yield "type module > /dev/null 2>&1 || . /etc/profile  # where a shell learns of modules"
    for module in job.modules:
        yield f"module load {shlex.quote(module)} || exit 1"
    for line in job.setup:
        yield f"{{\n{line}\n}} || {{ echo {shlex.quote(f'raymae: this line of --setup failed: {line}')} >&2; exit 1; }}"


def _worded(value: str) -> str:
    """A value as sbatch reads it in a script."""
    return value if re.fullmatch(r"[\w.,:/@+%=~^-]+", value) else f'"{value}"'
