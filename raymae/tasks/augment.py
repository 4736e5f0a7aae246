"""Augmentation of whole batches on their device: every image has its own parameters, and none has its own loop.

Shape suffixes: B batch, C channels, H and W pixels, K operations drawn per image, S strengths by operation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.tasks.colours import grey

# RandAugment's operations (Cubuk et al. 2020) but equalize, and their strength at magnitude 10
GEOMETRIC = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.9, "translate_y": 0.9, "rotate": math.pi / 6}
COLOUR = {"brightness": 0.9, "saturation": 0.9, "contrast": 0.9, "sharpness": 0.9, "posterize": 4.0, "solarize": 1.0,
          "autocontrast": 1.0}
OPERATIONS = ("identity", *GEOMETRIC, *COLOUR)
NUM_DRAWN = 2  # operations per image


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order.

    Attributes:
        crop: Least share of the area that a random crop keeps; 1 is no crop.
        flip: Mirror half of the images.
        rand_augment: Magnitude of RandAugment, of 10; 0 is off.
        erasing: Chance that a box is filled with noise.
    """

    crop: float = 1.0
    flip: bool = True
    rand_augment: float = 0.0
    erasing: float = 0.0

    def __call__(self, pixels_BCHW: Tensor, generator: Generator) -> Tensor:
        """Augmented images, both in [0, 1]."""
        strengths = draw_strengths(len(pixels_BCHW), self.rand_augment, generator) if self.rand_augment else {}
        if self.crop < 1 or self.flip or strengths:
            pixels_BCHW = self._warp(pixels_BCHW, strengths, generator)
        if strengths:
            pixels_BCHW = recolour(pixels_BCHW, strengths)
        if self.erasing:
            batch = len(pixels_BCHW)
            area_B = uniform(batch, 0.02, 0.33, generator)
            aspect_B = uniform(batch, math.log(0.3), math.log(1 / 0.3), generator).exp()
            chosen_B = uniform(batch, 0, 1, generator) < self.erasing
            box_BHW = draw_boxes(area_B, aspect_B, pixels_BCHW.shape[-2:], generator) & chosen_B[:, None, None]
            noise_BCHW = torch.rand(pixels_BCHW.shape, generator=generator, device=pixels_BCHW.device)
            pixels_BCHW = torch.where(box_BHW[:, None], noise_BCHW, pixels_BCHW)
        return pixels_BCHW

    def _warp(self, pixels_BCHW: Tensor, strengths: dict[str, Tensor], generator: Generator) -> Tensor:
        """Crop, flip and RandAugment's geometry as one affine map and one bilinear resampling."""
        batch = len(pixels_BCHW)
        width_B = height_B = torch.ones(batch, device=pixels_BCHW.device)
        if self.crop < 1:
            area_B = uniform(batch, self.crop, 1, generator)
            aspect_B = uniform(batch, math.log(3 / 4), math.log(4 / 3), generator).exp()
            width_B, height_B = (area_B * aspect_B).sqrt().clamp(max=1), (area_B / aspect_B).sqrt().clamp(max=1)
        x_B = (1 - width_B) * uniform(batch, -1, 1, generator) if self.crop < 1 else torch.zeros_like(width_B)
        y_B = (1 - height_B) * uniform(batch, -1, 1, generator) if self.crop < 1 else torch.zeros_like(width_B)
        sign_B = torch.where(uniform(batch, 0, 1, generator) < 0.5, -1.0, 1.0) if self.flip else 1.0
        crop_B23 = _matrix(width_B * sign_B, 0, x_B, 0, height_B, y_B)
        if strengths:
            cos_B, sin_B = strengths["rotate"].cos(), strengths["rotate"].sin()
            turn_B33 = _square(_matrix(cos_B, -sin_B, strengths["translate_x"], sin_B, cos_B, strengths["translate_y"]))
            shear_B33 = _square(_matrix(1, strengths["shear_x"], 0, strengths["shear_y"], 1, torch.zeros_like(cos_B)))
            crop_B23 = crop_B23 @ turn_B33 @ shear_B33
        grid_BHW2 = F.affine_grid(crop_B23, list(pixels_BCHW.shape), align_corners=False)
        return F.grid_sample(pixels_BCHW, grid_BHW2, mode="bilinear", padding_mode="reflection", align_corners=False)


def uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """`[B]`, uniform between two numbers."""
    return low + (high - low) * torch.rand(batch, generator=generator, device=generator.device)


