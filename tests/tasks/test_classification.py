from __future__ import annotations

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from raymae.data.images import SPLITS, ImageSet
from raymae.errors import DataError, TrialError
from raymae.spec import TrialConfig
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan
from raymae.tasks import schema_of
from raymae.tasks.augment import GEOMETRIC, OPERATIONS, Augmentation, draw_boxes, draw_strengths, mix, recolour
from raymae.tasks.classification.images import LabelledImages
from raymae.tasks.classification.task import Classification, ClassificationMetrics
from raymae.tasks.colours import to_rgb
from raymae.tasks.pictures import RIGHT, WRONG
from raymae.train import run_trial

CPU = torch.device("cpu")
SWEEPS = Path(__file__).parents[2] / "sweeps"
MakeTask = Callable[..., Classification]


@pytest.fixture
def make_task(make_config: Callable[..., TrialConfig]) -> MakeTask:
    def make(arm: str = "mae", *, data: Any = None, seed: int = 0, **changes: Any) -> Classification:
        return Classification(make_config("classification", arm, data=data, seed=seed, **changes), CPU)

    return make


@pytest.fixture
def mini(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    if not (real_data / "tiny_imagenet/mini").is_dir():
        pytest.skip(f"needs {real_data}/tiny_imagenet/mini")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path))
    return {"name": "tiny-imagenet-mini", "source": "real", "root": str(real_data)}


def gen(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(batch: int = 6, size: int = 16) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=gen(5))


# -- the real images ---------------------------------------------------------------------------------------------------


def test_splits_of_the_real_mini_set(mini: dict[str, str], make_task: MakeTask) -> None:
    task = make_task("scratch", data=mini, per_class=0, image_size=64)
    rows = task.data.rows
    assert {split: len(found) for split, found in rows.items()} == {"train": 540, "val": 60, "test": 100}
    assert len(np.unique(np.concatenate(list(rows.values())))) == 700
    for split, each in (("train", 54), ("val", 6), ("test", 10)):
        assert torch.bincount(task.data.labels_N[rows[split]]).tolist() == [each] * 10
    # test is the official val: its images, none of train's
    trained = {bytes(task.data.images_NHWC[row].numpy()) for row in [*rows["train"], *rows["val"]]}
    assert not any(bytes(task.data.images_NHWC[row].numpy()) in trained for row in rows["test"])
    line = Classification.validate(task.config.data, task.config.params)
    assert line == ("10 classes; 540 train / 60 val / 100 test images at 64 x 64; "
                    "no groups known: settings.group keeps examples that belong together in one split")


def test_a_real_trial_learns_and_majority_does_not(
    mini: dict[str, str], make_config: Callable[..., TrialConfig]
) -> None:
    config = make_config("classification", "scratch", stage="replicate", data=mini, per_class=0, epochs=12,
                         encoder_dim=32, lr=3e-3, eval_every=4)
    *_, report = run_trial(config)
    assert report.metrics["test_top1"] > 0.17
    assert report.metrics["test_top5"] > 0.6
    *_, trivial = run_trial(make_config("classification", "majority", stage="replicate", data=mini))
    assert trivial.metrics == pytest.approx({"test_top1": 0.1, "test_top5": 0.5, "test_nll": math.log(10)})


# -- splits ------------------------------------------------------------------------------------------------------------


def labelled(images: ImageSet, *, num_classes: int = 0, per_class: int = 0, size: int = 8) -> LabelledImages:
    return LabelledImages(images, size, num_classes, per_class, CPU, "made")


def made(counts: dict[str, int], classes: int = 5, size: int = 8) -> ImageSet:
    """Images whose first pixel is their number and whose second is their class."""
    split_N = np.concatenate([np.full(n * classes, SPLITS.index(split)) for split, n in counts.items()])
    labels_N = np.arange(len(split_N)) % classes
    images_NHWC = np.zeros((len(split_N), size, size, 3), np.uint8)
    images_NHWC[:, 0, 0, 0], images_NHWC[:, 0, 1, 0] = np.arange(len(split_N)), labels_N
    names = tuple(f"{index:04d}.png" for index in range(len(labels_N)))
    return ImageSet(images_NHWC, labels_N, split_N, tuple("abcdefgh"[:classes]), names)


