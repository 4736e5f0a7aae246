from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from raymae.data import DATASETS, locate
from raymae.data.synthetic.volumes import synthetic_volumes
from raymae.data.volume_files import Scan, read_scan
from raymae.data.volumes import BTCV_ORGANS, read_volume_set, split_scans
from raymae.errors import DataError
from raymae.spec import DataSpec

REAL_ROOT = Path(os.environ.get("RAYMAE_DATA") or "/nonexistent")  # the folder's conftest unsets it
HIPPOCAMPUS = REAL_ROOT / "hippocampus" / "Task04_Hippocampus"
RNG = np.random.default_rng(0)
# TotalSegmentator's ids of organs that BTCV has → BTCV's; two of the originals lie above 13
TO_BTCV = {52: 8, 63: 9, 64: 10, 7: 11, 8: 12, 9: 13, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 7}


def unlike(*shape: int) -> np.ndarray:
    """An image that no other is like."""
    return RNG.integers(-1000, 1000, shape, dtype=np.int16)


def put(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def pair(folder: Path, index: int, *, shape: tuple[int, ...] = (5, 6, 7), images: str = "imagesTr",
         labels: str = "labelsTr", values: Any = 0) -> None:
    put(folder / images / f"img{index:04d}.nii.gz", np.full(shape, index, dtype=np.int16))
    put(folder / labels / f"label{index:04d}.nii.gz", np.full(shape, values, dtype=np.uint8))


def names(scans: tuple[Scan, ...]) -> list[str]:
    return [scan.name for scan in scans]


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "labels"), [("imagesTr", "labelsTr"), ("img", "label"), (".", ".")])
def test_btcv_in_the_ways_people_unpack_it(images: str, labels: str, tmp_path: Path) -> None:
    for index in (1, 2, 3, 10):
        pair(tmp_path, index, images=images, labels=labels, values=13)
    put(tmp_path / "imagesTs" / "img0061.nii.gz", unlike(4, 4, 4))
    (tmp_path / images / "._img0001.nii.gz").write_bytes(b"left by macOS")
    found = read_volume_set(tmp_path)
    assert names(found.labelled) == ["img0001", "img0002", "img0003", "img0010"]
    assert [scan.label and scan.label.name for scan in found.labelled][-1] == "label0010.nii.gz"
    assert names(found.unlabelled) == ["img0061"]
    assert found.classes == BTCV_ORGANS
    assert found.modalities == ("CT",)
    image, label, _ = read_scan(found.labelled[3], len(found.classes))
    assert image.shape == (1, 5, 6, 7)
    assert label is not None
    assert (image == 10).all()
    assert (label == 13).all()


def test_a_monai_datalist_gives_the_official_split(tmp_path: Path) -> None:
    for index in range(1, 11):
        pair(tmp_path, index)
    put(tmp_path / "imagesTs" / "img0061.nii.gz", unlike(4, 4, 4))
    entry = [{"image": f"imagesTr/img{i:04d}.nii.gz", "label": f"labelsTr/label{i:04d}.nii.gz"} for i in range(1, 11)]
    (tmp_path / "dataset_0.json").write_text(json.dumps({
        "labels": {"0": "background", "1": "spleen"}, "modality": {"0": "CT"}, "training": entry[:7],
        "validation": entry[7:], "test": ["imagesTs/img0061.nii.gz", "imagesTs/img0099.nii.gz"],
    }))
    found = read_volume_set(tmp_path)
    assert names(found.splits["test"]) == ["img0008", "img0009", "img0010"]
    assert len(found.splits["val"]) == 1
    assert len(found.splits["train"]) == 6
    assert names(found.unlabelled) == ["img0061"]  # the list's other one is not here
    assert found.classes == ("background", "spleen")
    assert found.modalities == ("CT",)


def test_splits_are_a_fixed_permutation_of_the_names() -> None:
    scans = [Scan(f"{index:03d}", Path(), None) for index in range(200)]
    splits = split_scans(scans)
    assert {name: len(part) for name, part in splits.items()} == {"train": 120, "val": 30, "test": 50}
    assert sorted(scan for part in splits.values() for scan in part) == scans
    assert split_scans(reversed(scans)) == splits
    assert names(splits["test"]) != names(tuple(scans[-50:]))
    with pytest.raises(DataError, match="2 labelled volumes do not fill train, val and test"):
        split_scans(scans[:2])


