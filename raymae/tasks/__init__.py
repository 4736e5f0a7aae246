"""The task registry: names to classes, imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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
        KeyError: No such task; its argument lists the names there are.
    """
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError):
        if name in TASKS:
            raise
        raise KeyError([*sorted(TASKS), "your.module:Task"]) from None
    from raymae.tasks.base import Task

    if not (isinstance(found, type) and issubclass(found, Task)):
        raise KeyError([*sorted(TASKS), "your.module:Task"])
    return found


def schema_of(name: str) -> TaskSchema:
    """The description of a task that a sweep file is checked against.

    Raises:
        KeyError: No such task; its argument lists the names there are.
    """
    return task_class(name).schema