@pytest.mark.parametrize(("counts", "wanted"), [
    ({"train": 20}, {"train": 14, "val": 2, "test": 4}),
    ({"train": 20, "test": 3}, {"train": 18, "val": 2, "test": 3}),
    ({"train": 20, "val": 4, "test": 3}, {"train": 20, "val": 4, "test": 3}),
])
def test_what_is_not_there_is_held_out_of_train(counts: dict[str, int], wanted: dict[str, int]) -> None:
    images = made(counts)
    data = labelled(images)
    assert {split: len(rows) // 5 for split, rows in data.rows.items()} == wanted
    assert sorted(np.concatenate(list(data.rows.values()))) == list(range(len(images.labels_N)))
    for split, rows in data.rows.items():
        assert torch.bincount(data.labels_N[rows]).tolist() == [wanted[split]] * 5
        if counts.get(split) and split != "train":
            assert (images.split_N[rows] == SPLITS.index(split)).all()


@pytest.fixture
def patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """A folder per class on disk, of patients with three images each; patient 1 has images of both classes."""
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))

    def make(**splits: range) -> dict[str, str]:
        for split, numbers in splits.items():
            for patient, image in itertools.product(numbers, range(3)):
                label = "ill" if patient % 2 and (patient, image) != (1, 0) else "well"
                path = tmp_path / "data" / ("" if split == "all" else split) / label / f"p{patient:02d}_{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (patient, image, 0)).save(path)
        return {"name": "patients", "source": "real", "path": str(tmp_path / "data")}

    return make


SMALL_IMAGES: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_classes": 0, "per_class": 0}


def test_a_patient_is_in_one_split(patients: Callable[..., dict[str, str]], make_task: MakeTask) -> None:
    data = patients(all=range(40))
    task = make_task("mae", data=data, group="^p([0-9]+)", **SMALL_IMAGES)
    of = {split: task.units(split) for split in ("train", "val", "test")}
    assert {split: len(set(units.groups or ())) for split, units in of.items()} == {"train": 28, "val": 4, "test": 8}
    assert len(set().union(*(units.groups or () for units in of.values()))) == 40
    assert len(set().union(*(units.names for units in of.values()))) == 120
    assert "well/p01_0.png" in set().union(*(units.names for units in of.values()))
    assert task.units("pretrain") == of["train"]
    for split, units in of.items():  # in the order of what is loaded: the red of every image is its patient
        red_N = task.data.images_NHWC[task.load(split).rows_N][:, 0, 0, 0].tolist()
        assert [f"{red:02d}" for red in red_N] == list(units.groups or ())
    line = Classification.validate(task.config.data, task.config.params)
    assert line == "2 classes; 84 train / 12 val / 24 test images at 8 x 8; 28 train / 4 val / 8 test groups"
    plain = make_task("mae", data=data, **SMALL_IMAGES)
    assert plain.units("test").groups is None
    assert plain.units("test").names != of["test"].names  # what was read before another setting is not served


def test_labels_and_subsets_are_of_whole_patients(
    patients: Callable[..., dict[str, str]], make_task: MakeTask
) -> None:
    data = patients(train=range(2, 30), test=range(40, 44))
    task = make_task("mae", data=data, group="^p([0-9]+)", label_fraction=0.25, **SMALL_IMAGES)
    labelled, every = task.units("train"), task.units("pretrain")
    assert labelled.groups is not None
    assert len({*labelled.groups}) == 7  # of 26
    assert len(labelled.names) == 21
    assert {*labelled.groups} < {*(every.groups or ())}
    few = make_task("mae", data=data, group="^p([0-9]+)", **{**SMALL_IMAGES, "per_class": 6}).units("train")
    assert Counter(name.split("/")[1] for name in few.names) == {"ill": 6, "well": 6}
    assert len({*(few.groups or ())}) == 4
    assert not {*labelled.groups} & {*(task.units("test").groups or ())}


def test_folders_with_a_patient_in_two_splits_are_split_anew(
    patients: Callable[..., dict[str, str]], make_task: MakeTask
) -> None:
    task = make_task("mae", data=patients(train=range(2, 20), test=range(16, 26)), group="^p[0-9]+", **SMALL_IMAGES)
    line = Classification.validate(task.config.data, task.config.params)
    assert line.endswith("; 18 train / 2 val / 4 test groups; split anew by group, as the official lists have p16, "
                         "p17, p18 and 1 more in two splits")
    groups = [{*(task.units(split).groups or ())} for split in ("train", "val", "test")]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 24
    names = [name for split in ("train", "val", "test") for name in task.units(split).names]
    assert len({*names}) == len(names) == 84