# -- groups ------------------------------------------------------------------------------------------------------------


def test_both_sides_of_a_scan_of_the_hippocampus_are_in_one_split(tmp_path: Path) -> None:
    for index in range(1, 25):
        put(tmp_path / "imagesTr" / f"hippocampus_{index:03d}.nii.gz", np.full((2, 2, 2), index, dtype=np.int16))
        put(tmp_path / "labelsTr" / f"hippocampus_{index:03d}.nii.gz", np.zeros((2, 2, 2), dtype=np.uint8))
    found = read_volume_set(tmp_path)
    groups = {scan.name: scan.group for scan in found.labelled}
    assert groups["hippocampus_017"] == groups["hippocampus_018"] == "scan 009"
    assert groups["hippocampus_016"] == "scan 008"
    of = {name: {scan.group for scan in scans} for name, scans in found.splits.items() if name != "unlabelled"}
    assert {name: len(part) for name, part in of.items()} == {"train": 7, "val": 2, "test": 3}
    assert len(set().union(*of.values())) == 12
    assert {name: len(found.splits[name]) for name in of} == {"train": 14, "val": 4, "test": 6}


def test_a_pattern_of_file_names_says_who_is_the_patient(tmp_path: Path) -> None:
    for patient in "abcd":
        for visit in range(3):
            put(tmp_path / "img" / f"{patient}_{visit}.nii.gz", unlike(2, 2, 2))
            put(tmp_path / "label" / f"{patient}_{visit}.nii.gz", np.zeros((2, 2, 2), dtype=np.uint8))
    put(tmp_path / "imagesTs" / "else.nii.gz", unlike(2, 2, 2))
    for patient in "abcd":
        put(tmp_path / "imagesTs" / f"{patient}_9.nii.gz", unlike(2, 2, 2))
    assert {scan.group for scan in read_volume_set(tmp_path).labelled} == {None}
    for pattern in ("^([a-z])_", "^[a-z](?=_)"):  # its first group, or all of it
        found = read_volume_set(tmp_path, group=pattern)
        splits = found.splits
        assert [len(splits[name]) for name in ("train", "val", "test")] == [6, 3, 3]
        of = {name: {scan.group for scan in scans} for name, scans in splits.items()}
        assert not of["train"] & of["val"] | of["val"] & of["test"] | of["train"] & of["test"]
        assert of["unlabelled"] == {*of["train"], None}  # nobody is pretrained on who is scored


