"""Whole trials: what they report, that they repeat exactly, go on exactly, and read the test split last."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch

from raymae.contract.attributes import KINDS
from raymae.contract.splits import names_units
from raymae.contract.subject import RICH, Check, Subject, require
from raymae.spec.trial import PRETEXT, Stage
from raymae.tasks.base import Source, Task
from raymae.train.checkpoint import save_checkpoint
from raymae.train.epoch import evaluate
from raymae.train.trial import Report, TrialState, run_trial

STAGES: tuple[Stage, ...] = ("search", "replicate")
ANOTHER_SEED = 987_654_321  # of torch's own generator, on which no trial depends


def plain(report: Report) -> dict[str, Any]:
    """A report without what differs from run to run, and without pictures, which a replay does not repeat."""
    values = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    apart = ("seconds", "state", "kept", "pictures", "units")
    return {key: value for key, value in values.items() if key not in apart}


def difference(got: Any, wanted: Any, path: str = "") -> str:
    """Where two states differ, bit for bit apart from seconds; "" where they do not."""
    if isinstance(wanted, torch.Tensor):
        same = isinstance(got, torch.Tensor) and got.dtype == wanted.dtype and torch.equal(got, wanted)
        return "" if same else path
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or got.keys() != wanted.keys():
            return path or "keys"
        pairs = [(f"{path}/{key}", got[key], wanted[key]) for key in wanted if key != "seconds"]
    elif isinstance(wanted, list):
        if len(got) != len(wanted):
            return path or "length"
        pairs = [(f"{path}/{index}", *pair) for index, pair in enumerate(zip(got, wanted, strict=True))]
    else:
        return "" if got == wanted else path
    return next(filter(None, (difference(one, other, where) for where, one, other in pairs)), "")


def require_same(got: list[Report], wanted: list[Report], when: str) -> None:
    """The same reports, or the first number that differs."""
    require(len(got) == len(wanted), f"{when} there are {len(got)} reports, not {len(wanted)}")
    for one, other in zip(map(plain, got), map(plain, wanted), strict=True):
        for key in other:
            if one[key] == other[key]:
                continue
            here, there = one[key], other[key]
            name = key
            if isinstance(there, dict) and isinstance(here, dict):
                name = next((part for part in there if here.get(part) != there[part]), key)
                here, there = here.get(name, here), there.get(name, there)
            require(False, f"{when} {name} of {other['phase']} epoch {other['epoch']} is {here}, not {there}")


def trials_report_everything(subject: Subject, arm: str) -> None:
    """A trial runs to its end, and reports every metric as a finite number."""
    schema, kind = subject.schema, subject.schema.arms[arm].kind
    for stage in STAGES:
        config, reports, _ = subject.run(arm, stage=stage)
        reported = subject.cls(config, torch.device("cpu")).reported()
        require([report.step for report in reports] == list(range(len(reports))), "steps are not 0, 1, 2 …")
        require([report.final for report in reports] == [False] * (len(reports) - 1) + [True], "the last is not final")
        before = ["pretrain"] * RICH["pretrain_epochs"] if kind == "pretrained" else []
        tuning = ["finetune"] * (1 if kind == "reference" else RICH["epochs"])
        wanted = before + tuning + (["test"] if stage == "replicate" else [])
        require([report.phase for report in reports] == wanted, f"phases are {[report.phase for report in reports]}")
        require(all(a.seconds <= b.seconds for a, b in itertools.pairwise(reports)), "seconds run backwards")
        training = set() if kind == "reference" else {"loss", "lr"}
        names = {"pretrain": training, "finetune": training | {f"val_{metric}" for metric in reported},
                 "test": {f"test_{metric}" for metric in reported}}
        best: float | None = None
        for report in reports:
            metrics = {name: value for name, value in report.metrics.items()
                       if name not in PRETEXT or report.phase != "pretrain"}
            require(metrics.keys() == names[report.phase],
                    f"{report.phase} reports {sorted(metrics)}, not {sorted(names[report.phase])}")
            for name, value in metrics.items():
                require(isinstance(value, float) and not math.isnan(value), f"{name} is {value!r} in {report.phase}")
            selected = schema.objective.val
            if selected in report.metrics and (best is None or schema.objective.better(report.metrics[selected], best)):
                best = report.metrics[selected]
            require(report.best.get(selected) == best, f"the best {selected} is not {best}")
            require((report.num_parameters == 0) == (kind == "reference"), f"{report.num_parameters} parameters")
        for phase in ("pretrain", "finetune"):
            epochs = [report.epoch for report in reports if report.phase == phase]
            counted = [0] if kind == "reference" and epochs else list(range(1, len(epochs) + 1))
            require(epochs == counted, f"epochs of {phase} are {epochs}")


def same_seed_same_result(subject: Subject, arm: str) -> None:
    """The same seed gives the same result, bit for bit."""
    config, reports, _ = subject.run(arm, stage="replicate")  # saved after every report
    torch.manual_seed(ANOTHER_SEED)
    require_same(list(run_trial(config, device=torch.device("cpu"))), reports, "run again with the same seed,")


def another_seed_is_another_trial(subject: Subject, arm: str) -> None:
    """Another seed is another trial."""
    first = subject.run(arm).reports[0].metrics["loss"]
    other = next(run_trial(subject.config(arm, seed=1, **RICH), device=torch.device("cpu"))).metrics["loss"]
    require(other != first, f"the first loss is {first} with seed 0 and with seed 1")


def search_and_replicate_train_alike(subject: Subject, arm: str) -> None:
    """Search trials and replicates train alike."""
    search, replicate = (subject.run(arm, stage=stage).reports for stage in STAGES)
    require([report.metrics for report in search] == [report.metrics for report in replicate[:-1]],
            "with one seed, a search trial and a replicate report different numbers")


def resuming_changes_nothing(subject: Subject, arm: str) -> None:
    """A trial resumed after any report goes on as if it had never stopped, bit for bit."""
    config, reports, checkpoints = subject.run(arm, stage="replicate")
    wanted = torch.load(checkpoints[-1], weights_only=True)
    again = subject.folder / "again.pt"
    for step, path in enumerate(checkpoints[:-1]):
        torch.manual_seed(ANOTHER_SEED + step)
        resumed = []
        for report in run_trial(config, device=torch.device("cpu"), resume=path):
            report.save(again)
            resumed.append(report)
        require_same(resumed, reports[step + 1:], f"resumed after report {step},")
        differing = difference(torch.load(again, weights_only=True), wanted)
        require(not differing, f"resumed after report {step}, {differing} of the last checkpoint is another")


class _LeaveError(Exception):
    """Training is left inside an epoch."""


def resuming_inside_an_epoch_changes_nothing(subject: Subject, arm: str) -> None:
    """A trial resumed after a batch goes on as if it had never stopped, bit for bit."""
    config, reports, checkpoints = subject.run(arm, stage="replicate")
    inside = subject.folder / "inside.pt"

    def leave(batches: int, state: Callable[[], TrialState]) -> None:
        save_checkpoint(inside, state().to_plain())
        raise _LeaveError

    last = {report.phase: report.step for report in reports if report.phase != "test" and report.epoch > 1}
    for phase, step in last.items():
        wanted = torch.load(checkpoints[step], weights_only=True)
        torch.manual_seed(ANOTHER_SEED)
        before = run_trial(config, device=torch.device("cpu"), resume=checkpoints[step - 1], watch=leave)
        with contextlib.suppress(_LeaveError):
            next(before)
        torch.manual_seed(ANOTHER_SEED + 1)
        resumed = next(run_trial(config, device=torch.device("cpu"), resume=inside))
        resumed.save(inside)
        when = f"resumed after a batch of {phase} epoch {reports[step].epoch},"
        require_same([resumed], reports[step:step + 1], when)
        differing = difference(torch.load(inside, weights_only=True), wanted)
        require(not differing, f"{when} {differing} of the next checkpoint is another")


def test_split_is_read_last(subject: Subject, arm: str) -> None:
    """The test split is unread until the score, and search trials never read it."""
    load = subject.cls.load
    for stage in STAGES:
        seen: list[str] = []

        def recorded(self: Task, split: str, seen: list[str] = seen) -> Source:
            seen.append(split)
            return load(self, split)

        watched = type(subject.cls.__name__, (subject.cls,), {"load": recorded, "__module__": subject.cls.__module__})
        config = subject.config(arm, stage=stage, epochs=1, pretrain_epochs=1, label_fraction=0.1)
        task: Task = watched(config, torch.device("cpu"))
        for report in run_trial(config, task=task):
            if report.phase != "test":
                require("test" not in seen, f"the test split is read before the score: load() of {', '.join(seen)}")
        require("val" in seen, "the validation split is never read")
        if stage == "search":
            require("test" not in seen, f"a search trial reads the test split: load() of {', '.join(seen)}")
            continue
        times = 1 if names_units(task) else 2  # by default they are counted
        require(0 < seen.count("test") <= times, f"the test split is read {seen.count('test')} times in a replicate")


def best_weights_are_scored(subject: Subject, arm: str) -> None:
    """A replicate scores the weights that were best on validation."""
    config, reports, checkpoints = subject.run(arm, stage="replicate")
    state = torch.load(checkpoints[-2], weights_only=True)
    task = subject.cls(config, torch.device("cpu"))
    model = task.build()
    model.load_state_dict(state["best_weights"])
    for split, wanted in (("val", reports[-1].best), ("test", reports[-1].metrics)):
        got = {f"{split}_{key}": value for key, value in evaluate(task, model, task.load(split)).items()}
        require(got == wanted, f"the best weights score {got}, and reported is {wanted}")


def finetuning_starts_from_the_pretrained_encoder(subject: Subject, arm: str) -> None:
    """While the encoder is frozen it is what pretraining left, and then it learns."""
    config, reports, checkpoints = subject.run(arm)
    states = [torch.load(path, weights_only=True)["model"] for path in checkpoints]
    last = max(index for index, report in enumerate(reports) if report.phase == "pretrain")
    is_head = subject.cls(config, torch.device("cpu")).is_head
    encoder = {key: value for key, value in states[last].items() if not is_head(key)}
    require(encoder, "no weight of the autoencoder is the encoder's; see is_head()")
    differing = difference({key: states[last + 1].get(key) for key in encoder}, encoder)
    require(not differing, f"after an epoch with the encoder frozen {differing} is not what pretraining left")
    learns = any(not torch.equal(states[last + 2][key], value) for key, value in encoder.items())
    require(learns, "the encoder does not learn while fine-tuning")
    learnt = any(not torch.equal(states[last - 1][key], value) for key, value in encoder.items())
    require(learnt, "the encoder does not learn while pretraining")


def examples_make_up_the_test_score(subject: Subject, arm: str) -> None:
    """The scores of single test examples make up the test score."""
    reports = subject.run(arm, stage="replicate").reports
    objective, units = subject.schema.objective, reports[-1].units
    require(units is not None, "metrics().unit_scores() gives None, so a verdict's intervals would be over seeds "
                               "alone: return the objective of each example, see UnitScores.plain")
    assert units is not None
    shape = (len(units.names), len(units.parts))
    require(units.score.shape == units.weight.shape == shape,
            f"unit_scores() has scores {units.score.shape} and weights {units.weight.shape}; examples and parts are "
            f"{shape}")
    total, weight = (units.score * units.weight).sum(axis=0), units.weight.sum(axis=0)
    mean = float((total[weight > 0] / weight[weight > 0]).mean())
    made, wanted = math.sqrt(mean) if objective.root else mean, reports[-1].metrics[objective.test]
    require(math.isclose(made, wanted, rel_tol=1e-9),
            f"unit_scores() make {made:.9g}, and {objective.test} is {wanted:.9g}")
    require(all(report.units is None for report in reports[:-1]), "only the test has scores of single examples")


CHECKS = (
    Check(trials_report_everything, *KINDS), Check(same_seed_same_result, *KINDS),
    Check(another_seed_is_another_trial, "pretrained", "trained"), Check(search_and_replicate_train_alike, *KINDS),
    Check(resuming_changes_nothing, *KINDS),
    Check(resuming_inside_an_epoch_changes_nothing, "pretrained", "trained"), Check(test_split_is_read_last, *KINDS),
    Check(best_weights_are_scored, "pretrained", "trained"),
    Check(finetuning_starts_from_the_pretrained_encoder, "pretrained"), Check(examples_make_up_the_test_score, *KINDS),
)
