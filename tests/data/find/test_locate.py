from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_files import BODY, OTHER, fingerprint, md5, names_in, put

from raymae.data import DATASETS, Dataset, File, fetch, listing, locate, verify
from raymae.data.find import locate as cache
from raymae.data.find import registry
from raymae.data.synthetic.series import synthetic_series
from raymae.data.tables import read_table
from raymae.errors import DataError
from raymae.spec import DataSpec

# --- what is found where


def test_places_are_tried_in_order(
    small: Dataset, server: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path / "shared"))
    spec = DataSpec(name="small", root=str(tmp_path / "root"))
    downloaded = locate(spec)
    assert downloaded.path == cache / "sub/small.csv"
    assert server.requests == 1
    put(tmp_path / "shared/small.csv")
    assert locate(spec).path == tmp_path / "shared/small.csv"
    put(tmp_path / "root/sub/small.csv")
    assert locate(spec).path == tmp_path / "root/sub/small.csv"
    own = put(tmp_path / "mine.csv")
    assert locate(DataSpec(name="small", root=str(tmp_path / "root"), path=str(own))).path == own
    assert server.requests == 1


def test_what_is_found_is_described(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    path = put(tmp_path / "sub/small.csv")
    found = locate(DataSpec(name="small"), download=False)
    assert (found.name, found.path, found.source, found.note) == ("small", path, "real", "")
    assert found.fingerprint == fingerprint(BODY)


def test_first_path_wins_over_alternatives(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    put(tmp_path / "small.csv")
    path = put(tmp_path / "sub/small.csv")
    assert locate(DataSpec(name="small")).path == path


def test_relative_folders_become_absolute(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "here/small.csv")
    monkeypatch.chdir(tmp_path)
    assert locate(DataSpec(name="small", root="here")).path == tmp_path / "here/small.csv"
    assert locate(DataSpec(name="small", path="here/small.csv")).path == tmp_path / "here/small.csv"


def test_users_other_version_is_used_and_said(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    path = put(tmp_path / "small.csv", OTHER)
    for spec in (DataSpec(name="small"), DataSpec(name="small", path=str(path))):
        found = locate(spec)
        assert found.path == path
        assert found.fingerprint == fingerprint(OTHER)
        assert f"{path} is not the official file: {len(OTHER)} bytes, md5 {md5(OTHER)}" in found.note
        assert f"official is {len(BODY)} bytes, md5 {md5(BODY)}" in found.note


def test_a_folder_the_user_named_in_vain_is_said(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    put(tmp_path / "small.csv")
    found = locate(DataSpec(name="small", root=str(tmp_path / "typo")))
    assert f"data.root={tmp_path / 'typo'}: no such folder" in found.note
    assert f"{tmp_path / 'small.csv'} is used" in found.note


def test_own_file_or_folder_under_any_name(tmp_path: Path) -> None:
    path = put(tmp_path / "mine/own.csv", OTHER)
    found = locate(DataSpec(name="anything", path=str(path)))
    assert (found.name, found.path, found.note) == ("anything", path, "")
    folder = locate(DataSpec(name="anything", path=str(path.parent)))
    assert folder.path == path.parent
    before = folder.fingerprint
    path.rename(path.with_name("renamed.csv"))
    assert locate(DataSpec(name="anything", path=str(path.parent))).fingerprint != before


def test_path_may_be_the_folder_of_a_known_set(small: Dataset, tmp_path: Path) -> None:
    path = put(tmp_path / "small.csv")
    assert locate(DataSpec(name="small", path=str(tmp_path))).path == path
    path.unlink()
    with pytest.raises(DataError, match=r"is a folder that does not hold small: no sub/small.csv or small.csv"):
        locate(DataSpec(name="small", path=str(tmp_path)))


def test_several_files_are_all_needed(pair: Dataset, tmp_path: Path) -> None:
    spec = DataSpec(name="pair", root=str(tmp_path))
    labels = put(tmp_path / "pair/labels.csv")
    with pytest.raises(DataError, match=r"no pair/scans or scans"):
        locate(spec)
    scan = put(tmp_path / "scans/1.nii")
    found = locate(spec)
    assert found.path == tmp_path
    scan.write_bytes(OTHER)
    assert locate(spec).fingerprint != found.fingerprint
    with pytest.raises(DataError, match="must be the folder that holds the 2 files of pair"):
        locate(DataSpec(name="pair", path=str(labels)))


# --- what is not found


def test_error_lists_every_place_and_what_to_do(
    small: Dataset, server: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path / "shared"))
    with pytest.raises(DataError) as caught:
        locate(DataSpec(name="small", root=str(tmp_path / "root")))
    message = str(caught.value)
    for part in (
        "small was not found", f"data.root={tmp_path / 'root'}: no such folder",
        f"$RAYMAE_DATA={tmp_path / 'shared'}: no sub/small.csv or small.csv", f"the cache {cache}: no such folder",
        f"download: {server.url}: HTTPError: 404", "set $RAYMAE_DATA or data.root", "`raymae data fetch small`",
        "`if_unavailable: synthetic`",
    ):
        assert part in message
    assert names_in(cache) == []


def test_no_download_when_not_wanted(small: Dataset, server: Any) -> None:
    with pytest.raises(DataError, match=r"\$RAYMAE_DATA: not set(.|\n)*download: not tried"):
        locate(DataSpec(name="small"), download=False)
    assert server.requests == 0


def test_synthetic_only_when_asked_for_and_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    found = locate(DataSpec(name="ETTh1", if_unavailable="synthetic"))
    assert (found.path, found.source) == (None, "synthetic")
    assert found.note.startswith("SYNTHETIC DATA: ETTh1 could not be had")
    assert "no network in tests" in found.note
    series = synthetic_series()
    content = series.times.astype("<i8").tobytes() + series.values_TC.tobytes()
    assert found.fingerprint == "synthetic:" + hashlib.sha256(content).hexdigest()[:16]
    with pytest.raises(DataError, match="ETTh1 was not found"):
        locate(DataSpec(name="ETTh1"))


def test_real_data_wins_over_the_stand_in(small: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "small.csv")
    assert locate(DataSpec(name="small", root=str(tmp_path), if_unavailable="synthetic")).source == "real"


def test_no_stand_in_without_a_generator(pair: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(cache.SYNTHETIC, pair.modality)
    with pytest.raises(DataError) as caught:
        locate(DataSpec(name="pair", if_unavailable="synthetic"))
    assert "register at example.org" in str(caught.value)
    assert "if_unavailable" not in str(caught.value)
    assert "raymae data fetch" not in str(caught.value)


@pytest.mark.parametrize("if_unavailable", ["error", "synthetic"])
def test_mistyped_path_or_name_is_an_error_in_any_case(tmp_path: Path, if_unavailable: Any) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*gone\.csv does not exist"):
        locate(DataSpec(name="ETTh1", path=str(tmp_path / "gone.csv"), if_unavailable=if_unavailable))
    with pytest.raises(DataError, match=r"unknown data set 'ETTh2'; did you mean `ETTh1`.*data\.path"):
        locate(DataSpec(name="ETTh2", if_unavailable=if_unavailable))


def test_unreadable_file(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "small.csv")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"small\.csv cannot be read: Permission denied"):
        locate(DataSpec(name="small", path=str(path)))


def test_listing_and_verify(
    small: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row() -> dict[str, Any]:
        return next(row for row in listing() if row["name"] == "small")

    assert row() == {"name": "small", "modality": "series", "about": "two rows", "licence": "CC0", "where": None,
                     "verified": False}
    assert [item["problem"] for item in verify("small")] == ["not found"]
    cached = put(cache / "sub/small.csv")
    assert (row()["where"], row()["verified"]) == (str(cached), True)
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    other = put(tmp_path / "small.csv", OTHER)
    assert (row()["where"], row()["verified"]) == (str(other), False)
    first, second = verify("small")
    assert (first["where"], first["verified"]) == (str(other), False)
    assert "is not the official file" in first["problem"]
    assert (second["where"], second["verified"], second["problem"]) == (str(cached), True, "")


def test_listing_and_verify_of_several_files(pair: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    put(tmp_path / "pair/labels.csv")
    put(tmp_path / "scans/1.nii")
    row = next(row for row in listing() if row["name"] == "pair")
    assert (row["where"], row["verified"]) == (str(tmp_path), False)
    assert [item["problem"] for item in verify("pair")] == ["", "no official checksum to compare with"]
    assert {item["name"] for item in verify()} == set(DATASETS)


@pytest.mark.parametrize("function", [fetch, verify])
def test_unknown_names(function: Any) -> None:
    with pytest.raises(DataError, match="unknown data set 'ETTh2'; did you mean `ETTh1`"):
        function("ETTh2")


def test_cache_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAYMAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    assert cache.cache_folder() == tmp_path / "raymae" / "data"


def test_every_known_set_is_complete() -> None:
    assert DATASETS is registry.DATASETS
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.about
        assert dataset.licence
        assert dataset.files
        assert dataset.manual or all(file.url or file.bundled for file in dataset.files)
    with pytest.raises(ValueError, match="a file with a url needs an md5"):
        File("a.csv", url="https://example.org/a.csv")


@pytest.mark.parametrize(("name", "rows", "columns", "target"), [
    ("diabetes", 442, 11, "progression"), ("breast-cancer", 569, 31, "diagnosis"), ("wine", 178, 14, "cultivar")])
def test_what_an_installed_library_has_takes_no_network(
    name: str, rows: int, columns: int, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sklearn import datasets

    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    found = locate(DataSpec(name=name))
    assert found.path == tmp_path / "data" / DATASETS[name].files[0].path == fetch(name)
    assert (found.source, found.note) == ("real", "")
    assert locate(DataSpec(name=name)) == found
    table = read_table(found.path)
    assert (table.values_RC.shape, table.columns[-1]) == ((rows, columns), target)
    assert not np.isnan(table.values_RC).any()
    kept: Any = getattr(datasets, f"load_{name.replace('-', '_')}")(
        **({"scaled": False} if name == "diabetes" else {}))
    np.testing.assert_allclose(table.values_RC[:, :-1], kept.data)
    names = table.categories[-1]
    label = [str(kept.target_names[code]) for code in kept.target] if names else [*kept.target]
    assert ([names[int(code)] for code in table.values_RC[:, -1]] if names else [*table.values_RC[:, -1]]) == label


def test_the_real_etth1_is_the_official_one(real_etth1: Path) -> None:
    found = locate(DataSpec(name="ETTh1", root=str(real_etth1.parent.parent)), download=False)
    assert (found.path, found.note) == (real_etth1, "")
    assert real_etth1.stat().st_size == DATASETS["ETTh1"].files[0].num_bytes


def test_offline_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setattr("raymae.data.find.locate.download_files", lambda *args: pytest.fail("tried to download"))
    with pytest.raises(DataError, match="RAYMAE_OFFLINE is set"):
        locate(DataSpec(name="ETTh1"))
    assert locate(DataSpec(name="ETTh1", if_unavailable="synthetic")).source == "synthetic"