def test_official_lists_with_a_patient_in_two_splits_are_split_anew(tmp_path: Path) -> None:
    entries = []
    for name in ("a_0", "a_1", "b_0", "b_1", "c_0", "d_0"):
        put(tmp_path / f"{name}.nii.gz", unlike(2, 2, 2))
        put(tmp_path / f"label{name}.nii.gz", np.zeros((2, 2, 2), dtype=np.uint8))
        entries.append({"image": f"{name}.nii.gz", "label": f"label{name}.nii.gz"})
    listed = {"labels": {"0": "background", "1": "spleen"}, "training": entries[:3], "validation": entries[3:]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    official = read_volume_set(tmp_path)
    assert names(official.splits["test"]) == ["b_1", "c_0", "d_0"]
    assert official.note == ""
    found = read_volume_set(tmp_path, group="^(.)_")
    assert found.note == "split anew by group, as the official lists have b in two splits"
    of = [{scan.group for scan in found.splits[name]} for name in ("train", "val", "test")]
    assert sum(map(len, of)) == len(set().union(*of)) == 4
    listed["training"], listed["validation"] = entries[:4], entries[4:]
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    found = read_volume_set(tmp_path, group="^(.)_")  # lists that keep patients apart are kept
    assert names(found.splits["test"]) == ["c_0", "d_0"]
    assert found.note == ""


@pytest.mark.parametrize(("pattern", "message"), [
    ("([a", r"settings.group='\(\[a' must be a regular expression: .*; try"),
    ("^(x)", r"settings.group='\^\(x\)' matches none of 3 file names, not 'img0001'; it must match a part of every"),
    ("1$", r"matches only 1 of 3 file names, not 'img0002'"),
    ("^(img)", r"1 groups of labelled volumes do not fill train, val and test; at least 3 are needed"),
])
def test_what_a_pattern_must_be(pattern: str, message: str, tmp_path: Path) -> None:
    for index in (1, 2, 3):
        pair(tmp_path, index)
    apart, plain = (read_volume_set(tmp_path, group=group).splits for group in (".+", ""))
    assert all(names(apart[name]) == names(plain[name]) for name in apart)  # as many groups as volumes: nothing changes
    with pytest.raises(DataError, match=message):
        _ = read_volume_set(tmp_path, group=pattern).splits


# -- bad data ----------------------------------------------------------------------------------------------------------


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no labelled volumes; expected dataset.json"):
        read_volume_set(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read_volume_set(tmp_path / "absent")


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    pair(tmp_path, 1)
    pair(tmp_path, 2)
    (tmp_path / "labelsTr" / "label0002.nii.gz").unlink()
    with pytest.raises(DataError, match=r"img0002.nii.gz: has no label; expected .*label0002.nii.gz"):
        read_volume_set(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "b", "1": "a"}, "training": [
        {"image": "imagesTr/img0002.nii.gz", "label": "labelsTr/label0002.nii.gz"}]}))
    with pytest.raises(DataError, match=r"label0002.nii.gz: is missing, but .*dataset.json lists it"):
        read_volume_set(tmp_path)


@pytest.mark.parametrize(("text", "problem"), [
    ("{", "cannot be read as JSON"),
    ("[]", "needs a list `training`"),
    ('{"training": [{"image": "a"}], "labels": {"0": "b", "1": "a"}}', "needs an image and a label"),
    ('{"training": [], "labels": {"0": "b"}}', "holds no labelled volumes"),
])
def test_a_malformed_list_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_volume_set(tmp_path)


def test_labels_need_a_name_for_each_number(tmp_path: Path) -> None:
    pair(tmp_path, 1)
    entry = {"image": "imagesTr/img0001.nii.gz", "label": "labelsTr/label0001.nii.gz"}
    for labels in ({"0": "b", "1x": "a"}, {"0": "b"}, {"whole": [1, 2], "core": 2}, None):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "training": [entry]}))
        with pytest.raises(DataError, match=r"dataset.json: .*label"):
            read_volume_set(tmp_path)


def test_a_label_of_another_shape_is_named(tmp_path: Path) -> None:
    pair(tmp_path, 1)
    put(tmp_path / "labelsTr" / "label0001.nii.gz", np.zeros((5, 7, 6), dtype=np.uint8))
    with pytest.raises(DataError, match=r"label0001.nii.gz: has shape 5x7x6, but its image .*img0001.* has 5x6x7"):
        read_scan(read_volume_set(tmp_path).labelled[0], 14)


