"""Spot: the watcher against fake metadata servers, and a sweep whose node is announced to go."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raymae.launch import spot
from raymae.launch.spot import Notice, wait_for_notice
from tests.search.conftest import TIMEOUT_S, check_long
from tests.search.odd_task import LONG

ROOT = Path(__file__).parents[2]


class Metadata(ThreadingHTTPServer):
    """The metadata servers of three clouds: no notice until `questions` have been asked."""

    questions = 2
    asked = 0
    when: str | None = None


class Answers(BaseHTTPRequestHandler):
    server: Metadata

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        self.reply(200, "session")

    def do_GET(self) -> None:
        self.server.asked += 1
        notice = self.server.asked > self.server.questions
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "session":
                return self.reply(401)  # IMDSv1 is refused
            if not notice:
                return self.reply(404)
            return self.reply(200, json.dumps({"action": "terminate", "time": self.server.when}))
        if self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            return self.reply(200, "TRUE" if notice else "FALSE")
        if self.path.startswith("/metadata/scheduledevents?") and self.headers["Metadata"] == "true":
            events = [{"EventType": "Freeze"}, *([{"EventType": "Preempt"}] if notice else [])]
            return self.reply(200, json.dumps({"Events": events}))
        return self.reply(500)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_it_asks_until_there_is_a_notice(cloud: str, metadata: Metadata) -> None:
    metadata.when = (datetime.now(UTC) + timedelta(seconds=600)).strftime("%Y-%m-%dT%H:%M:%SZ")
    notice = wait_for_notice(cloud, f"http://127.0.0.1:{metadata.server_port}", 0.01)
    assert metadata.asked == 3
    assert notice.action == {"aws": "terminate"}.get(cloud, "preempt")
    assert notice.seconds > 500 if cloud == "aws" else notice.seconds == 30


@pytest.mark.parametrize(("when", "least"), [(None, 120), ("soon", 120), ("2020-01-01T00:00:00Z", 1)])
def test_a_time_that_says_nothing(when: str | None, least: int, metadata: Metadata) -> None:
    metadata.when, metadata.questions = when, 0
    server = f"http://127.0.0.1:{metadata.server_port}"
    assert wait_for_notice("aws", server, 0.01) == Notice("terminate", least)


def test_a_server_that_cannot_be_reached_is_asked_again(
    metadata: Metadata, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = iter(["http://127.0.0.1:9", "http://127.0.0.1:9"])
    real = f"http://127.0.0.1:{metadata.server_port}"
    ask = spot.ASK["gcp"]
    monkeypatch.setitem(spot.ASK, "gcp", lambda server: ask(next(servers, server)))
    metadata.questions = 0
    assert wait_for_notice("gcp", real, 0.01) == Notice("preempt", 30)
    assert capsys.readouterr().out.count("does not answer") == 1, "said once, not every time"


def test_the_watcher_drains_the_node_it_is_told(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    drained = []
    monkeypatch.setattr(spot, "drain", lambda *what: drained.append(what))
    metadata.questions = 0
    server = f"http://127.0.0.1:{metadata.server_port}"
    options = ["--cloud", "gcp", "--metadata", server, "--interval", ".2", "--node-id", "ab", "--address", "head:1"]
    done = CliRunner().invoke(spot.main, options)
    assert (done.exit_code, done.output) == (0, "preempt in 30 s: draining this node\n")
    assert drained == [(Notice("preempt", 30), "ab", "head:1")]


def test_its_former_place_takes_the_same_options() -> None:
    """Clusters that are up start it by that name."""
    said = {}
    for module in ("raymae.search.spot", "raymae.launch.spot"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[module] = done.stdout
    assert said["raymae.search.spot"] == said["raymae.launch.spot"]
    assert said["raymae.launch.spot"].startswith("Usage: python -m raymae.launch.spot [OPTIONS]")
    assert all(option in said["raymae.launch.spot"] for option in ("--cloud", "--metadata", "--interval", "--node-id"))
    refused = CliRunner().invoke(spot.main, ["--cloud", "ibm"])
    assert refused.exit_code == 2
    assert "'aws', 'azure', 'gcp'" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("epochs", ["short", "long"])
def test_a_node_that_is_announced_to_go_hands_its_trial_back_and_nothing_is_trained_twice(epochs, small, metadata):
    batches = small.folder / "scene.batches"
    if epochs == "long":  # of twenty seconds and more: it goes inside the first
        small.text = LONG.replace("SCENE", str(small.folder / "scene")).replace("MISHAP", "slow").replace(
            "label_fraction: 0.1", "label_fraction: 0.3").replace("checkpoint_minutes: 0.001", "checkpoint_minutes: 10")
    else:
        small.text = small.text.replace(
            "epochs: 4, pretrain_epochs: 2", "epochs: 20, pretrain_epochs: 2, batch_size: 32").replace(
            "arms: [mae, scratch, persistence]", "arms: [scratch]").replace(
            "num_trials: 2", "num_trials: 1").replace("replicates: 2", "replicates: 1")
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    metadata.questions, metadata.when = 10**9, (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    raylets = subprocess.Popen(
        [sys.executable, "-m", "tests.search.raylets"], cwd=ROOT, env=small.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )

    def tell(what: str) -> str:
        raylets.stdin.write(f"{what}\n")
        raylets.stdin.flush()
        return raylets.stdout.readline().strip()

    started = []
    try:
        address = raylets.stdout.readline().strip()
        assert tell("add") == "done"
        node = tell("id 0")
        watcher = subprocess.Popen(
            [sys.executable, "-m", "raymae.launch.spot", "--metadata", f"http://127.0.0.1:{metadata.server_port}",
             "--interval", ".2", "--node-id", node, "--address", address], env=small.environment, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        started.append(watcher)
        process = small.start("--address", address, "--set", "search.max_concurrent=1")
        started.append(process)
        small.wait_for(lambda: small.num_checkpoints() >= 1 if epochs == "short" else batches.exists(), process)
        assert watcher.poll() is None, "no notice, no drain"
        assert tell("add") == "done"  # where the trial can go on
        metadata.questions = 0
        said, _ = watcher.communicate(timeout=TIMEOUT_S)
        assert watcher.returncode == 0, said
        small.wait_for(lambda: (small.store.reports()["attempt"] == 1).any(), process)
        assert tell("kill 0") == "done"  # only now does the machine go, and nothing more is lost
        output, _ = process.communicate(timeout=2 * TIMEOUT_S)
        assert process.returncode == 0, output
        trials, reports = small.store.trials(), small.store.reports()
        assert set(trials["status"]) == {"completed"}
        assert trials["attempt"].max() == 1
        moved = reports[reports["trial_id"] == trials.sort_values("attempt")["trial_id"].iloc[-1]].sort_values("step")
        assert sorted(moved["attempt"]) == list(moved["attempt"]), "it went on; it did not start again"
        assert list(moved["step"]) == list(range(len(moved)))
        if epochs == "long":
            check_long(small)
        else:
            assert small.store.verdict()["complete"]
    finally:
        for one in started:
            one.kill()
            one.wait(60)
        raylets.stdin.close()
        raylets.stdout.close()
        raylets.wait(60)
