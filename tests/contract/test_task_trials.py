"""Whole trials of every task and arm: what they report, that they repeat exactly, and which splits they read."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from raymae.errors import TrialError
from raymae.spec import TrialConfig
from raymae.tasks import TASKS, schema_of, task_class
from raymae.tasks.base import Loss
from raymae.train import Report, evaluate, run_trial

ARMS = [(name, arm) for name in TASKS for arm in schema_of(name).arms]
TRAINED = [(name, arm) for name, arm in ARMS if schema_of(name).arms[arm].kind != "reference"]
PRETRAINED = [(name, arm) for name, arm in ARMS if schema_of(name).arms[arm].kind == "pretrained"]
# Everything that a trial carries from epoch to epoch.
RICH: dict[str, Any] = {"pretrain_epochs": 2, "epochs": 3, "freeze_epochs": 1, "ema_decay": 0.7, "patience": 9,
                        "label_fraction": 0.3}

every_arm = pytest.mark.parametrize(("name", "arm"), ARMS)
every_trained_arm = pytest.mark.parametrize(("name", "arm"), TRAINED)
every_pretrained_arm = pytest.mark.parametrize(("name", "arm"), PRETRAINED)

MakeConfig = Callable[..., TrialConfig]


def plain(report: Report) -> dict[str, Any]:
    """A report without what differs from run to run, and without pictures, which a replay does not repeat."""
    values = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return {key: value for key, value in values.items() if key not in ("seconds", "state", "pictures", "units")}


def assert_same(got: Any, wanted: Any, path: str = "") -> None:
    """Equal bit for bit, apart from seconds."""
    if isinstance(wanted, torch.Tensor):
        assert got.dtype == wanted.dtype, path
        assert torch.equal(got, wanted), path
    elif isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), path
        for key in wanted:
            if key != "seconds":
                assert_same(got[key], wanted[key], f"{path}/{key}")
    elif isinstance(wanted, list):
        assert len(got) == len(wanted), path
        for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
            assert_same(one, other, f"{path}/{index}")
    else:
        assert got == wanted, path


@every_arm
@pytest.mark.parametrize("stage", ["search", "replicate"])
def test_the_stream_of_reports(name: str, arm: str, stage: str, make_config: MakeConfig, run: Callable) -> None:
    cls = task_class(name)
    kind = cls.schema.arms[arm].kind
    config, reports, _ = run(make_config(name, arm, stage=stage, **RICH))
    reported = cls(config, torch.device("cpu")).reported()
    assert [report.step for report in reports] == list(range(len(reports)))
    assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]
    pretrain = ["pretrain"] * RICH["pretrain_epochs"] if kind == "pretrained" else []
    finetune = ["finetune"] * (1 if kind == "reference" else RICH["epochs"])
    assert [report.phase for report in reports] == pretrain + finetune + (["test"] if stage == "replicate" else [])
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(reports))
    training = set() if kind == "reference" else {"loss", "lr"}
    names = {"pretrain": training, "finetune": training | {f"val_{metric}" for metric in reported},
             "test": {f"test_{metric}" for metric in reported}}
    best: float | None = None
    for report in reports:
        assert report.metrics.keys() == names[report.phase]
        assert all(isinstance(value, float) and not math.isnan(value) for value in report.metrics.values())
        selected = cls.schema.objective.val
        if selected in report.metrics and (best is None or cls.schema.objective.better(report.metrics[selected], best)):
            best = report.metrics[selected]
        assert report.best.get(selected) == best
        assert report.num_parameters == 0 if kind == "reference" else report.num_parameters > 0
    for phase in ("pretrain", "finetune"):
        epochs = [report.epoch for report in reports if report.phase == phase]
        assert epochs == ([0] if kind == "reference" and epochs else list(range(1, len(epochs) + 1)))
    if kind == "reference" and stage == "search":
        assert len(reports) == 1


@every_arm
def test_same_seed_same_result_and_saving_changes_nothing(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    config = make_config(name, arm, stage="replicate", **RICH)
    first = run(config).reports  # saved after every report
    torch.manual_seed(987654321)
    again = list(run_trial(config))
    assert [plain(report) for report in again] == [plain(report) for report in first]


@every_trained_arm
def test_another_seed_is_another_trial(name: str, arm: str, make_config: MakeConfig, run: Callable) -> None:
    first = run(make_config(name, arm, **RICH)).reports
    other = next(run_trial(make_config(name, arm, seed=1, **RICH)))
    assert other.metrics["loss"] != first[0].metrics["loss"]


@every_arm
def test_search_and_replicate_train_alike(name: str, arm: str, make_config: MakeConfig, run: Callable) -> None:
    search, replicate = (run(make_config(name, arm, stage=stage, **RICH)).reports for stage in ("search", "replicate"))
    assert [report.metrics for report in search] == [report.metrics for report in replicate[:-1]]


@every_arm
@pytest.mark.parametrize("stage", ["search", "replicate"])
def test_the_test_split_is_unread_until_the_end(
    name: str, arm: str, stage: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = task_class(name)
    read: list[str] = []
    load = cls.load

    def recording(self: Any, split: str) -> Any:
        read.append(split)
        return load(self, split)

    monkeypatch.setattr(cls, "load", recording)
    reports = list(run_trial(make_config(name, arm, stage=stage, epochs=1, pretrain_epochs=1, label_fraction=0.1)))
    assert "val" in read
    if stage == "search":
        assert "test" not in read
        assert not any(key.startswith("test_") for report in reports for key in {**report.metrics, **report.best})
    else:
        assert read.count("test") == 1
        assert read[-1] == "test"


@every_trained_arm
def test_a_replicate_scores_the_weights_that_were_best_on_validation(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    config, reports, checkpoints = run(make_config(name, arm, stage="replicate", **RICH))
    state = torch.load(checkpoints[-2], weights_only=True)
    task = task_class(name)(config, torch.device("cpu"))
    model = task.build()
    model.load_state_dict(state["best_weights"])
    for split, wanted in (("val", reports[-1].best), ("test", reports[-1].metrics)):
        assert {f"{split}_{key}": value for key, value in evaluate(task, model, task.load(split)).items()} == wanted


@every_pretrained_arm
def test_finetuning_starts_from_the_pretrained_encoder(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    """While the encoder is frozen, it is what pretraining left, tensor by tensor."""
    config, reports, checkpoints = run(make_config(name, arm, **RICH))
    states = [torch.load(path, weights_only=True)["model"] for path in checkpoints]
    last = max(index for index, report in enumerate(reports) if report.phase == "pretrain")
    is_head = task_class(name)(config, torch.device("cpu")).is_head
    encoder = {key: value for key, value in states[last].items() if not is_head(key)}
    assert encoder
    assert_same({key: states[last + 1][key] for key in encoder}, encoder)
    assert any(not torch.equal(states[last + 2][key], value) for key, value in encoder.items())
    assert any(not torch.equal(states[last - 1][key], value) for key, value in encoder.items())


@pytest.mark.parametrize(("name", "arm", "broken"), [
    *((*case, broken) for case in TRAINED for broken in ("finetune_loss", "predict")),
    *((*case, "loss") for case in PRETRAINED),
])
def test_nan_fails_the_trial_with_a_reason(
    name: str, arm: str, broken: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = task_class(name)
    config = make_config(name, arm, epochs=1, pretrain_epochs=1, label_fraction=0.1)
    owner = type(cls(config, torch.device("cpu")).pretraining()) if broken == "loss" else cls
    whole = getattr(owner, broken)


    def not_a_number(self: Any, *args: Any) -> Any:
        made = whole(self, *args)
        return made._replace(mean=made.mean * math.nan) if isinstance(made, Loss) else made * math.nan

    monkeypatch.setattr(owner, broken, not_a_number)
    reason = {"loss": "the pretrain loss is nan in epoch 1", "finetune_loss": "the finetune loss is nan",
              "predict": f"{cls.schema.objective.val} is nan after fine-tuning epoch 1"}[broken]
    with pytest.raises(TrialError, match=f"{reason}.*lower"):
        list(run_trial(config))


@every_arm
def test_scores_of_single_examples_make_up_the_test_score(
    name: str, arm: str, make_config: MakeConfig, run: Callable
) -> None:
    reports = run(make_config(name, arm, stage="replicate", **RICH)).reports
    objective, units = task_class(name).schema.objective, reports[-1].units
    assert units is not None
    assert units.score.shape == units.weight.shape == (len(units.names), len(units.parts))
    assert len(set(units.names)) == len(units.names)
    total, weight = (units.score * units.weight).sum(axis=0), units.weight.sum(axis=0)
    mean = float((total[weight > 0] / weight[weight > 0]).mean())
    assert (math.sqrt(mean) if objective.root else mean) == pytest.approx(reports[-1].metrics[objective.test], rel=1e-9)
    assert all(report.units is None for report in reports[:-1])
