"""Write a sweep's pretrained encoder as others load it: timm, Hugging Face, plain torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raymae.errors import EncoderError, ResultsError
from raymae.inference.encoders import Card
from raymae.inference.source import encoder_of_sweep
from raymae.models.given import Given
from raymae.models.tensor_file import saved
from raymae.models.vit_hf import to_hf
from raymae.models.vit_timm import to_timm
from raymae.results.store.folder import json_bytes
from raymae.tasks.colours import MEAN, SD

Kind = Literal["timm", "hf", "torch"]

_TIMM = '''"""Features `[B, {tokens}, {dim}]` of images `[B, 3, {height}, {width}]`, a row for every patch."""
import timm
import torch

model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
data = timm.data.resolve_model_data_config(model)  # size, mean and deviation of its images
transform = timm.data.create_transform(**data, is_training=False)  # makes `images` of a PIL image
with torch.no_grad():
    features = model.forward_features(images)
    pooled = features.mean(dim=1)  # what our classifiers see
'''
_HF = '''"""Features `[B, {tokens}, {dim}]` of images `[B, 3, {height}, {width}]`, one row a patch of {patch} x {patch}.
Ours has no class token. Theirs has one, and is told not to look at it."""
import torch
from transformers import ViTImageProcessor, ViTModel

processor = ViTImageProcessor.from_pretrained(folder)  # makes `images` of PIL images
model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
seen = torch.ones(len(images), 1 + {tokens})
seen[:, 0] = 0
with torch.no_grad():
    features = model(images, attention_mask=seen).last_hidden_state[:, 1:]
    pooled = features.mean(dim=1)  # what our classifiers see
'''
_TORCH = '''"""The masked autoencoder of a sweep, from its safetensors file and the card beside it."""
import json
import pathlib

import safetensors.torch
import torch

from raymae import TrialConfig
from raymae.tasks import task_class

config = TrialConfig.from_json(json.loads(pathlib.Path(folder, "{name}.json").read_text())["config"])
task = task_class(config.task)(config, torch.device("cpu"))  # reads its data set
model = task.pretraining().build().eval()
model.load_state_dict(safetensors.torch.load_file(pathlib.Path(folder, "{name}.safetensors")))
pretraining, batch = task.pretraining(), task.load("pretext").batch(torch.arange(2), None)
nothing_hidden = torch.zeros_like(pretraining.draw_mask(batch, torch.Generator().manual_seed(0)))
with torch.no_grad():
    features = pretraining.encode_visible(model, batch, nothing_hidden)  # [B, N, D]
'''


class Exported(NamedTuple):
    """What was written.

    Attributes:
        what: For whom: `timm`, `hf` or `torch`.
        where: The folder.
        arm: Whose encoder.
        encoder_id: Which.
        files: In the folder.
    """

    what: Kind
    where: str
    arm: str
    encoder_id: str
    files: tuple[str, ...]


def export_encoder(root: str, folder: Path, kind: Kind, arm: str | None = None) -> Exported:
    """Write the encoder of an arm's best replicate into a folder that is new or empty.

    Args:
        root: The sweep's results folder, a path or a URI.
        folder: Where to.
        kind: `timm` (its `VisionTransformer`), `hf` (`ViTModel` and `ViTMAEForPreTraining`), `torch` (ours).
        arm: A pretrained arm; the one that the task is about by default.

    Raises:
        EncoderError: There is no encoder, or theirs cannot hold it.
        ResultsError: The folder holds something already, or cannot be written.
    """
    given, card, arm = encoder_of_sweep(root, arm)
    files = _files(given, card, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ResultsError(f"{folder}: holds something already; name a folder that is new or empty")
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return Exported(kind, os.fspath(folder), arm, card.encoder_id, tuple(files))


def _files(given: Given, card: Card, kind: Kind) -> dict[str, bytes]:
    """The files of an export, by name."""
    about: dict[str, Any] = {"name": card.encoder_id}
    if kind == "torch":
        return {f"{card.encoder_id}.safetensors": saved(given.weights, {"encoder_id": card.encoder_id}),
                f"{card.encoder_id}.json": json_bytes({**vars(card), **_proof(given, card)}),
                "README.md": _readme(given, card, _TORCH.format(**about))}
    if given.vit is None:
        raise EncoderError(f"{given.source}: the encoder of {card.config['task']} is no vision transformer of images, "
                           "which is what timm and Hugging Face can hold; export --to torch")
    vit = given.vit
    about |= {"height": vit.grid.size[0], "width": vit.grid.size[1], "tokens": vit.grid.num_tokens, "dim": vit.dim,
              "patch": vit.grid.patch_size[0]}
    if kind == "timm":
        config, weights = to_timm(vit, MEAN, SD)
        return {"config.json": json_bytes(config), "model.safetensors": saved(weights, {"format": "pt"}),
                "README.md": _readme(given, card, _TIMM.format(**about))}
    params = card.config["params"]
    config, weights = to_hf(vit, mask_ratio=float(params.get("mask_ratio", 0.75)),
                            norm_target=bool(params.get("norm_target", True)))
    images = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
              "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(MEAN), "image_std": list(SD),
              "resample": 2, "size": {"height": vit.grid.size[0], "width": vit.grid.size[1]}}
    return {"config.json": json_bytes(config), "preprocessor_config.json": json_bytes(images),
            "model.safetensors": saved(weights, {"format": "pt"}),
            "README.md": _readme(given, card, _HF.format(**about))}


def _proof(given: Given, card: Card) -> dict[str, object]:
    """What a card says of its file, of the file that is written here."""
    data = saved(given.weights, {"encoder_id": card.encoder_id})
    return {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}


def _readme(given: Given, card: Card, code: str) -> bytes:
    """What the folder is, and lines that load it."""
    config = card.config
    made = f"pretrained on {config['data']['name']} ({config['data']['source']}) for {card.epochs} epochs" \
        if card.epochs else f"started from the weights {str(config.get('weights', ''))[:16]}"
    return (f"# Encoder {card.encoder_id}\n\nOf the arm `{config['arm']}` of the task {config['task']}, {made} by "
            f"RayMAE; from {given.source}.\n\n`folder` is the path of this folder:\n\n```python\n{code}```\n").encode()
