"""Vision transformers in the files of Hugging Face's `ViTModel` and `ViTMAEForPreTraining`, and out of them (see
`raymae.models.vit`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raymae.errors import EncoderError, shorten
from raymae.models.mae import NORM_EPS
from raymae.models.tokens import TokenGrid, sincos_positions
from raymae.models.vit import (
    ENDINGS,
    PROJECT,
    Vit,
    Weights,
    assembled,
    depth_of,
    nothing_else,
    own,
    plain_activation,
    take,
    whole,
    without,
)

_HF_PARTS = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
             "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
_HF_QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_HF_TODAY = (  # names in memory of transformers 5, in those of its files
    (r"\.layers\.(\d+)\.", r".encoder.layer.\1."), (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"\battention\.q_proj\.", "attention.attention.query."), (r"\battention\.k_proj\.", "attention.attention.key."),
    (r"\battention\.v_proj\.", "attention.attention.value."), (r"\battention\.o_proj\.", "attention.output.dense."),
    (r"\bmlp\.fc1\.", "intermediate.dense."), (r"\bmlp\.fc2\.", "output.dense."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
)
_HF_DECODER = {"bridge": "decoder.decoder_embed", "norm": "decoder.decoder_norm", "predict": "decoder.decoder_pred"}


def to_hf(vit: Vit, *, mask_ratio: float = 0.75, norm_target: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The `config.json` and weights that `ViTMAEForPreTraining.save_pretrained` would write, or `ViTModel`'s where
    there is no decoder. `ViTModel.from_pretrained` loads both.

    Theirs has a class token where ours has none: it is all zeros, and an `attention_mask` that is 0 for it gives our
    features.

    Raises:
        EncoderError: Their classes cannot hold it.
    """
    if vit.grid.size[0] != vit.grid.size[1] or vit.grid.patch_size[0] != vit.grid.patch_size[1]:
        raise EncoderError(f"Hugging Face's ViTMAE takes square images and patches, these are {vit.grid.size} and "
                           f"{vit.grid.patch_size}; export --to timm or torch")
    decoded = vit.decoder_heads > 0
    for part, dim in (("encoder", vit.dim), *([("decoder", int(vit.weights["bridge.weight"].shape[0]))]
                                              if decoded else [])):
        if dim % 4:
            raise EncoderError(f"{part}_dim={dim} must be a multiple of 4 for Hugging Face's ViTMAE; export --to timm "
                               "or torch")
    config: dict[str, Any] = {
        "architectures": ["ViTMAEForPreTraining" if decoded else "ViTModel"],
        "model_type": "vit_mae" if decoded else "vit",
        "hidden_size": vit.dim, "num_hidden_layers": vit.depth, "num_attention_heads": vit.heads,
        "intermediate_size": vit.hidden_dim, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02, "layer_norm_eps": NORM_EPS,
        "image_size": vit.grid.size[0], "patch_size": vit.grid.patch_size[0], "num_channels": vit.grid.in_channels,
        "qkv_bias": True, "dtype": "float32",
    }
    prefix = "vit." if decoded else ""
    zero = torch.zeros(1, 1, vit.dim)
    weights = {
        f"{prefix}embeddings.cls_token": zero,
        f"{prefix}embeddings.position_embeddings": torch.cat([zero, vit.positions()[None]], dim=1),
        f"{prefix}embeddings.patch_embeddings.projection.weight": vit.kernel(),
        f"{prefix}embeddings.patch_embeddings.projection.bias": vit.weights[f"{PROJECT}.bias"],
        **_hf_blocks(vit.weights, "encoder.blocks.", f"{prefix}encoder.layer.", vit.depth),
        **{f"{prefix}layernorm.{ending}": vit.weights[f"encoder.norm.{ending}"] for ending in ENDINGS},
    }
    if not decoded:
        return config, own(weights)
    depth = depth_of([f"blocks.{name.removeprefix('decoder.')}" for name in vit.weights if name.startswith("decoder.")],
                     "")
    dim = int(vit.weights["bridge.weight"].shape[0])
    config |= {
        "decoder_hidden_size": dim, "decoder_num_hidden_layers": depth, "decoder_num_attention_heads":
        vit.decoder_heads, "decoder_intermediate_size": int(vit.weights["decoder.0.mlp.fc1.weight"].shape[0]),
        "mask_ratio": mask_ratio, "norm_pix_loss": norm_target,
    }
    weights |= {
        "decoder.mask_token": vit.weights["mask_token"].reshape(1, 1, dim),
        "decoder.decoder_pos_embed": torch.cat([torch.zeros(1, 1, dim), _decoder_positions(vit)[None]], dim=1),
        **_hf_blocks(vit.weights, "decoder.", "decoder.decoder_layers.", depth),
        **{f"{theirs}.{ending}": vit.weights[f"{ours}.{ending}"]
           for ours, theirs in _HF_DECODER.items() for ending in ENDINGS},
    }
    for ending in ENDINGS:
        weights[f"decoder.decoder_pred.{ending}"] = _channels(vit.weights[f"predict.{ending}"], vit.grid, last=True)
    return config, own(weights)