@pytest.mark.parametrize(("value", "problem"), [
    (14, "holds labels 14 to 14; allowed are 0 to 13"), (-1, "holds labels -1 to -1"), (0.5, "not whole numbers"),
])
def test_a_label_out_of_range_is_named(value: float, problem: str, tmp_path: Path) -> None:
    pair(tmp_path, 1)
    put(tmp_path / "labelsTr" / "label0001.nii.gz", np.full((5, 6, 7), value, dtype=np.float32))
    with pytest.raises(DataError, match=rf"label0001.nii.gz: .*{problem}"):
        read_scan(read_volume_set(tmp_path).labelled[0], 14)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pair(tmp_path, 1, shape=(20, 20, 20))
    path = put(tmp_path / "imagesTr" / "img0001.nii.gz", rng.normal(size=(20, 20, 20)).astype(np.float32))
    scan, whole = read_volume_set(tmp_path).labelled[0], path.read_bytes()
    for body in (whole[: len(whole) // 2], whole[:100], b"", b"no NIfTI at all",
                 whole[:5000] + bytes(200) + whole[5200:]):
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"img0001.nii.gz: is damaged or no NIfTI file"):
            read_scan(scan, 14)
    put(path, np.zeros((4, 4), dtype=np.int16))
    with pytest.raises(DataError, match="has shape 4x4; a volume has 3 axes"):
        read_scan(scan, 14)
    put(path, np.full((20, 20, 20), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_scan(scan, 14)


def test_btcv_says_how_it_is_had_and_any_folder_may_hold_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"register at https://www.synapse.org.*imagesTr.*data.path") as error:
        locate(DataSpec(name="BTCV"))
    assert "if_unavailable: synthetic" in str(error.value)
    assert DATASETS["BTCV"].modality == "volumes"
    pair(tmp_path / "mine", 1)
    assert locate(DataSpec(name="BTCV", path=str(tmp_path / "mine"))).path == tmp_path / "mine"
    pair(tmp_path / "BTCV", 1)
    assert locate(DataSpec(name="BTCV", root=str(tmp_path))).path == tmp_path / "BTCV"
    assert locate(DataSpec(name="BTCV", if_unavailable="synthetic")).fingerprint.startswith("synthetic:")


# -- real files --------------------------------------------------------------------------------------------------------


def test_the_real_hippocampus() -> None:
    if not HIPPOCAMPUS.is_dir():
        pytest.skip("needs hippocampus/Task04_Hippocampus in $RAYMAE_DATA")
    found = read_volume_set(HIPPOCAMPUS)
    assert len(found.labelled) == 200
    of = [{scan.group for scan in found.splits[name]} for name in ("train", "val", "test")]
    assert sum(map(len, of)) == len(set().union(*of)) == 139
    assert found.classes == ("background", "Anterior", "Posterior")
    assert found.modalities == ("MRI",)
    voxels = np.zeros(3, dtype=int)
    for scan in found.labelled[::10]:
        image, label, affine = read_scan(scan, 3)
        assert label is not None
        assert image.shape[1:] == label.shape
        assert image.dtype == np.float32
        assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
        voxels += np.bincount(label.ravel(), minlength=3)
    assert 0.02 < voxels[1] / voxels.sum() < voxels[0] / voxels.sum()


def test_a_real_ct_read_as_btcv(tmp_path: Path) -> None:
    source = REAL_ROOT / "ct"
    if not source.is_dir():
        pytest.skip("needs ct/ in $RAYMAE_DATA")
    (tmp_path / "img0001.nii.gz").symlink_to(source / "example_ct.nii.gz")
    drawn: Any = nibabel.load(source / "example_seg_fast_force_split.nii.gz")
    ids = np.asarray(drawn.dataobj)
    put(tmp_path / "label0001.nii.gz", ids, drawn.affine)
    scan = Scan("img0001", tmp_path / "img0001.nii.gz", tmp_path / "label0001.nii.gz")
    with pytest.raises(DataError, match=r"label0001.nii.gz: holds labels 0 to 117; allowed are 0 to 13"):
        read_scan(scan, 14)
    organs = np.zeros_like(ids)
    for theirs, ours in TO_BTCV.items():
        organs[ids == theirs] = ours
    put(tmp_path / "label0001.nii.gz", organs, drawn.affine)
    image, label, affine = read_scan(scan, 14)
    assert label is not None
    assert image.shape == (1, 122, 101, 112)
    assert (label == organs).all()
    np.testing.assert_allclose(np.abs(np.diag(affine)[:3]), 3.0)
    liver = image[0][label == 6]
    assert 40 < np.median(liver) < 150  # Hounsfield units of a liver
    other = Scan("chaos", source / "chaos_ct.nii.gz", tmp_path / "label0001.nii.gz")
    with pytest.raises(DataError, match=r"has shape 122x101x112, but its image .*chaos_ct.nii.gz has 256x256x78"):
        read_scan(other, 14)


def test_generated_volumes_hold_every_class_in_boxes_of_several_sizes() -> None:
    volumes = synthetic_volumes()
    assert len({image.shape for image, _ in volumes}) > 5
    for image, label in volumes:
        assert image.shape[1:] == label.shape
        assert set(np.unique(label)) == {0, 1, 2}
        assert image[0][label == 2].mean() > image[0][label == 1].mean() > image[0][label == 0].mean()
