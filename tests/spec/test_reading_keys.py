"""The keys under `data` that say how a file is read: refused where the task does not read it, never ignored."""

from __future__ import annotations

import pytest
from base_sweep import Load, Refuse

from raymae.spec.sweep import SERIES_KEYS, Reading
from raymae.tasks import TASKS, schema_of

VALUES = {"separator": "\";\"", "decimal": "\",\"", "encoding": "latin-1", "missing": "[x]", "not_missing": "[NA]",
          "date_format": "\"%d.%m.%Y\"", "timezone": "Europe/Oslo", "fill": "last", "columns": "[a]", "drop": "[b]",
          "group": "shop"}
ARMS = {"classification": "majority", "segmentation": "majority", "volumes": "atlas", "imputation": "mean",
        "forecasting": "persistence", "prediction": "mean"}


def text(task: str) -> str:
    return f"name: read\ntask: {task}\ndata: {{name: mine, path: there}}\narms: [{ARMS[task]}]\n"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("key", Reading.model_fields)
def test_a_task_reads_a_key_or_refuses_it(load: Load, refuse: Refuse, task: str, key: str) -> None:
    override = f"data.{key}={VALUES[key]}"
    if key in schema_of(task).reads:
        assert load(text(task), override).data.given()
        return
    (said,) = refuse(text(task), override)
    readers = [name for name in ("forecasting", "imputation", "prediction") if key in schema_of(name).reads]
    told = " and ".join(filter(None, [", ".join(readers[:-1]), readers[-1]]))
    assert said.startswith(f"--set: data.{key}: tells {told} how to read a series")
    assert said.endswith(f", and the task {task} does not read it; leave it out")


def test_every_key_is_read_by_the_tasks_that_the_message_names() -> None:
    readers = {key: [name for name in TASKS if key in schema_of(name).reads] for key in Reading.model_fields}
    assert readers == {key: ["forecasting"] if key in SERIES_KEYS else ["forecasting", "imputation", "prediction"]
                       for key in Reading.model_fields}