def from_hf(config: Mapping[str, Any], weights: Weights) -> Vit:
    """The inverse of `to_hf`: of `vit` and `vit_mae`, as Hugging Face's files name them, yesterday's and today's.

    Raises:
        EncoderError: It is another network, or lacks something.
    """
    kind = config.get("model_type")
    if kind not in ("vit", "vit_mae"):
        raise EncoderError(f"model_type {shorten(kind)} is no plain vision transformer; allowed: vit, vit_mae")
    plain_activation(config.get("hidden_act"))
    left: dict[str, Tensor] = {}
    for name, value in weights.items():
        for pattern, written in _HF_TODAY:
            name = re.sub(pattern, written, name)
        left[name.removeprefix("vit.")] = value
    left = {name: value for name, value in left.items() if not name.startswith(("classifier.", "pooler."))}
    notes = without(left, "embeddings.cls_token", "its class token is left out: our networks average their tokens")
    without(left, "embeddings.mask_token", "")
    kernel = take(left, "embeddings.patch_embeddings.projection.weight", 4)
    positions = take(left, "embeddings.position_embeddings", 3)[:, 1:]  # the first is the class token's
    made = {f"{PROJECT}.bias": take(left, "embeddings.patch_embeddings.projection.bias", 1)}
    made |= _our_blocks(left, "encoder.layer.", "encoder.blocks.")
    made |= {f"encoder.norm.{ending}": take(left, f"layernorm.{ending}", 1) for ending in ENDINGS}
    decoder = {name: left.pop(name) for name in list(left) if name.startswith("decoder.")}
    nothing_else(left)
    vit = assembled(made, kernel, positions, config.get("image_size"), config.get("num_attention_heads"), notes)
    return _with_decoder(vit, decoder, config.get("decoder_num_attention_heads")) if decoder else vit


def _with_decoder(vit: Vit, left: dict[str, Tensor], heads: object) -> Vit:
    made = {**vit.weights, "mask_token": take(left, "decoder.mask_token", 3).flatten(),
            **_our_blocks(left, "decoder.decoder_layers.", "decoder.")}
    made |= {f"{ours}.{ending}": take(left, f"{theirs}.{ending}")
             for ours, theirs in _HF_DECODER.items() for ending in ENDINGS}
    positions = take(left, "decoder.decoder_pos_embed", 3)[0, 1:]
    nothing_else(left)
    dim = len(made["mask_token"])
    if len(made["predict.weight"]) != vit.grid.token_dim or tuple(positions.shape) != (vit.grid.num_tokens, dim):
        raise EncoderError(f"decoder.decoder_pred.weight {list(made['predict.weight'].shape)} and "
                           f"decoder.decoder_pos_embed {[1, len(positions) + 1, positions.shape[1]]} do not fit "
                           f"{vit.grid.num_tokens} patches of {vit.grid.token_dim} values and a width of {dim}")
    for ending in ENDINGS:
        made[f"predict.{ending}"] = _channels(made[f"predict.{ending}"], vit.grid, last=False)
    if not torch.equal(positions, sincos_positions(vit.grid.shape, dim) if dim >= 4 else positions + 1):
        made["positions_ND"] = positions
    return Vit(own(made), vit.grid, vit.heads, whole(heads, "decoder_num_attention_heads", dim), vit.notes)


def _hf_blocks(weights: Weights, ours: str, theirs: str, depth: int) -> dict[str, Tensor]:
    made = {}
    for index in range(depth):
        for ending in ENDINGS:
            for part, name in _HF_PARTS.items():
                made[f"{theirs}{index}.{name}.{ending}"] = weights[f"{ours}{index}.{part}.{ending}"]
            parts = weights[f"{ours}{index}.attn.qkv.{ending}"].chunk(3)
            made |= {f"{theirs}{index}.{name}.{ending}": part for name, part in zip(_HF_QKV, parts, strict=True)}
    return made


def _our_blocks(left: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    depth = depth_of([f"blocks.{name.removeprefix(theirs)}" for name in left if name.startswith(theirs)], "")
    for index in range(depth):
        for ending in ENDINGS:
            for part, name in _HF_PARTS.items():
                made[f"{ours}{index}.{part}.{ending}"] = take(left, f"{theirs}{index}.{name}.{ending}")
            names = [f"{theirs}{index}.{name}.{ending}" for name in _HF_QKV]
            if ending == "bias" and names[0] not in left:  # qkv_bias: false
                made[f"{ours}{index}.attn.qkv.bias"] = torch.zeros(len(made[f"{ours}{index}.attn.qkv.weight"]))
            else:
                made[f"{ours}{index}.attn.qkv.{ending}"] = torch.cat([take(left, name) for name in names])
    return made


def _decoder_positions(vit: Vit) -> Tensor:
    given = vit.weights.get("positions_ND")
    return sincos_positions(vit.grid.shape, int(vit.weights["bridge.weight"].shape[0])) if given is None else given


def _channels(rows_P: Tensor, grid: TokenGrid, *, last: bool) -> Tensor:
    """Reorder values of a patch: ours come channel first, Hugging Face's channel last."""
    height, width = grid.patch_size
    if last:
        return rows_P.unflatten(0, (grid.in_channels, height, width)).movedim(0, 2).flatten(0, 2)
    return rows_P.unflatten(0, (height, width, grid.in_channels)).movedim(2, 0).flatten(0, 2)
