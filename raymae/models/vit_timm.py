"""Vision transformers in the files of timm's `VisionTransformer`, and out of them (see `raymae.models.vit`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raymae.errors import EncoderError, shorten
from raymae.models.vit import (
    ENDINGS,
    PROJECT,
    Vit,
    Weights,
    assembled,
    depth_of,
    names_of,
    nothing_else,
    own,
    plain_activation,
    take,
    without,
)

_TIMM_ARCHITECTURE = "vit_base_patch16_224"  # every size of it is said by the arguments beside it


def to_timm(vit: Vit, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The `config.json` and weights of a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads.

    Args:
        vit: Its encoder is written, its decoder is not: timm has none.
        mean: Of the colours of its images, in [0, 1].
        std: Their deviation.
    """
    height, width = vit.grid.size
    arguments = {
        "img_size": [height, width], "patch_size": list(vit.grid.patch_size), "in_chans": vit.grid.in_channels,
        "embed_dim": vit.dim, "depth": vit.depth, "num_heads": vit.heads, "mlp_ratio": vit.hidden_dim / vit.dim,
        "class_token": False, "global_pool": "avg", "fc_norm": False, "num_classes": 0,
    }
    pretrained = {
        "input_size": [vit.grid.in_channels, height, width], "fixed_input_size": True, "interpolation": "bilinear",
        "crop_pct": 1.0, "mean": list(mean), "std": list(std), "num_classes": 0, "pool_size": None,
        "first_conv": "patch_embed.proj", "classifier": "head",
    }
    config = {"architecture": _TIMM_ARCHITECTURE, "num_classes": 0, "num_features": vit.dim, "global_pool": "avg",
              "model_args": arguments, "pretrained_cfg": pretrained}
    weights = {"patch_embed.proj.weight": vit.kernel(), "patch_embed.proj.bias": vit.weights[f"{PROJECT}.bias"],
               "pos_embed": vit.positions()[None]}
    weights |= {name.removeprefix("encoder."): value for name, value in vit.weights.items()
                if name.startswith(("encoder.blocks.", "encoder.norm."))}
    return config, own(weights)


def from_timm(config: Mapping[str, Any], weights: Weights) -> Vit:
    """The inverse of `to_timm`, for every plain `VisionTransformer` of timm's.

    Raises:
        EncoderError: It is another network, or lacks something.
    """
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise EncoderError(f"model_args must be a mapping, got {shorten(arguments)}")
    plain_activation(arguments.get("act_layer"))
    heads = arguments.get("num_heads") or _timm_heads(config.get("architecture"))
    left = {name: value for name, value in weights.items() if not name.startswith("head.")}
    notes = without(left, "cls_token", "its class token is left out: our networks average their tokens")
    if "norm.weight" not in left and "fc_norm.weight" in left:
        left |= {f"norm.{ending}": left.pop(f"fc_norm.{ending}") for ending in ENDINGS if f"fc_norm.{ending}" in left}
    else:
        left = {name: value for name, value in left.items() if not name.startswith("fc_norm.")}
    kernel, positions = take(left, "patch_embed.proj.weight", 4), take(left, "pos_embed", 3)
    made = {f"{PROJECT}.bias": take(left, "patch_embed.proj.bias", 1)}
    for name in names_of(depth_of(left, "")):
        made[f"encoder.{name}"] = take(left, name)
    nothing_else(left)
    return assembled(made, kernel, positions, _image_size(config, arguments), heads, notes)


def _image_size(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> object:
    """What a config says of the size of images; configs of the hub say all in one level."""
    if "img_size" in arguments:
        return arguments["img_size"]
    pretrained = config.get("pretrained_cfg", config)
    size = pretrained.get("input_size") if isinstance(pretrained, Mapping) else None
    return size[1:] if isinstance(size, list) else size


def _timm_heads(architecture: object) -> int:
    """Attention heads of one of timm's models, which a config may leave out."""
    import timm

    if not isinstance(architecture, str) or architecture not in timm.list_models("vit_*"):
        raise EncoderError(f"architecture {shorten(architecture)} is no vision transformer of this timm; name a plain "
                           "one, such as vit_base_patch16_224")
    with torch.device("meta"):  # as much as its shapes, no memory
        model = timm.create_model(architecture, pretrained=False)
    blocks = getattr(model, "blocks", None)
    heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks else None
    if not isinstance(heads, int):
        raise EncoderError(f"architecture {architecture} has no attention heads to count; name a plain vision "
                           "transformer, such as vit_base_patch16_224")
    return heads
