"""Volume segmentation: boxes, whole volumes, Dice, the atlas, and real scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from raymae.errors import DataError
from raymae.spec import TrialConfig
from raymae.tasks.pictures import grid, slice_picture
from raymae.tasks.volumes.boxes import Boxes, Volume, _background, cut, whole_volumes
from raymae.tasks.volumes.task import DiceMetrics, Volumes
from raymae.tasks.whole import OUTSIDE
from raymae.train import evaluate, run_trial

MakeTask = Callable[..., Volumes]


@pytest.fixture
def make_task(make_config: Callable[..., TrialConfig]) -> MakeTask:
    def make(arm: str = "mae", **changes: Any) -> Volumes:
        return Volumes(make_config("volumes", arm, **changes), torch.device("cpu"))

    return make


@pytest.fixture
def hippocampus(real_data: Path) -> dict[str, str]:
    if not (real_data / "hippocampus").is_dir():
        pytest.skip(f"needs {real_data}/hippocampus/Task04_Hippocampus")
    return {"name": "Hippocampus", "source": "real", "root": str(real_data)}


def volume(size: tuple[int, int, int], seed: int = 0) -> Volume:
    generator = Generator().manual_seed(seed)
    label = torch.zeros(size, dtype=torch.uint8)
    label[1:3, 2:4, 1:4] = 1
    return Volume(torch.randn(1, *size, generator=generator), label, label.flatten().nonzero()[:, 0])


# -- boxes and whole volumes -------------------------------------------------------------------------------------------


def test_boxes_are_cut_where_they_lie_and_padded_outside() -> None:
    x = torch.arange(4 * 5 * 6).reshape(1, 4, 5, 6).float()
    assert torch.equal(cut(x, (1, 2, 3), (2, 3, 2)), x[:, 1:3, 2:5, 3:5])
    padded = cut(x, (-1, 0, 4), (6, 5, 4))
    assert padded.shape == (1, 6, 5, 4)
    assert torch.equal(padded[:, 1:5, :, :2], x[:, :, :, 4:])
    assert not padded[:, 0].any()
    assert not padded[..., 2:].any()


def test_labels_follow_their_image_through_crops_and_flips() -> None:
    one = volume((9, 8, 7))
    tagged = Volume(one.label_XYZ[None].float() * 2 - 1, one.label_XYZ, one.foreground)  # type: ignore[index]
    for flips in (False, True):
        source = Boxes([tagged], (6, 8, 10), labelled=True, num_boxes=50, flips=flips)
        batch = source.batch(torch.arange(50), Generator().manual_seed(0))
        assert torch.equal(batch["image"][:, 0] > 0, batch["label"] == 1)
        assert len({row.numpy().tobytes() for row in batch["label"]}) > (8 if flips else 1)


def test_half_of_the_boxes_are_centred_on_the_foreground() -> None:
    one = volume((40, 40, 40))
    source = Boxes([one], (4, 4, 4), labelled=True, num_boxes=400)
    batch = source.batch(torch.arange(400), Generator().manual_seed(1))
    hit = (batch["label"] > 0).flatten(1).any(dim=1).float().mean()
    assert 0.4 < hit < 0.6
    label = one.label_XYZ
    assert label is not None
    background = (label.flatten() == 0).nonzero()[:, 0].tolist()
    assert [_background(one.foreground, rank) for rank in range(len(background))] == background


def test_without_a_generator_a_box_is_the_middle_and_unchanged() -> None:
    one = volume((9, 8, 7))
    source = Boxes([one], (5, 4, 3), labelled=True, flips=True, jitter=0.5)
    batch = source.batch(torch.tensor([0, 0]), None)
    assert torch.equal(batch["image"][0], one.image_CXYZ[:, 2:7, 2:6, 2:5])
    assert torch.equal(batch["image"][0], batch["image"][1])


def test_the_number_of_boxes_may_be_fixed_whatever_the_labels(make_task: MakeTask) -> None:
    assert len(make_task(label_fraction=0.1).load("train")) == 3  # of 24
    assert len(make_task(label_fraction=0.1, boxes_per_epoch=17).load("train")) == 17
    assert len(make_task(pretrain_boxes=9).load("pretrain")) == 9
    jittered = make_task(jitter=0.3).load("pretrain")
    one, other = (jittered.batch(torch.tensor([0]), Generator().manual_seed(seed))["image"] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_whole_volumes_keep_their_size_in_a_common_box() -> None:
    source = whole_volumes([volume((4, 9, 5)), volume((6, 7, 5), seed=1)])
    batch = source.batch(torch.tensor([1, 0]), None)
    assert batch["image"].shape == (2, 1, 6, 9, 5)
    assert batch["size"].tolist() == [[6, 7, 5], [4, 9, 5]]
    assert (batch["label"][0, :, 7:] == OUTSIDE).all()
    assert torch.equal(batch["label"][1, :4], source.read(0)[1])


# -- Dice --------------------------------------------------------------------------------------------------------------


def test_dice_is_monais_mean_batch() -> None:
    from monai.metrics import DiceMetric
    from monai.networks.utils import one_hot

    generator = Generator().manual_seed(0)
    truth, said = (torch.randint(0, 4, (5, 6, 7, 8), generator=generator) for _ in range(2))
    truth[0][truth[0] == 2] = 0  # a patient without this organ
    truth[truth == 3] = 1
    truth[4, 0, 0, 0] = 3  # an organ that only one has
    theirs = DiceMetric(include_background=False, reduction="mean_batch")
    theirs(y_pred=one_hot(said[:, None], 4), y=one_hot(truth[:, None], 4))
    wanted = theirs.aggregate().tolist()
    metrics = DiceMetrics(4)
    for rows in (slice(0, 2), slice(2, 5)):
        metrics.update(said[rows].float(), {"label": truth[rows].to(torch.uint8)})
    scores = metrics.compute()
    assert [scores[f"dice_{index}"] for index in (1, 2, 3)] == pytest.approx(wanted, rel=1e-6)
    assert scores["dice"] == pytest.approx(sum(wanted) / 3, rel=1e-6)


def test_dice_by_hand() -> None:
    truth = torch.tensor([1, 1, 1, 0, 2, OUTSIDE], dtype=torch.uint8).reshape(1, 1, 1, 6)
    said = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 2.0]).reshape(1, 1, 1, 6)
    metrics = DiceMetrics(3)
    metrics.update(said, {"label": truth})
    assert metrics.compute() == pytest.approx({"dice_1": 2 * 2 / 6, "dice_2": 0.0, "dice": 2 / 6})
    broken = DiceMetrics(3)
    broken.update(said * np.nan, {"label": truth})
    assert np.isnan(broken.compute()["dice"])


class Oracle(nn.Module):
    """Bright is class 1."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([-image, image, torch.full_like(image, -9)], dim=1)


