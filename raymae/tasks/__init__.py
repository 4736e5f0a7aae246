"""The task registry: names to classes, imported on use."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING

from raymae.errors import one_line, unknown

if TYPE_CHECKING:
    from types import ModuleType

    from raymae.spec.task import TaskSchema
    from raymae.tasks.base import Task

TASKS = {
    "classification": "raymae.tasks.classification:Classification",
    "forecasting": "raymae.tasks.forecasting:Forecasting",
    "imputation": "raymae.tasks.imputation:Imputation",
    "prediction": "raymae.tasks.prediction:Prediction",
    "segmentation": "raymae.tasks.segmentation:Segmentation",
    "volumes": "raymae.tasks.volumes:Volumes",
}


def task_class(name: str) -> type[Task]:
    """The class behind a name; imports torch.

    Args:
        name: A name in the registry, or `package.module:Class` for a task of your own, which is found in the current
            folder too, as `python -m` would.

    Raises:
        KeyError: No such task; its argument lists the names there are. Where the name is of a module's class, a second
            argument says why it cannot be had.
    """
    module, _, attribute = TASKS.get(name, name).partition(":")
    if name in TASKS:
        found: type[Task] = getattr(importlib.import_module(module), attribute)
        return found
    names = [*sorted(TASKS), "your.module:Task"]
    if not module or not attribute:
        raise KeyError(names)
    _see_current_folder()
    try:
        there = importlib.import_module(module)
    except Exception as error:  # whatever a module of the user's raises is a mistake in it, and named
        raise KeyError(names, f"{name} cannot be imported: {_cause(module, error)}") from None
    why = _unfit(there, attribute)
    if why:
        raise KeyError(names, f"{name} is no task that can be run: {why}")
    return getattr(there, attribute)


def _see_current_folder() -> None:
    """Let modules of the current folder be imported, before others of their name, as `python -m` does."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted
        return
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
        importlib.invalidate_caches()


def _cause(module: str, error: Exception) -> str:
    """Why a module cannot be imported: where it was looked for, or the line of it that failed."""
    if isinstance(error, ModuleNotFoundError) and error.name and (
            module == error.name or module.startswith(f"{error.name}.")):
        return (f"there is no module {error.name}, neither in the current folder nor on $PYTHONPATH nor installed; "
                "run it from the folder that holds the module, or name that folder in $PYTHONPATH")
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}, line {last.lineno}"
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    elif "importlib" in last.filename:
        return f"{module!r} is no name of a module"
    return f"{type(error).__name__}: {one_line(error)} ({where})"


def _unfit(module: ModuleType, attribute: str) -> str:
    """Why a module's attribute is no task that can be run; "" where it is one."""
    from raymae.spec.task import TaskSchema
    from raymae.tasks.base import Task

    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        tasks = [name for name, value in vars(module).items()
                 if isinstance(value, type) and issubclass(value, Task) and not inspect.isabstract(value)]
        if found is None:
            return unknown(f"task of {module.__name__}", attribute, tasks)
        return "it is not derived from raymae.tasks.base.Task"
    lacking = sorted(found.__abstractmethods__)
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    return "" if isinstance(getattr(found, "schema", None), TaskSchema) else "its `schema` is no TaskSchema"


def schema_of(name: str) -> TaskSchema:
    """The description of a task that a sweep file is checked against.

    Raises:
        KeyError: No such task; its argument lists the names there are.
    """
    return task_class(name).schema
