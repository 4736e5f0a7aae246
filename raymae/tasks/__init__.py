"""The task registry: names to classes, imported on use."""

from __future__ import annotations

import importlib
import inspect
import traceback
from typing import TYPE_CHECKING

from raymae.errors import one_line

if TYPE_CHECKING:
    from raymae.spec.task import TaskSchema
    from raymae.tasks.base import Task

TASKS = {
    "classification": "raymae.tasks.classification:Classification",
    "forecasting": "raymae.tasks.forecasting:Forecasting",
    "imputation": "raymae.tasks.imputation:Imputation",
    "segmentation": "raymae.tasks.segmentation:Segmentation",
    "volumes": "raymae.tasks.volumes:Volumes",
}


def task_class(name: str) -> type[Task]:
    """The class behind a name; imports torch.

    Args:
        name: A name in the registry, or `package.module:Class` for a task of your own.

    Raises:
        KeyError: No such task; its argument lists the names there are. Where its module is there and cannot be
            imported, or names no task, a second argument says why.
    """
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a module of the user's raises is a mistake in it, and named
        if name in TASKS:
            raise
        raise _no_task(name, module, error) from None
    from raymae.spec.task import TaskSchema
    from raymae.tasks.base import Task

    if not (isinstance(found, type) and issubclass(found, Task)):
        raise KeyError([*sorted(TASKS), "your.module:Task"])
    if inspect.isabstract(found) or not isinstance(getattr(found, "schema", None), TaskSchema):
        lacking = sorted(found.__abstractmethods__)
        why = f"it lacks {', '.join(lacking)}" if lacking else "its `schema` is no TaskSchema"
        raise KeyError([*sorted(TASKS), "your.module:Task"], f"{name} is no task that can be run: {why}")
    return found


def _no_task(name: str, module: str, error: Exception) -> KeyError:
    """The error for a task whose class cannot be had: with its cause where there is a module of that name."""
    names = [*sorted(TASKS), "your.module:Task"]
    absent = isinstance(error, ModuleNotFoundError) and error.name is not None and (
        module == error.name or module.startswith(f"{error.name}."))
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    by_importlib = isinstance(error, (ValueError, TypeError)) and "importlib" in last.filename
    if absent or by_importlib or len(frames) == 1 or ":" not in name:
        return KeyError(names)
    where = f"{error.filename}, line {error.lineno}" if isinstance(error, SyntaxError) else \
        f"{last.filename}, line {last.lineno}"
    return KeyError(names, f"{name} cannot be imported: {type(error).__name__}: {one_line(error)} ({where})")


def schema_of(name: str) -> TaskSchema:
    """The description of a task that a sweep file is checked against.

    Raises:
        KeyError: No such task; its argument lists the names there are.
    """
    return task_class(name).schema