def draw_strengths(batch: int, magnitude: float, generator: Generator) -> dict[str, Tensor]:
    """For each operation its signed strength in every image `[B]`; 0 where an image did not draw it."""
    device = generator.device
    drawn_BK = torch.randint(len(OPERATIONS), (batch, NUM_DRAWN), generator=generator, device=device)
    sign_BK = torch.randint(2, (batch, NUM_DRAWN), generator=generator, device=device) * 2.0 - 1
    signed_BS = torch.zeros(batch, len(OPERATIONS), device=device)
    for drawn_B, sign_B in zip(drawn_BK.unbind(1), sign_BK.unbind(1), strict=True):
        signed_BS.scatter_(1, drawn_B[:, None], sign_B[:, None])
    largest = {"identity": 0.0, **GEOMETRIC, **COLOUR}
    return {name: signed_BS[:, index] * largest[name] * magnitude / 10 for index, name in enumerate(OPERATIONS)}


def recolour(pixels_BCHW: Tensor, strengths: dict[str, Tensor]) -> Tensor:
    """RandAugment's colour operations, each where its strength is not 0."""
    by = {name: value[:, None, None, None] for name, value in strengths.items()}
    x = (pixels_BCHW * (1 + by["brightness"])).clamp(0, 1)
    greyed = grey(x)
    x = (x + by["saturation"] * (x - greyed)).clamp(0, 1)
    x = (x + by["contrast"] * (x - greyed.mean(dim=(2, 3), keepdim=True))).clamp(0, 1)
    wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
    tall = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]  # two passes: avg_pool2d takes ten times as long on a CPU
    blurred = (tall[..., :-2, :] + tall[..., 1:-1, :] + tall[..., 2:, :]) / 9
    x = (x + by["sharpness"] * (x - blurred)).clamp(0, 1)
    step = 2.0 ** by["posterize"].abs().round()
    x = torch.where(step > 1, (x * 255 / step).floor() * step / 255, x)
    x = torch.where(x > 1 - by["solarize"].abs(), 1 - x, x)
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return torch.where(by["autocontrast"] != 0, (x - low) / (high - low).clamp(min=1 / 255), x)


def draw_boxes(area_B: Tensor, aspect_B: Tensor, size: tuple[int, int] | torch.Size, generator: Generator) -> Tensor:
    """A box of an area (share of the image) and aspect (width by height) anywhere inside: bool `[B, H, W]`."""
    height, width = size
    box_h_B = ((area_B / aspect_B).sqrt() * height).round().clamp(max=height)
    box_w_B = ((area_B * aspect_B).sqrt() * width).round().clamp(max=width)
    top_B = (uniform(len(area_B), 0, 1, generator) * (height - box_h_B + 1)).floor()
    left_B = (uniform(len(area_B), 0, 1, generator) * (width - box_w_B + 1)).floor()
    y_H, x_W = torch.arange(height, device=area_B.device), torch.arange(width, device=area_B.device)
    rows_BH = (y_H >= top_B[:, None]) & (y_H < (top_B + box_h_B)[:, None])
    columns_BW = (x_W >= left_B[:, None]) & (x_W < (left_B + box_w_B)[:, None])
    return rows_BH[:, :, None] & columns_BW[:, None, :]


def mix(pixels_BCHW: Tensor, generator: Generator, *, mixup: float, cutmix: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), drawn per image where both are on.

    Args:
        pixels_BCHW: Images.
        generator: Source of randomness.
        mixup: Alpha of its Beta distribution; 0 is off.
        cutmix: Likewise.

    Returns:
        Mixed images; for each the index of its partner in the batch, and its own share of the mixture, both `[B]`.
    """
    batch, device = len(pixels_BCHW), pixels_BCHW.device
    partner_B = torch.randperm(batch, generator=generator, device=device)
    other_BCHW = pixels_BCHW[partner_B]
    cut_B = uniform(batch, 0, 1, generator) < (0.5 if mixup and cutmix else float(cutmix > 0))
    alpha_B2 = torch.where(cut_B, cutmix or 1.0, mixup or 1.0)[:, None].expand(-1, 2).contiguous()
    share_B = torch._sample_dirichlet(alpha_B2, generator)[:, 0]  # a Beta that takes a generator
    box_BHW = draw_boxes(1 - share_B, torch.ones_like(share_B), pixels_BCHW.shape[-2:], generator)
    box_BHW = box_BHW & cut_B[:, None, None]
    share_B = torch.where(cut_B, 1 - box_BHW.float().mean(dim=(1, 2)), share_B)
    weight_BHW = torch.where(cut_B[:, None, None], (~box_BHW).float(), share_B[:, None, None])
    return torch.lerp(other_BCHW, pixels_BCHW, weight_BHW[:, None]), partner_B, share_B


def _matrix(*entries: Tensor | float) -> Tensor:
    """`[B, 2, 3]` from six numbers, each a tensor `[B]` or the same for all."""
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    parts = [entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for entry in entries]
    return torch.stack(parts, dim=1).reshape(-1, 2, 3)


def _square(matrix_B23: Tensor) -> Tensor:
    """`[B, 3, 3]`, with the last row of an affine map."""
    last = torch.tensor([0.0, 0.0, 1.0], device=matrix_B23.device).expand(len(matrix_B23), 1, 3)
    return torch.cat([matrix_B23, last], dim=1)
