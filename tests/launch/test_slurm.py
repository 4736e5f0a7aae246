"""The script for Slurm: what it asks for, that nothing given can break out of it, and its course with Slurm played.

Commands of Slurm's and the interpreter are stand-ins that note what they get; tests/launch/test_slurm_rig.py has a real
Slurm.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import RayMAEError, ResourceError, SpecError
from raymae.launch.slurm import SlurmJob, render, seconds_of
from raymae.spec.limits import ResourceSpec

DEBUG = str(Path(__file__).parents[2] / "sweeps" / "debug.yaml")
JOB = "987654321"
TIMEOUT_S = 60
STAND_INS = {
    "srun": """#!/bin/bash
printf '%s\\n' "$*" >> "$RIG/srun"
while [[ $1 == --* ]]; do
  [[ $1 != --ntasks=* ]] || tasks=${1#*=}
  shift
done
export SLURM_STEP_ID=$$
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task "$@" &
  echo $! >> "$RIG/steps"
done
wait
""",
    "scancel": """#!/bin/bash
printf '%s\\n' "$*" >> "$RIG/scancel"
[[ ! -e $RIG/steps ]] || kill -TERM $(cat "$RIG/steps")
""",
    "scontrol": """#!/bin/bash
printf '%s\\n' "$*" >> "$RIG/scontrol"
[[ $2 != show ]] || echo "NodeName=n1 Arch=x NodeAddr=127.0.0.1 NodeHostName=n1"
""",
    "sleep": """#!/bin/bash
[[ $1 != 1 ]] || exec /bin/sleep 0.3
exec /bin/sleep "$@"
""",
    "python": """#!/bin/bash
if [[ $2 == ray.scripts.scripts ]]; then
  printf '%s\\n' "$*" >> "$RIG/ray"
  for word; do [[ $word != --temp-dir=* ]] || folder=${word#*=}; done
  echo "$folder" >> "$RIG/folders"
  [[ $* == *--head* ]] && echo $$ > "$RIG/head" || echo $$ >> "$RIG/steps"
  [[ ! -e $RIG/no-workers || $* == *--head* ]] || { echo "no GPU here"; exit 1; }
  echo 127.0.0.1:20010 > "$folder/ray_current_cluster"
  exec /bin/sleep 1000
fi
printf '%s\\0' "$@" > "$RIG/sweep"
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > "$RIG/token"
. "$RIG/course"
""",
}
WAITS = "trap 'exit 130' TERM; : > $RIG/running; while :; do /bin/sleep 0.05; done"


def job(**changes: Any) -> SlurmJob:
    first = SlurmJob(file="a.yaml", job_name="a", resources=ResourceSpec(), time="10", folder="/srv", python="python")
    return replace(first, **changes)


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


# --- what is asked for


def test_what_a_job_asks_for() -> None:
    wanted = job(nodes=4, gpus_per_node="a100:4", resources=ResourceSpec(gpus_per_worker=0.5, cpus_per_worker=3),
                 partition="gpu,long", account="me@here", qos="high", time="1-12", signal_before=300,
                 output="logs/of %x.log", sbatch=("--mem=64G --exclusive", "-C a100"))
    assert wanted.trials_at_once == 32
    assert directives(render(wanted)) == [
        "--job-name=a", "--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=24", "--gpus-per-node=a100:4",
        "--time=1-12", "--partition=gpu,long", "--account=me@here", "--qos=high", "--signal=B:USR1@300", "--requeue",
        "--open-mode=append", '--output="logs/of %x.log"', "--chdir=/srv", "--mem=64G --exclusive", "-C a100",
    ]
    assert not [text for text in directives(render(job())) if text.startswith(("--gpus", "--partition", "--qos"))]


@pytest.mark.parametrize(("resources", "gpus", "cpus"), [
    ({}, "0", 1), ({"workers": 3, "cpus_per_worker": 1.5}, "0", 5), ({"gpus_per_worker": 1}, "4", 4),
    ({"gpus_per_worker": 2, "cpus_per_worker": 8}, "h100:8", 32), ({"gpus_per_worker": 0.3}, "1", 3),
])
def test_cpus_by_default_are_what_the_trials_of_a_node_need(resources: Any, gpus: str, cpus: int) -> None:
    wanted = job(resources=ResourceSpec(**resources), gpus_per_node=gpus)
    assert wanted.cpus == cpus
    assert replace(wanted, cpus_per_node=64).cpus == 64


@pytest.mark.parametrize(("time", "seconds"), [
    ("90", 5400), ("90:30", 5430), ("12:00:00", 43_200), ("2-0", 172_800), ("1-2:30", 95_400), ("1-00:00:01", 86_401),
    ("12h", None), ("", None), ("1:2:3:4", None), ("-5", None),
])
def test_times_are_read_as_slurm_reads_them(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(("changes", "option"), [
    ({"job_name": "a\n#SBATCH --uid=0"}, "--job-name"), ({"job_name": "$(id)"}, "--job-name"),
    ({"partition": "gpu --uid=0"}, "--partition"), ({"account": "a;b"}, "--account"), ({"qos": ""}, "--qos"),
    ({"output": 'a" --uid=0'}, "--output"), ({"output": "a\nid"}, "--output"), ({"folder": "a"}, "the folder"),
    ({"folder": "/a\nid"}, "the folder"), ({"time": "tomorrow"}, "--time"), ({"time": "2"}, "--time"),
    ({"nodes": 0}, "--nodes"), ({"gpus_per_node": "4:a100"}, "--gpus-per-node"),
    ({"modules": ["cuda; id"]}, "--module"), ({"sbatch": ["mem=64G"]}, "--sbatch"),
    ({"sbatch": ["--mem=1\nid"]}, "--sbatch"), ({"sbatch": ["--x='"]}, "--sbatch"),
])
def test_what_would_be_misread_is_refused(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(SpecError, match=rf"^{option}: must|^{option}: cannot") as caught:
        render(job(**changes))
    assert len(caught.value.problems) == 1
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", [
    "--array=1-9", "-a 1", "--mem=1 -N9", "--sign=USR2", "--no-requeue", "--gres=gpu:4", "-W", "--wrap=id", "--nod 3",
])
def test_options_that_the_script_needs_are_not_overridden(text: str) -> None:
    with pytest.raises(SpecError, match="--sbatch: must not hold"):
        render(job(sbatch=[text]))


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        render(job(job_name="?", time="x", nodes=0))
    assert [problem.where for problem in caught.value.problems] == ["--job-name", "--time", "--nodes"]


def test_a_job_that_could_run_no_trial_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"add --set resources\.gpus_per_worker=1"):
        render(job(gpus_per_node="4"))
    with pytest.raises(ResourceError, match="does not fit on --nodes=2 of 4 CPUs and 0 GPUs each"):
        render(job(nodes=2, cpus_per_node=4, resources=ResourceSpec(gpus_per_worker=1)))
    with pytest.raises(ResourceError, match="does not fit"):  # a worker is on one node
        render(job(nodes=9, gpus_per_node="1", resources=ResourceSpec(gpus_per_worker=2)))


# --- its form


HOSTILE: dict[str, Any] = {
    "file": "-it's; $(touch \"$RIG/broken\") `touch $RIG/broken`\n.yaml",
    "overrides": ("name=a b", "space={lr: '$(touch $RIG/broken)'}", "x=\"'\\\n#"),
}


@pytest.mark.parametrize("changes", [
    {}, HOSTILE, {"modules": ("cuda/12.4", "python"), "setup": ("source a b  # activate", "export A='b c'; cd .")},
    {"nodes": 3, "gpus_per_node": "4", "resources": ResourceSpec(gpus_per_worker=1)},
])
def test_bash_can_read_it(changes: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(job(**changes)))
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck (Debian: shellcheck)")
    script = tmp_path / "job.sh"
    script.write_text(render(job(modules=("cuda",))))
    command = ["shellcheck", "--exclude=SC1091,SC2317", str(script)]  # other files; functions that others call
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_no_line_is_long_and_no_secret_is_in_it() -> None:
    script = render(job())
    assert [line for line in script.splitlines() if len(line) > 120] == []
    assert render(job()) == script, "the token is made when the job runs"


# --- its course


class Played:
    """A machine on which Slurm's commands are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        for name, text in STAND_INS.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.environment = {"PATH": f"{tools}:/usr/bin:/bin", "RIG": str(folder), "SLURM_JOB_ID": JOB,
                            "SLURMD_NODENAME": "n1", "SLURM_TMPDIR": "/tmp", "RAY_ADDRESS": "elsewhere"}
        self.process: subprocess.Popen[str] | None = None

    def start(self, course: str, wanted: SlurmJob, notice_s: int = 120) -> None:
        (self.folder / "course").write_text(course)
        script = render(wanted).replace("notice_s=120", f"notice_s={notice_s}")
        (self.folder / "job.sh").write_text(script)
        self.process = subprocess.Popen(
            ["bash", str(self.folder / "job.sh")], env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,
        )

    def ended(self) -> tuple[int, str]:
        """The job's exit code, and what it printed."""
        assert self.process is not None
        said = self.process.communicate(timeout=TIMEOUT_S)[0]
        return self.process.returncode, said

    def seen(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RIG") == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_clean(self) -> bool:
        """Nothing runs, and no folder is left."""
        left = [folder for folder in self.seen("folders") if Path(folder).exists()]
        return not self.processes() and not left and not list(Path("/tmp").glob(f"raymae-{JOB}-*"))


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    found = Played(tmp_path)
    yield found
    for process in found.processes():
        process.kill()


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_job_ends_as_the_sweep_does(played: Played, code: int) -> None:
    played.start(f"echo the verdict; exit {code}", job(nodes=3, cpus_per_node=2, **HOSTILE))
    ended, said = played.ended()
    assert ended == code, said
    assert "the verdict" in said
    assert "Ray is up on 3 of 3 nodes, at 127.0.0.1:20010" in said
    assert not [line for line in played.seen("scontrol") if "requeue" in line]
    words = (played.folder / "sweep").read_text().split("\0")
    sets = [word for text in HOSTILE["overrides"] for word in ("--set", text)]
    assert words == ["-m", "raymae.cli", "sweep", *sets, "--address", "127.0.0.1:20010", "--", HOSTILE["file"], ""]
    assert not (played.folder / "broken").exists()
    head, *others = played.seen("ray")
    assert "--head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert '--resources={"trial_driver": 10000}' in head
    assert len(others) == 2
    assert all("--address=127.0.0.1:20010" in other and "trial_driver" not in other for other in others)
    assert len(set(played.seen("folders"))) == 3
    mode, token = played.seen("token")[0].split()
    assert (mode, len(token)) == ("token", 64)
    noted = [path.read_text() for path in played.folder.glob("*") if path.is_file() and path.name != "token"]
    assert token not in "".join(noted), "no command line holds the token"
    assert token not in said
    played.wait_for(played.is_clean)


def test_two_runs_have_two_tokens(played: Played) -> None:
    tokens = set()
    for _ in range(2):
        played.start("exit 0", job())
        assert played.ended()[0] == 0
        tokens |= set(played.seen("token"))
    assert len(tokens) == 2


@pytest.mark.parametrize(("number", "requeued"), [
    (signal.SIGUSR1, True), (signal.SIGTERM, True), (signal.SIGINT, False),
])
def test_a_notice_ends_the_sweep_with_its_verdict_so_far(played: Played, number: int, requeued: bool) -> None:
    played.start(WAITS.replace("exit 130", "echo the verdict so far; exit 130"), job(nodes=2))
    played.wait_for((played.folder / "running").exists)
    assert played.process is not None
    os.kill(played.process.pid, number)
    ended, said = played.ended()
    assert ended == 130, said
    assert "hands its trials back" in said
    assert "the verdict so far" in said
    assert (f"requeue {JOB}" in played.seen("scontrol")) == requeued
    played.wait_for(played.is_clean)


def test_a_sweep_that_ends_by_itself_meanwhile_is_not_queued_again(played: Played) -> None:
    played.start(WAITS.replace("exit 130", "exit 0"), job())
    played.wait_for((played.folder / "running").exists)
    assert played.process is not None
    os.kill(played.process.pid, signal.SIGUSR1)
    assert played.ended()[0] == 0
    assert f"requeue {JOB}" not in played.seen("scontrol")


def test_a_sweep_that_does_not_end_in_time_is_killed_and_goes_on_later(played: Played) -> None:
    played.start(WAITS.replace("exit 130", ":"), job(), notice_s=31)
    played.wait_for((played.folder / "running").exists)
    assert played.process is not None
    os.kill(played.process.pid, signal.SIGUSR1)
    ended, said = played.ended()
    assert ended == 137
    assert "trials did not report in time" in said
    assert f"requeue {JOB}" in played.seen("scontrol")
    played.wait_for(played.is_clean)


def test_a_job_that_slurm_cancels_does_not_queue_itself_again(played: Played) -> None:
    played.start(WAITS, job(nodes=2))
    played.wait_for((played.folder / "running").exists)
    assert played.process is not None
    os.killpg(played.process.pid, signal.SIGTERM)
    ended, said = played.ended()
    assert ended > 128, said
    assert f"requeue {JOB}" not in played.seen("scontrol")
    played.wait_for(played.is_clean)


def test_steps_that_slurm_ends_to_preempt_the_job_end_the_sweep(played: Played) -> None:
    played.start(WAITS, job(nodes=2))
    played.wait_for((played.folder / "running").exists)
    for number in played.seen("steps"):
        os.kill(int(number), signal.SIGTERM)
    ended, said = played.ended()
    assert ended == 130, said
    assert "Slurm has told Ray's other nodes to end" in said
    assert f"requeue {JOB}" in played.seen("scontrol")


def test_without_ray_the_job_fails(played: Played) -> None:
    played.start(WAITS, job())
    played.wait_for((played.folder / "running").exists)
    os.kill(int(played.seen("head")[0]), signal.SIGKILL)  # nobody told it to end
    ended, said = played.ended()
    assert ended == 1, said
    assert "Ray has ended on n1" in said
    assert f"requeue {JOB}" not in played.seen("scontrol")


def test_nodes_that_do_not_join_are_told_and_the_sweep_has_the_others(played: Played) -> None:
    (played.folder / "no-workers").touch()
    played.start("exit 0", job(nodes=3))
    ended, said = played.ended()
    assert ended == 0, said
    assert "Ray is up on 1 of 3 nodes" in said
    assert said.count("no GPU here") == 2


def test_a_job_that_is_cancelled_while_ray_starts_does_not_queue_itself_again(played: Played) -> None:
    stand_in = STAND_INS["python"].replace("echo 127.0.0.1:20010", ": > $RIG/waiting; sleep 1000; echo 127.0.0.1:20010")
    (played.folder / "tools" / "python").write_text(stand_in)
    played.start("exit 0", job())
    played.wait_for((played.folder / "waiting").exists)
    assert played.process is not None
    os.killpg(played.process.pid, signal.SIGTERM)
    assert played.ended()[0] == 143
    assert f"requeue {JOB}" not in played.seen("scontrol")
    played.wait_for(played.is_clean)


@pytest.mark.parametrize(("notice_s", "code"), [(120, 143), (590, 1)])
def test_a_notice_before_ray_is_up_starts_nothing(played: Played, notice_s: int, code: int) -> None:
    """Another run is worth it where the job was preempted, not where its time is too short for Ray to start."""
    stand_in = STAND_INS["python"].replace("echo 127.0.0.1:20010", ": > $RIG/waiting; sleep 1000; echo 127.0.0.1:20010")
    (played.folder / "tools" / "python").write_text(stand_in)
    played.start("exit 0", job(), notice_s)
    played.wait_for((played.folder / "waiting").exists)
    assert played.process is not None
    os.kill(played.process.pid, signal.SIGUSR1)
    ended, said = played.ended()
    assert ended == code
    assert "before Ray was up" in said
    assert not (played.folder / "sweep").exists()
    assert (f"requeue {JOB}" in played.seen("scontrol")) == (code == 143)
    assert ("give the job more --time" in said) == (code == 1)


def test_modules_and_lines_of_setup_come_first_and_have_to_succeed(played: Played) -> None:
    (played.folder / "tools" / "module").write_text("#!/bin/bash\necho \"$*\" >> $RIG/modules\n")
    (played.folder / "tools" / "module").chmod(0o755)
    lines = ("export MADE='a b'  # a comment", 'echo "$MADE"')
    played.start("exit 0", job(modules=("cuda/12.4", "gcc"), setup=lines))
    ended, said = played.ended()
    assert (ended, said.splitlines()[0]) == (0, "a b")
    assert played.seen("modules") == ["load cuda/12.4", "load gcc"]
    (played.folder / "ray").unlink()
    played.start("exit 0", job(setup=("false",)))
    ended, said = played.ended()
    assert (ended, said) == (1, "raymae: this line of --setup failed: false\n")
    assert not played.seen("ray")


# --- the command


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["cluster", "slurm", DEBUG, *arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "sbatch").write_text(f"#!/bin/bash\ncat > {folder / 'got'}\n{text}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_it_prints_the_script_alone() -> None:
    text = run("--time", "60", "--nodes", "2", "--set", "search.num_trials=3").stdout
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=debug\n#SBATCH --nodes=2\n")
    assert text.endswith('leave "$status"\n')
    assert f"file={DEBUG}" in text
    assert " -m raymae.cli sweep --set search.num_trials=3)" in text
    assert "\npython=python\n" in run("--time", "60", "--setup", "source activate").stdout
    assert json.loads(run("--time", "60", "--json").stdout)["script"].startswith("#!/bin/bash\n")


def test_it_submits_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(tmp_path, monkeypatch, "[[ $* == --parsable ]] && echo '4711;cluster'")
    text = run("--time", "60", "--submit").stdout
    assert text.splitlines()[:2] == ["submitted 4711: room for 1 trials at once", "  squeue --job 4711"]
    assert (tmp_path / "got").read_text() == run("--time", "60").stdout
    told = json.loads(run("--time", "60", "--submit", "--json").stdout)
    assert (told["job"], told["results"]) == ("4711", "results/debug")


def test_without_slurm_or_refused_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(tmp_path, monkeypatch, "echo 'sbatch: error: invalid partition specified: x' >&2\n"
           "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2\nexit 1")
    assert "error: sbatch refuses the job: Batch job submission failed: Invalid partition name" in run(
        "--time", "60", "--submit", code=1).stderr
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "error: sbatch is not on PATH: run this on a login node" in run("--time", "60", "--submit", code=1).stderr
    assert "--time: must be a time of Slurm's" in run("--time", "soon", code=2).stderr
    assert issubclass(SpecError, RayMAEError)
