"""What the server answers, byte for byte: to browsers, and to those who try."""

from __future__ import annotations

import html
import http.client
import json
import re
import signal
import socket
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from served_folder import ERROR, HOSTILE, Served, add_trial, make_sweep, start, state

from raymae.cli import main
from raymae.results.report.intervals import DARK, LIGHT
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import STATE
from raymae.web import catalog as catalogs
from raymae.web.catalog import Catalog
from raymae.web.guard import allows
from raymae.web.trials import view


def ask(served: Served, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Send a path as it is, without tidying it as browsers do."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def test_the_list(served):
    status, headers, text = ask(served, "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert [name for name in ("alive", "done", "broken", "link", "no-sweep") if f"/sweep/{name}\"" in text] == [
        "alive", "done", "broken"]
    assert "1 of 12 trials" in text
    assert "not valid JSON" in text
    seen = {one["name"]: one for one in json.loads(ask(served, "/api/sweeps")[2])}
    assert seen.keys() == {"alive", "done", HOSTILE, "broken"}
    assert (seen["alive"]["state"], seen["done"]["state"], seen["broken"]["state"]) == (
        "running", "ended", "unreadable")


def test_a_sweep(served):
    text = ask(served, "/sweep/alive")[2]
    assert "mae-0001 finetune 1/4" in text
    assert json.loads(ask(served, "/api/sweeps/alive")[2])["num_ended"] == 1
    assert ask(served, "/sweep/broken")[0] == 200
    assert ask(served, "/healthz")[2] == "ok\n"
    assert ask(served, "/favicon.ico")[1]["content-type"].startswith("image/svg+xml")


def test_a_trial_has_a_page_with_its_parameters_curves_reports_and_log(served):
    text = ask(served, "/sweep/alive/trial/mae-0000")[2]
    for part in ("completed", "<dt>lr (searched)</dt><dd>0.001</dd>", "<dt>epochs</dt><dd>4</dd>",
                 "Fine-tuning: val_mse", "finetune    1  loss 1.000", "<dt>val_mse</dt><dd>0.5000</dd>",
                 "lines about this trial", "mae-0000: ValueError: &lt;script&gt;"):
        assert part in text, part
    assert "mae-00001 no" not in text, "another trial's line"
    assert "\x1b" not in text
    assert "[31m" not in text
    running = ask(served, "/sweep/alive/trial/mae-0001")[2]
    for part in ("mae-0001 finetune 1/4", 'class="plot"', "its last lines, none about this trial"):
        assert part in running, part
    failed = ask(served, f"/sweep/{quote(HOSTILE, safe='')}/trial/scratch-0000")[2]
    assert "Why it failed" in failed
    assert "&lt;script&gt;document" in failed


@pytest.mark.parametrize("trial", [
    "mae-0009", "..", "%2e%2e%2fsecret", "..%2f..%2fsecret%2fsweep", "%00", "mae-0000%0a",
])
def test_a_trial_that_is_not_there(served, trial):
    assert ask(served, f"/sweep/alive/trial/{trial}")[0] in (400, 404)
    assert ask(served, "/sweep/none/trial/mae-0000")[0] == 404
    assert ask(served, "/sweep/none/trials")[0] == 404


def test_trials_are_listed_those_that_run_first(served):
    text = ask(served, "/sweep/alive/trials")[2]
    found = re.findall(r'/trial/([^"]+)">', text)
    assert found == ["mae-0001", "mae-0000"]
    assert ask(served, "/sweep/broken/trials")[0] == 503


def test_the_comparison_says_what_the_command_says(served):
    text = html.unescape(ask(served, "/compare")[2])
    said = CliRunner().invoke(main, ["compare", str(served.folder / "done"), "--json"]).stdout
    (sweep,) = json.loads(said)
    for arm in sweep["arms"]:
        assert f'<th scope="row">{arm["arm"]}</th>' in text
    assert "unfinished" in text
    assert "Left out, for they cannot be read: broken" in text
    assert "<img src=x" not in ask(served, "/compare")[2]


def test_a_link_out_of_the_folder_is_no_log(tmp_path):
    store = make_sweep(tmp_path / "own", {"mae-0000": 0.5}, word="ended")
    (tmp_path / "private").write_text("a secret of mae-0000")
    log = tmp_path / "own" / "logs" / "driver.log"
    log.symlink_to(tmp_path / "private")
    configs = tmp_path / "own" / "configs"
    (tmp_path / "other.json").write_text('{"params": {"secret": 1}}')
    (configs / "mae-0000.json").symlink_to(tmp_path / "other.json")
    rows = Catalog(tmp_path).rows("own")
    seen = view(rows.store, rows.tables, rows.seen, "mae-0000")
    assert (seen.log, [name for name, _, _ in seen.params if name == "secret"]) == ((), [])
    log.unlink()
    log.write_text("line of mae-0000\n" * 3)
    assert view(store, rows.tables, rows.seen, "mae-0000").log == ("line of mae-0000",) * 3


@pytest.mark.parametrize("config", [
    '{"params": [1]}', '{"params": {"lr": {"a": [1]}}, "seed": [1, 2], "arm": 3}', "{}",
    '{"params": {"<b>": "\\u001b[31m"}, "stage": null}',
])
def test_a_config_of_another_form_is_shown_as_text(tmp_path, config):
    make_sweep(tmp_path / "own", {"mae-0000": 0.5}, word="ended")
    for trial in ("mae-0000", "mae-0007"):
        (tmp_path / "own" / "configs" / f"{trial}.json").write_text(config)
        rows = Catalog(tmp_path).rows("own")
        assert view(rows.store, rows.tables, rows.seen, trial).row.trial_id == trial


def test_the_colours_of_arms_are_those_of_reports(served):
    text = ask(served, "/static/style.css")[2]
    for place, (light, dark) in enumerate(zip(LIGHT, DARK, strict=True)):
        assert f".arm{place}{{color:{light}}}" in text
        assert f".arm{place}{{color:{dark}}}" in text.rpartition("@media (prefers-color-scheme: dark){")[2]


def test_curves_are_drawn_only_anew_for_new_rows(served, monkeypatch):
    monkeypatch.setattr("raymae.web.catalog.FRESH_S", 0.0)
    store = make_sweep(served.folder / "drawn", {"mae-0000": 0.5}, word="running")
    catalog, drawn = Catalog(served.folder), []
    plots = catalogs.live_plots
    monkeypatch.setattr(catalogs, "live_plots", lambda *given: drawn.append(1) or plots(*given))
    first = catalog.plots("drawn")
    assert [heading for heading, _ in first] == [
        "Best val_mse so far, by trials; less is better", "Best val_mse so far, by compute; less is better"]
    assert catalog.plots("drawn") is first
    add_trial(store, "mae-0001", 0.4)
    assert catalog.plots("drawn") is not first
    assert len(drawn) == 2


@pytest.mark.parametrize("path", ["/", f"/sweep/{quote(HOSTILE, safe='')}"])
def test_hostile_names_and_errors_are_text(served, path):
    status, _, text = ask(served, path)
    assert status == 200
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert "<script>document" not in text


@pytest.mark.parametrize("path", [
    "/sweep/..", "/sweep/%2e%2e", "/sweep/%2e%2e%2fsecret", "/sweep/..%2fsecret", "/sweep/../secret",
    "/sweep/done%2f..%2f..%2fsecret", "/sweep/link", "/sweep/no-sweep", "/sweep/", "/sweep/.", "/sweep/%00",
    "/sweep/done/", "/sweep/done/sweep.json", "/api/sweeps/..%2fsecret", "/api/sweeps/%2e%2e", "/static/..%2fapp.py",
    "/static/%2e%2e%2fapp.py", "/static/../app.py", "/static/app.py", "/sweep/%2e%2e%2fsecret/report",
    "/results/done/sweep.json", "//secret", "/%2e%2e/secret", "/sweep/%252e%252e%252fsecret", "/sweep/%ff",
])
def test_nothing_outside_of_the_folder_is_reached(served, path):
    status, headers, text = ask(served, path)
    assert status in (400, 404), text
    assert "mae-0000" not in text
    if status == 404:
        assert "content-security-policy" in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_is_read_only(served, method):
    before = sorted(served.folder.rglob("*"))
    status, headers, _ = ask(served, "/sweep/done", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert sorted(served.folder.rglob("*")) == before
    assert ask(served, "/sweep/done", "HEAD")[::2] == (200, "")


@pytest.mark.parametrize("path", ["/", "/sweep/done", "/api/sweeps", "/static/live.js", "/nothing"])
def test_every_answer_tells_the_browser_what_to_forbid(served, path):
    headers = ask(served, path)[1]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "aiohttp" not in str(headers)
    assert "access-control-allow-origin" not in headers


def test_another_host_name_is_refused(served):
    status, _, text = ask(served, "/", Host="evil.example")
    assert status == 421
    assert "alive" not in text
    for name in ("localhost", "127.0.0.1", f"localhost:{served.port}", "[::1]"):
        assert ask(served, "/", Host=name)[0] == 200, name


@pytest.mark.parametrize(("host", "bound", "expected"), [
    ("localhost:8275", "127.0.0.1", True), ("127.8.9.1", "127.0.0.1", True), ("192.0.2.1", "127.0.0.1", False),
    ("192.0.2.1:80", "0.0.0.0", True), ("evil.example", "0.0.0.0", False), ("", "127.0.0.1", False),
    (None, "127.0.0.1", False), ("box.lan", "box.lan", True), ("[", "0.0.0.0", False),
    (socket.gethostname(), "0.0.0.0", True), ("localhost.evil.example", "127.0.0.1", False),
])
def test_hosts(host, bound, expected):
    assert allows(host, bound) is expected


def test_a_new_sweep_and_new_trials_appear(served):
    store = make_sweep(served.folder / "late", {}, word="running")
    seen = json.loads(ask(served, "/api/sweeps/late")[2])
    assert (seen["state"], seen["num_ended"]) == ("running", 0)
    add_trial(store, "mae-0000", 0.5)
    catalog = Catalog(served.folder)
    assert catalog.look("late").num_ended == 1
    assert catalog.look("later") is None


def test_a_finished_sweep_is_not_read_again_until_somebody_writes(served, monkeypatch):
    catalog = Catalog(served.folder)
    monkeypatch.setattr("raymae.web.catalog.FRESH_S", 0.0)
    store = make_sweep(served.folder / "finished", {"mae-0000": 0.5}, word="ended")
    assert catalog.look("finished").num_ended == 1
    looks: list[Any] = []
    follower = catalogs.Follower
    monkeypatch.setattr(catalogs, "Follower", lambda root: looks.append(root) or follower(root))
    assert catalog.look("finished").num_ended == 1
    assert looks == []
    add_trial(store, "mae-0001", 0.4)
    assert catalog.look("finished").num_ended == 2
    assert len(looks) == 1


def test_one_sweep_alone_can_be_served(served):
    catalog = Catalog(served.folder / "done")
    assert catalog.names() == ["done"]
    assert catalog.look("done").num_ended == 2


def test_the_report_is_made_once_until_results_change(served):
    catalog, made = Catalog(served.folder), []
    render = lambda root: made.append(root) or f"page {len(made)}"  # noqa: E731
    assert [catalog.report("done", render) for _ in range(3)] == ["page 1"] * 3
    written = Folder(served.folder / "done")
    written.write(STATE, json_bytes(state("interrupted")))
    assert catalog.report("done", render) == "page 2"
    assert catalog.report("../secret", render) is None
    assert all(root.startswith(str(served.folder)) for root in made)
    written.write(STATE, json_bytes(state("ended")))


def test_sweeps_on_s3(s3_endpoint, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true",
                        "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    make_sweep("s3://bucket/served/first?region=us-east-1", {"mae-0000": 0.5}, word="ended")
    make_sweep("s3://bucket/served/second?region=us-east-1", {}, word="running")
    catalog = Catalog("s3://bucket/served?region=us-east-1")
    assert catalog.names() == ["first", "second"]
    assert [(name, seen.state, seen.num_ended) for name, seen in catalog.all().items()] == [
        ("second", "running", 0), ("first", "ended", 1)]
    assert catalog.look("second?region=x") is None
    assert catalog.report("first", lambda root: root) == "s3://bucket/served/first?region=us-east-1"


def test_loopback_only_unless_told():
    done = CliRunner().invoke(main, ["serve", ".", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "no password" in done.stderr
    assert "--open-to-network" in done.stderr


def test_a_folder_that_is_not_there(tmp_path):
    done = CliRunner().invoke(main, ["serve", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "no such folder" in done.stderr


def test_a_taken_port_is_a_clear_error_and_ctrl_c_ends_it(served, tmp_path):
    done = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", str(served.port)])
    assert done.exit_code == 1
    assert f"cannot listen on 127.0.0.1 port {served.port}" in done.stderr
    process = start(tmp_path)
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def test_errors_are_in_the_page_of_the_hostile_sweep(served):
    text = ask(served, f"/sweep/{quote(HOSTILE, safe='')}")[2]
    assert ERROR.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in text
