"""Networks learn, nothing that is hidden leaks, a batch's size changes no score, and pretrained weights arrive."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from raymae.contract.attributes import KINDS
from raymae.contract.subject import Check, Subject, require
from raymae.tasks.base import Batch, Loss, Pretraining, Source, Task
from raymae.tasks.mistakes import check_loss
from raymae.train.epoch import evaluate
from raymae.train.optim import make_optimiser

STEPS = 30
FALL = 0.95  # what is left of a loss after them, at most


class FirstExamples:
    """The first examples of a split."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.count = source, min(count, len(source))

    def __len__(self) -> int:
        return self.count

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """Those of the split."""
        return self.source.batch(index_B, generator)


def spread(source: Source, count: int, generator: Generator | None = None) -> Batch:
    """Some examples, spread over a split."""
    return source.batch(torch.linspace(0, len(source) - 1, min(count, len(source))).long(), generator)


def pretraining_of(task: Task) -> Pretraining[Any]:
    """How a task pretrains under an arm that does."""
    pretraining = task.pretraining()
    require(pretraining is not None, "pretraining() is None, but the arm's kind is pretrained")
    assert pretraining is not None
    return pretraining


def masked(task: Task, seed: int = 3) -> tuple[Batch, Tensor]:
    """A few pretraining examples, and what is hidden of them."""
    generator = Generator().manual_seed(seed)
    batch = spread(task.load("pretrain"), 5, generator)
    return batch, pretraining_of(task).draw_mask(batch, generator)


def require_falling(task: Task, method: str, model: nn.Module, loss_of: Callable[[], Loss]) -> None:
    """Thirty steps on one batch lower its loss by a twentieth, judged without dropout."""
    optimiser = make_optimiser(model, lr=1e-2, weight_decay=0.0, layer_decay=1.0, betas=(0.9, 0.95))

    @torch.no_grad()
    def judged() -> float:
        model.eval()
        return float(loss_of().mean)

    before = judged()
    model.train()
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of()
        check_loss(task, method, loss)
        loss.mean.backward()
        optimiser.step()
    after = judged()
    require(after < FALL * before, f"{method} is {before:.4g} on one batch, and {after:.4g} after {STEPS} steps on it "
                                   "at lr 0.01; it should fall by a twentieth")


def only_arms_that_pretrain_have_a_pretraining(subject: Subject, arm: str) -> None:
    """pretraining() is of the arms whose kind is pretrained, and None for others."""
    pretrains = subject.schema.arms[arm].kind == "pretrained"
    found = subject.make(arm).pretraining()
    require((found is not None) == pretrains, f"pretraining() is {'' if found is None else 'not '}None")


def references_have_nothing_to_train(subject: Subject, arm: str) -> None:
    """References have no parameters, and all other arms have some."""
    size = sum(parameter.numel() for parameter in subject.make(arm).build().parameters())
    kind = subject.schema.arms[arm].kind
    require((size == 0) == (kind == "reference"), f"build() has {size:,} parameters, and the arm's kind is {kind}")


def pretraining_loss_falls(subject: Subject, arm: str) -> None:
    """The pretraining loss is finite, and falls when it is trained."""
    task = subject.make(arm)
    pretraining = pretraining_of(task)
    model = pretraining.build()
    batch, mask = masked(task)
    require_falling(task, "pretraining().loss", model, lambda: pretraining.loss(model, batch, mask))


def finetuning_loss_falls(subject: Subject, arm: str) -> None:
    """The fine-tuning loss is finite, and falls when it is trained."""
    task = subject.make(arm)
    model = task.build()
    batch = spread(task.load("train"), 16)
    require_falling(task, "finetune_loss", model, lambda: task.finetune_loss(model, batch))


def hidden_tokens_cannot_leak(subject: Subject, arm: str) -> None:
    """What is hidden cannot influence the encoder."""
    task = subject.make(arm)
    pretraining = pretraining_of(task)
    model = pretraining.build().eval()
    for seed in range(3):
        generator = Generator().manual_seed(seed)
        batch = spread(task.load("pretrain"), 5, generator)
        mask = pretraining.draw_mask(batch, generator)
        require(mask.dtype == torch.bool, f"draw_mask() returns {mask.dtype}, not bool")
        require(bool(mask.any(dim=1).all()), "draw_mask() hides nothing of an example")
        require(not bool(mask.all(dim=1).any()), "draw_mask() hides all of an example")
        other = pretraining.corrupt(batch, mask, generator)
        require(any(not torch.equal(batch[key], other[key]) for key in batch), "corrupt() changes nothing")
        clean = pretraining.encode_visible(model, batch, mask)
        require(torch.equal(clean, pretraining.encode_visible(model, batch, mask)),
                "encode_visible() gives something else when it is asked again")
        require(torch.equal(clean, pretraining.encode_visible(model, other, mask)),
                "encode_visible() changes with the values of hidden tokens")
        # the same check sees a leak: values of visible tokens do arrive, and hidden ones are what is predicted
        seen = pretraining.corrupt(batch, ~mask, generator)
        require(not torch.allclose(clean, pretraining.encode_visible(model, seen, mask)),
                "encode_visible() does not change with the values of visible tokens")
        require(bool(pretraining.loss(model, batch, mask).mean != pretraining.loss(model, other, mask).mean),
                "the pretraining loss does not change with the values of hidden tokens")


