"""The columns of the two datasets, pinned once from a task's description, and the rows that fit them.

A column's type is one of the words `string`, `bool`, `int64`, `double` and `timestamp` (microseconds, UTC), so that
`sweep.json` can hold them readably.
"""

from __future__ import annotations

import datetime as dt
import operator
import types
import typing
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union

from raymae.errors import ResultsError, unknown
from raymae.spec import TaskSchema

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

Columns = Mapping[str, str]
Row = Mapping[str, Any]
"""A row of one of the datasets: what a column holds depends on the task."""

TRIAL_KEY = ("sweep", "trial_id", "attempt")
REPORT_KEY = ("sweep", "trial_id", "attempt", "step")

_TRIAL_HEAD = {
    "sweep": "string", "trial_id": "string", "config_id": "string", "arm": "string", "stage": "string",
    "attempt": "int64", "status": "string", "seed": "int64", "task": "string", "size": "string",
}
_TRIAL_TAIL = {
    "pretext_loss": "double", "pretext_skill": "double", "encoder_id": "string", "pretrain_s": "double",
    "finetune_s": "double", "epochs_done": "int64", "num_parameters": "int64", "wall_s": "double",
    "started_at": "timestamp", "ended_at": "timestamp", "parent": "string", "added_by": "string",
    "stopped_by": "string", "host": "string", "device": "string", "pid": "int64",
    "data_name": "string", "data_source": "string", "data_fingerprint": "string", "error": "string",
}
_REPORT_HEAD = {
    "sweep": "string", "trial_id": "string", "arm": "string", "stage": "string", "attempt": "int64", "step": "int64",
    "phase": "string", "epoch": "double", "wall_s": "double", "time": "timestamp", "loss": "double", "lr": "double",
}
_REPORT_TAIL = {"pretext_loss": "double", "pretext_skill": "double", "data_source": "string"}

LATER = frozenset(
    {"pretext_loss", "pretext_skill", "encoder_id", "pretrain_s", "finetune_s", "added_by", "stopped_by"}
)
"""Columns that folders of earlier versions lack; every other fixed one is in every folder."""

KINDS = ("string", "bool", "int64", "double", "timestamp")
FIXED = frozenset({**_TRIAL_HEAD, **_TRIAL_TAIL})
"""Columns of `trials` that are neither a parameter nor a metric."""

REQUIRED = {
    "trials": ("trial_id", "config_id", "arm", "stage", "attempt", "status", "seed"),
    "reports": ("trial_id", "arm", "stage", "attempt", "step", "phase"),
}
_ALLOWED = {
    "stage": ("search", "final", "replicate", "pretrain"), "status": ("completed", "stopped", "failed"),
    "phase": ("pretrain", "finetune", "test"), "data_source": ("real", "synthetic"),
}


def fixed_columns(dataset: str) -> Columns:
    """The columns that a dataset of every task has, with their kinds."""
    return {**_TRIAL_HEAD, **_TRIAL_TAIL} if dataset == "trials" else {**_REPORT_HEAD, **_REPORT_TAIL}


def check_table(table: Any) -> None:
    """Check rows that somebody else may have written, before anybody relies on them.

    Args:
        table: Rows of `trials` or `reports` as a `pyarrow.Table`.

    Raises:
        ValueError: A column that every row fills is empty somewhere, or holds a word that is none of its own.
    """
    import pyarrow.compute as pc

    for name in REQUIRED["trials" if "status" in table.column_names else "reports"]:
        if table.column(name).null_count:
            raise ValueError(f"column `{name}` is empty in {table.column(name).null_count} of {table.num_rows} rows")
    for name, allowed in _ALLOWED.items():
        if name in table.column_names:
            for value in pc.unique(table.column(name)).to_pylist():
                if value is not None and value not in allowed:
                    raise ValueError(f"column `{name}`: {unknown(name, value, allowed)}")


def is_metric(column: str) -> bool:
    """Whether a column holds a metric."""
    return column.startswith(("val_", "test_"))


def is_test(column: str) -> bool:
    """Whether a column holds a score on the test split."""
    return column.startswith("test_")


def param_columns(columns: Collection[str]) -> list[str]:
    """Those columns of `trials` that are parameters of the task."""
    return [name for name in columns if name not in FIXED and not is_metric(name)]


