"""Lists of volumes as tools write them, and that no volume is in two splits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from raymae.data.volume_files import Scan, read_scan
from raymae.data.volumes import VolumeSet, read_volume_set
from raymae.errors import DataError
from raymae.tasks.volumes.boxes import Preparation, VolumeSplits

RNG = np.random.default_rng(0)
TURNED = np.diag([-2.0, 2.0, 2.0, 1.0])
TURNED[0, 3] = 2.0 * 4  # voxel 0 lies where the image's last one does


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def case(folder: Path, name: str, *, channels: int = 0, image: str = "{}.nii.gz", value: int = 1) -> None:
    """One volume that no other is like, with a bright box that is labelled."""
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 1:3, 1:3] = value
    shape = (5, 6, 7, channels) if channels else (5, 6, 7)
    save(folder / "imagesTr" / image.format(name), RNG.normal(0, 100, shape).astype(np.float32))
    save(folder / "labelsTr" / f"{name}.nii.gz", label)


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz", **more}


def listing(folder: Path, training: Any, **more: Any) -> None:
    content = {"labels": {"0": "background", "1": "organ"}, "modality": {"0": "MRI"}, "training": training, **more}
    (folder / "dataset.json").write_text(json.dumps(content))


def splits_of(found: VolumeSet) -> dict[str, list[str]]:
    return {name: [scan.name for scan in scans] for name, scans in found.splits.items()}


def every(found: VolumeSet) -> list[str]:
    return [name for names in splits_of(found).values() for name in names]


def checked(folder: Path, *, intensity: str = "auto", num_classes: int = 0, fold: int = 0) -> VolumeSplits:
    how = Preparation(None, intensity, (-175.0, 250.0), num_classes, fold)
    return VolumeSplits(folder, how, "", torch.device("cpu"))


def all_apart(found: VolumeSet) -> bool:
    paths = [scan.image for scans in found.splits.values() for scan in scans]
    return len({path.resolve() for path in paths}) == len(paths)


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_volume_beside_its_packed_one_is_one_volume(tmp_path: Path) -> None:
    for index in range(8):
        case(tmp_path, f"c{index}")
        for kind in ("imagesTr", "labelsTr"):
            packed = tmp_path / kind / f"c{index}.nii.gz"
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    found = read_volume_set(tmp_path)
    assert sorted(every(found)) == [f"c{index}" for index in range(8)]
    save(tmp_path / "imagesTr" / "c3.nii", RNG.normal(size=(5, 6, 7)))
    with pytest.raises(DataError, match=r"c3\.nii and .*c3\.nii\.gz are one volume by name, but hold different voxels"):
        read_volume_set(tmp_path)


def test_no_volume_is_in_two_splits_however_it_is_listed(tmp_path: Path) -> None:
    for index in range(8):
        case(tmp_path, f"c{index}")
    entries = [entry(f"c{index}") for index in range(8)]
    listing(tmp_path, [*entries, entries[0], entries[0], entries[5]])
    found = read_volume_set(tmp_path)
    assert len(every(found)) == 8
    assert all_apart(found)
    assert "3 entries of `training` are listed again and taken once" in found.note
    listing(tmp_path, entries, validation=entries[6:], test=[f"./imagesTr/c{index}.nii.gz" for index in range(8)])
    found = read_volume_set(tmp_path)
    assert splits_of(found)["test"] == ["c6", "c7"]
    assert splits_of(found)["unlabelled"] == []
    assert all_apart(found)
    assert "listed again, or copies of others, and left out: 10, such as c6.nii.gz" in found.note
    (tmp_path / "imagesTr" / "twin.nii.gz").write_bytes((tmp_path / "imagesTr" / "c6.nii.gz").read_bytes())
    (tmp_path / "labelsTr" / "twin.nii.gz").write_bytes((tmp_path / "labelsTr" / "c6.nii.gz").read_bytes())
    listing(tmp_path, [*entries[:6], entry("twin")], validation=entries[6:])
    found = read_volume_set(tmp_path)
    assert "twin" not in every(found)
    assert "left out: 1, such as twin.nii.gz, which is c6.nii.gz" in found.note


def test_one_image_with_two_labels_is_refused(tmp_path: Path) -> None:
    for index in range(4):
        case(tmp_path, f"c{index}")
    listing(tmp_path, [entry(f"c{index}") for index in range(4)] + [{**entry("c0"), "label": "labelsTr/c1.nii.gz"}])
    with pytest.raises(DataError, match=r"lists .*c0\.nii\.gz with two labels, .*c0\.nii\.gz and .*c1\.nii\.gz"):
        read_volume_set(tmp_path)


def test_folds_of_a_list_are_kept(tmp_path: Path) -> None:
    for index in range(8):
        case(tmp_path, f"c{index}")
    entries = [entry(f"c{index}", fold=index % 4) for index in range(8)]
    listing(tmp_path, entries)
    found = read_volume_set(tmp_path, fold=3)
    assert splits_of(found) == {"train": ["c1", "c2", "c5", "c6"], "val": ["c0", "c4"], "test": ["c3", "c7"],
                                "unlabelled": []}
    assert found.note == "test is fold 3 of the list, val fold 0"
    with pytest.raises(DataError, match=r"settings\.fold=4, but its folds are 0, 1, 2, 3"):
        read_volume_set(tmp_path, fold=4)
    listing(tmp_path, entries[:6], validation=[entry("c6"), entry("c7")])
    assert splits_of(read_volume_set(tmp_path, fold=1)) == {
        "train": ["c0", "c2", "c3", "c4"], "val": ["c1", "c5"], "test": ["c6", "c7"], "unlabelled": []}
    listing(tmp_path, [*entries[:7], entry("c7")])
    with pytest.raises(DataError, match="some entries of `training` have a `fold` and some not"):
        read_volume_set(tmp_path)


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [{"background": 0, "organ": 2}, {"organ": 2}, {"0": "background", "2": "organ"}])
def test_nnunets_layout_with_numbered_channels_and_gaps(labels: dict[str, Any], tmp_path: Path) -> None:
    for index in range(6):
        case(tmp_path, f"c{index}", image="{}_0000.nii.gz", value=2)
        save(tmp_path / "imagesTr" / f"c{index}_0001.nii.gz", RNG.normal(size=(5, 6, 7)))
    (tmp_path / "dataset.json").write_text(json.dumps(
        {"channel_names": {"0": "CT", "1": "T1"}, "labels": labels, "numTraining": 6, "file_ending": ".nii.gz"}))
    found = read_volume_set(tmp_path)
    assert found.classes == ("background", "organ")
    assert [scan.name for scan in found.labelled] == [f"c{index}" for index in range(6)]
    image, label, _ = read_scan(found.labelled[0], len(found.classes), found.values)
    assert image.shape == (2, 5, 6, 7)
    assert label is not None
    assert np.unique(label).tolist() == [0, 1]
    line = checked(tmp_path).check()
    assert "channels: CT window, standardised" in line


def test_an_image_may_be_a_list_of_channels(tmp_path: Path) -> None:
    for index in range(4):
        case(tmp_path, f"c{index}")
        save(tmp_path / "more" / f"c{index}.nii.gz", np.full((5, 6, 7), index, np.int16))
    listing(tmp_path, [{**entry(f"c{index}"), "image": [f"imagesTr/c{index}.nii.gz", f"more/c{index}.nii.gz"],
                        "label": [f"labelsTr/c{index}.nii.gz"]} for index in range(4)], modality={"0": "T1", "1": "T2"})
    image, _, _ = read_scan(read_volume_set(tmp_path).labelled[3], 2)
    assert (image[1] == 3).all()
    listing(tmp_path, [{**entry("c0"), "label": ["labelsTr/c0.nii.gz", "labelsTr/c1.nii.gz"]}])
    with pytest.raises(DataError, match="has 2 label files; join them into one"):
        read_volume_set(tmp_path)


# -- voxels ------------------------------------------------------------------------------------------------------------


def test_a_label_is_brought_onto_its_images_grid(tmp_path: Path) -> None:
    label = RNG.integers(0, 3, (5, 6, 7)).astype(np.uint8)
    spacing = np.diag([2.0, 2.0, 2.0, 1.0])
    image = save(tmp_path / "image.nii.gz", label.astype(np.float32), spacing)
    onto = np.eye(4)[[2, 0, 1, 3]]  # voxel (k, i, j) of the file is (i, j, k)
    stored = {
        "flipped": (label[::-1], TURNED), "turned": (np.transpose(label, (2, 0, 1)), spacing @ np.linalg.inv(onto)),
        "rounded": (label, spacing + 1e-5), "same": (label, spacing),
    }
    for name, (voxels, affine) in stored.items():
        path = save(tmp_path / f"{name}.nii.gz", np.ascontiguousarray(voxels), affine)
        _, found, _ = read_scan(Scan("a", image, path), 3)
        assert found is not None
        assert (found == label).all(), name


@pytest.mark.parametrize("change", [
    np.diag([2.0, 1.0, 1.0, 1.0]), np.block([[np.eye(3), np.full((3, 1), 0.5)], [np.eye(4)[3:]]]),
    np.array([[0.9, -0.4, 0, 0], [0.4, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
])
def test_grids_that_do_not_match_are_refused(change: np.ndarray, tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz", np.zeros((5, 6, 7), np.float32))
    label = save(tmp_path / "label.nii.gz", np.zeros((5, 6, 7), np.uint8), change)
    with pytest.raises(DataError, match=r"label\.nii\.gz: lies elsewhere than its image .*image\.nii\.gz"):
        read_scan(Scan("a", image, label), 2)
    bare = nibabel.Nifti1Image(np.zeros((5, 6, 7), np.uint8), None)  # a file that does not say where it lies
    nibabel.save(bare, label)
    assert read_scan(Scan("a", image, label), 2)[1] is not None


def test_labels_through_a_scale_slope_are_whole(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz", np.zeros((2, 2, 2), np.float32))
    scaled = nibabel.Nifti1Image(np.full((2, 2, 2), 10, np.int16), np.eye(4))
    scaled.header.set_slope_inter(0.1, 1e-5)
    nibabel.save(scaled, tmp_path / "label.nii.gz")
    _, label, _ = read_scan(Scan("a", image, tmp_path / "label.nii.gz"), 2)
    assert label is not None
    assert (label == 1).all()


@pytest.mark.parametrize(("dtype", "message"), [
    (np.complex64, "holds complex numbers"), (np.dtype([(name, "u1") for name in "RGB"]), r"holds colours \(R, G, B\)"),
])
def test_voxels_that_are_no_plain_numbers_are_refused(dtype: Any, message: str, tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz", np.zeros((2, 2, 2), dtype))
    with pytest.raises(DataError, match=rf"image\.nii\.gz: {message}"):
        read_scan(Scan("a", image, None), 2)


# -- channels and classes ----------------------------------------------------------------------------------------------


def test_every_modality_has_its_own_window(tmp_path: Path) -> None:
    for index in range(6):
        case(tmp_path, f"c{index}", channels=2)
    listing(tmp_path, [entry(f"c{index}") for index in range(6)], modality={"0": "CT", "1": "PET"})
    (volume, *_) = checked(tmp_path).split("train")
    ct, pet = volume.image_CXYZ
    assert 0 <= float(ct.min()) < 0.2 < 0.6 < float(ct.max()) <= 1
    assert float(pet.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pet.std()) == pytest.approx(1, abs=0.01)


def test_channels_that_differ_are_named(tmp_path: Path) -> None:
    for index in range(6):
        case(tmp_path, f"c{index}", channels=2 if index == 3 else 0)
    listing(tmp_path, [entry(f"c{index}") for index in range(6)])
    with pytest.raises(DataError, match=r"has 2 channels, but .* has 1; every|has 1 channel, but .* has 2; every"):
        checked(tmp_path).check()
    with pytest.raises(DataError, match="every volume needs the same"):
        _ = [data.split(name) for data in [checked(tmp_path)] for name in ("train", "val", "test")]
    listing(tmp_path, [entry(f"c{index}") for index in range(3)], modality={"0": "T1", "1": "T2"})
    with pytest.raises(DataError, match="has 1 channel, but the list names 2: T1, T2"):
        checked(tmp_path).check()


def test_a_split_without_foreground_is_said_before_training(tmp_path: Path) -> None:
    for index in range(8):
        case(tmp_path, f"c{index}")
    listing(tmp_path, [entry(f"c{index}") for index in range(8)])
    (healthy,) = read_volume_set(tmp_path).splits["val"]
    assert healthy.label is not None
    save(healthy.label, np.zeros((5, 6, 7), np.uint8))
    for read in (lambda data: data.check(), lambda data: data.split("val")):
        with pytest.raises(DataError, match="no val volume holds a foreground class, so there is nothing to select by"):
            read(checked(tmp_path))
