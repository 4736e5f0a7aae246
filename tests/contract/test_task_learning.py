"""Networks, losses, masks and splits of every task."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from raymae.errors import TransferError
from raymae.tasks.base import Batch, Source, Task
from raymae.train import evaluate
from raymae.train.optim import make_optimiser

MakeTask = Callable[..., Task]
STEPS = 30


def first(source: Source, count: int, generator: Generator | None = None) -> Batch:
    """Some examples, spread over the split."""
    return source.batch(torch.linspace(0, len(source) - 1, min(count, len(source))).long(), generator)


def masked(task: Task) -> tuple[Batch, Tensor]:
    generator = Generator().manual_seed(3)
    batch = first(task.load("pretrain"), 5, generator)
    return batch, task.pretraining().draw_mask(batch, generator)


def assert_falls(model: nn.Module, loss_of: Callable[[], Tensor]) -> None:
    """Thirty steps on one batch lower its loss by a twentieth, judged without dropout."""
    optimiser = make_optimiser(model, lr=1e-2, weight_decay=0.0, layer_decay=1.0, betas=(0.9, 0.95))
    before = loss_of_eval(model, loss_of)
    model.train()
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of()
        assert loss.shape == ()
        assert torch.isfinite(loss)
        loss.backward()
        optimiser.step()
    assert loss_of_eval(model, loss_of) < 0.95 * before


@torch.no_grad()
def loss_of_eval(model: nn.Module, loss_of: Callable[[], Tensor]) -> float:
    model.eval()
    return float(loss_of())


def test_pretraining_loss_is_finite_and_falls(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    model = pretraining.build()
    batch, mask = masked(task)
    assert_falls(model, lambda: pretraining.loss(model, batch, mask).mean)


def test_only_arms_that_pretrain_have_a_pretraining(make_task: MakeTask) -> None:
    for arm, about in make_task().schema.arms.items():
        assert (make_task(arm=arm).pretraining() is not None) == (about.kind == "pretrained"), arm


def test_finetuning_loss_of_every_arm_is_finite_and_falls(make_task: MakeTask) -> None:
    for arm, about in make_task().schema.arms.items():
        if about.kind != "reference":
            task = make_task(arm=arm)
            model = task.build()
            batch = first(task.load("train"), 16)
            assert_falls(model, lambda task=task, model=model, batch=batch: task.finetune_loss(model, batch).mean)


def test_hidden_tokens_cannot_influence_the_encoder(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    model = pretraining.build().eval()
    for seed in range(3):
        generator = Generator().manual_seed(seed)
        batch = first(task.load("pretrain"), 5, generator)
        mask = pretraining.draw_mask(batch, generator)
        assert mask.dtype == torch.bool
        assert mask.any(dim=1).all()
        assert not mask.all(dim=1).any()
        other = pretraining.corrupt(batch, mask, generator)
        assert any(not torch.equal(batch[key], other[key]) for key in batch)
        clean = pretraining.encode_visible(model, batch, mask)
        assert torch.equal(clean, pretraining.encode_visible(model, other, mask))
        # the same check sees a leak: values of visible tokens do arrive, and hidden ones are what is predicted
        seen = pretraining.corrupt(batch, ~mask, generator)
        assert not torch.allclose(clean, pretraining.encode_visible(model, seen, mask))
        assert pretraining.loss(model, batch, mask).mean != pretraining.loss(model, other, mask).mean


def test_masks_follow_their_generator(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    batch = first(task.load("pretrain"), 16, Generator().manual_seed(0))
    generator = Generator().manual_seed(1)
    once, later = pretraining.draw_mask(batch, generator), pretraining.draw_mask(batch, generator)
    assert torch.equal(once, pretraining.draw_mask(batch, Generator().manual_seed(1)))
    assert not torch.equal(once, later)


class FirstExamples:
    """The first examples of a split."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.count = source, min(count, len(source))

    def __len__(self) -> int:
        return self.count

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        return self.source.batch(index_B, generator)


