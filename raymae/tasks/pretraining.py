"""Masked pretraining on the patches of images, scenes and volumes.

Shape suffixes: B batch, C channels, S spatial axes of a whole image, N tokens, P values in a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from raymae.models.interpolation import fill_image
from raymae.models.mae import MaskedAutoencoder
from raymae.models.masking import num_visible, random_mask
from raymae.models.tokens import TokenGrid
from raymae.tasks.base import Batch, Hidden, Loss, Pretraining


class Reconstruction(NamedTuple):
    """Images `[B, C, *grid.size]` as they are, with hidden patches blanked out, and with them filled in."""

    original: Tensor
    masked: Tensor
    rebuilt: Tensor


def hidden_errors(predicted_BNT: Tensor, trivial_BNT: Tensor, target_BNT: Tensor, counted_BNT: Tensor) -> Hidden:
    """Sum the squared errors of two reconstructions over the values that count.

    Args:
        predicted_BNT: The network's.
        trivial_BNT: What took no learning.
        target_BNT: What is there.
        counted_BNT: What was hidden and is known.
    """
    model, trivial = ((made_BNT.double() - target_BNT.double()).square().where(counted_BNT, 0.0).sum()
                      for made_BNT in (predicted_BNT, trivial_BNT))
    return Hidden(model, trivial, counted_BNT.sum())


class PatchPretraining(Pretraining[MaskedAutoencoder]):
    """Any patches of a batch's `image` are hidden, and their values predicted.

    Args:
        make: Makes the masked autoencoder.
        grid: Cuts what the network sees into tokens.
        mask_ratio: Share of tokens hidden.
        to_input: Makes what the network sees of images; they are seen as they are by default.
        image_grid: Cuts the images themselves into the same tokens; `grid` by default.
    """

    def __init__(
        self, make: Callable[[], MaskedAutoencoder], grid: TokenGrid, mask_ratio: float, *,
        to_input: Callable[[Tensor], Tensor] | None = None, image_grid: TokenGrid | None = None,
    ) -> None:
        self.make, self.grid, self.mask_ratio = make, grid, mask_ratio
        self.to_input, self.image_grid = to_input, image_grid or grid

    def build(self) -> MaskedAutoencoder:
        """Reconstructs hidden patches."""
        return self.make()

    def tokens(self, batch: Batch) -> Tensor:
        """What the network sees: `[B, N, P]`."""
        image_BCS = batch["image"]
        return self.grid.patchify(image_BCS if self.to_input is None else self.to_input(image_BCS))

    def draw_mask(self, batch: Batch, generator: Generator) -> Tensor:
        """Hide the same number of tokens in every image, uniformly at random."""
        return random_mask(len(batch["image"]), self.grid.num_tokens, self.mask_ratio, generator)

    def loss(self, model: MaskedAutoencoder, batch: Batch, mask: Tensor) -> Loss:
        """Squared error on hidden patches."""
        mean = model.loss(self.tokens(batch), mask, num_visible=num_visible(mask.shape[1], self.mask_ratio))
        return Loss(mean, mask.sum())

    def corrupt(self, batch: Batch, mask: Tensor, generator: Generator) -> Batch:
        """Put other values into hidden patches."""
        tokens_BNP = self.image_grid.patchify(batch["image"])
        noise_BNP = torch.randn(tokens_BNP.shape, generator=generator, device=mask.device)
        return {**batch, "image": self.image_grid.unpatchify(torch.where(mask[..., None], noise_BNP, tokens_BNP))}

    def encode_visible(self, model: MaskedAutoencoder, batch: Batch, mask: Tensor) -> Tensor:
        """Encode the visible patches: `[B, V, D]`."""
        return model.encoder.visible(self.tokens(batch), mask).features_BVD

    def errors(self, model: MaskedAutoencoder, batch: Batch, generator: Generator) -> Hidden:
        """Squared errors of hidden pixels, beside those of visible ones spread smoothly over what is hidden."""
        tokens_BNP, mask_BN = self.tokens(batch), self.draw_mask(batch, generator)
        predicted_BNP = model(tokens_BNP, mask_BN)
        seen_BNP = ~mask_BN[..., None].expand_as(tokens_BNP)
        seen_BCS = self.grid.unpatchify(seen_BNP)
        trivial_BNP = self.grid.patchify(fill_image(self.grid.unpatchify(tokens_BNP), seen_BCS[:, :1]))
        if model.norm_target:
            _, deviation_BN1 = model.statistics(tokens_BNP)
            deviation_B1S = deviation_BN1.transpose(1, 2).unflatten(2, self.grid.shape)
            guessed_B1S = fill_image(deviation_B1S, ~mask_BN.unflatten(1, self.grid.shape)[:, None])
            guessed_BN1 = guessed_B1S.flatten(2).transpose(1, 2)
            predicted_BNP = predicted_BNP * guessed_BN1 + trivial_BNP.mean(dim=-1, keepdim=True)
        return hidden_errors(predicted_BNP, trivial_BNP, tokens_BNP, ~seen_BNP)

    @torch.no_grad()
    def reconstruct(self, model: MaskedAutoencoder, batch: Batch, *, blank: float | None = 0.0) -> Reconstruction:
        """Fill in a batch's hidden patches, always the same ones, for a picture.

        Args:
            model: The pretrained autoencoder.
            batch: Images.
            blank: Value of a hidden patch where it is not filled in; None for the images' mean.
        """
        tokens_BNP = self.tokens(batch)
        mask_BN = self.draw_mask(batch, Generator(tokens_BNP.device).manual_seed(0))
        masked_BNP = tokens_BNP.masked_fill(mask_BN[..., None], float(tokens_BNP.mean()) if blank is None else blank)
        shown = (tokens_BNP, masked_BNP, model.reconstruct(tokens_BNP, mask_BN))
        return Reconstruction(*map(self.grid.unpatchify, shown))
