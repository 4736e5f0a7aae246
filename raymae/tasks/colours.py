"""Colours of images: the networks' scale and back, brightness, and jitter.

Shape suffixes: B batch, C colours (always last but two, or last in bytes), H and W rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, in [0, 1]
PAD = np.array([round(255 * value) for value in MEAN], np.uint8)  # 0 once standardised
LUMA = (0.299, 0.587, 0.114)


def _by_colour(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None, None]


def standardise(image_BCHW: Tensor) -> Tensor:
    """Bring colours in [0, 1] to the networks' scale: mean 0 and deviation 1 over ImageNet."""
    return (image_BCHW - _by_colour(MEAN, image_BCHW)) / _by_colour(SD, image_BCHW)


def to_rgb(image_BCHW: Tensor) -> np.ndarray:
    """Bring colours on the networks' scale back to bytes: uint8 `[B, H, W, C]`."""
    image_BCHW = image_BCHW.float() * _by_colour(SD, image_BCHW) + _by_colour(MEAN, image_BCHW)
    return (image_BCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def grey(image_BCHW: Tensor) -> Tensor:
    """How bright every pixel looks: `[B, 1, H, W]`."""
    return (image_BCHW * _by_colour(LUMA, image_BCHW)).sum(dim=1, keepdim=True)


def jitter(image_BCHW: Tensor, strength: float, draw_B3: Tensor) -> Tensor:
    """Multiply brightness, contrast and saturation of images in [0, 1], each by its own factor.

    Args:
        image_BCHW: Images.
        strength: Largest relative change; 0 changes nothing.
        draw_B3: Three numbers in [0, 1) for each image, from which its factors follow.
    """
    if not strength:
        return image_BCHW
    brightness, contrast, saturation = (1 + strength * (2 * draw_B3 - 1)).T[..., None, None, None]
    image_BCHW = image_BCHW * brightness
    middle = grey(image_BCHW).mean(dim=(2, 3), keepdim=True)
    image_BCHW = middle + contrast * (image_BCHW - middle)
    greyed = grey(image_BCHW)
    return (greyed + saturation * (image_BCHW - greyed)).clamp(0, 1)
