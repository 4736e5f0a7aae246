"""What the loop does from epoch to epoch, on the smallest forecasting trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.errors import CheckpointError
from raymae.spec import TrialConfig
from raymae.train import Report, phases, run_trial

Debug = Callable[..., TrialConfig]


@pytest.fixture
def debug(make_config: Callable[..., TrialConfig]) -> Debug:
    """A trial with few labels, so that an epoch is a few steps."""
    return lambda arm="linear", **changes: make_config(
        "forecasting", arm, **{"label_fraction": 0.05, "pretrain_epochs": 1, **changes}
    )


def with_states(config: TrialConfig, tmp_path: Path) -> tuple[list[Report], list[dict[str, Any]]]:
    """All reports, and the checkpoint after each."""
    reports, states = [], []
    for report in run_trial(config):
        report.save(tmp_path / "checkpoint.pt")
        states.append(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
        reports.append(report)
    return reports, states


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Validation scores as given, one after the other."""

    def script(values: list[float]) -> None:
        left = iter(values)
        rest = {"abs_error": 0.0, "skill": 0.0}
        monkeypatch.setattr(phases, "evaluate", lambda *args, **kwargs: {"mse": next(left), **rest})

    return script


def test_patience_stops_after_so_many_evaluations_without_a_better_score(
    debug: Debug, scripted: Callable[[list[float]], None], tmp_path: Path
) -> None:
    scripted([3.0, 2.0, 2.5, 1.9, 1.9, 2.0, 0.1])
    reports, states = with_states(debug(epochs=20, patience=2), tmp_path)
    assert [report.metrics["val_mse"] for report in reports] == [3.0, 2.0, 2.5, 1.9, 1.9, 2.0]
    assert [report.final for report in reports] == [False] * 5 + [True]
    assert [state["stale"] for state in states] == [0, 0, 1, 0, 1, 2]  # an equal score is no better
    assert [report.best["val_mse"] for report in reports] == [3.0, 2.0, 2.0, 1.9, 1.9, 1.9]


def test_patience_goes_on_counting_after_a_resume(
    debug: Debug, scripted: Callable[[list[float]], None], tmp_path: Path
) -> None:
    config = debug(epochs=20, patience=3)
    scripted([1.0, 2.0, 2.0, 2.0, 2.0])
    for report in run_trial(config):
        if report.step == 2:  # two evaluations without a better score
            report.save(tmp_path / "checkpoint.pt")
            break
    resumed = list(run_trial(config, resume=tmp_path / "checkpoint.pt"))
    assert [(report.step, report.final) for report in resumed] == [(3, True)]


def test_without_patience_every_epoch_is_trained(debug: Debug, scripted: Callable[[list[float]], None]) -> None:
    scripted([1.0, 2.0, 3.0, 4.0])
    reports = list(run_trial(debug(epochs=4)))
    assert [report.epoch for report in reports] == [1, 2, 3, 4]


def test_a_replicate_that_stopped_early_is_scored_with_its_best_weights(
    debug: Debug, scripted: Callable[[list[float]], None], tmp_path: Path
) -> None:
    scripted([2.0, 1.0, 3.0, 0.25])  # the last one is the test split's
    reports, states = with_states(debug(epochs=9, patience=1, stage="replicate"), tmp_path)
    assert [report.phase for report in reports] == ["finetune"] * 3 + ["test"]
    assert [report.final for report in reports] == [False, False, False, True]
    assert reports[-1].metrics == {"test_mse": 0.25, "test_abs_error": 0.0, "test_skill": 0.0}
    assert torch.equal(states[-1]["model"]["head.weight"], states[1]["model"]["head.weight"])
    assert not torch.equal(states[-1]["model"]["head.weight"], states[2]["model"]["head.weight"])