def test_what_groups_leave_too_little_of_is_said(
    patients: Callable[..., dict[str, str]], make_task: MakeTask
) -> None:
    data = patients(all=range(40))
    with pytest.raises(DataError, match=r"no image is left for the val split; add images, or let settings.group"):
        make_task("mae", data=data, group="^p", **SMALL_IMAGES)
    with pytest.raises(DataError, match=r"settings.group='x' matches none of 120 file names, not 'p01_1'"):
        make_task("mae", data=data, group="x", **SMALL_IMAGES)


@pytest.mark.parametrize("size", [8, 4])
def test_subsets_are_nested_and_leave_val_and_test_whole(size: int) -> None:
    images = made({"train": 20, "test": 3})
    few, more = (labelled(images, num_classes=3, per_class=n, size=size) for n in (5, 10))
    assert few.num_classes == 3
    if size == 8:
        less, wider = ({split: set(data.images_NHWC[rows, 0, 0, 0].tolist()) for split, rows in data.rows.items()}
                       for data in (few, more))
        assert less["train"] < wider["train"]
        assert less["val"] == wider["val"]
        assert less["test"] == wider["test"]
    for split, each in (("train", 5), ("val", 2), ("test", 3)):
        assert torch.bincount(few.labels_N[few.rows[split]]).tolist() == [each] * 3
    if size == 8:  # a label still says which class the pixels came from
        pairs = {(int(few.labels_N[row]), int(few.images_NHWC[row, 0, 1, 0]))
                 for rows in few.rows.values() for row in rows}
        assert len(pairs) == 3
    wide = labelled(images, num_classes=9)
    assert wide.num_classes == 5
    assert wide.note == "settings.num_classes=9, but there are only 5 classes"


def test_label_fraction_takes_as_many_of_each_class(make_task: MakeTask) -> None:
    source = make_task("scratch", label_fraction=0.1).load("train")
    assert torch.bincount(source.batch(torch.arange(len(source)), None)["label"]).tolist() == [4] * 10
    other = make_task("scratch", label_fraction=0.1, seed=1).load("train")
    assert set(source.rows_N.tolist()) != set(other.rows_N.tolist())


def test_evaluation_sees_the_images_as_they_are(make_task: MakeTask) -> None:
    task = make_task("scratch", rand_augment=9.0, mixup=1.0, random_erasing=1.0)
    for split in ("val", "test"):
        source = task.load(split)
        batch = source.batch(torch.tensor([3, 1]), None)
        assert batch.keys() == {"image", "label"}
        wanted = task.data.images_NHWC[source.rows_N[[3, 1]]].numpy()
        assert np.array_equal(to_rgb(batch["image"]), wanted)
    assert make_task("mae").load("pretrain").batch(torch.arange(3), gen()).keys() == {"image"}


# -- augmentation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"crop": 0.3}, {"flip": True}, {"rand_augment": 9.0}, {"erasing": 1.0},
    {"crop": 0.3, "rand_augment": 9.0, "erasing": 0.5},
])
def test_augmentation_follows_its_generator_and_differs_per_image(options: dict[str, Any]) -> None:
    same_BCHW = photos(1).expand(32, -1, -1, -1)
    augment = Augmentation(**{"flip": False, **options})
    once = augment(same_BCHW, gen(1))
    assert once.shape == same_BCHW.shape
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    assert torch.equal(once, augment(same_BCHW, gen(1)))
    assert not torch.equal(once, augment(same_BCHW, gen(2)))
    assert len({bytes(image.numpy()) for image in once}) >= 2
    state = torch.get_rng_state()
    augment(same_BCHW, gen(1))
    assert torch.equal(state, torch.get_rng_state())