def masks_follow_their_generator(subject: Subject, arm: str) -> None:
    """Masks are drawn from the generator, and from nothing else."""
    task = subject.make(arm)
    pretraining = pretraining_of(task)
    batch = spread(task.load("pretrain"), 16, Generator().manual_seed(0))
    generator = Generator().manual_seed(1)
    once, later = pretraining.draw_mask(batch, generator), pretraining.draw_mask(batch, generator)
    again = pretraining.draw_mask(batch, Generator().manual_seed(1))
    require(torch.equal(once, again), "draw_mask() gives two masks with one seed")
    require(not torch.equal(once, later), "draw_mask() gives the same mask again and again")


def shaken(task: Task) -> nn.Module:
    """A network whose zero-initialised head says something."""
    model, generator = task.build(), Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def differs(one: Mapping[str, float], other: Mapping[str, float], *, rel: float, abs_: float = 0.0) -> str:
    """The first metric that differs by more than rounding, with both values; "" where none does."""
    for key in one:
        if not math.isclose(one[key], other[key], rel_tol=rel, abs_tol=abs_):
            return f"{key} is {one[key]:.9g} and {other[key]:.9g}"
    return ""


def batch_size_changes_no_score(subject: Subject, arm: str) -> None:
    """Scoring in batches of 3 gives what scoring in one batch gives."""
    task = subject.make(arm)
    model, source = shaken(task), FirstExamples(task.load("val"), 50)
    one, three = (evaluate(task, model, source, batch_size=size) for size in (len(source), 3))
    reported = {*task.reported()}
    require({*one} == reported <= {*task.schema.metrics},
            f"compute() gives {sorted(one)}, reported() {sorted(reported)}, and the schema has {task.schema.metrics}")
    # float32 products differ with the batch's size
    differing = differs(one, three, rel=2e-5, abs_=1e-7)
    require(not differing, f"{differing} in one batch and in batches of 3: predict() must not depend on other examples "
                           "or draw random numbers, and metrics are sums and counts, divided at the end")

    batch = source.batch(torch.arange(len(source)), None)
    with torch.no_grad():
        prediction = task.predict(model.eval(), batch)
    whole, parts = task.metrics(), task.metrics()
    whole.update(prediction, batch)
    for start in range(0, len(source), 3):
        part = {key: value[start:start + 3] for key, value in batch.items()}
        parts.update(prediction[start:start + 3], part)
    require(whole.totals.dtype == torch.float64, f"metrics().totals is {whole.totals.dtype}; sum in float64")
    differing = differs(whole.compute(), parts.compute(), rel=1e-9)
    require(not differing, f"{differing} where update() takes one prediction whole and in threes")


def pretrained_weights_arrive(subject: Subject, arm: str) -> None:
    """Pretrained encoder weights arrive key by key, and the head stays as it was."""
    task = subject.make(arm)
    pretraining = pretraining_of(task)
    pretrained, model = pretraining.build(), task.build()
    heads = {key: value.clone() for key, value in model.state_dict().items() if task.is_head(key)}
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(1.0)
    coverage = pretraining.transfer(pretrained, model)
    arrived = model.state_dict()
    expected = {key: value for key, value in pretrained.state_dict().items() if not task.is_head(key)}
    require(len(coverage.loaded) == len(expected) > 0,
            f"{len(coverage.loaded)} weights arrive of {len(expected)} that are no head's; see is_head()")
    astray = [key for key in coverage.loaded if task.is_head(key)]
    require(not astray, f"{astray[:1]} is the head's, see is_head(), and is overwritten by pretraining")
    missed = [key for key in coverage.fresh if not task.is_head(key)]
    require(not missed, f"{missed[:1]} is the encoder's, see is_head(), and no pretrained weight arrives there")
    require(0 < coverage.share < 1, f"{coverage.share:.0%} of the network is pretrained")
    for key, value in expected.items():
        require(key in arrived and torch.equal(arrived[key], value), f"{key} is not what was pretrained")
    require(heads, "the network has no head; see is_head()")
    for key, value in heads.items():
        require(torch.equal(arrived[key], value), f"{key}, the head's, changes with pretraining")


CHECKS = (
    Check(references_have_nothing_to_train, *KINDS), Check(only_arms_that_pretrain_have_a_pretraining, *KINDS),
    Check(pretraining_loss_falls, "pretrained"), Check(hidden_tokens_cannot_leak, "pretrained"),
    Check(masks_follow_their_generator, "pretrained"), Check(pretrained_weights_arrive, "pretrained"),
    Check(finetuning_loss_falls, "pretrained", "trained"), Check(batch_size_changes_no_score, *KINDS),
)
