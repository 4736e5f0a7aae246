from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pooch
import pytest
from small_files import BODY, OTHER, fingerprint, md5, names_in, put

from raymae.data import Dataset, fetch, locate
from raymae.errors import DataError
from raymae.spec import DataSpec


def test_download_is_quiet_whole_and_done_once(
    small: Dataset, server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[logging.LogRecord] = []
    monkeypatch.setattr(pooch.get_logger(), "handle", said.append)
    level = pooch.get_logger().level
    found = locate(DataSpec(name="small"))
    assert (found.source, found.fingerprint) == ("real", fingerprint(BODY))
    assert found.note == f"downloaded to {cache / 'sub'}"
    assert names_in(cache) == ["sub/small.csv"]
    assert (cache / "sub/small.csv").stat().st_mode & 0o444 == 0o444
    assert locate(DataSpec(name="small")).note == ""
    assert fetch("small") == cache / "sub/small.csv"
    assert server.requests == 1
    assert said == []
    assert pooch.get_logger().level == level


@pytest.mark.parametrize(("body", "promised", "reason"), [
    (OTHER, len(OTHER), "MD5 hash of downloaded file"),
    (BODY[:10], len(BODY), "Error: .*(broken|Incomplete|end of file)"),  # the connection ends early
    (BODY[:10], 10, "MD5 hash of downloaded file"),
])
def test_bad_download_leaves_nothing_behind(
    small: Dataset, server: Any, cache: Path, body: bytes, promised: int, reason: str
) -> None:
    server.body, server.promised = body, promised
    with pytest.raises(DataError, match=reason):
        locate(DataSpec(name="small"))
    with pytest.raises(DataError, match=f"small could not be fetched into {cache}: (.|\n)*{reason}"):
        fetch("small")
    assert names_in(cache) == []


def test_damaged_cache_is_fetched_again_and_never_used(small: Dataset, server: Any, cache: Path) -> None:
    put(cache / "sub/small.csv", BODY[:5])
    with pytest.raises(DataError, match=r"the cache .*: damaged: .* 5 bytes"):
        locate(DataSpec(name="small"), download=False)
    assert server.requests == 0
    found = locate(DataSpec(name="small"))
    assert found.fingerprint == fingerprint(BODY)
    assert "damaged" in found.note
    put(cache / "sub/small.csv", BODY[:5])
    assert fetch("small").read_bytes() == BODY


def test_unwritable_cache_is_a_reason_not_a_crash(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMAE_CACHE", str(put(tmp_path / "a_file")))
    with pytest.raises(DataError, match=r"download: .*NotADirectoryError"):
        locate(DataSpec(name="small"))


def test_two_processes_at_once(small: Dataset, server: Any, cache: Path) -> None:
    server.gate = threading.Barrier(2)  # neither gets its answer before both have asked
    code = (
        "import sys; from raymae.data import DATASETS, Dataset, File, locate; from raymae.spec import DataSpec\n"
        "file = File('sub/small.csv', url=sys.argv[1], md5=sys.argv[2])\n"
        "DATASETS['small'] = Dataset('small', 'series', 'two rows', 'CC0', (file,))\n"
        "print(locate(DataSpec(name='small')).fingerprint)"
    )
    command = [sys.executable, "-W", "error", "-c", code, server.url, md5(BODY)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [fingerprint(BODY)] * 2
    assert server.requests == 2
    assert names_in(cache) == ["sub/small.csv"]


def test_pooch_gets_its_log_level_back_after_threads(small: Dataset, cache: Path) -> None:
    level = pooch.get_logger().level
    threads = [threading.Thread(target=fetch, args=("small",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pooch.get_logger().level == level
    assert names_in(cache) == ["sub/small.csv"]


def test_connecting_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def retrieve(url: str, **kwargs: Any) -> str:
        seen.update(kwargs, url=url)
        raise OSError("unplugged")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataError, match="OSError: unplugged"):
        locate(DataSpec(name="ETTh1"))
    assert seen["url"].endswith("/ETT-small/ETTh1.csv")
    assert seen["known_hash"] == "md5:8381763947c85f4be6ac456c508460d6"
    assert seen["downloader"].kwargs["timeout"][0] <= 10


def test_fetch_into_a_root(small: Dataset, server: Any, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert fetch("small", root) == root / "sub/small.csv"
    assert fetch("small", root) == root / "sub/small.csv"
    assert server.requests == 1
    assert not cache.exists()
    put(root / "sub/small.csv", OTHER)
    with pytest.raises(DataError, match="holds another version, which is not overwritten"):
        fetch("small", root)
    assert (root / "sub/small.csv").read_bytes() == OTHER


def test_fetch_prefers_a_verified_copy(
    small: Dataset, server: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    path = put(tmp_path / "small.csv")
    assert fetch("small") == path
    assert server.requests == 0
    put(path, OTHER)
    assert fetch("small") == cache / "sub/small.csv"
    assert path.read_bytes() == OTHER


def test_fetch_of_what_only_a_person_can_get(pair: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"had by hand: register at example\.org"):
        fetch("pair")
    put(tmp_path / "pair/labels.csv")
    put(tmp_path / "scans/1.nii")
    assert fetch("pair", tmp_path) == tmp_path