def test_no_augmentation_is_the_image_and_flips_are_mirrors() -> None:
    x = photos(40)
    assert torch.equal(Augmentation(flip=False)(x, gen()), x)
    flipped = Augmentation()(x, gen())
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(flipped, x, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(flipped, x, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 8 < sum(mirrored) < 32


def test_crops_are_parts_of_the_image_at_its_size() -> None:
    ramp_W = torch.linspace(0, 1, 64)
    cropped = Augmentation(crop=0.25, flip=False)(ramp_W.expand(200, 3, 64, 64), gen())
    span_B = cropped[:, 0, 32, -1] - cropped[:, 0, 32, 0]
    assert 0.4 < float(span_B.min()) < 0.6  # sqrt(area / 4 * aspect 3 / 4) at the least
    assert float(span_B.max()) > 0.9
    assert (cropped.diff(dim=-1)[..., 1:-1] > 0).all()


def test_every_operation_does_something_at_its_own_images_only() -> None:
    x = photos(len(OPERATIONS)) * 0.8 + 0.1
    strengths = {name: torch.zeros(len(x)) for name in OPERATIONS}
    for row, name in enumerate(OPERATIONS):
        strengths[name][row] = 2.0 if name == "posterize" else 0.5
    recoloured = recolour(x, strengths)
    for row, name in enumerate(OPERATIONS):
        changed = not torch.allclose(recoloured[row], x[row], atol=1e-6)
        assert changed == (name != "identity" and name not in GEOMETRIC), name
    drawn = draw_strengths(500, 5.0, gen())
    assert drawn.keys() == set(OPERATIONS)
    for name, largest in GEOMETRIC.items():
        assert drawn[name].unique().tolist() == pytest.approx([-largest / 2, 0.0, largest / 2]), name


def test_boxes_have_their_area_and_lie_inside() -> None:
    area_B = torch.tensor([0.25, 0.04, 1.0, 0.0])
    boxes_BHW = draw_boxes(area_B, torch.ones(4), (20, 20), gen())
    torch.testing.assert_close(boxes_BHW.float().mean(dim=(1, 2)), area_B)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixtures_hold_their_shares(mixup: float, cutmix: float) -> None:
    x = torch.arange(16.0)[:, None, None, None].expand(-1, 3, 32, 32) / 16
    mixed, partner_B, share_B = mix(x, gen(), mixup=mixup, cutmix=cutmix)
    assert sorted(partner_B.tolist()) == list(range(16))
    expected = share_B * x[:, 0, 0, 0] + (1 - share_B) * x[partner_B, 0, 0, 0]
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), expected)
    assert share_B.min() < 0.5 < share_B.max()
    assert max(len(image.unique()) for image in mixed) == (2 if cutmix else 1)