def columns_of(schema: TaskSchema) -> dict[str, dict[str, str]]:
    """The columns of `trials` and `reports` for one task.

    Raises:
        ResultsError: A parameter is named like a fixed or a metric column, or has a type no column can hold.
    """
    if schema.objective.metric not in schema.metrics:
        problem = unknown("metric", schema.objective.metric, schema.metrics)
        raise ResultsError(f"task {schema.name}: objective: {problem}")
    params = {name: _type_of(name, field.annotation) for name, field in schema.params.model_fields.items()}
    metrics = {f"{split}_{name}": "double" for split in ("val", "test") for name in schema.metrics}
    # SQL ignores the case of column names, so Size and size would be one column
    taken = {name.casefold() for name in (*FIXED, *metrics)}
    for name in params:
        if name.casefold() in taken or is_metric(name):
            raise ResultsError(
                f"task {schema.name}: parameter `{name}` has the name of a results column; rename the parameter. "
                f"Taken: names starting with val_ or test_, and {', '.join(sorted(FIXED))}"
            )
        taken.add(name.casefold())
    return {
        "trials": {**_TRIAL_HEAD, **params, **metrics, **_TRIAL_TAIL},
        "reports": {**_REPORT_HEAD, **metrics, **_REPORT_TAIL},
    }


def _type_of(name: str, annotation: Any) -> str:
    kinds = _kinds(annotation)
    if not kinds or not all(issubclass(kind, (bool, int, float, str)) for kind in kinds):
        raise ResultsError(f"parameter `{name}` has type {annotation}; a results column holds bool, int, float or str")
    if all(issubclass(kind, bool) for kind in kinds):
        return "bool"
    if any(issubclass(kind, (str, bool)) for kind in kinds):
        return "string"
    return "double" if any(issubclass(kind, float) for kind in kinds) else "int64"


def _kinds(annotation: Any) -> set[type]:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return {type(value) for value in typing.get_args(annotation)} - {types.NoneType}
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(annotation)))
    if annotation is types.NoneType:
        return set()
    return {annotation} if isinstance(annotation, type) else {object}


def only(trials: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Some columns of a table, those that it has: to choose among rows of a few is quicker than of all, one by one."""
    return trials[[name for name in names if name in trials]]


def last_attempts(trials: pd.DataFrame) -> pd.DataFrame:
    """Of several attempts at one trial the last, by number of attempt."""
    return trials.sort_values("attempt", kind="stable").drop_duplicates("trial_id", keep="last")


def alone_s(trials: pd.DataFrame) -> pd.Series:
    """Seconds that each trial took with those of the encoder it started from, as if it shared that with nobody.

    Args:
        trials: Rows of the `trials` dataset, of whatever version.
    """
    wall_s = trials["wall_s"].astype(float)
    if "pretrain_s" not in trials:
        return wall_s
    return wall_s + trials["pretrain_s"].astype(float).where(trials["stage"] != "pretrain").fillna(0.0)


def arrow_schema(columns: Columns) -> Any:
    """The `pyarrow.Schema` of these columns; everything may be null."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([pa.field(name, kinds[kind]) for name, kind in columns.items()])


def checked_row(dataset: str, given: Row, columns: Columns) -> dict[str, object]:
    """A row with exactly the columns' names and types; what is not given is null.

    Args:
        dataset: `trials` or `reports`, for messages.
        given: Column name to value; numpy scalars are fine. NaN and infinities stay floats.
        columns: The pinned columns.

    Raises:
        ResultsError: An unknown or missing column, or a value that does not fit its column.
    """
    for name in given:
        if name in columns:
            continue
        if is_metric(name):
            known = sorted({column.partition("_")[2] for column in columns if is_metric(column)})
            split, _, metric = name.partition("_")
            raise ResultsError(f"{dataset}: {split}_{metric}: {unknown('metric', metric, known)}")
        raise ResultsError(f"{dataset}: {unknown('column', name, columns)}")
    for name in REQUIRED[dataset]:
        if given.get(name) is None:
            raise ResultsError(f"{dataset}: column `{name}` is required, got {dict(given)}")
    row = {name: _fit(dataset, name, kind, given.get(name)) for name, kind in columns.items()}
    for name, allowed in _ALLOWED.items():
        if row.get(name) is not None and row[name] not in allowed:
            raise ResultsError(f"{dataset}: {unknown(name, row[name], allowed)}")
    return row


def _fit(dataset: str, name: str, kind: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        if kind == "double":
            return float(value)
        if kind == "int64":
            if isinstance(value, float) and value.is_integer():
                return int(value)
            return operator.index(value)
        if kind == "bool" and value in (True, False):
            return bool(value)
        if kind == "string":
            return str(value)
        if kind == "timestamp" and isinstance(value, dt.datetime) and value.tzinfo is not None:
            return value.astimezone(dt.UTC)
    except (TypeError, ValueError):
        pass
    expected = {"timestamp": "a datetime with a time zone", "int64": "a whole number", "double": "a number",
                "bool": "true or false"}[kind]
    raise ResultsError(f"{dataset}: column `{name}` holds {expected}, got {value!r}")
