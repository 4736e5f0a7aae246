"""Predicting for files: every input by itself, so that a bad one costs nobody else his answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from raymae.errors import DataError, ModelError, RayMAEError, ResourceError, ResultsError, one_line, unknown
from raymae.inference.figure import figure as drawn
from raymae.inference.load import KeptModel
from raymae.results.report import svg
from raymae.tasks.predictor import Predictor


class Failed(NamedTuple):
    """An input that was not predicted for, and why."""

    name: str
    problem: str


@dataclass(frozen=True)
class Predicted:
    """What came of some inputs.

    Attributes:
        count: Inputs that were predicted for.
        failed: The others.
        written: Files.
    """

    count: int
    failed: tuple[Failed, ...]
    written: tuple[Path, ...]


def usable_device(name: str | None) -> torch.device | None:
    """A device by its name; None as it is.

    Raises:
        ResourceError: This machine does not have it.
    """
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ResourceError(f"--device {name}: cannot be used here: {one_line(error)}; use cpu, or leave it out for "
                            "the best there is") from None
    return device


def predict_files(
    model: KeptModel, source: Path, to: Path, *, options: tuple[str, ...] = (), figure: Path | None = None,
    told: Callable[[int, int, Failed | None], None] = lambda done, total, failed: None,
) -> Predicted:
    """Predict for a file, or for every file of a folder that the task reads, and write the answers.

    Args:
        model: The networks.
        source: A file or folder.
        to: Where answers go: a file or a folder, as the task has it.
        options: Some of the task's `Predictor.options`, which are switched on.
        figure: Where a picture of the first answer goes.
        told: Called after each input with how many are done, how many there are, and how it failed, if it did.

    Raises:
        ModelError: The model is damaged, its task cannot predict, or has no such option.
        DataError: There is nothing to predict for, or answers cannot be written there.
        ResultsError: The picture cannot be written.
    """
    predictor = model.predictor
    for name in options:
        if name not in predictor.options:
            raise ModelError(f"{unknown('option', name, predictor.options)} for the task {model.card.task}")
    if figure is not None and type(predictor).curves is Predictor.curves:
        raise ModelError(f"--figure {figure}: the task {model.card.task} draws none: see what is written to {to}")
    for place in filter(None, (to, figure)):
        _require_apart(source, place)
    items, writer = list(predictor.items(source)), predictor.writer(to, source)
    assert model.networks  # what is wrong with them is wrong with every input
    written: list[Path] = []
    failures: list[Failed] = []
    try:
        for done, item in enumerate(items, start=1):
            failed = None
            try:
                inputs = item.read()
                answer = model.predict(inputs, **dict.fromkeys(options, True))
                written += writer.add(item, inputs, answer)
                if figure is not None and figure not in written and (curves := predictor.curves(inputs, answer)):
                    svg.write(drawn(curves), figure)
                    written.append(figure)
            except (ModelError, ResultsError):
                raise
            except RayMAEError as error:
                failed = Failed(item.name, str(error))
            except (MemoryError, torch.OutOfMemoryError) as error:
                failed = Failed(item.name, f"{source / item.name if source.is_dir() else source}: is too large for "
                                           f"the memory there is ({one_line(error)})")
            failures += [failed] if failed else []
            told(done, len(items), failed)
    finally:  # also what was done before Ctrl-C
        written += writer.close()
    return Predicted(len(items) - len(failures), tuple(failures), tuple(written))


def _require_apart(source: Path, to: Path) -> None:
    """Refuse to write over the inputs or among them.

    Raises:
        DataError: Answers would go there.
    """
    if re.match(r"\w+:/", str(to)):  # a path of s3://bucket is s3:/bucket
        raise DataError(f"{to}: answers are written on this machine; name a file or folder of it")
    given, wanted = Path(os.path.realpath(source)), Path(os.path.realpath(to))
    if given == wanted or (source.exists() and to.exists() and os.path.samefile(source, to)):
        raise DataError(f"{to}: is the input itself, which is never overwritten; name another file or folder")
    if source.is_dir() and given in wanted.parents:
        raise DataError(f"{to}: lies in the input folder, where it would be an input the next time; name a place "
                        "outside of it")
    if to.is_dir() and given.parent == wanted:
        raise DataError(f"{to}: is the folder of the input, where answers could take its name; name a folder of "
                        "their own")
