"""Forecasting with mishaps, for tests of what the engine does about them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raymae.spec.task import param
from raymae.tasks.base import Loss
from raymae.tasks.forecasting.schema import SCHEMA, ForecastingParams
from raymae.tasks.forecasting.task import Forecasting

SLOW_S = 0.1  # of a batch
LATE = 70  # the batch at which a trial dies
LONG = """
name: small
task: tests.search.odd_task:Odd
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
settings: {scene: SCENE, mishap: MISHAP}
arms: [scratch]
space: {lr: {choice: [0.002]}}
search: {algorithm: grid, num_trials: 1, scheduler: none}
training: {epochs: 2, label_fraction: 0.1, batch_size: 16}
replicates: 0
resources: {checkpoint_minutes: 0.001}
"""


class OddParams(ForecastingParams):
    """One more parameter."""

    mishap: Literal["none", "hang", "raise", "die", "die-once", "unreadable", "greedy", "untidy", "slow",
                    "slow-die"] = param(
        "none", "what goes wrong: data that cannot be read, something in the second epoch, batches that take their time"
    )
    scene: str = param("", "a file that remembers who has died")


class Odd(Forecasting):
    """Goes wrong in the second epoch of fine-tuning."""

    schema = replace(SCHEMA, name="odd", params=OddParams)
    calls = 0

    def load(self, split: str) -> Any:
        if self.params.mishap == "unreadable" and split == "train":
            raise OSError(5, "Input/output error", "ETTh1.csv")
        return super().load(split)

    def finetune_loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Loss:
        self.calls += 1
        if self.params.mishap.startswith("slow") and self.config.stage == "search":
            self._take_time()
        soon = self.params.mishap in ("die", "greedy")  # in the first epoch: no checkpoint helps
        if self.calls > (5 if soon else 40) and self.config.stage == "search":
            self._go_wrong()
        return super().finetune_loss(model, batch)

    def _take_time(self) -> None:
        """Tell which process trains a batch, and die once, late in the first epoch."""
        time.sleep(SLOW_S)
        with open(f"{self.params.scene}.batches", "a") as file:
            print(os.getpid(), file=file)
        if self.params.mishap == "slow-die" and self.calls == LATE and not os.path.exists(self.params.scene):
            open(self.params.scene, "w").close()
            os._exit(1)

    def _go_wrong(self) -> Any:
        match self.params.mishap:
            case "hang":
                time.sleep(1000)
            case "raise":
                raise RuntimeError("boom")
            case "die":
                os._exit(1)
            case "untidy":
                torch.set_num_threads(3)
                torch.set_default_dtype(torch.float64)
                torch.backends.cudnn.benchmark = True
                torch.backends.cudnn.allow_tf32 = False
                torch.autograd.set_detect_anomaly(True, check_nan=False)
            case "greedy":
                hoard = []
                while True:  # a GB a second, until somebody intervenes
                    hoard.append(torch.ones(2**26))
                    time.sleep(0.25)
            case "die-once" if not os.path.exists(self.params.scene):
                open(self.params.scene, "w").close()
                os._exit(1)
