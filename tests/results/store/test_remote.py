"""The store on S3: moto's server on loopback stands for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_task import report, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store, query, summary
from raymae.results.report.report import write_report
from raymae.results.store.folder import Folder
from raymae.results.views import compare as across

Make = Callable[..., Store]


@pytest.fixture
def root(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{request.node.name}/ett"


def test_a_sweep_on_s3(make_store: Make, root: str) -> None:
    with make_store(root) as store:
        store.write_config("t1", {"arm": "mae"})
        for step in range(3):
            store.add_report(report("t1", step))
        store.add_trial(trial("t1"))
        assert len(Folder(root).names("reports")) == 3
        store.compact()
    assert len(Folder(root).names("reports")) == 1
    found = Store.open(root)
    assert list(found.reports()["step"]) == [0, 1, 2]
    assert found.configs() == {"t1": {"arm": "mae"}}
    assert Folder(root).uri("logs/x") == f"{root}/logs/x"
    assert query(root, "SELECT count(*) AS n FROM reports")["n"].tolist() == [3]
    assert summary(found).num_trials["completed"] == 1
    assert query(root, "SELECT completed FROM arms WHERE arm = 'mae'")["completed"].tolist() == [1]
    Folder(root).write("pictures/t1-seed0-x.png", b"png")
    page, _ = write_report(found)
    assert page == f"{root}/report.html"
    assert b"t1" in Folder(root).read("report.html")
    assert Folder(root).read("report.md").startswith(b"# ett")
    assert across.sweeps_in([root.removesuffix("/ett")]) == ([root], [])


def test_continuing_and_refusing_on_s3(make_store: Make, root: str) -> None:
    make_store(root).add_trial(trial("t1"))
    make_store(root).add_trial(trial("t2"))
    assert len(Store.open(root).trials()) == 2
    with pytest.raises(ResultsError, match="replicates: 5 -> 1"):
        make_store(root, spec=tiny_spec(replicates=1))
    with pytest.raises(ResultsError, match="--fresh cannot rename a folder on an object store"):
        make_store(root, fresh=True)
    with pytest.raises(ResultsError, match=r"The folder holds these sweeps, name one: s3://bucket/.*/ett$"):
        Store.open(root.removesuffix("/ett"))
    with pytest.raises(ResultsError, match="did you mean `ett`"):
        Store.open(root + "h")


def test_the_endpoint_may_stand_in_the_uri(
    make_store: Make, root: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"{root}?endpoint_override={s3_endpoint.removeprefix('http://')}&scheme=http"
    with make_store(uri) as store:
        store.add_trial(trial("t1"))
    assert len(Store.open(uri).trials()) == 1
    assert Folder(uri).uri("logs/x").startswith(f"{root}/logs/x?endpoint_override=")


def test_a_part_deleted_while_read_is_looked_up_again(
    make_store: Make, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(root)
    store.add_trial(trial("t1"))
    store.add_trial(trial("t2"))
    stale = Folder(root).names("trials")
    store.compact()
    real, first = Folder.names, [stale]
    monkeypatch.setattr(Folder, "names", lambda place, folder="": first.pop() if first else real(place, folder))
    assert len(Store.open(root).trials()) == 2
    assert first == []


def test_a_missing_bucket_is_an_error(make_store: Make, root: str) -> None:
    with pytest.raises(ResultsError, match="cannot write results here"):
        make_store("s3://no-such-bucket/ett")


def test_a_dead_endpoint_is_an_error(make_store: Make, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ResultsError, match="cannot"):
        Store.open("s3://bucket/ett?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1")


def test_local_paths_survive_a_change_of_folder(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = make_store("ett")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    store.add_trial(trial("t1"))
    assert len(Store.open(f"file://{tmp_path}/ett").trials()) == 1
