"""Pretraining reads nothing that is declared to be fine-tuning's, so that one encoder serves many fine-tunings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from raymae.contract.networks import FirstExamples
from raymae.contract.subject import Check, Subject, require
from raymae.contract.trials import difference
from raymae.spec.encoder import pretraining_of
from raymae.spec.space import Scalar
from raymae.spec.task import TaskSchema, encoder_params, phase_of
from raymae.tasks.base import Source, Task
from raymae.train.encoder import Encoder
from raymae.train.phases import Pretrain
from raymae.train.trial import run_trial

BATCHES = 3


def other_values(
    schema: TaskSchema, arm: str, params: Mapping[str, Scalar], name: str, known: Collection[Scalar] = ()
) -> Iterator[Scalar]:
    """Other legal values of a parameter beside an arm's others; none of a text, unless some are known.

    Args:
        schema: The task.
        arm: The arm.
        params: All its parameters.
        name: The parameter.
        known: Values to try in place of those that its kind suggests.
    """
    value, kind = params[name], schema.params.model_fields[name].annotation
    candidates: list[Any] = list(known)
    if candidates:
        pass
    elif isinstance(value, bool):
        candidates = [not value]
    elif get_origin(kind) is Literal:
        candidates = list(get_args(kind))
    elif isinstance(value, int):
        candidates = [value + 1, 2 * value, value // 2, value + 2, value - 1]
    elif isinstance(value, float):
        candidates = [value / 2, 2 * value, value + 0.5, value - 0.5]
    for candidate in candidates:
        other = {**params, name: candidate}
        try:
            schema.params.model_validate(other)
        except ValidationError:
            continue
        if candidate != value and not schema.check(arm, other):
            yield candidate


def pretraining(task: Task) -> dict[str, Any]:
    """Pretrain on a few batches: how many examples there are, what is reported, and the weights."""
    load, examples = task.load, {}

    def few(split: str) -> Source:
        source = load(split)
        examples[split] = len(source)
        return FirstExamples(source, BATCHES * task.params.pretrain_batch_size)

    task.load = few  # type: ignore[method-assign]
    phase = Pretrain(task)
    # as texts: of what is not a number, one is not the other
    reports = [{name: repr(value) for name, value in evaluation.metrics.items()} for evaluation in phase.run()]
    return {"the number of examples": examples, "a report": reports, "the weights": dict(phase.result().state_dict())}


def pretraining_reads_nothing_of_finetuning(subject: Subject, arm: str) -> None:
    """Pretraining is the same, bit for bit, whatever fine-tuning's parameters are."""
    schema, device = subject.schema, torch.device("cpu")
    config = subject.config(arm, pretrain_epochs=2)
    wanted = pretraining(subject.cls(config, device))
    for name in config.params:
        if phase_of(schema.params, name) != "finetune":
            continue
        value = next(other_values(schema, arm, config.params, name), None)
        if value is None:
            continue
        other = replace(config, params={**config.params, name: value})
        require(encoder_params(schema.params, other.params) == encoder_params(schema.params, config.params),
                f"with {name}={value!r} it is not the same encoder")
        differing = difference(pretraining(subject.cls(other, device)), wanted).strip("/").replace("/", ", ")
        require(not differing, f"{name} is declared with phase=\"finetune\", and with {name}={value!r} in place of "
                               f"{config.params[name]!r} pretraining is another: {differing}")


def an_encoder_made_before_gives_the_same(subject: Subject, arm: str) -> None:
    """A trial that starts from an encoder ends as one that pretrains for itself, bit for bit."""
    config, whole, _ = subject.run(arm, stage="replicate")
    pretraining = pretraining_of(config, subject.schema)
    assert pretraining is not None
    made = [*run_trial(pretraining, device=torch.device("cpu"))]
    require(made[-1].final and made[-1].phase == "pretrain", "a pretraining for itself does not end with its phase")
    last = made[-1]
    weights = {name: value.clone() for name, value in last.state().phase.model.items()}
    encoder = Encoder(weights, last.pretext, last.epoch, last.seconds)
    tuned = list(run_trial(config, device=torch.device("cpu"), encoder=encoder))
    for one, other in zip([*made, *tuned], whole, strict=True):
        here, there = ((report.phase, report.epoch, report.metrics, report.best, report.pretext)
                       for report in (one, other))
        require(repr(here) == repr(there), f"from an encoder that was made before, {other.phase} epoch {other.epoch} "
                                           f"reports {here[2]}, not {there[2]}")


CHECKS = (Check(pretraining_reads_nothing_of_finetuning, "pretrained"),
          Check(an_encoder_made_before_gives_the_same, "pretrained"))
