"""The only training loop: pretrain → fine-tune → evaluate, as a generator of reports.

`run_trial` knows torch and, where there are several ranks, `torch.distributed`. It knows nothing of Ray: the same
generator runs in a plain process with a debugger, in one Ray Train worker, or on eight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raymae.errors import TrialError
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class
from raymae.tasks.base import Source, Task
from raymae.train.checkpoint import load_checkpoint, save_checkpoint
from raymae.train.device import derive_seed, pick_device, rank_and_world, seed_all
from raymae.train.optim import betas_of, clip_gradients, cosine_lr, make_optimiser, peak_lr, set_lr, set_weight_decay

Phase = Literal["pretrain", "finetune", "test"]


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Attributes:
        phase: `pretrain`, `finetune`, or `test` (the one score of a replicate).
        epoch: Epochs done in this phase.
        step: Reports before this one.
        metrics: `loss`, `lr`, and `val_` or `test_` metrics.
        best: The `val_` metrics of the best evaluation so far; empty while pretraining.
        seconds: Wall time the trial has computed so far, resumed parts included; not what its consumer took.
        num_parameters: Values of the phase's network; while pretraining the decoder is counted too.
        final: No report follows.
        pictures: RGB images `[H, W, 3]`, uint8, by name: of a replicate's last pretraining report and its test.
        save: Write a checkpoint from which `run_trial(resume=...)` continues after this report.
    """

    phase: Phase
    epoch: int
    step: int
    metrics: dict[str, float]
    best: dict[str, float]
    seconds: float
    num_parameters: int
    final: bool
    save: Callable[[Path], None]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)


def run_trial(
    config: TrialConfig,
    *,
    device: torch.device | None = None,
    resume: Path | None = None,
    replay_from: int | None = None,
    written_by: str | None = None,
    task: Task | None = None,
) -> Iterator[Report]:
    """Train and evaluate one trial.

    Args:
        config: Everything that determines the result.
        device: Where to compute; this process's GPU if it has one, by default.
        resume: A checkpoint written by an earlier `Report.save` of the same configuration and seed.
        replay_from: With `resume`: first yield again the reports from this step on that came before the checkpoint,
            for whoever has lost them.
        written_by: With `resume`: the configuration that wrote the checkpoint, where it is another: a member of a
            population goes on from its parent's.
        task: The task under this configuration, with data at hand; made from the configuration by default.

    Yields:
        One report after each evaluation. A `search` trial never reads the test split; a `replicate` scores it once, at
        the end, with the weights that were best on validation.

    Raises:
        TrialError: The loss is not finite, the checkpoint does not fit, or pretrained weights did not arrive.
        DataError: The data cannot be read.
    """
    trial = _Trial(config, device or pick_device(), task)
    if resume is not None:
        trial.restore(load_checkpoint(resume, config_id=written_by or config.config_id, seed=config.seed))
        if written_by is not None:
            trial.started = time.monotonic()  # its parent's time is its parent's
        if replay_from is not None:
            yield from trial.replay(replay_from)
    for report in trial.run():
        paused = time.monotonic()
        yield report
        trial.started += time.monotonic() - paused


