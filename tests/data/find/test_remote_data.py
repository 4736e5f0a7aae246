"""Data on S3: moto's server on loopback stands for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raymae.data import Dataset, locate
from raymae.data.find import remote
from raymae.errors import DataError
from raymae.spec import DataSpec, load_sweep
from raymae.spec.uri import open_uri

BODY = b"date,a\n2020-01-01,1\n2020-01-02,2\n"
OTHER = BODY + b"2020-01-03,3\n"


class Bucket:
    """A folder of the bucket, and how to fill it."""

    def __init__(self, name: str) -> None:
        self.uri = f"s3://bucket/{name}"

    def put(self, name: str, body: bytes = BODY) -> str:
        filesystem, path = open_uri(f"{self.uri}/{name}")
        with filesystem.open_output_stream(path) as stream:
            stream.write(body)
        return f"{self.uri}/{name}"


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return Bucket(request.node.name)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the objects that were read, in order."""
    names: list[str] = []
    real = remote._fetch

    def noted(filesystem, path, size, to):
        names.append(path.rpartition("/")[2])
        real(filesystem, path, size, to)

    monkeypatch.setattr(remote, "_fetch", noted)
    return names


def copies(cache: Path) -> list[Path]:
    return [path for path in (cache / "remote").iterdir() if path.suffix != ".lock"]


def test_a_file_is_copied_once_and_again_when_it_changes(bucket: Bucket, cache: Path, fetched: list[str]) -> None:
    uri = bucket.put("load.csv")
    first = locate(DataSpec(name="load", path=uri))
    again = locate(DataSpec(name="load", path=uri))
    assert first == again
    assert first.path.read_bytes() == BODY
    assert first.path.is_relative_to(cache / "remote")
    assert first.path.name == "load.csv"
    assert fetched == ["load.csv"]
    bucket.put("load.csv", OTHER)
    changed = locate(DataSpec(name="load", path=uri))
    assert changed.path.read_bytes() == OTHER
    assert changed.fingerprint != first.fingerprint
    assert first.path.read_bytes() == BODY, "whoever reads the old copy goes on reading it"


def test_a_folder_is_copied_whole(bucket: Bucket, cache: Path) -> None:
    for name in ("scans/a/1.txt", "scans/a/2.txt", "scans/b.txt"):
        bucket.put(name, name.encode())
    found = locate(DataSpec(name="mine", path=f"{bucket.uri}/scans"))
    assert found.path.name == "scans"
    assert {path.relative_to(found.path).as_posix(): path.read_bytes() for path in found.path.rglob("*.txt")} == {
        "a/1.txt": b"scans/a/1.txt", "a/2.txt": b"scans/a/2.txt", "b.txt": b"scans/b.txt"}


def test_a_known_data_set_below_a_root(bucket: Bucket, small: Dataset, fetched: list[str], server) -> None:
    bucket.put("elsewhere.csv")
    bucket.put("small.csv")
    found = locate(DataSpec(name="small", root=bucket.uri))
    assert found.path.name == "small.csv"
    assert found.note == ""
    assert fetched == ["small.csv"], "what the data set does not need stays where it is"
    bucket.put("sub/small.csv", OTHER)
    odd = locate(DataSpec(name="small", root=bucket.uri))
    assert odd.path.read_bytes() == OTHER
    assert "not the official file" in odd.note
    assert server.requests == 0


def test_the_shared_folder_may_be_a_bucket(
    bucket: Bucket, small: Dataset, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("small.csv")
    monkeypatch.setenv("RAYMAE_DATA", bucket.uri)
    assert locate(DataSpec(name="small")).path.read_bytes() == BODY
    assert server.requests == 0


def test_what_is_not_there_is_said(bucket: Bucket, small: Dataset, server) -> None:
    with pytest.raises(DataError, match=f"{bucket.uri}/none.csv does not exist"):
        locate(DataSpec(name="load", path=f"{bucket.uri}/none.csv"))
    found = locate(DataSpec(name="small", root=bucket.uri))
    assert f"data.root={bucket.uri}: no sub/small.csv or small.csv" in found.note
    assert server.requests == 1, "it was downloaded instead"
    with pytest.raises(DataError, match="not a usable storage location"):
        locate(DataSpec(name="load", path="nowhere://x/y.csv"))


def test_a_copy_that_breaks_off_leaves_nothing(
    bucket: Bucket, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scans/1.txt", "scans/2.txt"):
        bucket.put(name)
    real, calls = remote._fetch, []

    def breaks_off(filesystem, path, size, to):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(filesystem, path, size, to)

    monkeypatch.setattr(remote, "_fetch", breaks_off)
    with pytest.raises(DataError, match="cannot be copied to this machine: No space left on device"):
        locate(DataSpec(name="mine", path=f"{bucket.uri}/scans"))
    assert copies(cache) == []
    left = cache / "remote" / f"{next((cache / 'remote').glob('*.lock')).stem}.part-killed"
    left.mkdir()
    monkeypatch.setattr(remote, "_fetch", real)
    found = locate(DataSpec(name="mine", path=f"{bucket.uri}/scans"))
    assert sorted(path.name for path in found.path.iterdir()) == ["1.txt", "2.txt"]
    assert copies(cache) == [found.path.parent], "what a killed process left is cleared away"


def test_processes_of_a_machine_copy_it_once(bucket: Bucket, cache: Path) -> None:
    uri = bucket.put("load.csv", BODY * 10_000)
    code = """
import sys, time
from raymae.data import locate
from raymae.data.find import remote
from raymae.spec import DataSpec
real = remote._fetch
def slow(*arguments):
    print("copied")
    time.sleep(1)
    real(*arguments)
remote._fetch = slow
print(locate(DataSpec(name="load", path=sys.argv[1])).fingerprint)
"""
    root = Path(remote.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    children = [subprocess.Popen([sys.executable, "-c", code, uri], env=environment, stdout=subprocess.PIPE, text=True)
                for _ in range(3)]
    lines = [line for child in children for line in child.communicate(timeout=60)[0].split()]
    assert lines.count("copied") == 1
    assert len(lines) == 4
    assert len(set(lines)) == 2


def test_a_sweep_file_may_name_a_uri(tmp_path: Path) -> None:
    file = tmp_path / "load.yaml"
    file.write_text("name: load\ntask: forecasting\ndata: {name: load, path: 's3://bucket/load.csv'}\narms: [mae]\n")
    assert load_sweep(file).data.path == "s3://bucket/load.csv"
