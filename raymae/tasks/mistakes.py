"""Mistakes in a task's own code: which line made them, and the error that names task, arm, method and cause."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raymae.errors import RayMAEError, TaskError, one_line

if TYPE_CHECKING:
    from raymae.tasks.base import Loss, Task


def cause_of(error: BaseException, module: str) -> str:
    """Say what went wrong, and in which line of a task's own code: `ValueError: no rows (/home/me/waves.py:41)`.

    Args:
        error: What was raised.
        module: Name of the task's module. Its own code is all that lies in the folder of that module.
    """
    frames = traceback.extract_tb(error.__traceback__)
    folder = os.path.dirname(getattr(sys.modules.get(module), "__file__", None) or "") + os.sep
    own = [frame for frame in frames
           if frame.filename.startswith(folder) and "site-packages" not in frame.filename.removeprefix(folder)]
    said = f"{type(error).__name__}: {one_line(error)}" if str(error).strip() else type(error).__name__
    at = (own or frames)[-1:]
    return f"{said} ({at[0].filename}:{at[0].lineno})" if at else said


@contextmanager
def named(task: Task, method: str) -> Iterator[None]:
    """Turn whatever a method of a task raises within a `with` block into an error that names it.

    Raises:
        TaskError: Anything was raised that is not an error of this project's own.
    """
    try:
        yield
    except RayMAEError:
        raise
    except Exception as error:  # a mistake in the task, whatever its kind
        raise wrong(task, method, f"fails with {cause_of(error, type(task).__module__)}") from error


def wrong(task: Task, method: str, what: str) -> TaskError:
    """Make the error for what a method of a task did."""
    return TaskError(f"task {task.config.task}, arm {task.config.arm}: {method} {what}")


def check_loss(task: Task, method: str, loss: Loss, *, learns: bool = True) -> None:
    """Refuse what a loss method returned where the training loop could not go on with it.

    Args:
        task: Whose method it is.
        method: Its name.
        loss: What it returned.
        learns: Whether gradients have been recorded.

    Raises:
        TaskError: It is no `Loss` of a finite scalar that depends on the network.
    """
    from torch import Tensor

    from raymae.tasks.base import Loss

    if not isinstance(loss, Loss):
        raise wrong(task, method, f"returns a {type(loss).__name__}; return Loss(mean, counted): the mean loss of the "
                                  "batch, and how many examples, pixels or cells it is the mean of")
    if not isinstance(loss.mean, Tensor) or loss.mean.dim():
        form = f"tensor of shape {list(loss.mean.shape)}" if isinstance(loss.mean, Tensor) else type(loss.mean).__name__
        raise wrong(task, method, f"returns a Loss whose mean is a {form}; it must be a scalar tensor")
    if not bool(loss.mean.isfinite()):
        raise wrong(task, method, f"is {float(loss.mean.detach())} on the first examples with a fresh network; it must "
                                  "be finite, and 0 where nothing is counted")
    if learns and not loss.mean.requires_grad:
        raise wrong(task, method, "returns a loss that does not depend on the network's parameters, so nothing would "
                                  "be learned; compute it from what the network returns, without detach() or no_grad")