def test_a_task_that_maximises_keeps_the_highest(
    debug: Debug, scripted: Callable[[list[float]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymae.spec import Objective
    from raymae.tasks.forecasting.task import Forecasting

    schema = replace(Forecasting.schema, objective=Objective("mse", "max", "made up"))
    monkeypatch.setattr(Forecasting, "schema", schema)
    scripted([1.0, 3.0, 2.0])
    assert list(run_trial(debug(epochs=3)))[-1].best["val_mse"] == 3.0


def test_evaluations_every_so_many_epochs_and_after_the_last(debug: Debug) -> None:
    reports = list(run_trial(debug("mae", epochs=5, eval_every=2, pretrain_epochs=4, pretrain_eval_every=3)))
    assert [(report.phase, report.epoch) for report in reports] == [
        ("pretrain", 3), ("pretrain", 4), ("finetune", 2), ("finetune", 4), ("finetune", 5)
    ]
    assert [report.final for report in reports] == [False] * 4 + [True]


def test_frozen_epochs_train_the_head_alone(debug: Debug, tmp_path: Path) -> None:
    reports, states = with_states(debug("mae", epochs=3, freeze_epochs=2, weight_decay=0.5), tmp_path)
    models = [state["model"] for state in states]
    encoder = [key for key in models[0] if key.startswith("encoder.")]
    assert [report.phase for report in reports] == ["pretrain"] + ["finetune"] * 3
    for frozen in (1, 2):
        assert all(torch.equal(models[frozen][key], models[0][key]) for key in encoder)
    assert not torch.equal(models[1]["head.weight"], models[2]["head.weight"])
    moved = [key for key in encoder if not torch.equal(models[3][key], models[0][key])]
    assert moved == encoder


def test_an_average_of_the_weights_is_evaluated_and_kept(debug: Debug, tmp_path: Path) -> None:
    decay = 0.6
    config = debug(epochs=4, ema_decay=decay, batch_size=100_000)  # one step an epoch
    reports, states = with_states(config, tmp_path)
    weights = [state["model"]["head.weight"] for state in states]
    average = weights[0]
    for report, state, weight in zip(reports, states, weights, strict=True):
        average = weight if weight is weights[0] else decay * average + (1 - decay) * weight
        torch.testing.assert_close(state["average"]["module.head.weight"], average)
        if report.best == {key: value for key, value in report.metrics.items() if key.startswith("val_")}:
            torch.testing.assert_close(state["best_weights"]["head.weight"], average)
    assert not torch.allclose(average, weights[-1], rtol=1e-3)
    # the score is the average's: without it, the same training scores differently
    plain = list(run_trial(debug(epochs=4, batch_size=100_000)))
    assert plain[-1].metrics["loss"] == reports[-1].metrics["loss"]
    assert plain[-1].metrics["val_mse"] != reports[-1].metrics["val_mse"]


def test_no_batch_is_tiny_and_every_example_is_seen_once(
    debug: Debug, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymae.tasks.forecasting.windows import Windows

    config = debug("linear", epochs=2, batch_size=100)
    seen: list[list[int]] = []
    batch = Windows.batch

    def recording(self: Windows, index_B: torch.Tensor, generator: Any) -> Any:
        if generator is not None:
            seen.append(index_B.tolist())
        return batch(self, index_B, generator)

    monkeypatch.setattr(Windows, "batch", recording)
    list(run_trial(config))
    epochs = [seen[:len(seen) // 2], seen[len(seen) // 2:]]
    for batches in epochs:
        sizes = [len(one) for one in batches]
        assert max(sizes) <= 100
        assert max(sizes) - min(sizes) <= 1
        assert sorted(index for one in batches for index in one) == list(range(sum(sizes)))
    assert epochs[0] != epochs[1]  # another order


def test_the_learning_rate_follows_the_schedule(debug: Debug) -> None:
    reports = list(run_trial(debug("linear", epochs=4, lr=0.01, warmup_epochs=1.0, batch_size=100_000)))
    expected = [0.01 / 2, 0.01, 0.01 * (1 + math.cos(math.pi / 3)) / 2, 0.01 * (1 + math.cos(math.pi * 2 / 3)) / 2]
    assert [report.metrics["lr"] for report in reports] == pytest.approx(expected)


def test_phases_have_their_own_peak_and_momenta(debug: Debug, tmp_path: Path) -> None:
    config = debug("mae", epochs=1, pretrain_lr=0.02, lr=0.01, warmup_epochs=0.0, batch_size=100_000,
                   pretrain_warmup_epochs=0.0, pretrain_batch_size=100_000)
    reports, states = with_states(config, tmp_path)
    assert [report.metrics["lr"] for report in reports] == [0.02, 0.01]
    assert [state["optimiser"]["param_groups"][0]["betas"] for state in states] == [(0.9, 0.95), (0.9, 0.999)]


@pytest.mark.parametrize("changes", [
    {"pretrain_clip_norm": 1e-3}, {"pretrain_weight_decay": 0.5}, {"pretrain_precision": "bfloat16"},
    {"pretrain_batch_size": 300}, {"pretrain_warmup_epochs": 0.0}, {"pretrain_dropout": 0.5},
    {"pretrain_drop_path": 0.5}])
def test_pretraining_has_numbers_of_its_own(debug: Debug, changes: dict[str, Any]) -> None:
    options = {"encoder_depth": 2, "pretrain_lr": 0.01, "pretrain_epochs": 2, "pretrain_eval_every": 2}
    plain, changed = (next(run_trial(debug("mae", **options, **more))) for more in ({}, changes))
    assert changed.metrics["pretext_loss"] != plain.metrics["pretext_loss"]


@pytest.mark.parametrize("changes", [{"clip_norm": 1e-3}, {"weight_decay": 0.5}, {"precision": "bfloat16"},
                                     {"layer_decay": 0.5}, {"drop_path": 0.5}, {"dropout": 0.5}])
def test_training_parameters_reach_the_training(debug: Debug, changes: dict[str, Any]) -> None:
    options = {"epochs": 2, "batch_size": 64, "encoder_depth": 2, "lr": 0.01}
    plain, changed = (list(run_trial(debug("scratch", **options, **more)))[-1] for more in ({}, changes))
    assert changed.metrics["val_mse"] != plain.metrics["val_mse"]


def test_training_beats_what_needs_none(debug: Debug) -> None:
    """Skill 0 is persistence, which is also where every head starts."""
    linear = list(run_trial(debug("linear", label_fraction=1.0, epochs=3, batch_size=256)))[-1]
    mae = list(run_trial(debug("mae", label_fraction=1.0, epochs=2, batch_size=256)))[-1]
    assert linear.best["val_skill"] > 0.4
    assert mae.best["val_skill"] > 0.5


def test_a_checkpoint_of_another_network_is_refused(debug: Debug, tmp_path: Path) -> None:
    config, path = debug(epochs=2), tmp_path / "checkpoint.pt"
    next(run_trial(config)).save(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "model": {f"old.{key}": value for key, value in state["model"].items()}}, path)
    with pytest.raises(CheckpointError, match=r"of another network \(.*delete it to start the trial over"):
        next(run_trial(config, resume=path))


def test_an_epoch_passes_over_few_labels_several_times(debug: Debug, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymae.train.gradients import OneMessage

    taken: list[int] = []
    computed = OneMessage.__call__

    def counted(self: OneMessage, part: Any) -> Any:
        loss = part()
        taken.append(int(loss.counted))
        return computed(self, lambda: loss)

    monkeypatch.setattr(OneMessage, "__call__", counted)

    def run(**changes: Any) -> list[int]:
        taken.clear()
        list(run_trial(debug("scratch", epochs=1, batch_size=256, label_fraction=0.1, **changes)))
        return list(taken)

    once, often = run(), run(epoch_steps=2 * 7)
    assert len(once) < 14 <= len(often) < 14 + len(once)
    assert sum(often) % sum(once) == 0  # every example equally often
    assert sum(often) // sum(once) == -(-14 // len(once))
    assert run(epoch_steps=len(once)) == once
    assert run(epoch_steps=1) == once


@pytest.mark.parametrize("arm", ["linear", "mae"])
def test_a_final_trains_as_a_trial_of_the_search_does_and_never_reads_the_test_split(debug: Debug, arm: str) -> None:
    search, final = (list(run_trial(replace(debug(arm, epochs=2), seed=20_000, stage=stage)))
                     for stage in ("search", "final"))
    told = [[(report.phase, report.metrics, report.final) for report in reports] for reports in (search, final)]
    assert told[0] == told[1]
    assert final[-1].phase == "finetune"
    assert final[-1].final
