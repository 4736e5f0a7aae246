from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from raymae.spec import TrialConfig
from raymae.tasks import TASKS, task_class
from raymae.train.device import derive_seed
from raymae.train.optim import clip_gradients, cosine_lr, make_optimiser, set_lr

ENCODERS = {name: "autoencoder.encoder" if name == "imputation" else "encoder" for name in TASKS}


def test_the_schedule_warms_up_peaks_and_ends_at_zero() -> None:
    rates = [cosine_lr(step, peak=2.0, total=100, warmup=10) for step in range(101)]
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == max(rates) == 2.0
    assert rates[55] == pytest.approx(1.0)  # half-way down the cosine
    assert rates[32] == pytest.approx(1 + math.cos(math.pi * 22 / 90))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert cosine_lr(150, peak=2.0, total=100, warmup=10) == pytest.approx(0, abs=1e-12)


def test_without_warm_up_it_starts_at_the_peak_and_never_at_zero_with_one() -> None:
    assert cosine_lr(0, peak=3.0, total=5, warmup=0) == 3.0
    assert 0 < cosine_lr(0, peak=3.0, total=5, warmup=2.5) < 3.0
    assert cosine_lr(0, peak=3.0, total=1, warmup=0.5) == pytest.approx(2.0)  # a single step does train


def test_every_group_gets_its_own_share_of_the_rate() -> None:
    optimiser = make_optimiser(nn.Linear(3, 2), lr=1.0, weight_decay=0.1, layer_decay=1.0, betas=(0.9, 0.95))
    optimiser.param_groups[0]["lr_scale"] = 0.25
    set_lr(optimiser, 0.8)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.2, 0.8])
    assert all(group["betas"] == (0.9, 0.95) for group in optimiser.param_groups)


def test_the_total_gradient_norm_is_clipped() -> None:
    def gradients(norm: float) -> list[float]:
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
        parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
        clip_gradients(parameters, norm)
        return [float(value) for p in parameters if p.grad is not None for value in p.grad]

    assert gradients(1.0) == pytest.approx([0.6, 0.0, 0.8], rel=1e-4)
    assert gradients(10.0) == [3.0, 0.0, 4.0]
    assert gradients(0.0) == [3.0, 0.0, 4.0]


@pytest.mark.parametrize(("name", "arm"), [
    (name, arm) for name in TASKS for arm, about in task_class(name).schema.arms.items() if about.kind != "reference"
])
def test_layer_decay_slows_the_lower_layers_of_every_network_that_has_layers(
    name: str, arm: str, make_config: Callable[..., TrialConfig]
) -> None:
    model = task_class(name)(make_config(name, arm), torch.device("cpu")).build()
    optimiser = make_optimiser(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, betas=(0.9, 0.999))
    scales = sorted({group["lr_scale"] for group in optimiser.param_groups})
    assert scales[-1] == 1.0
    if hasattr(model, "group_matcher"):
        depth = len(model.get_submodule(ENCODERS[name]).blocks) if arm in ("mae", "scratch") else 0  # type: ignore[arg-type]
        assert scales == [0.5 ** layer for layer in range(depth + 1, -1, -1)]
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(model.parameters()))


def test_derived_seeds_stay_what_they_are() -> None:
    """A checkpoint written by an older version goes on with the same masks and order."""
    assert derive_seed(0) == 27000618577021039
    assert derive_seed(7, "finetune", 3, "order") == 50868428446597635
    assert derive_seed(7, "finetune", 3, "order") == int(hashlib.sha256(b"7/finetune/3/order").hexdigest()[:14], 16)


def test_derived_seeds_differ_by_every_label_and_fit_a_generator() -> None:
    seeds = [derive_seed(seed, phase, epoch, purpose) for seed in range(3) for phase in ("pretrain", "finetune")
             for epoch in range(5) for purpose in ("order", "mask-0", "mask-1", "init")]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        torch.Generator().manual_seed(seed)
