"""A class for every pixel of images that no sweep has seen.

Shape suffixes: C colours, H and X rows and columns, S edge of a crop, K classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.inputs import files_of
from raymae.data.pixels import as_rgb, decoding, is_picture
from raymae.data.scenes import fitted_scene, read_scene
from raymae.errors import DataError
from raymae.models.tokens import TokenGrid
from raymae.models.upernet import UperNet
from raymae.spec.task import Arm
from raymae.tasks.answers import require_folder, write_table, write_whole
from raymae.tasks.colours import standardise
from raymae.tasks.pictures import palette
from raymae.tasks.predictor import Item, Predictor
from raymae.tasks.segmentation.crops import crops_of, sliding_window
from raymae.tasks.segmentation.schema import ARMS, SCHEMA
from raymae.tasks.transformer import encoder

SHOWN = 0.5  # how much of an overlay is the mask


def grid_of(p: Any, edge: int = 0) -> TokenGrid:
    """How crops are cut into tokens; of that edge, where it is another."""
    return TokenGrid((edge or p.crop_size,) * 2, (p.patch_size,) * 2, 3)


def pretrain_grid_of(arm: Arm, p: Any) -> TokenGrid:
    """How the crops that the encoder is pretrained on are cut into tokens."""
    return grid_of(p, p.pretrain_crop if arm.kind == "pretrained" else 0)


def segmenter(arm: Arm, p: Any, num_classes: int) -> UperNet:
    """The network that is fine-tuned, freshly initialised; see `Segmentation.build`."""
    grid = grid_of(p)
    return UperNet(encoder(p, grid, like=pretrain_grid_of(arm, p), drop_path=p.drop_path), grid, num_classes,
                   width=p.upernet_dim)


def logits_of(model: nn.Module, image_CHX: Tensor, p: Any) -> Tensor:
    """Logits of a whole image `[K, H, X]`, from overlapping windows."""
    return sliding_window(lambda crops: model(crops)[0], image_CHX, p.crop_size, overlap=p.overlap)


class Scene(NamedTuple):
    """An image on the networks' scale and in their size `[C, H, X]`, and as it was given, uint8 `[H, X, C]`."""

    image: Tensor
    given: np.ndarray


class SegmentationPredictor(Predictor):
    """Images in, masks and overlays of their own size out."""

    schema = SCHEMA

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.classes = tuple(map(str, self.state["classes"]))

    def build(self) -> nn.Module:
        """The network."""
        return segmenter(ARMS[self.config.method], self.params, len(self.classes))

    def items(self, source: Path) -> Iterator[Item]:
        """An image, or those of a folder."""
        for name, path in files_of(source, is_picture, "images (.jpg, .png, …)"):
            yield Item(name, partial(read_scene, path))

    def prepare(self, inputs: Any, **options: bool) -> Scene:
        """An image in the size of training.

        Args:
            inputs: A path, or what Pillow has opened, or uint8 `[H, X, 3]`.
            **options: None are known.
        """
        given = self._given(inputs)
        image_CHX = torch.from_numpy(fitted_scene(given, self.params.image_size).copy()).to(self.device)
        return Scene(standardise(image_CHX.permute(2, 0, 1) / 255), given)

    def _given(self, inputs: Any) -> np.ndarray:
        if isinstance(inputs, (str, Path)):
            return read_scene(Path(inputs))
        if not isinstance(inputs, np.ndarray):
            with decoding("the image cannot be decoded"):
                return np.asarray(as_rgb(inputs))
        if inputs.dtype != np.uint8 or inputs.ndim != 3 or inputs.shape[2] != 3 or 0 in inputs.shape:
            raise DataError(f"an image must be uint8 with shape (rows, columns, 3), got {inputs.dtype} with shape "
                            f"{inputs.shape}")
        return inputs

    @torch.no_grad()
    def scores(self, model: nn.Module, prepared: Scene) -> np.ndarray:
        """Probabilities of classes in the size of training, float32 `[K, H, X]`."""
        return logits_of(model, prepared.image, self.params).softmax(dim=0).cpu().numpy()

    @torch.no_grad()
    def encode(self, model: nn.Module, prepared: Scene) -> np.ndarray:
        """The mean of all windows' tokens, `[1, D]`."""
        p, of = self.params, model.get_submodule("encoder")
        crops = crops_of(prepared.image, p.crop_size, p.overlap)
        parts = [of(grid_of(p).patchify(part)).mean(dim=1) for part in crops.split(16)]
        return torch.cat(parts).mean(dim=0, keepdim=True).float().cpu().numpy()

    def answer(self, scores: np.ndarray, prepared: Scene) -> np.ndarray:
        """The index of every pixel's class in the size of the input, uint8 `[H, X]`."""
        best_HX = torch.from_numpy(scores.argmax(axis=0)).float()
        full_HX = F.interpolate(best_HX[None, None], prepared.given.shape[:2], mode="nearest-exact")[0, 0]
        return full_HX.byte().numpy()

    def writer(self, to: Path, source: Path) -> MaskFolder:
        """A folder of masks, overlays and a table of classes."""
        return MaskFolder(to, self.classes, int(self.params.first_label))


class MaskFolder:
    """Indexed PNGs in `masks/`, as label maps are read, and in `overlays/` the images with them laid over.

    `classes.csv` says which number is which class, and its colour.

    Args:
        to: The folder.
        classes: Names.
        first: The number of the first class, if all fit into a byte then; else 0.
    """

    def __init__(self, to: Path, classes: tuple[str, ...], first: int) -> None:
        require_folder(to)
        self.to, self.classes = to, classes
        self.first = first if first + len(classes) <= 256 else 0
        self.names: set[str] = set()
        self.colours = palette(len(classes))

    def add(self, item: Item, inputs: Any, answer: np.ndarray) -> list[Path]:
        """Write a mask and an overlay."""
        from PIL import Image

        name = Path(item.name).with_suffix("").as_posix()
        if name in self.names:  # a.jpg beside a.png
            name = item.name
        self.names.add(name)
        mask = Image.fromarray(answer + np.uint8(self.first))
        mask.putpalette(np.roll(self.colours, self.first, axis=0).tobytes())
        shown = Image.blend(Image.fromarray(inputs), Image.fromarray(self.colours[answer]), SHOWN)
        return [write_whole(self.to / "masks" / f"{name}.png", lambda path: mask.save(path, optimize=True)),
                write_whole(self.to / "overlays" / f"{name}.jpg", lambda path: shown.save(path, quality=90))]

    def close(self) -> list[Path]:
        """Write which number is which class."""
        if not self.names:
            return []
        import pandas as pd

        numbers = range(self.first, self.first + len(self.classes))
        colours = [f"#{bytes(colour).hex()}" for colour in self.colours[:len(self.classes)]]
        table = pd.DataFrame({"number": numbers, "class": self.classes, "colour": colours})
        return [write_table(table, self.to / "classes.csv")]