def shaken(task: Task) -> nn.Module:
    """A network whose zero-initialised head says something."""
    model, generator = task.build(), Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_evaluation_in_batches_of_3_equals_one_batch(make_task: MakeTask) -> None:
    for arm in make_task().schema.arms:
        task = make_task(arm=arm)
        model, source = shaken(task), FirstExamples(task.load("val"), 50)
        one, three = (evaluate(task, model, source, batch_size=size) for size in (len(source), 3))
        assert three == pytest.approx(one, rel=2e-5, abs=1e-7), arm  # float32 products differ with the batch's size
        assert set(one) == set(task.reported()) <= set(task.schema.metrics)

        batch = source.batch(torch.arange(len(source)), None)
        with torch.no_grad():
            prediction = task.predict(model.eval(), batch)
        whole, parts = task.metrics(), task.metrics()
        whole.update(prediction, batch)
        for start in range(0, len(source), 3):
            part = {key: value[start:start + 3] for key, value in batch.items()}
            parts.update(prediction[start:start + 3], part)
        assert whole.totals.dtype == torch.float64
        assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_evaluation_shared_by_more_ranks_than_examples(make_task: MakeTask) -> None:
    task = make_task("reference")
    source = FirstExamples(task.load("val"), 3)
    shares = []
    for rank in range(5):
        metrics = task.metrics()
        task_metrics, task.metrics = task.metrics, lambda metrics=metrics: metrics  # type: ignore[method-assign]
        try:
            evaluate(task, task.build(), source, rank=rank, world=5)
        except ZeroDivisionError:
            pass  # an empty share has no metrics of its own; it adds nothing to the sum
        finally:
            task.metrics = task_metrics  # type: ignore[method-assign]
        shares.append(metrics.totals)
    whole = task.metrics()
    batch = source.batch(torch.arange(3), None)
    whole.update(task.predict(task.build(), batch), batch)
    torch.testing.assert_close(sum(shares), whole.totals)


def test_references_have_nothing_to_train(make_task: MakeTask) -> None:
    for arm, about in make_task().schema.arms.items():
        size = sum(parameter.numel() for parameter in make_task(arm=arm).build().parameters())
        assert (size == 0) == (about.kind == "reference"), arm


def rows(source: Source) -> list[bytes]:
    batch = source.batch(torch.arange(len(source)), None)
    parts = [value.reshape(len(source), -1).numpy() for _, value in sorted(batch.items())]
    return [b"".join(part[row].tobytes() for part in parts) for row in range(len(source))]


def test_label_fraction_is_nested_and_leaves_pretraining_whole(make_task: MakeTask) -> None:
    tasks = {share: make_task("pretrained", label_fraction=share) for share in (0.1, 0.4, 1.0)}
    labelled = {share: rows(task.load("train")) for share, task in tasks.items()}
    assert set(labelled[0.1]) < set(labelled[0.4]) < set(labelled[1.0])
    for share, kept in labelled.items():
        assert len(kept) == pytest.approx(share * len(labelled[1.0]), rel=0.1, abs=1)
    assert rows(tasks[0.1].load("pretrain")) == rows(tasks[1.0].load("pretrain"))
    assert len(tasks[0.1].load("pretrain")) >= len(labelled[1.0])
    for split in ("val", "test"):
        assert len(tasks[0.1].load(split)) == len(tasks[1.0].load(split)) > 0


def test_pretrained_weights_arrive_key_by_key(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    pretrained, model = pretraining.build(), task.build()
    heads = {key: value.clone() for key, value in model.state_dict().items() if task.is_head(key)}
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(1.0)
    coverage = pretraining.transfer(pretrained, model)
    arrived = model.state_dict()
    expected = {key: value for key, value in pretrained.state_dict().items() if not task.is_head(key)}
    assert len(coverage.loaded) == len(expected) > 0
    assert not any(task.is_head(key) for key in coverage.loaded)
    assert all(task.is_head(key) for key in coverage.fresh)
    assert 0 < coverage.share < 1
    for key, value in expected.items():
        assert torch.equal(arrived[key], value), key
    assert heads
    for key, value in heads.items():
        assert torch.equal(arrived[key], value), key


def test_a_renamed_or_resized_encoder_weight_fails_the_trial(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    renamed = pretraining.build()
    body = next(key for key in renamed.state_dict() if not task.is_head(key)).partition(".")[0]  # what is transferred
    renamed.get_submodule(body).register_parameter("surplus", nn.Parameter(torch.zeros(1)))
    with pytest.raises(TransferError, match=r"surplus → .* have no counterpart|have no counterpart.*surplus"):
        pretraining.transfer(renamed, task.build())
    pretrained = pretraining.build()
    resized = pretrained.get_submodule(body)
    name, parameter = next(iter(resized.named_parameters()))
    owner = resized.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], nn.Parameter(torch.zeros(*parameter.shape, 2)))
    model = task.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TransferError, match=r"has shape .* expects"):
        pretraining.transfer(pretrained, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