def test_the_loss_of_a_mixture_is_the_mixture_of_losses(make_task: MakeTask) -> None:
    task = make_task("scratch", mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    batch = task.load("train").batch(torch.arange(8) * 50, gen())  # eight classes
    assert batch["partner"].tolist() != batch["label"].tolist()
    model = task.build().eval()
    one, other = ({**batch, "label": label, "share": torch.ones(8)} for label in (batch["label"], batch["partner"]))
    half = task.finetune_loss(model, {**batch, "share": torch.full((8,), 0.5)}).mean
    expected = (task.finetune_loss(model, one).mean + task.finetune_loss(model, other).mean) / 2
    torch.testing.assert_close(half, expected)
    soft = F.one_hot(batch["label"], 10) * 0.9 + 0.01
    scores = model(task.grid.patchify(batch["image"]))
    torch.testing.assert_close(task.finetune_loss(model, one).mean, -(soft * scores.log_softmax(1)).sum(1).mean())


# -- metrics, pictures, sizes ------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    scores = torch.eye(8)[[0, 1, 2, 7]] * 3
    scores[3, :6] = torch.arange(6.0)  # the label 7 is third
    metrics = ClassificationMetrics()
    label = torch.tensor([0, 1, 5, 7])
    for rows in (slice(0, 1), slice(1, 4)):
        metrics.update(scores[rows], {"label": label[rows]})
    nll = -scores.log_softmax(1)[torch.arange(4), label].mean()
    # row 2: five classes at 0 before label 5 and class 2 above: sixth
    assert metrics.compute() == pytest.approx({"top1": 0.5, "top5": 0.75, "nll": float(nll)})


def test_pictures_show_the_original_and_keep_visible_patches(make_task: MakeTask) -> None:
    for norm_target in (False, True):
        task = make_task("mae", norm_target=norm_target)
        model: Any = task.pretraining().build().eval()
        state = torch.get_rng_state()
        picture = task.pictures(model, "pretrain")["reconstruction"]
        assert torch.equal(state, torch.get_rng_state())
        assert picture.dtype == np.uint8
        assert picture.shape[1] > 2 * 8 * 34  # enlarged, and names of the rows on the left
        picture = picture[::2, -2 * 8 * 34 :: 2]
        assert picture.shape == (3 * 34, 8 * 34, 3)
        rows = picture.reshape(3, 34, 8, 34, 3)[:, 1:-1, :, 1:-1].transpose(0, 2, 1, 3, 4)
        source = task.load("val")
        original = task.data.images_NHWC[source.rows_N[torch.linspace(0, len(source) - 1, 8).long()]].numpy()
        assert np.array_equal(rows[0], original)
        same = (rows[2] == original).reshape(8, 4, 8, 4, 8, 3).all(axis=(2, 4, 5))
        assert (same.sum(axis=(1, 2)) >= 4).all()  # 4 of 16 patches are visible
        assert same.sum() < 8 * 8
        masked = (rows[1] == original).reshape(8, 4, 8, 4, 8, 3).all(axis=(2, 4, 5))
        assert np.array_equal(masked & same, masked)


@pytest.mark.parametrize("arm", ["mae", "scratch"])
def test_every_arm_shows_what_it_takes_images_for(make_task: MakeTask, arm: str) -> None:
    task = make_task(arm)
    right: Any = lambda batch: F.one_hot(batch["label"], task.data.num_classes).float()  # noqa: E731
    pictures = []
    for says in (right, lambda batch: right(batch).roll(1, dims=1)):
        task.predict = lambda model, batch, says=says: says(batch)  # type: ignore[method-assign,misc]
        pictures.append(task.pictures(task.build(), "test")["prediction"])
    first = task.data.images_NHWC[task.data.rows["test"][0]].numpy()
    times = 140 // 32
    at = (pictures[0].shape[1] - 3 * 8) // 4 // 2 - times * 16
    assert np.array_equal(pictures[0][: times * 32 : times, at : at + times * 32 : times], first)
    for picture, colour, other in zip(pictures, (RIGHT, WRONG), (WRONG, RIGHT), strict=True):
        assert (picture == colour).all(axis=2).any()
        assert not (picture == other).all(axis=2).any()


def test_compiled_networks_keep_their_keys(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    plain, fast = make_task("mae"), make_task("mae", compile=True)
    assert fast.build().state_dict().keys() == plain.build().state_dict().keys()
    fast.pretraining().build()
    assert compiled == ["PooledHead", "MaskedAutoencoder"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(TrialError, match=r"compile=true needs a C compiler .cc, gcc or .CC., not found on"):
        fast.build()
    assert compiled == ["PooledHead", "MaskedAutoencoder"]


@pytest.mark.parametrize(("changes", "key", "message"), [
    ({"patch_size": 5}, "patch_size", "must divide image_size=32; image_size may be 30 or 35"),
    ({"patch_size": 32}, "patch_size", "at most 16"),
    ({"encoder_dim": 18, "encoder_heads": 4}, "encoder_dim", "must be a multiple of encoder_heads=4; try 16"),
    ({"decoder_dim": 18, "decoder_heads": 4}, "decoder_dim", "must be a multiple of decoder_heads=4; try 16"),
    ({"num_classes": 1}, "num_classes", "use 2 or more"),
])
def test_impossible_parameters_are_refused(
    changes: dict[str, Any], key: str, message: str, make_config: Callable[..., TrialConfig]
) -> None:
    [(found, text)] = Classification.schema.check("mae", make_config("classification", "mae", **changes).params)
    assert found == key
    assert message in text


def test_sizes_have_the_parameters_they_say(make_task: MakeTask) -> None:
    for size, millions in (("lite", 2.7), ("small", 9.5), ("base", 85.1)):
        task = make_task("scratch", **{"image_size": 64, "patch_size": 8, "encoder_dim": 192, "encoder_depth": 9,
                                       "encoder_heads": 6, **Classification.schema.sizes[size]})
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in task.build().parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.1), size


def test_debug_replaces_the_shipped_sweeps_sizes() -> None:
    text = (SWEEPS / "classification_mask.yaml").read_text()
    spec = parse_sweep(text, "classification_mask.yaml", ["size=debug"], schema_of=schema_of)
    for arm in spec.arms:
        fixed = arm_plan(spec, schema_of("classification"), arm).fixed
        debug = Classification.schema.sizes["debug"]
        assert {name: fixed[name] for name in debug.keys() & fixed.keys()} == {
            name: debug[name] for name in debug.keys() & fixed.keys()}


def test_the_reports_configuration() -> None:
    text = (SWEEPS / "report/classification.yaml").read_text()
    spec = parse_sweep(text, "classification.yaml", [], schema_of=schema_of)
    mae, scratch = (arm_plan(spec, schema_of("classification"), arm).fixed for arm in ("mae", "scratch"))
    assert (mae["pretrain_epochs"], mae["epochs"], scratch["epochs"]) == (600, 100, 200)
    assert (mae["mask_ratio"], mae["patch_size"], mae["encoder_dim"], mae["precision"]) == (0.75, 4, 768, "bfloat16")
    assert spec.resources.gpus_per_worker == 1
