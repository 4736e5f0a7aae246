from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from raymae.data.scene_labels import IGNORED
from raymae.data.scenes import Scenes
from raymae.models.tokens import sincos_positions
from raymae.spec import TrialConfig
from raymae.tasks.colours import PAD, standardise, to_rgb
from raymae.tasks.pictures import CAPTION, palette
from raymae.tasks.segmentation.crops import Crops, WholeScenes, sliding_window, windows
from raymae.tasks.segmentation.task import Segmentation, SegmentationMetrics
from raymae.train import evaluate, run_trial

MakeTask = Callable[..., Segmentation]
CPU = torch.device("cpu")
SMALL = {"image_size": 32, "crop_size": 32, "patch_size": 8}


@pytest.fixture
def make_task(make_config: Callable[..., TrialConfig]) -> MakeTask:
    def make(arm: str = "mae", *, data: Any = None, seed: int = 0, **changes: Any) -> Segmentation:
        torch.manual_seed(0)
        return Segmentation(make_config("segmentation", arm, data=data, seed=seed, **{**SMALL, **changes}), CPU)

    return make


def real(root: Path, name: str, folder: str) -> dict[str, str]:
    if not (root / folder).is_dir():
        pytest.skip(f"needs {root / folder}")
    return {"name": name, "source": "real", "root": str(root)}


@pytest.fixture
def ade20k(real_data: Path) -> dict[str, str]:
    return real(real_data, "ADE20K", "ade20k/ADEChallengeData2016")


@pytest.fixture
def camvid(real_data: Path) -> dict[str, str]:
    return real(real_data, "CamVid", "camvid")


