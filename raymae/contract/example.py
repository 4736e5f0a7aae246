"""How fast does a noisy wave swing? A task with masked pretraining, written by `raymae task new`: make it yours.

Shape suffixes: N all waves, B batch, S steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from raymae.data.find.locate import Located
from raymae.data.subsets import labelled
from raymae.models.heads import PooledHead
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid
from raymae.spec.task import Arm, Objective, TaskSchema, TrainingParams, param
from raymae.tasks import base
from raymae.tasks.pretraining import PatchPretraining

GRID = TokenGrid(size=(32,), patch_size=(4,), in_channels=1)  # 32 steps of one channel are 8 tokens
ROWS = {"pretrain": range(192), "train": range(192), "pretext": range(192, 256), "val": range(192, 256),
        "test": range(256, 320)}
PER_RECORDING = 4  # waves of a recording have one speed, so a recording is in one split

draw = Generator().manual_seed(0)
SPEED_N = torch.rand(80, generator=draw).repeat_interleave(PER_RECORDING)
START_N1 = 6.3 * torch.rand(320, 1, generator=draw)
WAVE_NS = torch.sin(START_N1 + (0.2 + SPEED_N[:, None]) * torch.arange(32)) + 0.3 * torch.randn(320, 32, generator=draw)


class Params(TrainingParams):
    """What a sweep file may set or search; epochs, lr, batch_size and more are inherited."""

    mask_ratio: float = param(
        0.5, "share of tokens hidden while pretraining", kinds=("pretrained",), phase="pretrain", gt=0, lt=1
    )
    encoder_dim: int = param(32, "width of the encoder", kinds=("pretrained", "trained"), ge=8, multiple_of=2)


class Split:
    """One split, as batches; `generator` is for augmentation, and None where a split is scored."""

    def __init__(self, rows: list[int], labels: bool) -> None:
        self.rows_N, self.labels = torch.tensor(rows), labels

    def __len__(self) -> int:
        return len(self.rows_N)

    def batch(self, index_B: Tensor, generator: Generator | None) -> base.Batch:
        rows_B = self.rows_N[index_B]
        return {"image": WAVE_NS[rows_B, None], **({"speed": SPEED_N[rows_B]} if self.labels else {})}


class SquaredError(base.Metrics):
    """Sums and counts; divided at the end."""

    def update(self, prediction: Tensor, batch: base.Batch) -> None:
        error_B = prediction.double() - batch["speed"]
        self.totals += torch.stack([error_B.square().sum(), torch.tensor(len(error_B), dtype=torch.float64)])

    def unit_scores(self, prediction: Tensor, batch: base.Batch) -> base.UnitScores:
        return base.UnitScores.plain((prediction.double() - batch["speed"]).square())

    def compute(self) -> dict[str, float]:
        return {"mse": float(self.totals[0] / self.totals[1])}


class Example(base.Task):
    """The speed of waves."""

    schema = TaskSchema(
        name="example:Example", params=Params,
        arms={"mae": Arm("pretrained", "transformer, masked pretraining on all waves, then fine-tuning"),
              "scratch": Arm("trained", "the same transformer, from random weights"),
              "mean": Arm("reference", "the mean speed in training")},
        sizes={"debug": {"epochs": 3, "pretrain_epochs": 2, "batch_size": 32, "pretrain_batch_size": 32}},
        objective=Objective("mse", "min", "squared radians per step"), metrics=("mse",), primary=("mae", "scratch"),
    )

    @classmethod
    def locate(cls, data: Any) -> Located:  # leave it out to have `data.path` looked for
        return Located(data.name, None, "synthetic", "none")

    @classmethod
    def validate(cls, data: Any, params: Any) -> str:
        return "192 train / 64 val / 64 test waves; 48 train / 16 val / 16 test recordings"

    def rows(self, split: str) -> list[int]:
        rows = list(ROWS[split])
        if split == "train" and self.arm.kind != "reference":
            groups = [str(row // PER_RECORDING) for row in rows]
            return labelled(len(rows), self.params.label_fraction, self.config.seed, groups=groups).tolist()
        return rows

    def load(self, split: str) -> Split:
        return Split(self.rows(split), labels=split not in ("pretrain", "pretext"))

    def units(self, split: str) -> base.Units:
        rows = self.rows(split)
        return base.Units(tuple(f"wave {row}" for row in rows), tuple(f"rec {row // PER_RECORDING}" for row in rows))

    def encoder(self) -> Encoder:
        return Encoder(PatchEmbedding(GRID.token_dim, GRID.shape, self.params.encoder_dim), depth=2, heads=2)

    def autoencoder(self) -> MaskedAutoencoder:
        return MaskedAutoencoder(self.encoder(), GRID.shape, decoder_dim=16, decoder_depth=1, decoder_heads=2)

    def pretraining(self) -> PatchPretraining | None:
        if self.arm.kind != "pretrained":
            return None
        return PatchPretraining(self.autoencoder, GRID, self.params.mask_ratio)

    def build(self) -> nn.Module:
        return nn.Identity() if self.arm.kind == "reference" else PooledHead(self.encoder(), 1)

    def predict(self, model: nn.Module, batch: base.Batch) -> Tensor:
        if self.arm.kind == "reference":
            return SPEED_N[ROWS["train"]].mean().expand(len(batch["image"]))
        return model(GRID.patchify(batch["image"]))[:, 0]

    def finetune_loss(self, model: nn.Module, batch: base.Batch) -> base.Loss:
        return base.Loss((self.predict(model, batch) - batch["speed"]).square().mean(), len(batch["speed"]))

    def metrics(self) -> SquaredError:
        return SquaredError(2)
