"""An encoder leaves for timm, Hugging Face and plain torch, gives the same features, and comes back bit for bit."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.testing import assert_close

from raymae.errors import EncoderError, ResultsError
from raymae.inference.export_encoder import export_encoder
from raymae.inference.source import encoder_of_sweep, read_given
from raymae.models.mae import MaskedAutoencoder
from raymae.models.vit_hf import to_hf
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class

IMAGES_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ours(store) -> tuple[MaskedAutoencoder, object]:
    given, card, _ = encoder_of_sweep(store.root)
    config = TrialConfig.from_json(card.config)
    task = task_class(config.task)(config, torch.device("cpu"))
    model = task.pretraining().build().eval()
    model.load_state_dict(dict(given.weights))
    return model, task


@torch.no_grad()
def features(store) -> torch.Tensor:
    model, task = ours(store)
    return model.encoder(task.grid.patchify(IMAGES_BCHW))


def code_of(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


def run(folder: Path, **names: object) -> dict[str, object]:
    """What the lines in an export's README lead to."""
    names |= {"folder": str(folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are not ours
        exec(compile(code_of(folder), "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("kind", ["timm", "hf"])
def test_features_are_the_same_there(images, tmp_path, kind):
    if kind == "hf":
        pytest.importorskip("transformers")
    done = export_encoder(images.root, tmp_path / "out", kind)
    assert done.arm == "mae"
    made = run(tmp_path / "out", images=IMAGES_BCHW)
    assert_close(made["features"], features(images), atol=1e-5, rtol=1e-5)
    assert_close(made["pooled"], features(images).mean(dim=1), atol=1e-5, rtol=1e-5)


def test_their_transforms_give_what_our_networks_saw(images, tmp_path):
    from raymae.tasks.colours import standardise

    export_encoder(images.root, tmp_path / "timm", "timm")
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = run(tmp_path / "timm", images=IMAGES_BCHW)
    image_CHW = made["transform"](Image.fromarray(pixels_HWC))
    assert_close(image_CHW, standardise(torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None].float() / 255)[0],
                 atol=1e-5, rtol=0)
    pytest.importorskip("transformers")
    export_encoder(images.root, tmp_path / "hf", "hf")
    made = run(tmp_path / "hf", images=IMAGES_BCHW)
    assert_close(torch.as_tensor(np.stack(made["processor"](Image.fromarray(pixels_HWC))["pixel_values"])[0]),
                 image_CHW, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["timm", "hf", "torch"])
def test_it_comes_back_bit_for_bit(images, tmp_path, kind):
    export_encoder(images.root, tmp_path / "out", kind)
    back, (model, _) = read_given(str(tmp_path / "out")), ours(images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    start = back.start(model)
    after = model.state_dict()
    assert after.keys() == before.keys()  # positions are recognised as our own
    assert start.with_decoder == (kind != "timm")
    for name, value in before.items():
        if name.startswith("encoder.") or start.with_decoder:
            assert torch.equal(after[name], value), name


def test_hugging_face_saves_what_it_loaded_and_ours_reads_it(images, tmp_path):
    transformers = pytest.importorskip("transformers")
    export_encoder(images.root, tmp_path / "out", "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "out")
        theirs.save_pretrained(tmp_path / "again")
    one, other = read_given(str(tmp_path / "out")), read_given(str(tmp_path / "again"))
    assert one.sha256 == other.sha256
    names = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    written = safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")
    assert {name: value.shape for name, value in names.items() if name.startswith("vit.")} == {
        name: value.shape for name, value in written.items() if name.startswith("vit.")}


def test_their_decoder_predicts_pixels_in_their_order(images, tmp_path):
    """Values of a patch are ordered channel first with us, and channel last with them."""
    transformers = pytest.importorskip("transformers")
    export_encoder(images.root, tmp_path / "out", "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "out")
    (model, task), (given, _, _) = ours(images), encoder_of_sweep(images.root)
    numbered = replace(given.vit, weights={**given.weights, "predict.bias": torch.arange(192.0)})
    order_P = to_hf(numbered)[1]["decoder.decoder_pred.bias"].long()
    assert torch.equal(task.grid.patchify(IMAGES_BCHW)[..., order_P], theirs.patchify(IMAGES_BCHW))
    assert torch.equal(theirs.decoder.decoder_pred.weight, model.predict.weight[order_P])


def test_another_modality_leaves_with_lines_that_load_it(series, tmp_path):
    done = export_encoder(series.root, tmp_path / "out", "torch")
    assert set(done.files) == {f"{done.encoder_id}.safetensors", f"{done.encoder_id}.json", "README.md"}
    made = run(tmp_path / "out")
    assert made["features"].shape[0] == 2
    assert bool(torch.isfinite(made["features"]).all())
    assert len(code_of(tmp_path / "out").splitlines()) <= 20
    for kind in ("timm", "hf"):
        with pytest.raises(EncoderError, match="no vision transformer of images"):
            export_encoder(series.root, tmp_path / kind, kind)
        assert not (tmp_path / kind).exists()


def test_what_cannot_be_exported_is_said(images, tmp_path):
    with pytest.raises(EncoderError, match="unknown pretrained arm 'scratch'"):
        export_encoder(images.root, tmp_path / "out", "timm", "scratch")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "here").write_text("")
    with pytest.raises(ResultsError, match="holds something already"):
        export_encoder(images.root, tmp_path / "full", "timm")
    with pytest.raises(EncoderError, match="no sweep here"):
        encoder_of_sweep(str(tmp_path / "nowhere"))


def test_a_card_proves_the_file_that_was_exported(images, tmp_path):
    done = export_encoder(images.root, tmp_path / "out", "torch")
    card = json.loads((tmp_path / "out" / f"{done.encoder_id}.json").read_text())
    assert card["config"]["arm"] == "mae"
    weights = tmp_path / "out" / f"{done.encoder_id}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    with pytest.raises(EncoderError, match="damaged"):
        read_given(str(tmp_path / "out"))
