"""Folders of strangers: refused with a reason, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from raymae.errors import EncoderError
from raymae.inference.export_encoder import export_encoder
from raymae.inference.source import read_given


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(params=["timm", "hf"])
def folder(request, images, tmp_path):
    export_encoder(images.root, tmp_path / "given", request.param)
    return tmp_path / "given"


def refused(folder, said):
    with pytest.raises(EncoderError, match=said) as caught:
        read_given(str(folder))
    assert len(str(caught.value)) < 2000


def rewritten(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.contiguous() for name, value in change(weights).items()}, folder / "model.safetensors")


def test_a_pickle_is_not_read(folder, tmp_path):
    for name in ("pytorch_model.bin", "model.pth"):
        (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    (folder / "model.safetensors").unlink()
    refused(folder, "a pickle")
    refused(folder / "model.pth", "a pickle")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(tmp_path / "executed")) + bytes(100))
    refused(folder, "not a whole safetensors file")
    torch.save({"x": Payload(tmp_path / "executed")}, folder / "model.safetensors")
    refused(folder, "not a whole safetensors file")
    assert not (tmp_path / "executed").exists()


def test_files_that_end_early_or_begin_with_a_huge_header(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:5], whole[:300], whole[:-4], whole + b"more", struct.pack("<Q", 2**63) + whole[8:],
                    struct.pack("<Q", 20_000_000) + b"{" * 100, whole[:8] + b"[" * (len(whole) - 8)):
        (folder / "model.safetensors").write_bytes(damaged)
        refused(folder, "not a whole safetensors file")


def test_links_that_lead_outside(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    refused(folder, "a link that leads out of the folder")
    cache = tmp_path / "models--a--b"  # Hugging Face's cache is made of links
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    (tmp_path / "outside.safetensors").rename(cache / "blobs" / "1234")
    (folder / "model.safetensors").unlink()
    folder.rename(cache / "snapshots" / "5678")
    (cache / "snapshots" / "5678" / "model.safetensors").symlink_to("../../blobs/1234")
    assert read_given(str(cache / "snapshots" / "5678")).vit is not None


def test_weights_in_parts_and_paths_in_an_index(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../../../etc/passwd"}}))
    refused(folder, "in several files")


def test_wrong_shapes_and_numbers(folder):
    names = [name for name in sorted(load_file(folder / "model.safetensors")) if not name.startswith("decoder.")]
    norm = next(name for name in names if name.endswith(("norm1.weight", "layernorm_before.weight")))
    kernel = next(name for name in names if name.endswith(("proj.weight", "projection.weight")) and "patch" in name)
    place = next(name for name in names if name.endswith(("pos_embed", "position_embeddings")))
    whole = load_file(folder / "model.safetensors")
    for change, said in (
        (lambda w: {**w, norm: w[norm][:-1]}, r"encoder\.blocks\.0\.norm1\.weight has shape \[15\], and \[16\]"),
        (lambda w: {**w, kernel: w[kernel].flatten(1)}, "must have 4 axes"),
        (lambda w: {**w, place: w[place][:, :-1]}, r"positions of shape .* do not fit 16 patches"),
        (lambda w: {name: value for name, value in w.items() if name != norm}, "there is no"),
        (lambda w: {**w, "somewhere.else": w[norm] + 1}, "1 tensors have no place in a plain vision transformer"),
        (lambda w: {**w, norm: w[norm] * torch.nan}, "NaN or infinite"),
        (lambda w: {**w, norm: w[norm].to(torch.int32)}, "weights are real numbers"),
    ):
        rewritten(folder, lambda _, change=change: change(whole))
        refused(folder, said)
    rewritten(folder, lambda _: whole)
    assert read_given(str(folder)).vit is not None


@pytest.mark.parametrize("text", [
    "", "{", "[1]", "null", '{"architecture": 3}', '{"architecture": "vit_base_patch16_224", "model_args": 3}',
    '{"architecture": "resnet50"}', '{"model_type": "vit_mae"}', '{"model_type": ["vit"]}', '{"other": 1}',
    '{"model_type": "vit", "num_attention_heads": 3, "image_size": 32}',
    '{"model_type": "vit", "num_attention_heads": 2, "image_size": 33}',
    '{"model_type": "vit", "num_attention_heads": 2, "image_size": [32, 1e99]}',
    '{"model_type": "vit", "num_attention_heads": true, "image_size": 32, "hidden_act": "relu"}',
    '{"architecture": "vit_base_patch16_224", "model_args": {"num_heads": -1, "img_size": 10000000000000}}',
    '{"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"}', "[" * 100_000, " " * 1_000_001,
])
def test_odd_configs(folder, text):
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "config.json").write_text(text)
    refused(folder, "config")


def test_odd_places(folder, tmp_path):
    refused(tmp_path / "nowhere", "no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "model.safetensors")
    refused("/dev/zero", "regular file")
    refused(folder / "model.safetensors", "no card model.json beside it")
    refused(folder / "config.json", "safetensors file")


def test_names_on_a_shelf_are_no_paths(images, tmp_path):
    import pandas as pd

    from raymae.inference import source

    trials = pd.DataFrame({"arm": ["mae"], "status": ["completed"], "stage": ["replicate"], "val_top1": [0.5],
                           "encoder_id": ["../../../outside"], "trial_id": ["mae-r0"], "attempt": [0]})
    assert source._best_encoder(trials, "mae", "val_top1", "max") == "../../../outside"
    with pytest.raises(EncoderError, match="no name of an encoder"):
        source._on_shelf(source.EncoderShelf(str(tmp_path)), "../../../outside", "here")
