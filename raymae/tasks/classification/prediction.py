"""Classes of images that no sweep has seen.

Shape suffixes: B batch, C colours, H and W pixels, K classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raymae.data.images import decoded
from raymae.data.inputs import bytes_of, files_of
from raymae.data.pixels import as_rgb, decoding, is_picture
from raymae.errors import DataError
from raymae.models.heads import PooledHead
from raymae.models.tokens import TokenGrid
from raymae.tasks.answers import TableWriter
from raymae.tasks.classification.images import resized
from raymae.tasks.classification.schema import SCHEMA
from raymae.tasks.colours import standardise
from raymae.tasks.predictor import Item, Predictor
from raymae.tasks.transformer import encoder


def grid_of(p: Any) -> TokenGrid:
    """How images are cut into tokens."""
    return TokenGrid((p.image_size,) * 2, (p.patch_size,) * 2, 3)


def classifier(p: Any, num_classes: int) -> PooledHead:
    """The network that is fine-tuned, freshly initialised: tokens in, a score per class out."""
    return PooledHead(encoder(p, grid_of(p), drop_path=p.drop_path), num_classes)


class ClassificationPredictor(Predictor):
    """Images in, a table with the class and all classes' probabilities of each out."""

    schema = SCHEMA

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.classes = tuple(map(str, self.state["classes"]))
        self.grid = grid_of(self.params)

    def build(self) -> nn.Module:
        """The network, not compiled."""
        return classifier(self.params, len(self.classes))

    def items(self, source: Path) -> Iterator[Item]:
        """An image, or those of a folder."""
        for name, path in files_of(source, is_picture, "images (.jpg, .png, …)"):
            yield Item(name, partial(self.read, path))

    def read(self, path: Path) -> np.ndarray:
        """An image as training has it before it is augmented: uint8 `[H, W, 3]`."""
        return self._fitted(decoded(bytes_of(path), str(path), int(self.state["decoded_size"])))

    def _fitted(self, image_HWC: np.ndarray) -> np.ndarray:
        return resized(image_HWC[None].copy(), self.params.image_size)[0]

    def prepare(self, inputs: Any, **options: bool) -> Tensor:
        """Images on the networks' scale `[B, C, H, W]`.

        Args:
            inputs: An image or a sequence of images: each a path, or what Pillow has opened, or uint8 `[H, W, 3]` of
                any size.
            **options: None are known.
        """
        some = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if not some:
            raise DataError("no image is given; name at least one")
        images_BHWC = np.stack([self._image(one) for one in some])
        return standardise(torch.from_numpy(images_BHWC).to(self.device).permute(0, 3, 1, 2).float() / 255)

    def _image(self, one: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        if isinstance(one, (str, Path)):
            return self.read(Path(one))
        size = self.params.image_size
        if isinstance(one, np.ndarray):
            if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3:
                raise DataError("an image must be uint8 with shape (rows, columns, 3), got "
                                f"{one.dtype} with shape {one.shape}")
            if one.shape[:2] == (size, size):
                return one
            one = Image.fromarray(one)
        edge = int(self.state["decoded_size"])
        with decoding("the image cannot be decoded"):
            return self._fitted(np.asarray(ImageOps.fit(as_rgb(one), (edge, edge), Image.Resampling.BICUBIC)))

    @torch.no_grad()
    def scores(self, model: nn.Module, prepared: Tensor) -> np.ndarray:
        """Probabilities of classes, float64 `[B, K]`."""
        return model(self.grid.patchify(prepared)).double().softmax(dim=1).cpu().numpy()

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: Tensor) -> np.ndarray:
        """The mean of an image's tokens, `[B, D]`."""
        tokens_BND = model.get_submodule("encoder")(self.grid.patchify(prepared))
        return tokens_BND.mean(dim=1).float().cpu().numpy()

    def answer(self, scores: np.ndarray, prepared: Tensor) -> Any:
        """A pandas frame with a row for each image: `class`, its `probability`, and `p_<class>` of every class."""
        import pandas as pd

        best_B = scores.argmax(axis=1)
        columns = {"class": [self.classes[index] for index in best_B], "probability": scores.max(axis=1)}
        return pd.DataFrame(columns | {f"p_{name}": scores[:, index] for index, name in enumerate(self.classes)})

    def writer(self, to: Path, source: Path) -> TableWriter:
        """One table, with the file of each row in front."""
        return TableWriter(to, named=True)
