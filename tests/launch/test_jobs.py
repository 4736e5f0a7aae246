"""The client's side of jobs against a job server that is played: what is sent, refused, followed and said."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import ResourceError, SpecError
from raymae.launch import jobs as submit
from raymae.search.environment import GIT, git_state
from raymae.spec.load import parse_sweep

ROOT = Path(__file__).parents[2]
SWEEP = """
name: a
task: forecasting
data: {name: ETTh1}
arms: [mae]
results: s3://bucket/r/
"""


class Server:
    """A job server: one job of sweep `a` that prints a line per look and ends after five, and a job of somebody else's.

    `broken` looks fail as a connection that is lost does.
    """

    def __init__(self, status: str = "running", broken: tuple[int, ...] = ()) -> None:
        self.looks, self.status, self.broken = 0, status, broken
        self.sent: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    @contextmanager
    def connect(self, address: str | None) -> Iterator[Server]:
        self.looks += 1
        if self.looks in self.broken:
            raise ResourceError("lost")
        yield self

    def list_jobs(self) -> list[Any]:
        ours = {"raymae_sweep": "a", "raymae_results": "s3://bucket/r/a"}
        rows = [("a-2", 20, ours, self.status), ("a-1", 10, ours, "succeeded"), ("b", 5, None, "running")]
        return [SimpleNamespace(submission_id=name, start_time=time, end_time=None, metadata=data, message="",
                                status=SimpleNamespace(value=status)) for name, time, data, status in rows]

    def get_job_status(self, job: str) -> Any:
        assert job == "a-2"
        return SimpleNamespace(value="SUCCEEDED" if self.looks > 5 else "RUNNING")

    def get_job_logs(self, job: str) -> str:
        return "".join(f"line {number}\n" for number in range(self.looks))

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        return True

    def submit_job(self, **job: Any) -> None:
        folder = Path(job["runtime_env"]["working_dir"])
        job["files"] = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        job["spec"] = json.loads((folder / submit.SWEEP_FILE).read_text())
        self.sent.append(job)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], Server]:
    def put(server: Server) -> Server:
        monkeypatch.setattr(submit, "_client", server.connect)
        return server

    return put


@pytest.mark.parametrize("broken", [(), (3, 4), (2, 6)])
def test_following_shows_everything_once(play: Callable[[Server], Server], broken: tuple[int, ...]) -> None:
    server = play(Server(broken=broken))
    lines = "".join(submit.logs("a", follow=True, every_s=0.001)).splitlines()
    assert lines == [f"line {number}" for number in range(server.looks)]
    assert len(lines) >= 6


def test_a_connection_that_stays_away_is_an_error(
    play: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(Server(broken=tuple(range(2, 10_000))))
    monkeypatch.setattr(submit, "LOST_S", 0.05)
    with pytest.raises(ResourceError, match="lost"):
        list(submit.logs("a-2", follow=True, every_s=0.001))


def test_a_sweeps_name_is_its_latest_job(play: Callable[[Server], Server]) -> None:
    server = play(Server())
    assert submit.stop("a")
    assert submit.stop("a-1")
    assert server.stopped == ["a-2", "a-1"]
    with pytest.raises(ResourceError, match="there is no job 'c'"):
        submit.stop("c")


def test_what_is_sent(play: Callable[[Server], Server]) -> None:
    server = play(Server(status="stopped"))
    job = submit.submit(parse_sweep(SWEEP, "a.yaml"), fresh=True, environment={"X": "1"}, python="python3")
    (sent,) = server.sent
    assert sent["submission_id"] == job
    assert sent["entrypoint"] == f"python3 -m raymae.cli sweep {submit.SWEEP_FILE} --address auto --fresh"
    assert sent["metadata"] == {"raymae_sweep": "a", "raymae_results": "s3://bucket/r/a"}
    variables = sent["runtime_env"]["env_vars"]
    assert variables["X"] == "1"
    assert json.loads(variables[GIT]) == git_state()
    assert "raymae/cli/jobs.py" in sent["files"]
    assert sent["spec"]["name"] == "a"


def test_the_same_results_are_not_written_by_two_jobs(play: Callable[[Server], Server]) -> None:
    server = play(Server())
    with pytest.raises(ResourceError, match=r"s3://bucket/r/a is being written by job a-2 \(running\); .*raymae stop"):
        submit.submit(parse_sweep(SWEEP, "a.yaml"))
    assert server.sent == []
    submit.submit(parse_sweep(SWEEP.replace("name: a", "name: other"), "a.yaml"))
    assert len(server.sent) == 1


def test_too_much_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "MAX_BYTES", 2000)
    with pytest.raises(ResourceError, match=r"may have .* MiB, this has .*; the largest files: .*\.gitignore"):
        submit._copy_source(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_job_knows_the_commit_it_is_a_copy_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GIT, '{"commit": "c", "dirty": true}')
    assert git_state() == {"commit": "c", "dirty": True}
    monkeypatch.setenv(GIT, "null")
    assert git_state() is None


def test_paths_of_this_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also `data.path`, which loading the file makes absolute."""
    text = SWEEP.replace("{name: ETTh1}", "{name: own, path: own.csv, root: here}")
    with pytest.raises(SpecError) as caught:
        submit.check_portable(parse_sweep(text, "a.yaml", ["results=r", "search.warm_start=[old]"]), "a.yaml")
    assert [problem.key for problem in caught.value.problems] == [
        "results", "data.path", "data.root", "search.warm_start",
    ]
    submit.check_portable(parse_sweep(SWEEP, "a.yaml", ["results=/shared", "data.root=gs://bucket/x"]), "a.yaml")
    (tmp_path / "a.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["submit", "a.yaml", "--set", "data.path=own.csv", "--address", "127.0.0.1:1"])
    assert result.exit_code == 2, result.output
    assert "data.path: 'own.csv' is relative" in result.output


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, Any]]]:
    """A web server whose answer a test sets."""
    answer: dict[str, Any] = {"code": 200, "body": "hello"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["code"])
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answer
    server.shutdown()
    server.server_close()


def failing(address: str, home: Path, **environment: str) -> str:
    """What `raymae jobs` says in a process of its own: Ray reads its token once."""
    done = subprocess.run([sys.executable, "-m", "raymae.cli", "jobs", "--address", address], capture_output=True,
                          text=True, timeout=120, env={"PATH": "/usr/bin:/bin", "HOME": str(home),
                                                       "PYTHONPATH": str(ROOT), **environment})
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_somebody_else_at_the_address(web: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, _ = web
    assert "no Ray job server answers" in failing(url, tmp_path, RAY_AUTH_TOKEN="0" * 64)


def test_a_port_that_speaks_no_http_and_one_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "CONNECT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ResourceError, match=r"no Ray job server answers: .*timed out"):
            submit.jobs(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(("code", "token"), [(401, None), (403, "0" * 64)])
def test_a_missing_or_wrong_token(
    web: tuple[str, dict[str, Any]], tmp_path: Path, code: int, token: str | None
) -> None:
    url, answer = web
    answer.update(code=code, body="Unauthorized")
    text = failing(url, tmp_path, **({"RAY_AUTH_TOKEN": token} if token else {}))
    assert "error: --address" in text
    assert "~/.ray/auth_token" in text