@pytest.mark.parametrize(("shrink", "overlap"), [(1, 0.0), (1, 0.5), (2, 0.25)])
def test_sliding_windows_put_every_voxel_in_its_place(shrink: int, overlap: float, make_task: MakeTask) -> None:
    task = make_task(shrink=shrink, overlap=overlap, patch_size=4)
    label = torch.zeros(20, 30, 18, dtype=torch.uint8)
    label[4:12, 10:24, 2:14] = 1
    one = Volume(label[None].float() * 2 - 1, label, label.flatten().nonzero()[:, 0])
    scores = evaluate(task, Oracle(), whole_volumes([one, one]))
    assert scores["dice_1"] == pytest.approx(1.0, abs=0 if shrink == 1 else 0.03)


def test_scores_do_not_depend_on_the_batch_or_on_other_volumes(make_task: MakeTask) -> None:
    task = make_task("scratch", overlap=0.25)
    model, volumes = task.build().eval(), task.data.split("val")
    alone = [evaluate(task, model, whole_volumes([one]))["dice_1"] for one in volumes]
    together = evaluate(task, model, whole_volumes(volumes), batch_size=4)["dice_1"]
    assert together == pytest.approx(np.mean(alone), rel=1e-9)


def test_shrunk_tokens_are_means_of_what_is_corrupted(make_task: MakeTask) -> None:
    task = make_task(shrink=2, patch_size=4, roi_size="16x24x16")
    generator = Generator().manual_seed(0)
    batch = task.load("pretrain").batch(torch.arange(3), generator)
    assert batch["image"].shape == (3, 1, 16, 24, 16)
    pretraining = task.pretraining()
    mask = pretraining.draw_mask(batch, generator)
    other, model = pretraining.corrupt(batch, mask, generator), pretraining.build()
    assert mask.shape == (3, 2 * 3 * 2)
    assert torch.equal(*(pretraining.encode_visible(model, seen, mask) for seen in (batch, other)))
    assert task.build()(torch.randn(1, 1, 8, 12, 8)).shape == (1, 3, 8, 12, 8)


