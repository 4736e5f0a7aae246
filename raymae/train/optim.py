"""AdamW with layer-wise learning-rate decay, and the cosine schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def make_optimiser(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW; no decay on biases and norms, learning rate times `layer_decay` per encoder layer from the top.

    Layer decay needs the model to offer timm's `group_matcher`. Each group holds `lr_scale`, which `set_lr` honours,
    and `decays`, which `set_weight_decay` does.
    """
    for group in (groups := _groups(model, layer_decay)):
        group.setdefault("lr_scale", 1.0)
        group["decays"] = group["weight_decay"] > 0
        group["weight_decay"] = weight_decay if group["decays"] else 0.0
        group.pop("param_names", None)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def _groups(model: nn.Module, layer_decay: float) -> list[dict[str, Any]]:
    """Parameters by whether they decay, and by layer where layers differ."""
    if layer_decay < 1:
        from timm.optim import param_groups_layer_decay

        return param_groups_layer_decay(model, weight_decay=1.0, layer_decay=layer_decay)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]  # biases, and weights of norms
    others = [parameter for parameter in trained if parameter.ndim > 1]
    return [{"params": vectors, "weight_decay": 0.0}, {"params": others, "weight_decay": 1.0}]


def cosine_lr(step: int, *, peak: float, total: int, warmup: float) -> float:
    """Linear warm-up over `warmup` steps, then a cosine to 0 at `total` (Loshchilov & Hutter 2017)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate, scaled by its layer."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


def set_weight_decay(optimiser: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of every group that has any."""
    for group in optimiser.param_groups:
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def clip_gradients(parameters: Iterable[Tensor], norm: float) -> None:
    """Clip the total gradient norm in place; 0 is off."""
    if norm > 0:
        nn.utils.clip_grad_norm_(parameters, norm)
