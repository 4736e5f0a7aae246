"""A whole sweep with an arm from somebody's weights, without Ray: its rows, its verdict, its page, its kept model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import EncoderError
from raymae.inference.encoders import EncoderShelf
from raymae.inference.export_encoder import export_encoder
from raymae.inference.load import load_model
from raymae.inference.source import encoder_of_sweep, read_given
from raymae.results.report.report import render_report
from raymae.results.store.columns import alone_s
from raymae.results.verdict.judge import verdict_now
from tests.inference.finished import finished

TEXT = """
name: transfer
task: classification
size: debug
data: {{name: tiny-imagenet, if_unavailable: synthetic}}
arms: {{mae: {{}}, transferred: {{encoder: {where}}}, scratch: {{}}}}
settings: {{encoder_depth: 2, per_class: 4, num_classes: 3, image_size: 48}}
training: {{epochs: 1, pretrain_epochs: 1}}
search: {{num_trials: 1, scheduler: none}}
replicates: 2
"""


@pytest.fixture(scope="module")
def sweep(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    export_encoder(images.root, folder / "timm", "timm")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAYMAE_DATA", raising=False)
        patch.setenv("RAYMAE_OFFLINE", "1")
        patch.setenv("RAYMAE_CACHE", str(folder / "no-cache"))
        torch.set_num_threads(1)
        text = TEXT.format(where=folder / "timm")
        store = finished(folder / "results", text)
        shutil.rmtree(folder / "timm")  # the results folder is enough from here on
        yield finished(folder / "results", text.replace("replicates: 2", "replicates: 3"), extend=True)
    assert store.root


def test_rows_say_that_pretraining_took_no_time(sweep):
    trials = sweep.trials()
    rows = trials[trials["arm"] == "transferred"]
    assert set(rows["status"]) == {"completed"}
    assert rows["encoder_id"].nunique() == 1  # the same weights for every seed
    assert (rows["stage"] == "pretrain").sum() == 1
    assert rows["pretrain_s"].max() < 0.05
    assert rows.loc[rows["stage"] == "replicate", "seed"].nunique() == 3
    assert rows["pretrain_epochs"].isna().all()
    assert (alone_s(rows) >= 0).all()
    assert trials.loc[trials["arm"] == "mae", "encoder_id"].nunique() > 1


def test_the_verdict_compares_it_with_every_arm(sweep):
    verdict = verdict_now(sweep, sweep.trials())
    assert {arm.arm for arm in verdict.arms} == {"mae", "transferred", "scratch"}
    assert {frozenset((pair.a, pair.b)) for pair in verdict.pairs} == {
        frozenset(pair) for pair in (("mae", "scratch"), ("transferred", "scratch"), ("mae", "transferred"))}
    assert [pair.primary for pair in verdict.pairs] == [True, False, False]
    page = render_report(sweep, importance={})
    assert "transferred" in page
    assert "without pretraining here" in json.dumps({name: arm.about for name, arm in sweep.manifest.task.arms.items()})


def test_its_shelf_says_where_the_weights_came_from(sweep):
    shelf = EncoderShelf(sweep.uri("encoders"))
    (given,) = [shelf.card(name) for name in shelf.ids() if name.startswith("given-")]
    assert given.source.endswith("timm")
    _, card, arm = encoder_of_sweep(sweep.root, "transferred")
    assert arm == "transferred"
    assert card.config["weights"] == given.sha256
    assert (card.epochs, card.config["like"]) == (0, "mae")


def test_its_model_is_kept_with_its_positions(sweep):
    model = load_model(sweep.root, arm="transferred")
    assert model.card.encoder_id == encoder_of_sweep(sweep.root, "transferred")[1].encoder_id
    score = model.score()
    assert score["test_top1"] == model.card.scores["test_top1"]


def test_other_weights_at_the_same_place_are_refused(sweep, images, tmp_path):
    text = TEXT.format(where=tmp_path / "given")
    export_encoder(images.root, tmp_path / "given", "hf")
    folder = tmp_path / "results"
    finished(folder, text, "arms={transferred: {encoder: " + str(tmp_path / "given") + "}}", "replicates=1")
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "given" / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "given" / "model.safetensors")
    with pytest.raises(EncoderError, match="holds other weights"):
        finished(folder, text, "arms={transferred: {encoder: " + str(tmp_path / "given") + "}}", "replicates=2",
                 extend=True)


def test_the_command_exports_an_arm(sweep, tmp_path):
    done = CliRunner().invoke(main, ["export", sweep.root, "--encoder", str(tmp_path / "out"), "--to", "timm", "--arm",
                                     "transferred", "--json"])
    assert done.exit_code == 0, done.output
    (written,) = json.loads(done.output)
    assert written["what"] == "encoder of transferred for timm"
    assert read_given(str(tmp_path / "out")).vit.grid.size == (48, 48)
    done = CliRunner().invoke(main, ["export", sweep.root, "--encoder", str(tmp_path / "other"), "--arm", "scratch"])
    assert done.exit_code == 1
    assert "unknown pretrained arm 'scratch'" in done.output