@pytest.mark.parametrize(("arm", "changes", "found"), [
    ("mae", {"roi_size": "32x50x32"}, "roi_size=32x50x32 must be multiples of patch_size=8; try 32x48x32"),
    ("scratch", {"roi_size": "24x24x24", "shrink": 2}, "must be multiples of patch_size=8 * shrink=2; try 32x32x32"),
    ("mae", {"roi_size": "96"}, "roi_size=96 must be three whole numbers"),
    ("mae", {"roi_size": "8x8x8"}, "patch_size=8 leaves 1 token"),
    ("mae", {"patch_size": 6}, "patch_size=6 must be 2, 4, 8 or 16"),
    ("mae", {"encoder_dim": 13}, "encoder_dim=13 must be a multiple of encoder_heads=2; try 12"),
    ("atlas", {"spacing": "1x1"}, "spacing=1x1 must be `native` or three sizes"),
    ("atlas", {"window_low": 300.0}, "window_low=300.0 must be below window_high=250.0"),
    ("scratch", {"decoder_dim": 13}, ""),
])
def test_impossible_combinations_are_named(arm: str, changes: dict[str, Any], found: str, make_config: Any) -> None:
    params = {**make_config("volumes", "mae").params, **changes}
    messages = [message for _, message in Volumes.schema.check(arm, params)]
    assert any(found in message for message in messages) if found else not messages


# -- whole trials ------------------------------------------------------------------------------------------------------


def test_pictures_of_a_replicate(make_config: Callable[..., TrialConfig]) -> None:
    reports = list(run_trial(make_config("volumes", "mae", stage="replicate")))
    pictures = {name: picture for report in reports for name, picture in report.pictures.items()}
    assert pictures.keys() == {"reconstruction", "prediction"}
    for picture in pictures.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert picture.std() > 10
    again = {name: picture for report in run_trial(make_config("volumes", "mae", stage="replicate"))
             for name, picture in report.pictures.items()}
    assert all(np.array_equal(again[name], picture) for name, picture in pictures.items())


def test_slices_show_labels_in_colour_and_front_up() -> None:
    image = np.zeros((2, 3, 1))
    image[1, 2] = 1.0
    label = np.zeros((2, 3, 1), dtype=np.uint8)
    label[0, 0] = 1
    picture = slice_picture(image, 0, label, window=(0, 1))
    side = picture.shape[0] // 3
    assert (picture[:side, side:] == 255).all()  # right and front
    assert picture[-1, 0, 0] > 2 * picture[-1, 0, 1]  # red
    assert grid([[picture, picture], [picture]], gap=4).shape == (2 * 3 * side + 4, 2 * 2 * side + 4, 3)


def test_the_atlas_of_the_real_hippocampus(
    hippocampus: dict[str, str], make_config: Callable[..., TrialConfig]
) -> None:
    """The files, their splits, the reference and its score, as counted when it was written."""
    config = make_config("volumes", "atlas", stage="replicate", data=hippocampus)
    line = Volumes.validate(config.data, config.params)
    assert line == ("119 train / 29 val / 52 test / 0 unlabelled volumes; 2 classes: Anterior, Posterior; "
                    "83 train / 21 val / 35 test groups")
    *_, report = run_trial(config)
    assert report.best["val_dice"] == pytest.approx(0.6890, abs=1e-3)
    assert report.metrics.keys() == {"test_dice", "test_dice_1", "test_dice_2"}
    assert 0.65 < report.metrics["test_dice"] < 0.77


