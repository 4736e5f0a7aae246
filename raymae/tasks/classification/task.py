"""Classification of images: Tiny ImageNet, or any folder per class.

Shape suffixes: B batch, C channels, H and W pixels, N tokens, P values in a token, K classes.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymae.data.find.corpora import located_corpora
from raymae.data.find.locate import located
from raymae.data.groups import counted
from raymae.data.subsets import labelled_by_class
from raymae.errors import TrialError
from raymae.models.mae import MaskedAutoencoder
from raymae.models.tokens import TokenGrid
from raymae.spec.read import Tree
from raymae.spec.space import Scalar
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.augment import Augmentation
from raymae.tasks.base import Batch, Loss, Metrics, Model, Task, Units, UnitScores, split_of
from raymae.tasks.classification.corpus import Corpus, Wanted, read_corpus
from raymae.tasks.classification.images import ImageSource, read_labelled
from raymae.tasks.classification.prediction import ClassificationPredictor, classifier, grid_of
from raymae.tasks.classification.schema import SCHEMA
from raymae.tasks.colours import to_rgb
from raymae.tasks.pictures import captioned, grid, told
from raymae.tasks.pretraining import PatchPretraining
from raymae.tasks.transformer import autoencoder, encoder

NUM_PICTURED = 8


class Classification(Task):
    """Tiny ImageNet, or any folder per class."""

    schema = SCHEMA
    eval_batch = 256
    predictor = ClassificationPredictor

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        p = self.params
        self.data = read_labelled(
            config.data.name, located(config.data), p.image_size, p.num_classes, p.per_class, p.group, device)
        if self.arm.kind != "reference":
            self.grid = grid_of(p)

    # -- data ----------------------------------------------------------------------------------------------------------

    @classmethod
    def validate(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """Read and split as a trial would; decodes every image if no process has yet."""
        p: Any = cls.schema.params.model_validate(dict(params))
        images = read_labelled(
            data.name, located(data), p.image_size, p.num_classes, p.per_class, p.group, torch.device("cpu"))
        counts = " / ".join(f"{len(rows):,} {split}" for split, rows in images.rows.items())
        line = f"{images.num_classes} classes; {counts} images at {p.image_size} x {p.image_size}"
        groups = counted({split: images.units(rows).groups for split, rows in images.rows.items()})
        return "; ".join(filter(None, (line, groups, images.note)))

    @classmethod
    def pretrains_on(cls, data: TrialData, params: Mapping[str, Scalar]) -> str:
        """How many images pretraining sees beside those of training, and what of them is left out."""
        corpus = _corpus_of(data, cls.schema.params.model_validate(dict(params)), torch.device("cpu"))
        return "" if corpus is None else corpus.note

    @classmethod
    def image_grid(cls, params: Mapping[str, Scalar]) -> TokenGrid:
        """A plain vision transformer sees whole images."""
        return TokenGrid((int(params["image_size"] or 0),) * 2, (int(params["patch_size"] or 0),) * 2, 3)

    def load(self, split: str) -> ImageSource:
        """Images of a split."""
        p = self.params
        if split in ("pretrain", "pretext"):
            augmentation = Augmentation(crop=p.pretrain_crop, flip=p.flip)
            corpus = self._corpus() if split == "pretrain" else None
            if corpus is not None:
                return ImageSource(corpus, np.arange(len(corpus)), augmentation)
            return ImageSource(self.data, self._rows(split), augmentation, labels=False)
        augmentation = Augmentation(crop=p.crop, flip=p.flip, rand_augment=p.rand_augment, erasing=p.random_erasing)
        return ImageSource(self.data, self._rows(split), augmentation, mixup=p.mixup, cutmix=p.cutmix)

    def _corpus(self) -> Corpus | None:
        """What pretraining sees; None where that is the training split."""
        return _corpus_of(self.config.data, self.params, self.device)

    def _rows(self, split: str) -> np.ndarray:
        rows = self.data.rows[split_of(split)]
        fraction = getattr(self.params, "label_fraction", 1.0)
        if split == "train" and fraction < 1:
            labels_N, groups = self.data.labels_N[rows].cpu().numpy(), self.data.units(rows).groups
            return rows[labelled_by_class(labels_N, fraction, self.config.seed, groups)]
        return rows

    def units(self, split: str) -> Units:
        """Images by the path of their file, and the patient or place, where known."""
        corpus = self._corpus() if split == "pretrain" else None
        return self.data.units(self._rows(split)) if corpus is None else corpus.units

    # -- networks ------------------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """Images in, a score per class out."""
        if self.arm.kind == "reference":
            return nn.Identity()
        return self._compiled(classifier(self.params, self.data.num_classes))

    def pretraining(self) -> PatchPretraining | None:
        """Hidden patches of training images are reconstructed."""
        if self.arm.kind != "pretrained":
            return None
        return PatchPretraining(self._autoencoder, self.grid, self.params.mask_ratio)

    def _autoencoder(self) -> MaskedAutoencoder:
        """Reconstructs pixels."""
        p = self.params
        return self._compiled(autoencoder(p, encoder(p, self.grid, drop_path=p.pretrain_drop_path), self.grid))

    def kept_state(self, model: nn.Module) -> Tree:
        """Names of classes, and the size that images are decoded to before they are resized."""
        return {"classes": list(self.data.classes), "decoded_size": self.data.decoded_size}

    def _compiled(self, model: Model) -> Model:
        """Raises TrialError where this machine lacks what torch.compile needs."""
        if not self.params.compile:
            return model
        compilers = (os.environ.get("CC"), shutil.which("cc"), shutil.which("gcc"))
        here = {"a C compiler (cc, gcc or $CC)": any(compilers),
                "Triton (pip install triton)": self.device.type != "cuda" or find_spec("triton") is not None}
        if lacking := [what for what, found in here.items() if not found]:
            raise TrialError(f"compile=true needs {' and '.join(lacking)}, not found on {platform.node()} (the images "
                             "come without); install it there, or leave compile at false")
        model.compile()
        return model

    # -- losses --------------------------------------------------------------------------------------------------------

    def finetune_loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Cross entropy; that of a mixed image is the mixture of its two labels'."""
        scores_BK = model(self.grid.patchify(batch["image"])).float()

        def entropy(label_B: Tensor) -> Tensor:
            return F.cross_entropy(scores_BK, label_B, label_smoothing=self.params.label_smoothing, reduction="none")

        loss_B = entropy(batch["label"])
        if "partner" in batch:
            loss_B = torch.lerp(entropy(batch["partner"]), loss_B, batch["share"])
        return Loss(loss_B.mean(), len(loss_B))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Scores `[B, K]`: unnormalised log probabilities."""
        if self.arm.kind == "reference":
            labels_N = self.data.labels_N[self.data.rows["train"]]
            counts_K = torch.bincount(labels_N, minlength=self.data.num_classes) + 1.0
            return counts_K.log().expand(len(batch["image"]), -1)
        return model(self.grid.patchify(batch["image"])).float()

    def metrics(self) -> ClassificationMetrics:
        """top1, top5 and mean cross entropy."""
        return ClassificationMetrics()

    @torch.no_grad()
    def pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> dict[str, np.ndarray]:
        """`reconstruction`: validation images in columns; original, masked, and hidden patches filled in below.
        `prediction`: test images with their true and their predicted class."""
        # `load` is for scoring, and the test split is scored once
        source = ImageSource(self.data, self._rows("val" if phase == "pretrain" else "test"), Augmentation())
        batch = source.batch(torch.linspace(0, len(source) - 1, min(NUM_PICTURED, len(source))).long(), None)
        if phase == "test":
            truths, predictions = ([self.data.classes[index] for index in label_B.tolist()]
                                   for label_B in (batch["label"], self.predict(model, batch).argmax(dim=1)))
            return {"prediction": told(to_rgb(batch["image"]), truths, predictions)}
        pretraining = self.pretraining()
        assert pretraining is not None
        assert isinstance(model, MaskedAutoencoder)
        rows = [list(to_rgb(part)) for part in pretraining.reconstruct(model, batch)]  # 0 is the mean colour
        return {"reconstruction": captioned(grid(rows, gap=2, edge=1), rows=("original", "masked", "reconstruction"))}


def _corpus_of(data: TrialData, p: Any, device: torch.device) -> Corpus | None:
    more = p.pretrain_classes is not None and p.num_classes
    if not more and not data.pretraining.data:
        return None
    wanted = Wanted(p.image_size, p.num_classes, p.per_class, p.group, p.pretrain_classes, data.pretraining.own,
                    located_corpora(data))
    return read_corpus(data.name, located(data), wanted, device)


class ClassificationMetrics(Metrics):
    """How often the label is first and among the first five, summed cross entropy, and the number of images."""

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Add scores `[B, K]`; of equal scores the lower class comes first."""
        scores_BK, rank_B = prediction.double(), _rank(prediction, batch)
        own_B1 = scores_BK.gather(1, batch["label"][:, None])
        hits = [_within(rank_B, first).sum() for first in (1, 5)]
        nll = -(own_B1.squeeze(1) - scores_BK.logsumexp(dim=1)).sum()
        count = torch.tensor(float(len(rank_B)), dtype=torch.float64, device=rank_B.device)
        self.totals += torch.stack([*hits, nll, count]).cpu()

    def unit_scores(self, prediction: Tensor, batch: Batch) -> UnitScores:
        """1 for each image whose label is first, else 0."""
        return UnitScores.plain(_within(_rank(prediction, batch), 1))

    def compute(self) -> dict[str, float]:
        """Shares of images, and nats per image."""
        first, fifth, nll, count = self.totals.tolist()
        return {"top1": first / count, "top5": fifth / count, "nll": nll / count}


def _rank(prediction: Tensor, batch: Batch) -> Tensor:
    """Number of classes before the label, float64 `[B]`; NaN for a broken network, which is never right."""
    label_B1, scores_BK = batch["label"][:, None], prediction.double()
    own_B1 = scores_BK.gather(1, label_B1)
    earlier_BK = torch.arange(scores_BK.shape[1], device=scores_BK.device) < label_B1
    rank_B = ((scores_BK > own_B1) | ((scores_BK == own_B1) & earlier_BK)).sum(dim=1)
    return torch.where(scores_BK.isnan().any(dim=1), math.nan, rank_B.double())


def _within(rank_B: Tensor, first: int) -> Tensor:
    """1 where the label is among the first so many."""
    return torch.where(rank_B.isnan(), math.nan, (rank_B < first).double())
