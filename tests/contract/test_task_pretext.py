"""Every task's pretraining is validated: on hidden values of the validation split, against what takes no learning."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from raymae.tasks.base import Batch, Hidden, Pretraining, Task
from raymae.tasks.columns.pretraining import CellPretraining
from raymae.tasks.pretraining import hidden_errors
from raymae.train import phases, pretext, run_trial
from raymae.train.pretext import validate

MakeTask = Callable[..., Task]


def has_norm_target(make_task: MakeTask) -> bool:
    return "norm_target" in make_task("pretrained").config.params


def compared(
    pretraining: Pretraining[nn.Module], model: nn.Module, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, ...]:
    """What a pretraining compares: the network's reconstruction, the trivial one, the truth, and what counts of it."""
    told: list[tuple[Tensor, ...]] = []

    def listening(*given: Tensor) -> Hidden:
        told.append(given)
        return hidden_errors(*given)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(sys.modules[type(pretraining).__module__], "hidden_errors", listening)
        pretraining.errors(model, batch, Generator().manual_seed(0))
    return told[0]


def test_skill_is_measured_alike_at_every_look_and_leaves_random_streams_alone(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    pretraining = task.pretraining()
    model = pretraining.build()
    state = torch.get_rng_state()
    first, second = validate(task, pretraining, model), validate(task, pretraining, model)
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert set(first) == {"pretext_loss", "pretext_skill"}
    assert math.isfinite(first["pretext_skill"])
    assert first["pretext_loss"] > 0


def test_inputs_are_those_of_validation_without_labels_and_always_the_same(make_task: MakeTask) -> None:
    task = make_task("pretrained")
    source = task.load("pretext")
    assert set(task.units("pretext").names) <= set(task.units("val").names)
    assert len(task.units("pretext").names) == len(source)
    index = torch.arange(min(3, len(source)))
    one, other = source.batch(index, None), source.batch(index, None)
    assert "label" not in one
    for key, values in one.items():
        assert torch.equal(values.nan_to_num(), other[key].nan_to_num()), key


def test_the_trivial_reconstruction_itself_has_no_skill_and_the_truth_has_all_of_it(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("pretrained", **({"norm_target": False} if has_norm_target(make_task) else {}))
    pretraining = task.pretraining()
    model = pretraining.build().eval()
    if isinstance(pretraining, CellPretraining):
        pytest.skip("cells are predicted as distributions: tests/tasks/test_imputation.py and test_prediction.py")
    batch = task.load("pretext").batch(torch.arange(2), None)
    _, trivial, target, counted = compared(pretraining, model, batch, monkeypatch)
    assert counted.any()
    for answer, skill in ((trivial, 0.0), (target, 1.0)):
        errors = hidden_errors(answer, trivial, target, counted)
        assert 1 - float(errors.model / errors.trivial) == pytest.approx(skill)


def test_what_is_hidden_is_read_by_neither_reconstruction(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values in hidden tokens change what is to be told, and nothing of what is told of it."""
    for norm_target in (False, True):
        changes = {"norm_target": norm_target} if has_norm_target(make_task) else {}
        task = make_task("pretrained", **changes)
        pretraining = task.pretraining()
        model = pretraining.build().eval()
        if isinstance(pretraining, CellPretraining):
            pytest.skip("categories have no error to compare: tests/tasks/test_imputation.py and test_prediction.py")
        batch = task.load("pretext").batch(torch.arange(2), None)
        mask = pretraining.draw_mask(batch, Generator().manual_seed(0))
        corrupt = pretraining.corrupt(batch, mask, Generator().manual_seed(9))
        before, after = (compared(pretraining, model, given, monkeypatch) for given in (batch, corrupt))
        assert torch.equal(before[3], after[3])
        for one, other in zip(before[:2], after[:2], strict=True):
            assert torch.allclose(one[before[3]], other[before[3]], atol=1e-5)
        assert not torch.allclose(before[2][before[3]], after[2][before[3]])


def test_every_report_of_pretraining_has_a_skill_and_later_ones_repeat_the_last(make_task: MakeTask, run) -> None:
    config = make_task("pretrained", pretrain_epochs=2).config
    reports = run(config).reports
    before = [report for report in reports if report.phase == "pretrain"]
    assert all(report.metrics["pretext_skill"] == report.pretext["pretext_skill"] for report in before)
    after = [report for report in reports if report.phase != "pretrain"]
    assert after
    assert all(report.pretext == before[-1].pretext for report in after)
    assert all("pretext_skill" not in report.metrics for report in after)


def test_validating_changes_nothing_of_the_training(make_task: MakeTask, run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_task("pretrained").config
    with_skill = [{**report.metrics, **report.best} for report in run(config).reports]
    monkeypatch.setattr(phases, "validate", lambda *_: {})
    without = [{**report.metrics, **report.best} for report in run_trial(config)]
    for one, other in zip(with_skill, without, strict=True):
        assert {key: value for key, value in one.items() if key not in pretext.PRETEXT} == other


def test_an_arm_that_does_not_pretrain_has_no_skill(make_task: MakeTask, run) -> None:
    assert not any(report.pretext for report in run(make_task("trained").config).reports)




def test_patience_ends_a_pretraining_that_no_longer_improves(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    losses = [1.0, 0.9, 0.95, 0.9, 0.7]
    given = iter(losses)
    monkeypatch.setattr(phases, "validate", lambda *_: {"pretext_loss": next(given), "pretext_skill": 0.1})
    config = make_task("pretrained", pretrain_epochs=5, eval_every=1, pretrain_patience=2).config
    reports = []
    for report in run_trial(config):
        if report.phase == "pretrain":
            report.save(tmp_path / f"{report.epoch}.pt")
        reports.append(report)
    assert [report.epoch for report in reports if report.phase == "pretrain"] == [1, 2, 3, 4]
    given = iter(losses[3:])  # a process that goes on from the third knows how long nothing got better
    resumed = list(run_trial(config, resume=tmp_path / "3.pt"))
    assert [report.epoch for report in resumed if report.phase == "pretrain"] == [4]
    assert resumed[-1].metrics == reports[-1].metrics