def test_real_mri_is_standardised_by_volume_and_pretrained_on(hippocampus: dict[str, str], make_task: MakeTask) -> None:
    task = make_task("mae", data=hippocampus)
    for one in task.data.split("val")[:5]:
        assert float(one.image_CXYZ.mean()) == pytest.approx(0, abs=1e-4)
        assert float(one.image_CXYZ.std()) == pytest.approx(1, abs=1e-3)
        assert one.label_XYZ is not None
        assert one.label_XYZ.shape == one.image_CXYZ.shape[1:]
        assert set(one.label_XYZ.unique().tolist()) == {0, 1, 2}
    batch = task.load("pretrain").batch(torch.arange(4), Generator().manual_seed(0))
    pretraining = task.pretraining()
    assert torch.isfinite(pretraining.loss(pretraining.build(), batch, pretraining.draw_mask(batch, Generator())).mean)


def test_a_real_ct_is_resampled_windowed_and_joined_by_unlabelled_ones(
    real_data: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    import nibabel

    source = real_data / "ct"
    if not source.is_dir():
        pytest.skip(f"needs {source}")
    drawn: Any = nibabel.load(source / "example_seg_fast_force_split.nii.gz")
    liver = (np.asarray(drawn.dataobj) == 5).astype(np.uint8)
    scan: Any = nibabel.load(source / "example_ct.nii.gz")

    def shifted(units: int) -> Any:  # no two are copies of each other
        return nibabel.Nifti1Image((np.asarray(scan.dataobj) + units).astype(np.int16), scan.affine)

    (tmp_path / "labelsTr").mkdir()
    for index in range(3):
        (tmp_path / "imagesTr").mkdir(exist_ok=True)
        nibabel.save(shifted(index), tmp_path / "imagesTr" / f"img{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(liver, drawn.affine), tmp_path / "labelsTr" / f"label{index}.nii.gz")
    (tmp_path / "imagesTs").mkdir()
    nibabel.save(shifted(9), tmp_path / "imagesTs" / "img9.nii.gz")
    data = {"name": "BTCV", "source": "real", "path": str(tmp_path)}
    task = make_task("mae", data=data, spacing="6x6x9", num_classes=2)
    assert Volumes.validate(task.config.data, task.config.params) == (
        "1 train / 1 val / 1 test / 1 unlabelled volumes; 1 classes: spleen; "
        "no groups known: settings.group keeps examples that belong together in one split")
    (one,) = task.data.split("val")
    assert one.label_XYZ is not None
    assert one.label_XYZ.shape == one.image_CXYZ.shape[1:]
    for side, length, spacing in zip(one.label_XYZ.shape, liver.shape, (6, 6, 9), strict=True):
        assert abs(side - length * 3 / spacing) <= 1.5
    assert 0 <= float(one.image_CXYZ.min()) < float(one.image_CXYZ.max()) <= 1
    inside = one.image_CXYZ[0][one.label_XYZ == 1]
    assert 0.5 < float(inside.median()) < 0.75  # about 100 Hounsfield units in a window of -175 to 250
    assert float((one.label_XYZ == 1).sum()) * 324 == pytest.approx(liver.sum() * 27, rel=0.05)
    assert len(task.load("pretrain")) == 2
    assert len(make_task("mae", data=data, spacing="6x6x9", num_classes=2, unlabelled=False).load("pretrain")) == 1
    assert task.reported() == ("dice", "dice_1")


def test_bad_files_fail_before_a_sweep_starts(tmp_path: Path, make_config: Callable[..., TrialConfig]) -> None:
    import nibabel

    for index in range(3):
        for folder, stem, shape in (("imagesTr", "img", (4, 4, 4)), ("labelsTr", "label", (4, 4, 4 + index // 2))):
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.full(shape, index, np.uint8), np.eye(4)),
                         tmp_path / folder / f"{stem}{index}.nii.gz")
    config = make_config("volumes", "mae", data={"name": "BTCV", "source": "real", "path": str(tmp_path)})
    with pytest.raises(DataError, match=r"label2.nii.gz: has shape 4x4x5, but its image .*img2.nii.gz has 4x4x4"):
        Volumes.validate(config.data, config.params)
