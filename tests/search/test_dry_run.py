"""A dry run computes both losses and the prediction of every arm once, and names what is wrong with them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from raymae.errors import DataError, TaskError
from raymae.search.description import ArmDescription, render
from raymae.search.dry_run import describe
from raymae.search.plan import make_plan
from raymae.spec import parse_sweep
from raymae.tasks import TASKS, schema_of

STAND_INS = {"forecasting": "ETTh1", "classification": "tiny-imagenet", "segmentation": "CamVid",
             "imputation": "california-housing", "prediction": "california-housing", "volumes": "Hippocampus"}
OWN = """
import torch
from raymae.errors import DataError
from raymae.tasks.base import Loss
from raymae.tasks.forecasting import Forecasting

class Mine(Forecasting):
    def {method}(self, *given):
        {body}
"""


@pytest.fixture(autouse=True)
def no_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))


def tried(task: str, data: str, arms: list[str]) -> dict[str, ArmDescription]:
    """What a dry run says of arms, by name."""
    text = (f"name: tried\ntask: {task}\nsize: debug\ndata: {{name: {data}, if_unavailable: synthetic}}\n"
            f"replicates: 1\narms: {arms}\n")
    plan = make_plan(parse_sweep(text, "tried.yaml", schema_of=schema_of))
    return {arm.arm: arm for arm in describe(plan).arms}


@pytest.mark.parametrize("task", TASKS)
def test_every_arm_of_every_task_passes(task: str) -> None:
    arms = schema_of(task).arms
    found = tried(task, STAND_INS[task], [*arms])
    assert {name: ("prediction" in arm.tried.shapes, "mask" in arm.tried.shapes) for name, arm in found.items()} == {
        name: (arm.kind != "reference", arm.kind == "pretrained") for name, arm in arms.items()}


@pytest.mark.parametrize(("method", "body", "said"), [
    ("finetune_loss", "return given[0](given[1]['windw']).mean()", "finetune_loss fails with KeyError: 'windw' ("),
    ("finetune_loss", "return torch.zeros(())", "finetune_loss returns a Tensor; return Loss(mean, counted)"),
    ("finetune_loss", "return Loss(torch.zeros(2), 2)",
     "finetune_loss returns a Loss whose mean is a tensor of shape [2]; it must be a scalar tensor"),
    ("finetune_loss", "return Loss(0.5, 2)", "finetune_loss returns a Loss whose mean is a float"),
    ("finetune_loss", "return Loss(next(given[0].parameters()).sum() * float('nan'), 2)", "finetune_loss is nan on"),
    ("finetune_loss", "return Loss(torch.ones(()), 2)",
     "finetune_loss returns a loss that does not depend on the network's parameters"),
    ("predict", "raise ValueError('no\\nway')", "predict fails with ValueError: no ("),
    ("predict", "assert len(given) == 3", "predict fails with AssertionError ("),
    ("predict", "return [0.0]", "predict returns a list; it must return a tensor"),
    ("predict", "return torch.zeros(7, 3)", "metrics fails with RuntimeError: "),
    ("build", "return torch.nn.Linear('a', 2)", "build fails with TypeError: "),
    ("pretraining", "return 1 / 0", "pretraining fails with ZeroDivisionError: division by zero ("),
    ("load", "raise OSError(5, 'Input/output error', 'a.csv')", 'load("val") fails with OSError: [Errno 5] Input/'),
])
def test_a_mistake_is_named_with_task_arm_method_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, method: str, body: str, said: str
) -> None:
    module = f"own_mistake_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(OWN.format(method=method, body=body.replace("\n", "\\n")))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError) as caught:
        tried(f"{module}:Mine", "ETTh1", ["mae"])
    message = str(caught.value)
    assert message.startswith(f"task {module}:Mine, arm mae: {said}")
    assert "\n" not in message
    if " fails with " in said and method != "predict":
        assert message.endswith(f"({tmp_path / module}.py:9)")


def test_a_mistake_in_pretraining_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pretraining.py").write_text(OWN.format(method="pretraining", body="return Wrong(super())") + """
class Wrong:
    def __init__(self, task):
        self.whole = task.pretraining()
    def __getattr__(self, name):
        return getattr(self.whole, name)
    def loss(self, model, batch, mask):
        return Loss(mask.sum() / 0.0, 1)
