"""The task registry: names to classes, imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymae.spec.trial import TaskSchema
    from raymae.tasks.base import Task

TASKS = {
    "forecasting": "raymae.tasks.forecasting:Forecasting",
}


def task_class(name: str) -> type[Task]:
    """The class behind a name; imports torch.

    Raises:
        KeyError: No such task; its argument lists the names there are.
    """
    if name not in TASKS:
        raise KeyError(sorted(TASKS))
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def schema_of(name: str) -> TaskSchema:
    """The description of a task that a sweep file is checked against.

    Raises:
        KeyError: No such task; its argument lists the names there are.
    """
    return task_class(name).schema()