class _Trial:
    """The state of a running trial: everything that a checkpoint holds, and the steps that change it."""

    def __init__(self, config: TrialConfig, device: torch.device, task: Task | None) -> None:
        self.config, self.device = config, device
        self.task: Task = task or task_class(config.task)(config, device)
        self._hold(0)
        self.rank, self.world = rank_and_world()
        self.started = time.monotonic()
        self.phase: Phase = "pretrain" if self.task.arm.kind == "pretrained" else "finetune"
        self.epoch = 0
        self.step = 0
        self.stale = 0
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.stopped_early = False
        self.history: list[dict[str, Any]] = []
        self._enter(self.phase)

    def _hold(self, epoch: int) -> None:
        """Let the parameters hold that a fine-tuning epoch has; pretraining has those of the first."""
        if self.config.earlier:
            self.task.params = self.task.schema.params.model_validate(self.config.params_at(epoch))
        self.params = self.task.params

    # -- phases --------------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, pretrained: nn.Module | None = None) -> None:
        """Build the phase's network and optimiser."""
        self.phase, self.epoch = phase, 0
        seed_all(derive_seed(self.config.seed, phase, "init"))
        pretraining = self.task.pretraining()
        self.model: nn.Module = pretraining.build() if pretraining and phase == "pretrain" else self.task.build()
        if pretraining and pretrained is not None:
            pretraining.transfer(pretrained, self.model)
        self.pretraining = pretraining if phase == "pretrain" else None
        self.model.to(self.device)
        self.average: AveragedModel | None = None
        if self.task.arm.kind == "reference":
            return
        self.optimiser = make_optimiser(
            self.model, lr=peak_lr(phase, self.params), weight_decay=self.params.weight_decay,
            layer_decay=self.params.layer_decay if phase == "finetune" else 1.0, betas=betas_of(phase),
        )
        if phase == "finetune" and self.params.ema_decay > 0:
            self.average = AveragedModel(
                self.model, multi_avg_fn=get_ema_multi_avg_fn(self.params.ema_decay), use_buffers=True
            )

    def run(self) -> Iterator[Report]:
        """Everything that is left to do."""
        if self.history and self.history[-1]["final"]:
            return
        if self.task.arm.kind == "reference":
            yield from self._reference()
            return
        if self.phase == "pretrain":
            yield from self._fit(self.params.pretrain_epochs)
            self._enter("finetune", pretrained=self.model)
        if self.phase == "finetune":
            yield from self._fit(self.params.epochs)
            if self.config.stage == "replicate":
                self.model.load_state_dict(self.best_weights)
                yield self._test(self.model)

    def _reference(self) -> Iterator[Report]:
        replicate = self.config.stage == "replicate"
        if not self.history:
            self.best = self._evaluate(self.model, "val")
            yield self._report(dict(self.best), final=not replicate)
        if replicate:
            yield self._test(self.model)

    def _test(self, model: nn.Module) -> Report:
        scores = self._evaluate(model, "test")
        self.phase = "test"
        return self._report(scores, final=True, pictures=self._pictures(model, "test"))

    def _fit(self, epochs: int) -> Iterator[Report]:
        source = self.task.load("pretrain" if self.phase == "pretrain" else "train")
        every = self.params.eval_every
        while self.epoch < epochs and not self.stopped_early:
            loss, lr = self._train_epoch(source, epochs)
            self.epoch += 1
            if self.epoch % every and self.epoch < epochs:
                continue
            metrics = {"loss": loss, "lr": lr}
            if self.phase == "finetune":
                metrics |= self._select()
            last = self.phase == "finetune" and (self.epoch == epochs or self.stopped_early)
            pretrained = self.phase == "pretrain" and self.epoch == epochs
            pictures = self._pictures(self.model, "pretrain") if pretrained else {}
            yield self._report(metrics, final=last and self.config.stage == "search", pictures=pictures)

    def _select(self) -> dict[str, float]:
        """Evaluate on validation; keep the weights if they are the best so far; decide on early stopping."""
        model = self.average.module if self.average is not None else self.model
        scores = self._evaluate(model, "val")
        name = self.task.schema.objective.val
        if not math.isfinite(scores[name]):
            raise TrialError(f"{name} is {scores[name]} after fine-tuning epoch {self.epoch}; lower lr "
                             f"({self.params.lr:g}) or clip_norm ({self.params.clip_norm:g})")
        if not self.best or self.task.schema.objective.better(scores[name], self.best[name]):
            self.best, self.stale = scores, 0
            self.best_weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        else:
            self.stale += 1
            self.stopped_early = 0 < self.params.patience <= self.stale
        return scores

    # -- one epoch -----------------------------------------------------------------------------------------------------

    def _train_epoch(self, source: Source, epochs: int) -> tuple[float, float]:
        """One pass; returns the mean loss and the last learning rate."""
        def seed(purpose: str) -> int:
            return derive_seed(self.config.seed, self.phase, self.epoch, purpose)

        if self.phase == "finetune" and self.config.earlier:
            self._hold(self.epoch)
            set_weight_decay(self.optimiser, self.params.weight_decay)
        seed_all(seed(f"dropout-{self.rank}"))
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed("order")))
        augment = torch.Generator(self.device).manual_seed(seed(f"augment-{self.rank}"))
        masks = torch.Generator(self.device).manual_seed(seed(f"mask-{self.rank}"))
        batches = order.tensor_split(math.ceil(len(source) / self.params.batch_size))  # no tiny last batch
        total = epochs * len(batches)
        warmup = min(self.params.warmup_epochs * len(batches), 0.5 * total)
        frozen = self.phase == "finetune" and self.task.arm.kind == "pretrained" \
            and self.epoch < self.params.freeze_epochs
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not frozen or self.task.is_head(name))
        self.model.train()
        summed = torch.zeros((), device=self.device)
        lr = 0.0
        for index, chosen in enumerate(batches):
            lr = cosine_lr(self.epoch * len(batches) + index, peak=peak_lr(self.phase, self.params), total=total,
                           warmup=warmup)
            set_lr(self.optimiser, lr)
            mine = chosen[self.rank :: self.world]
            self.optimiser.zero_grad(set_to_none=True)
            if len(mine):
                loss = self._loss(source.batch(mine, augment), masks) * (len(mine) / len(chosen))
                loss.backward()
                summed += loss.detach() * len(chosen)
            self._average_gradients()
            clip_gradients(self.model.parameters(), self.params.clip_norm)
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        if self.world > 1:
            dist.all_reduce(summed)
        mean = float(summed) / len(source)
        if not math.isfinite(mean):
            raise TrialError(f"the {self.phase} loss is {mean} in epoch {self.epoch + 1}; lower the learning rate "
                             f"({peak_lr(self.phase, self.params):g}) or clip_norm ({self.params.clip_norm:g})")
        return mean, lr

    def _loss(self, batch: dict[str, Tensor], masks: torch.Generator) -> Tensor:
        half = self.params.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            if self.pretraining is not None:
                return self.pretraining.loss(self.model, batch, self.pretraining.draw_mask(batch, masks))
            return self.task.finetune_loss(self.model, batch)

    def _average_gradients(self) -> None:
        """Sum gradients over ranks in one message; each rank's loss is already weighted by its share."""
        if self.world == 1:
            return
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in trained if p.grad is not None])
        dist.all_reduce(flat)
        for parameter, grad in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = grad.view_as(parameter)

    def _evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        scores = evaluate(self.task, model, self.task.load(split), rank=self.rank, world=self.world)
        return {f"{split}_{name}": value for name, value in scores.items()}

    # -- reports and checkpoints ---------------------------------------------------------------------------------------

    def _pictures(self, model: nn.Module, phase: Literal["pretrain", "test"]) -> Mapping[str, np.ndarray]:
        if self.config.stage != "replicate" or self.rank:
            return {}
        model.eval()
        return self.task.pictures(model, phase)

    def _report(
        self, metrics: dict[str, float], *, final: bool, pictures: Mapping[str, np.ndarray] | None = None
    ) -> Report:
        plain: dict[str, Any] = {
            "phase": self.phase, "epoch": self.epoch, "step": self.step, "metrics": metrics, "best": dict(self.best),
            "seconds": time.monotonic() - self.started,
            "num_parameters": sum(p.numel() for p in self.model.parameters()), "final": final,
        }
        self.history.append(plain)
        self.step += 1
        return Report(**plain, save=self._save, pictures=pictures or {})

    def replay(self, first: int) -> Iterator[Report]:
        """Reports from a step on, as they were."""
        for plain in self.history[first:]:
            yield Report(**plain, save=self._save)

    def _save(self, path: Path) -> None:
        save_checkpoint(path, {
            "config_id": self.config.config_id, "seed": self.config.seed, "phase": self.phase, "epoch": self.epoch,
            "step": self.step, "stale": self.stale, "stopped_early": self.stopped_early, "best": self.best,
            "history": self.history,
            "best_weights": self.best_weights, "seconds": time.monotonic() - self.started,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict() if self.task.arm.kind != "reference" else {},
            "average": self.average.state_dict() if self.average is not None else {},
        })

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a checkpoint was taken."""
        phase: Phase = "pretrain" if state["phase"] == "pretrain" else "finetune"  # the test uses the latter's network
        if phase != self.phase:
            self._enter(phase)
        self.phase = state["phase"]
        self.model.load_state_dict(state["model"])
        if state["optimiser"]:
            self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.step, self.stale = state["epoch"], state["step"], state["stale"]
        self.stopped_early, self.best, self.history = state["stopped_early"], state["best"], state["history"]
        self.best_weights = {key: value.to(self.device) for key, value in state["best_weights"].items()}
        self.started = time.monotonic() - state["seconds"]


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, source: Source, *, batch_size: int | None = None, rank: int = 0, world: int = 1
) -> dict[str, float]:
    """Score a model on a split: every example once, sums divided at the end.

    Args:
        task: The problem.
        model: What `task.build()` made.
        source: What `task.load(split)` gave.
        batch_size: Examples at once, `task.eval_batch` by default; does not change the result.
        rank: This process; it scores every `world`-th example.
        world: Processes that share the split; sums are added up over them.
    """
    model.eval()
    metrics = task.metrics()
    mine = torch.arange(len(source))[rank::world]
    for index in mine.split(batch_size or task.eval_batch) if len(mine) else ():  # fewer examples than ranks
        batch = source.batch(index, None)
        metrics.update(task.predict(model, batch), batch)
    metrics.reduce()
    return metrics.compute()