""")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=r"own_pretraining:Mine, arm mae: pretraining\(\)\.loss is inf on the first"):
        tried("own_pretraining:Mine", "ETTh1", ["mae"])


def test_an_error_about_data_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_error.py").write_text(OWN.format(method="load", body="raise DataError('too short')"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"^too short$"):
        tried("own_data_error:Mine", "ETTh1", ["mae"])


@pytest.mark.parametrize(("search", "space", "encoders"), [
    ("{algorithm: random, num_trials: 5, finetunes_per_encoder: 2}", "{lr: {choice: [1e-3, 2e-3]}}", 3 + 2),
    ("{algorithm: random, num_trials: 5}", "{lr: {choice: [1e-3, 2e-3]}}", 5 + 2),
    ("{algorithm: grid, finetunes_per_encoder: 2}",
     "{lr: {choice: [1e-3, 2e-3]}, mask_ratio: {choice: [0.3, 0.5, 0.7], when: {arm: mae}}}", 3 + 2),
    ("{algorithm: random, num_trials: 5}", "{mask_ratio: {choice: [0.3, 0.5], when: {arm: mae}}}", 5 + 2),
])
def test_pretrainings_are_counted(search: str, space: str, encoders: int) -> None:
    text = ("name: tried\ntask: forecasting\nsize: debug\ndata: {name: ETTh1, if_unavailable: synthetic}\n"
            f"arms: [mae, scratch]\nreplicates: 2\nsearch: {search}\nspace: {space}\n")
    description = describe(make_plan(parse_sweep(text, "tried.yaml", schema_of=schema_of)))
    assert [arm.pretrainings for arm in description.arms] == [encoders, 0]


@pytest.mark.parametrize(("factors", "at", "encoders"), [
    # what pretraining does not read: replicates of equal seed start from one encoder, whichever cell is searched
    ("{label_fraction: [0.5, 1.0]}", "{label_fraction: 1.0}", 5 + 2),
    ("{horizon: [1, 2, 4]}", "{horizon: 2}", 5 + 2),
    ("{label_fraction: [0.5, 1.0]}", "{}", 5 + 5 + 2),
    ("{mask_ratio: [0.3, 0.5, 0.7]}", "{mask_ratio: 0.5}", 5 + 3 * 2),
    ("{mask_ratio: [0.3, 0.5]}", "{}", 5 + 5 + 2 * 2),
])
def test_pretrainings_that_cells_share_are_counted_once(factors: str, at: str, encoders: int) -> None:
    text = ("name: tried\ntask: forecasting\nsize: debug\ndata: {name: ETTh1, if_unavailable: synthetic}\n"
            f"arms: [mae, scratch]\nreplicates: 2\nsearch: {{algorithm: random, num_trials: 5, at: {at}}}\n"
            f"space: {{lr: {{choice: [1e-3, 2e-3]}}}}\nfactors: {factors}\n")
    description = describe(make_plan(parse_sweep(text, "tried.yaml", schema_of=schema_of)))
    assert [arm.pretrainings for arm in description.arms] == [encoders, 0]


def test_finals_and_early_ends_are_said_and_counted() -> None:
    text = ("name: tried\ntask: forecasting\nsize: debug\ndata: {name: ETTh1, if_unavailable: synthetic}\n"
            "arms: [mae, scratch, persistence]\nreplicates: 2\nspace: {lr: {choice: [1e-3, 2e-3, 3e-3]}}\n"
            "search: {num_trials: 5, algorithm: random, finalists: 3}\nbudget: {target: 0.5, patience_trials: 4}\n")
    description = describe(make_plan(parse_sweep(text, "tried.yaml", schema_of=schema_of)))
    assert {arm.arm: (arm.finals, arm.pretrainings) for arm in description.arms} == {
        "mae": (6, 5 + 6 + 2), "scratch": (6, 0), "persistence": (0, 0)}
    assert description.num_trials == 5 + 5 + 1 + 6 + 6 + 2 + 2 + 1
    shown = io.StringIO()
    Console(width=200, file=shown).print(render(description))
    assert "the best 3 configurations of each search are run on 2 more validation seed(s)" in shown.getvalue()
    assert "every arm that trains has val_mse 0.5 or better or 4 trials without a better score" in shown.getvalue()


@pytest.mark.parametrize(("at", "searched"), [("{}", 6), ("{label_fraction: 0.25}", 1)])
def test_of_a_bisected_factor_all_cells_are_counted(at: str, searched: int) -> None:
    text = ("name: tried\ntask: forecasting\nsize: debug\ndata: {name: ETTh1, if_unavailable: synthetic}\n"
            f"arms: [mae, scratch]\nreplicates: 2\nsearch: {{num_trials: 3, at: {at}}}\n"
            "space: {lr: {choice: [1e-3, 2e-3]}}\nfactors: {label_fraction: {bisect: [0.25, 1], cells: 6}}\n")
    description = describe(make_plan(parse_sweep(text, "tried.yaml", schema_of=schema_of)))
    assert [(arm.num_trials, arm.replicates) for arm in description.arms] == [(3 * searched, 6 * 2)] * 2
    may_open = description.may_open
    assert description.to_json()["bisect"] == {
        "factor": "label_fraction", "cells": 6, "log": False, "may_open": list(may_open)}
    assert (len(may_open), may_open[7]) == (15, 0.625)
    console = Console(width=400, record=True)
    console.print(render(description))
    told = console.export_text()
    assert "cells: at most 6, 2 of them at first (label_fraction 0.25 to 1, bisected; between them 0.297, " in told
    assert "0.625, " in told
    assert " may be opened), " in told
    console.print(render(replace(description, may_open=(*may_open, 0.99))))
    assert "between them 16 values from 0.297 to 0.99 may be opened" in console.export_text()