def scenes(*sizes: tuple[int, int]) -> Scenes:
    """Images whose red says the row, green the column, and whose labels say the quarter of the row."""
    images, labels = [], []
    for rows, columns in sizes:
        y, x = np.mgrid[:rows, :columns]
        images.append(np.stack([y, x, np.full_like(x, 100)], axis=2).astype(np.uint8))
        labels.append((y // 4).astype(np.uint8))
    return Scenes(tuple(map(str, range(len(sizes)))), tuple(images), tuple(labels))


def raw(image: Tensor) -> np.ndarray:
    return to_rgb(image[None])[0]


# -- the real scenes ---------------------------------------------------------------------------------------------------


def test_majority_on_the_real_camvid_counted_by_hand(
    camvid: dict[str, str], real_data: Path, make_config: Callable[..., TrialConfig]
) -> None:
    from PIL import Image

    *_, report = run_trial(make_config("segmentation", "majority", stage="replicate", data=camvid, image_size=360))
    counts = np.zeros(256, int)
    for path in (real_data / "camvid" / "annotations" / "training").glob("0006R0_*"):  # the drive that is the test
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
    share = counts[4] / counts[1:].sum()  # road is label 4
    assert report.metrics["test_pixel_accuracy"] == pytest.approx(share, rel=1e-12)
    assert report.metrics["test_miou"] == pytest.approx(share / 11, rel=1e-12)


def test_the_dry_run_says_that_camvid_is_split_anew_and_the_test_is_one_drive(
    camvid: dict[str, str], make_task: MakeTask
) -> None:
    task = make_task(data=camvid, label_fraction=0.25)
    assert Segmentation.validate(task.config.data, task.config.params) == (
        "62 train / 13 val / 20 test images, 11 classes, shorter side 32 pixels; 1 train / 1 val / 1 test groups, so "
        "the test says nothing of other groups; split anew by group, as the official lists have 0016E5 in two splits")
    assert len(task.units("train").names) == len(task.load("train")) == 16  # a share of the one drive's images
    assert task.units("test").groups == ("0006R0",) * 20


def test_a_whole_trial_on_the_real_ade20k_with_photos_without_labels(
    ade20k: dict[str, str], make_config: Callable[..., TrialConfig]
) -> None:
    config = make_config("segmentation", "mae", stage="replicate", data=ade20k, unlabelled=True, epochs=1,
                         **SMALL)
    line = Segmentation.validate(config.data, config.params)
    # 16 of the photos without labels are the official validation images, which are scored
    assert line.startswith("14 train / 3 val / 16 test images, 150 classes, shorter side 32 pixels, ")
    task = Segmentation(config, CPU)
    scored = {*task.data.val.names, *task.data.test.names}
    pretrain = task.load("pretrain")
    assert isinstance(pretrain, Crops)
    assert not scored & set(pretrain.scenes.names)
    assert len(pretrain) > 14 + 100
    *_, last = run_trial(config)
    assert 0 <= last.metrics["test_miou"] < last.metrics["test_pixel_accuracy"] < 1
    assert {name: picture.dtype for name, picture in last.pictures.items()} == {"prediction": np.uint8}


def test_without_the_parameter_no_photo_joins(ade20k: dict[str, str], make_task: MakeTask) -> None:
    assert len(make_task(data=ade20k).load("pretrain")) == 14


# -- crops -------------------------------------------------------------------------------------------------------------


def test_the_middle_is_cut_where_nothing_is_random() -> None:
    source = Crops(scenes((10, 14), (6, 20)), CPU, 8)
    batch = source.batch(torch.tensor([0, 1]), None)
    assert batch["label"].dtype == torch.int64
    assert np.array_equal(raw(batch["image"][0]), source.scenes.images[0][1:9, 3:11])
    assert np.array_equal(batch["label"][0], source.scenes.labels[0][1:9, 3:11])
    # the second image is too low: a row of padding above and below
    assert np.array_equal(raw(batch["image"][1])[1:7], source.scenes.images[1][:, 6:14])
    assert (raw(batch["image"][1])[[0, 7]] == PAD).all()
    assert (batch["label"][1][[0, 7]] == IGNORED).all()
    assert (batch["label"][1][1:7] != IGNORED).all()


def test_random_crops_move_image_and_labels_together() -> None:
    source = Crops(scenes((40, 60), (50, 44)), CPU, 16, scale=(0.5, 2.0), flip=True, repeats=20)
    batch = source.batch(torch.arange(len(source)), Generator().manual_seed(0))
    assert batch["image"].shape == (40, 3, 16, 16)
    rows = to_rgb(batch["image"])[..., 0].astype(float)
    counted = batch["label"].numpy() != IGNORED
    # red is the row, the label its quarter; bilinear colours and nearest labels may differ by a pixel
    assert (abs(rows - (batch["label"].numpy() * 4 + 1.5))[counted] <= 3.5).all()
    assert counted.all()  # a window of at most 32 pixels fits
    steps = np.diff(to_rgb(batch["image"])[..., 1].astype(float), axis=2)
    towards = np.sign(np.median(steps, axis=(1, 2)))
    assert {-1.0, 1.0} <= set(towards)  # mirrored or not
    zoom = np.diff(rows, axis=1).mean(axis=(1, 2))
    assert zoom.min() < 0.8 < 1.5 < zoom.max()


def test_a_window_larger_than_its_image_shows_all_of_it_and_padding() -> None:
    source = Crops(scenes((12, 20)), CPU, 16, scale=(0.5, 0.5), repeats=10)
    batch = source.batch(torch.arange(10), Generator().manual_seed(0))
    counted = batch["label"] != IGNORED
    for there in counted:  # 6 x 10, give or take the pixel that lies halfway
        assert abs(int(there.any(dim=1).sum()) - 6) <= 1
        assert abs(int(there.any(dim=0).sum()) - 10) <= 1
    around = to_rgb(batch["image"])[~counted.numpy()]
    assert (around == PAD).all(axis=1).mean() > 0.7  # all but where it meets the image
    assert len({tuple(where.nonzero()[0].tolist()) for where in counted}) > 3


def test_crops_follow_their_generator_and_not_the_global_state() -> None:
    source = Crops(scenes((40, 60)), CPU, 16, scale=(0.5, 2.0), flip=True, jitter=0.4, repeats=3)
    draw = [source.batch(torch.arange(3), Generator().manual_seed(seed))["image"] for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert not torch.equal(draw[0][0], draw[0][1])


def test_colour_jitter_leaves_labels_and_places() -> None:
    plain, jittered = (Crops(scenes((40, 60)), CPU, 16, jitter=jitter) for jitter in (0.0, 0.5))
    one, other = (source.batch(torch.tensor([0]), Generator().manual_seed(1)) for source in (plain, jittered))
    assert torch.equal(one["label"], other["label"])
    assert not torch.allclose(one["image"], other["image"])
    a, b = one["image"][0, 0].flatten(), other["image"][0, 0].flatten()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99


def test_whole_images_are_padded_to_the_largest_whatever_is_in_the_batch() -> None:
    several = scenes((10, 14), (6, 20))
    source = WholeScenes(several, CPU)
    batch = source.batch(torch.tensor([1]), None)
    assert batch["image"].shape == (1, 3, 10, 20)
    assert batch["size"].tolist() == [[6, 20]]
    assert (batch["label"][0, 6:] == IGNORED).all()
    assert np.array_equal(raw(batch["image"][0])[:6], several.images[1])


def test_labels_are_mapped_once(make_task: MakeTask) -> None:
    """What the reader stores, crops and whole images show unchanged: 0..K-1 and IGNORED."""
    task = make_task("scratch")
    for source in (task.load("train"), task.load("val")):
        label = source.batch(torch.arange(len(source)), None)["label"]
        assert sorted(label.unique().tolist()) == [0, 1, 2, 3, 4, IGNORED]
    random = task.load("train").batch(torch.arange(16), Generator().manual_seed(0))["label"]
    assert set(random.unique().tolist()) <= {0, 1, 2, 3, 4, IGNORED}


# -- sliding window ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", [3, 8, 9, 15, 16, 100])
@pytest.mark.parametrize("overlap", [0.0, 0.33, 0.9])
def test_windows_cover_every_pixel_with_the_overlap(extent: int, overlap: float) -> None:
    starts = windows(extent, 8, overlap)
    seen = np.zeros(max(extent, 8), int)
    for start in starts:
        seen[start : start + 8] += 1
    assert seen.min() >= 1
    assert starts[0] == 0
    assert starts[-1] == max(extent - 8, 0)
    assert all(b - a <= math.ceil(8 * (1 - overlap)) for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("size", [(5, 6), (8, 8), (8, 23), (31, 9)])
@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_sliding_over_an_image_of_any_shape_puts_everything_back(size: tuple[int, int], at_once: int) -> None:
    image = torch.randn(3, *size, generator=Generator().manual_seed(0))
    shapes = []

    def network(crops: Tensor) -> Tensor:
        shapes.append(tuple(crops.shape[1:]))
        assert len(crops) <= at_once
        return torch.cat([crops, 2 * crops], dim=1)

    logits = sliding_window(network, image, 8, overlap=0.33, at_once=at_once)
    torch.testing.assert_close(logits, torch.cat([image, 2 * image]))
    assert set(shapes) == {(3, 8, 8)}


def test_scores_of_images_of_several_sizes_do_not_depend_on_the_batch(make_task: MakeTask) -> None:
    task = make_task("scratch")
    model = task.build()
    assert len({tuple(size) for size in task.load("test").batch(torch.arange(8), None)["size"].tolist()}) > 2
    scores = [evaluate(task, model, task.load("test"), batch_size=size) for size in (1, 3, 8)]
    assert scores[0] == scores[1] == scores[2]  # exactly: every image is a computation of its own


def test_pretraining_and_finetuning_crops_may_differ(make_task: MakeTask) -> None:
    task = make_task("mae", crop_size=32, pretrain_crop=48)
    pretraining = task.pretraining()
    pretrained, model = pretraining.build(), task.build()
    coverage = pretraining.transfer(pretrained, model)
    assert len(coverage.loaded) == len(pretrained.encoder.state_dict())
    assert task.load("pretrain").batch(torch.arange(2), None)["image"].shape == (2, 3, 48, 48)
    assert task.load("train").batch(torch.arange(2), None)["image"].shape == (2, 3, 32, 32)
    positions = model.get_buffer("encoder.embedding.positions_ND").unflatten(0, (4, 4))
    assert torch.equal(positions, sincos_positions((4, 4), 16, like=(6, 6)).unflatten(0, (4, 4)))
    assert torch.equal(pretrained.get_buffer("encoder.embedding.positions_ND"), sincos_positions((6, 6), 16))


# -- metrics -----------------------------------------------------------------------------------------------------------


def sized(label_BHX: Tensor, native_BHX: Tensor | None = None) -> dict[str, Tensor]:
    """A batch of whole images without padding, whose files are no larger by default."""
    native_BHX = label_BHX if native_BHX is None else native_BHX
    return {"label": label_BHX, "size": torch.tensor(label_BHX.shape[1:]).expand(len(label_BHX), 2),
            "native": native_BHX.to(torch.uint8),
            "native_size": torch.tensor(native_BHX.shape[1:]).expand(len(label_BHX), 2)}


def test_metrics_equal_torchmetrics_and_add_up_over_unequal_batches() -> None:
    generator = Generator().manual_seed(0)
    label = torch.randint(0, 5, (6, 9, 7), generator=generator)
    label[label == 4] = IGNORED
    prediction = torch.randint(0, 4, (6, 9, 7), generator=generator).float()
    metrics = SegmentationMetrics(4)
    for rows in (slice(0, 1), slice(1, 6)):
        metrics.update(prediction[rows], sized(label[rows]))
    confusion = MulticlassConfusionMatrix(4, ignore_index=IGNORED)(prediction.long(), label)
    assert torch.equal(metrics.totals.reshape(2, 4, 4), confusion.double().expand(2, -1, -1))
    got = metrics.compute()
    jaccard = MulticlassJaccardIndex(4, ignore_index=IGNORED)(prediction.long(), label)
    assert got["miou"] == pytest.approx(float(jaccard), abs=1e-6)
    counted = label != IGNORED
    assert got["pixel_accuracy"] == pytest.approx(float((prediction == label)[counted].double().mean()), rel=1e-12)


def test_metrics_by_hand_leave_out_classes_that_do_not_occur() -> None:
    metrics = SegmentationMetrics(5)
    label = torch.tensor([[[0, 0, 1, IGNORED]]])
    metrics.update(torch.tensor([[[0.0, 1.0, 1.0, 3.0]]]), sized(label))
    assert metrics.compute() == pytest.approx(
        {"miou": (1 / 2 + 1 / 2) / 2, "miou_native": (1 / 2 + 1 / 2) / 2, "pixel_accuracy": 2 / 3})
    metrics.update(torch.tensor([[[0.0, 0.0, 2.0, 3.0]]]), sized(label))  # 2 occurs, as a prediction
    assert metrics.compute() == pytest.approx(
        {"miou": (3 / 4 + 1 / 3 + 0) / 3, "miou_native": (3 / 4 + 1 / 3 + 0) / 3, "pixel_accuracy": 4 / 6})


def test_native_labels_are_scored_against_enlarged_predictions() -> None:
    """What shrinking took away, here a thin line of class 1, counts in the size of the file."""
    native = torch.zeros(1, 6, 6, dtype=torch.long)
    native[0, 0], native[0, :, 5] = 1, IGNORED
    metrics = SegmentationMetrics(2)
    metrics.update(torch.zeros(1, 2, 2), sized(torch.zeros(1, 2, 2, dtype=torch.long), native))
    assert metrics.compute() == pytest.approx({"miou": 1.0, "miou_native": (25 / 30 + 0) / 2, "pixel_accuracy": 1.0})
    metrics = SegmentationMetrics(2)
    said = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    metrics.update(said, sized(said.long(), native))
    assert metrics.compute()["miou_native"] == pytest.approx((15 / 25 + 5 / 15) / 2)


def test_native_labels_are_the_files(camvid: dict[str, str], real_data: Path, make_task: MakeTask) -> None:
    from PIL import Image

    task = make_task("scratch", data=camvid, image_size=48)
    files = {path.stem: path for path in (real_data / "camvid" / "annotations").glob("*/*.png")}
    source = task.load("test")
    batch = source.batch(torch.tensor([0, 3]), None)
    assert batch["label"].shape[1] == 48
    for row, index in enumerate((0, 3)):
        stored = np.asarray(Image.open(files[task.data.test.names[index]]))
        assert tuple(batch["native_size"][row].tolist()) == stored.shape
        assert np.array_equal(batch["native"][row].numpy() + np.uint8(1), stored)  # IGNORED wraps to 0
    truth = SegmentationMetrics(task.num_classes)
    truth.update(batch["label"].float().where(batch["label"] != IGNORED, 0.0), batch)
    scores = truth.compute()
    assert scores["miou"] == 1
    assert 0.5 < scores["miou_native"] < 0.95, "a perfect small map is not a perfect large one"


def test_a_network_without_finite_logits_scores_nan(make_task: MakeTask) -> None:
    task = make_task("scratch")
    model = task.build()
    nn.init.constant_(model.get_parameter("classify.1.bias"), math.nan)
    assert math.isnan(evaluate(task, model, task.load("val"))["miou"])


@torch.no_grad()
def test_the_loss_ignores_unlabelled_pixels(make_task: MakeTask) -> None:
    task = make_task("scratch", aux_weight=0.0)
    model = task.build().eval()
    batch = task.load("train").batch(torch.arange(4), None)
    counted = batch["label"] != IGNORED
    logits = model(batch["image"])[0].permute(0, 2, 3, 1)[counted]
    wanted = nn.functional.cross_entropy(logits, batch["label"][counted])
    assert float(task.finetune_loss(model, batch).mean) == pytest.approx(float(wanted), rel=1e-5)
    nothing = {**batch, "label": torch.full_like(batch["label"], IGNORED)}
    assert float(task.finetune_loss(model, nothing).mean) == 0


@torch.no_grad()
def test_rare_classes_weigh_what_class_balance_says(make_task: MakeTask) -> None:
    def mean(balance: float) -> float:
        task = make_task("scratch", aux_weight=0.0, class_balance=balance)
        return float(task.finetune_loss(model, batch).mean)

    task = make_task("scratch", aux_weight=0.0)
    model = task.build().eval()
    batch = task.load("train").batch(torch.arange(4), None)
    truth = batch["label"][batch["label"] != IGNORED]
    each = nn.functional.cross_entropy(
        model(batch["image"])[0].permute(0, 2, 3, 1)[batch["label"] != IGNORED], truth, reduction="none")
    labels = torch.cat([torch.as_tensor(label).flatten() for label in task.data.train.labels])
    pixels = torch.bincount(labels[labels != IGNORED].long(), minlength=task.num_classes).double()
    for balance in (0.5, 1.0):
        weight = (pixels ** -balance)[truth]
        assert mean(balance) == pytest.approx(float((weight * each).sum() / weight.sum()), rel=1e-4)
    assert mean(0.0) == pytest.approx(float(each.mean()), rel=1e-5)
    nothing = {**batch, "label": torch.full_like(batch["label"], IGNORED)}
    assert float(make_task("scratch", class_balance=1.0).finetune_loss(model, nothing).mean) == 0


@torch.no_grad()
def test_the_auxiliary_head_has_its_weight(make_task: MakeTask) -> None:
    tasks = [make_task("scratch", aux_weight=weight) for weight in (0.0, 0.4, 1.0)]
    model = tasks[0].build().eval()
    batch = tasks[0].load("train").batch(torch.arange(4), None)
    none, some, full = (float(task.finetune_loss(model, batch).mean) for task in tasks)
    assert some - none == pytest.approx(0.4 * (full - none), rel=1e-4)
    assert full > some > none


# -- pictures and checks -----------------------------------------------------------------------------------------------


def shrunk(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The grid under the headings, as it was before it was enlarged."""
    times = picture.shape[1] // width
    assert picture.shape[1] == times * width
    above = CAPTION
    assert (picture[:above] != 255).any()  # headings
    return picture[above : above + times * height : times, ::times]


def test_a_legend_names_the_classes_that_are_there(make_task: MakeTask) -> None:
    task = make_task("mae")
    picture = task.pictures(task.build().eval(), "test")["prediction"]
    source = task.load("test")
    rows, columns = source.whole.box
    times = picture.shape[1] // (3 * (columns + 2) - 2)
    below = picture[CAPTION + times * (4 * (rows + 2) - 2) :]
    for label in {*source.batch(torch.tensor([0]), None)["label"].unique().tolist()} - {255}:
        assert (below == palette(5)[label]).all(axis=2).sum() >= 100, label


def test_pictures_show_what_they_say(make_task: MakeTask) -> None:
    task = make_task("mae")
    picture = task.pictures(task.build().eval(), "test")["prediction"]
    source = task.load("test")
    assert picture.dtype == np.uint8
    rows, columns = source.whole.box
    picture = shrunk(picture, 4 * (rows + 2) - 2, 3 * (columns + 2) - 2)
    truth = picture[:rows, columns + 2 : 2 * columns + 2]
    label = source.batch(torch.tensor([0]), None)["label"][0].numpy()
    assert np.array_equal(truth, palette(5)[label])
    masked = task.pictures(task.pretraining().build().eval(), "pretrain")["reconstruction"]
    masked = shrunk(masked, 4 * 34 - 2, 3 * 34 - 2)
    assert (masked[:32, 34:66] == PAD).all(axis=2).mean() == pytest.approx(0.75, abs=0.02)
    original, rebuilt = masked[:32, :32], masked[:32, 68:100]
    visible = ~(masked[:32, 34:66] == PAD).all(axis=2)
    assert np.array_equal(original[visible], rebuilt[visible])


def test_colours_of_classes_are_fixed_and_differ() -> None:
    colours = palette(150)
    assert len({tuple(colour) for colour in colours[:151]}) == 151  # 150 and black
    assert colours[:2].tolist() == [[128, 0, 0], [0, 128, 0]]
    assert not colours[IGNORED].any()


def test_standardised_colours_come_back() -> None:
    image = torch.randint(0, 256, (2, 3, 4, 5), generator=Generator().manual_seed(0))
    assert np.array_equal(to_rgb(standardise(image / 255)), image.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("arm", "changes", "found"), [
    ("mae", {"crop_size": 100, "patch_size": 16}, ["crop_size=100 must be a multiple of patch_size=16; try 96 or 112"]),
    ("mae", {"pretrain_crop": 20}, ["pretrain_crop=20 must be a multiple of patch_size=8; try 16 or 24"]),
    ("scratch", {"pretrain_crop": 20}, []),
    ("scratch", {"crop_size": 16, "patch_size": 16}, ["crop_size=16 is a single patch of patch_size=16; take at least "
                                                      "32"]),
    ("mae", {"encoder_dim": 30, "encoder_heads": 4}, ["encoder_dim=30 must be a multiple of encoder_heads=4; try 28"]),
    ("mae", {"decoder_dim": 30, "decoder_heads": 4}, ["decoder_dim=30 must be a multiple of decoder_heads=4; try 28"]),
    ("scratch", {"scale_min": 2.0, "scale_max": 1.0}, ["scale_min=2.0 must not be above scale_max=1.0"]),
    ("majority", {"crop_size": 100}, []),
    ("mae", {}, []),
])
def test_impossible_combinations_are_named(
    arm: str, changes: dict[str, Any], found: list[str], make_config: Callable[..., TrialConfig]
) -> None:
    params = {**make_config("segmentation", "mae", **SMALL).params, **changes}
    assert [message for _, message in Segmentation.schema.check(arm, params)] == found
