"""Arms that start from weights that exist: in a sweep file, in a plan, in a trial, and told apart from what does not
fit."""

from __future__ import annotations

import io
import json
import math
import warnings
from pathlib import Path

import pytest
import torch

from raymae.errors import EncoderError, SpecError
from raymae.inference.encoders import EncoderShelf
from raymae.inference.export_encoder import export_encoder
from raymae.inference.source import encoder_of_sweep, read_given
from raymae.search.description import render
from raymae.search.dry_run import describe
from raymae.search.plan import example_config, make_plan
from raymae.search.single import train_one
from raymae.spec.encoder import encoder_id, pretraining_of
from raymae.spec.load import load_sweep, parse_sweep
from raymae.spec.trial import TrialConfig
from raymae.tasks import schema_of
from raymae.train.encoder import Encoder
from raymae.train.trial import run_trial

TEXT = """
name: transfer
task: classification
size: debug
data: {{name: tiny-imagenet, if_unavailable: synthetic}}
arms: {{mae: {{}}, transferred: {{encoder: {where}{more}}}, scratch: {{}}}}
settings: {{encoder_depth: 2, per_class: 4, num_classes: 3}}
training: {{epochs: 1, pretrain_epochs: 1}}
space: {{lr: {{loguniform: [1.0e-4, 1.0e-2]}}, mask_ratio: {{choice: [0.5, 0.75]}}}}
replicates: 2
"""


@pytest.fixture(autouse=True)
def synthetic(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "no-cache"))
    torch.set_num_threads(1)


def spec_of(where, tmp_path, more="", *overrides):
    spec = parse_sweep(TEXT.format(where=where, more=more), "here.yaml", overrides, schema_of=schema_of)
    return spec.model_copy(update={"results": str(tmp_path / "results")})


