"""Write a kept network as ONNX, and check it with onnxruntime against the network itself.

Where a task's prediction is one pass of its network over a batch, the file holds the whole of it, from the batch's own
tensors to what is scored. Where it slides a window over images, the file holds the network of one window.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raymae.errors import ModelError, ResultsError, one_line
from raymae.inference.load import filled, load_model, task_of
from raymae.tasks.base import Batch, Task

EXAMPLES = 3  # of the batch that is traced; fewer are compared, so that the number is seen to be free
TOLERANCE = 1e-3  # of the largest value


class OnnxFile(NamedTuple):
    """What was written.

    Attributes:
        where: The file.
        arm: Whose network.
        trial_id: Which replicate's.
        holds: `prediction` (all of it) or `network` (of one window).
        inputs: Their shapes, by name; the first axis is free where it says "batch".
        outputs: Likewise.
        max_difference: Largest difference of an output from the network's own.
    """

    where: str
    arm: str
    trial_id: str
    holds: str
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    max_difference: float


class _Read(dict[str, Tensor]):
    """A batch that writes down what is read of it."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            self.names.append(name)
        return super().__getitem__(name)


class _Prediction(nn.Module):
    """A task's prediction as a network of the tensors that it reads."""

    def __init__(self, task: Task, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.task, self.network, self.names = task, network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.task.predict(self.network, dict(zip(self.names, inputs, strict=True)))


class _Window(nn.Module):
    """A network whose first output counts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        made = self.network(*inputs)
        return made[0] if isinstance(made, tuple) else made


def export_onnx(root: str, file: Path, arm: str | None = None) -> OnnxFile:
    """Write the network of an arm's best replicate, as it was scored.

    Args:
        root: The sweep's results folder, a path or a URI; its data is read for an example.
        file: Where to; must not be there yet.
        arm: The arm; the best of the verdict by default.

    Raises:
        ModelError: There is no kept model, the network cannot be written as ONNX, or onnxruntime computes something
            else; or the packages are missing.
        ResultsError: The file is there already, or cannot be written.
        DataError: The data cannot be had.
    """
    _check_packages()
    if file.exists():
        raise ResultsError(f"{file}: exists already; choose another name or delete it")
    model = load_model(root, arm=arm, device="cpu")
    task = task_of(model.card, model.shelf)(model.config, torch.device("cpu"))
    network = filled(model.shelf, model.card, task.build, torch.device("cpu"))
    holds, module, names, inputs = _traced(task, network)
    try:
        data = _bytes(module, names, inputs)
    except Exception as error:  # whatever the exporter raises at what ONNX cannot say
        raise ModelError(f"{root}: the network of {model.card.trial_id} cannot be written as ONNX: "
                         f"{type(error).__name__}: {one_line(error)}") from None
    shapes, made, difference = _compared(data, module, inputs)
    if not difference <= TOLERANCE:
        raise ModelError(f"{root}: onnxruntime computes something else than the network of {model.card.trial_id}: the "
                         f"largest difference is {difference:.3g} of the largest value, and {TOLERANCE:g} is allowed")
    try:
        file.write_bytes(data)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror or error}") from None
    return OnnxFile(os.fspath(file), model.card.arm, model.card.trial_id, holds, shapes, made[0], made[1])


def _check_packages() -> None:
    import importlib.util

    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        raise ModelError(f"ONNX files need {', '.join(absent)}: pip install 'raymae[onnx]'")


@torch.no_grad()
def _traced(task: Task, network: nn.Module) -> tuple[str, nn.Module, list[str], tuple[Tensor, ...]]:
    """What is written, the names of its inputs, and an example of them."""
    source = task.load("val")
    batch = _Read(source.batch(torch.arange(min(EXAMPLES, len(source))), None))
    calls: list[tuple[Any, ...]] = []
    with network.register_forward_pre_hook(lambda _, args: calls.append(args)):
        prediction = task.predict(network, batch)
    if len(calls) == 1 and len(prediction) == len(calls[0][0]) and all(value.ndim for value in calls[0]):
        names = list(batch.names)
        return "prediction", _Prediction(task, network, names).eval(), names, tuple(batch[name] for name in names)
    inputs = calls[0]
    names = [f"input{index or ''}" for index in range(len(inputs))]
    return "network", _Window(network).eval(), names, tuple(torch.cat([value] * 3)[:EXAMPLES] for value in inputs)


def _bytes(module: nn.Module, names: list[str], inputs: tuple[Tensor, ...]) -> bytes:
    from torch.export import Dim

    with _quiet():
        program = torch.onnx.export(
            module, inputs, dynamo=True, input_names=names, output_names=["output"], external_data=False,
            dynamic_shapes=(tuple({0: Dim("batch")} for _ in inputs),), verbose=False)
        assert program is not None
        return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter has to say to those who write exporters."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def _compared(
    data: bytes, module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[dict[str, list[int | str]], tuple[dict[str, list[int | str]], float], float]:
    """Run the file on fewer examples than were traced: shapes of its inputs and outputs, the largest difference, and
    that in parts of the largest value."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    fewer = tuple(value[: max(1, len(value) - 1)] for value in inputs)
    given = {part.name: value.numpy() for part, value in zip(session.get_inputs(), fewer, strict=True)}
    expected = module(*fewer)
    got = torch.from_numpy(session.run(None, given)[0])
    if got.shape != expected.shape:
        raise ModelError(f"onnxruntime computes {list(got.shape)} in place of {list(expected.shape)}")
    difference = float((got.double() - expected.double()).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    outputs = {part.name: list(part.shape) for part in session.get_outputs()}
    return {part.name: list(part.shape) for part in session.get_inputs()}, (outputs, difference), difference / scale