def problems(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_sweep(text, "here.yaml", schema_of=schema_of)
    return str(caught.value)


def test_a_sweep_file_names_an_arm_of_its_own(images, tmp_path):
    plan = make_plan(spec_of(images.root, tmp_path))
    arm = plan.arms["transferred"]
    assert (arm.arm.kind, arm.origin.like, arm.origin.adopts) == ("pretrained", "mae", True)
    assert "without pretraining here" in plan.schema.arms["transferred"].about
    assert "mask_ratio" not in arm.space  # nothing of it is pretrained
    assert "pretrain_epochs" not in arm.fixed
    config = example_config(plan, "transferred")
    assert (config.arm, config.method, config.weights) == ("transferred", "mae", plan.given["transferred"].sha256)
    assert TrialConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_paths_are_taken_from_the_sweep_file(images, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(images.location)
    (tmp_path / "deep" / "sweep.yaml").write_text(TEXT.format(where="../link", more=""))
    spec = load_sweep(tmp_path / "deep" / "sweep.yaml", schema_of=schema_of)
    assert Path(str(spec.arms["transferred"]["encoder"])) == Path(images.location).resolve()


@pytest.mark.parametrize(("arms", "said"), [
    ("{mea: {}}", "unknown arm 'mea'; did you mean `mae`?"),
    ("{other: {like: mea}}", "arms.other.like: unknown arm 'mea'"),
    ("{scratch: {encoder: x}}", "arms.scratch.encoder: the arm scratch is trained and starts from no encoder"),
    ("{mae: {like: scratch}}", "arms.mae.like: mae is an arm of the task itself"),
    ("{other: {encoder: 3}}", "arms.other.encoder: must name a results folder"),
    ("{mae: {continue: true}}", "arms.mae.continue: says that an arm pretrains on from an `encoder`, and names none"),
    ("{other: {encoder: x, continue: 1}}", "arms.other.continue: must be true or false"),
    ("{other: {encoder: x, pretrain_epochs: 3}}", "arms.other.pretrain_epochs: the arm other starts from weights"),
    ("{other: {encoder: x, nonsense: 3}}", "arms.other.nonsense: unknown parameter"),
])
def test_mistakes_in_arms_are_named(arms, said):
    text = f"name: x\ntask: classification\ndata: {{name: tiny-imagenet}}\narms: {arms}\n"
    assert said in problems(text)


def test_an_arm_may_be_like_another_without_weights(tmp_path):
    spec = parse_sweep("name: x\ntask: classification\nsize: debug\ndata: {name: tiny-imagenet, if_unavailable: "
                       "synthetic}\narms: {scratch: {}, wide: {like: scratch, encoder_dim: 32}}\n", "x",
                       schema_of=schema_of)
    plan = make_plan(spec.model_copy(update={"results": str(tmp_path)}))
    assert plan.arms["wide"].fixed["encoder_dim"] == 32
    assert {**plan.arms["wide"].fixed, "encoder_dim": 16} == plan.arms["scratch"].fixed
    assert [line["phase"] for line in train_one(plan.spec, "wide") if "phase" in line] == ["finetune"] * 2


def test_a_dry_run_says_where_weights_are_from(images, tmp_path):
    from rich.console import Console

    plan = make_plan(spec_of(images.root, tmp_path))
    found = describe(plan)
    arm = found.arms[1]
    assert arm.pretrainings == 0
    assert arm.encoder is not None
    assert arm.encoder.sha256 == plan.given["transferred"].sha256
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(found))
    assert "transferred does not pretrain: it starts from the weights" in console.export_text()


def test_a_trial_starts_from_them(images, tmp_path):
    """It fine-tunes from the very encoder, pretraining takes no time, and what is on the shelf gives the same bits."""
    plan = make_plan(spec_of(images.root, tmp_path))
    config, given = example_config(plan, "transferred"), plan.given["transferred"]
    pretraining = pretraining_of(config, plan.schema)
    assert pretraining == pretraining_of(TrialConfig.from_json({**config.to_json(), "seed": 99}), plan.schema)
    alone = list(run_trial(config, given=given))
    assert [(report.phase, report.epoch) for report in alone] == [("pretrain", 0), ("finetune", 1)]
    assert alone[0].seconds < 0.05
    assert math.isfinite(alone[0].pretext["pretext_skill"])  # its decoder came along
    *_, last = run_trial(pretraining, given=given)
    assert last.final
    weights = last.state().phase.model
    original, _, _ = encoder_of_sweep(images.root)
    assert all(torch.equal(weights[name], value) for name, value in original.weights.items())
    encoder = Encoder({name: value.clone() for name, value in weights.items()}, last.pretext, 0, 0.0)
    (shared,) = list(run_trial(config, encoder=encoder))
    assert shared.metrics == alone[1].metrics
    with pytest.raises(EncoderError, match="starts from the weights"):
        list(run_trial(config))


def test_names_of_encoders_cover_the_weights(images, tmp_path):
    def name(**changes):
        config = example_config(make_plan(spec_of(images.root, tmp_path)), "transferred")
        changed = TrialConfig.from_json({**config.to_json(), **changes})
        return encoder_id(pretraining_of(changed, schema_of("classification")), "sha256:1")

    assert name() == name(seed=5)  # nothing is drawn
    assert name() != name(weights="0" * 64)
    assert name(goes_on=True) != name(goes_on=True, seed=5)


def test_it_pretrains_on_from_them(images, tmp_path):
    plan = make_plan(spec_of(images.root, tmp_path, ", continue: true"))
    assert "mask_ratio" in plan.arms["transferred"].space
    config = example_config(plan, "transferred")
    first, *_ = reports = list(run_trial(config, given=plan.given["transferred"]))
    assert [(report.phase, report.epoch) for report in reports] == [("pretrain", 1), ("finetune", 1)]
    fresh, *_ = run_trial(TrialConfig.from_json({**config.to_json(), "weights": "", "goes_on": False}))
    assert first.metrics["loss"] != fresh.metrics["loss"]


def test_a_checkpoint_goes_on(images, tmp_path):
    plan = make_plan(spec_of(images.root, tmp_path, "", "training.epochs=2"))
    config, given = example_config(plan, "transferred"), plan.given["transferred"]
    whole = list(run_trial(config, given=given))
    for cut in (0, 1):
        for report in run_trial(config, given=given):
            if report.step == cut:
                report.save(tmp_path / "checkpoint.pt")
                break
        rest = list(run_trial(config, resume=tmp_path / "checkpoint.pt"))
        assert [report.metrics for report in rest] == [report.metrics for report in whole[cut + 1:]]


def test_patches_and_positions_are_resampled(images, tmp_path):
    """A network on larger images with larger patches; positions of somebody's are kept through a checkpoint."""
    where = tmp_path / "timm"
    export_encoder(images.root, where, "timm")
    plan = make_plan(spec_of(where, tmp_path, "", "settings.image_size=64", "settings.patch_size=16",
                             "training.epochs=2"))
    assert plan.notes["transferred"] == ("patches of 8 x 8 are resampled to 16 x 16",)
    plan = make_plan(spec_of(where, tmp_path, "", "settings.image_size=48", "training.epochs=2"))
    assert plan.notes["transferred"] == ("positions of 4 x 4 patches are resampled to 6 x 6",)
    config, given = example_config(plan, "transferred"), plan.given["transferred"]
    whole = list(run_trial(config, given=given))
    assert "encoder.embedding.positions_ND" in whole[-1].state().phase.model
    for report in run_trial(config, given=given):
        report.save(tmp_path / "checkpoint.pt")
        if report.phase == "finetune":
            break
    assert [one.metrics for one in run_trial(config, resume=tmp_path / "checkpoint.pt")] == [whole[-1].metrics]


def test_random_weights_of_hugging_face_become_an_arm(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, layer_norm_eps=1e-6)
    theirs = transformers.ViTMAEForPreTraining(config).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path / "hf")
    plan = make_plan(spec_of(tmp_path / "hf", tmp_path))
    assert plan.notes["transferred"] == ("its class token is left out: our networks average their tokens",)
    lines = [line for line in train_one(plan.spec, "transferred", test=True) if "phase" in line]
    assert [line["phase"] for line in lines] == ["pretrain", "finetune", "test"]
    # without its class token, and with its positions, it is their network
    task_config = example_config(plan, "transferred")
    from raymae.tasks import task_class

    task = task_class("classification")(task_config, torch.device("cpu"))
    model = task.pretraining().build().eval()
    start = plan.given["transferred"].start(model)
    assert start.with_decoder
    images_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 17)
    seen[:, 0] = 0
    theirs.vit.config.mask_ratio = 0.0
    with torch.no_grad():
        expected = theirs.vit(images_BCHW, noise=torch.arange(16.0).expand(2, -1), attention_mask=seen)
        got_BND = model.encoder(task.grid.patchify(images_BCHW))
    torch.testing.assert_close(got_BND, expected.last_hidden_state[:, 1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("overrides", "said"), [
    (["settings.encoder_dim=32"], r"encoder_dim=16 \(its patch embedding is \[16, 192\]\), the network has "
                                  r"encoder_dim=32 \(\[32, 192\]\)"),
    (["settings.encoder_depth=1", "settings.mlp_ratio=1"], "encoder_depth=2, mlp_ratio=2"),
    (["settings.encoder_heads=4"], "encoder_heads=2"),
])
def test_other_sizes_are_refused_before_the_sweep(images, tmp_path, overrides, said):
    with pytest.raises(EncoderError, match=said) as caught:
        make_plan(spec_of(images.root, tmp_path, "", *overrides))
    assert "arms.transferred.encoder" in str(caught.value)


def test_another_modality_fits_only_its_like(images, series, tmp_path):
    text = """
name: x
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: {transferred: {encoder: %s}}
"""
    def plan(where, *overrides):
        spec = parse_sweep(text % where, "x", overrides, schema_of=schema_of)
        return make_plan(spec.model_copy(update={"results": str(tmp_path)}))

    assert plan(series.root).given["transferred"].vit is None
    lines = [line for line in train_one(plan(series.root).spec, "transferred") if "phase" in line]
    assert lines[0]["phase"] == "pretrain"
    with pytest.raises(EncoderError, match=r"another shape than the network's: encoder\.embedding"):
        plan(series.root, "settings.encoder_dim=8")
    with pytest.raises(EncoderError, match="vision transformer fits networks on patches of images"):
        plan(images.root)


def test_the_shelf_holds_them_for_workers(images, tmp_path):
    """Where the source is gone, a sweep that has begun goes on from its own folder."""
    export_encoder(images.root, tmp_path / "hf", "hf")
    plan = make_plan(spec_of(tmp_path / "hf", tmp_path))
    given = plan.given["transferred"]
    shelf = EncoderShelf(str(tmp_path / "results" / "transfer" / "encoders"))
    shelf.give(given, "sha256:1")
    again = shelf.given(given.sha256)
    assert again.sha256 == given.sha256
    assert again.source == str(tmp_path / "hf")
    (tmp_path / "hf").rename(tmp_path / "elsewhere")
    assert make_plan(plan.spec).given["transferred"].sha256 == given.sha256
    assert read_given(str(next((tmp_path / "results").rglob("given-*.safetensors")))).sha256 == given.sha256
