"""A table with one column apart: what is predicted, and the columns that it is predicted from.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymae.data.shelf import WORKER
from raymae.data.synthetic.tables import synthetic_table
from raymae.data.tables import FOUND_OUT, Table, read_table, split_rows
from raymae.errors import DataError, unknown
from raymae.spec.sweep import Reading
from raymae.tasks.columns.cells import FRACTIONS, IncompleteTable


@dataclass(frozen=True, eq=False)
class LabelledTable:
    """R rows of C columns, and a label of most.

    Attributes:
        inputs: The columns without the target. Its `rows` are `train`, `val` and `test`, which have labels, and `fit`:
            those of `train` and the rows without a label, whose inputs pretraining may see.
        target: Name of the column that is predicted.
        classes: Its categories in the order of their codes; () of a number.
        label_R: float64, the file's units or codes; NaN where there is none.
    """

    inputs: IncompleteTable
    target: str
    classes: tuple[Any, ...]
    label_R: np.ndarray

    @property
    def num_outputs(self) -> int:
        """What a network says of a row: a score per category, or one number."""
        return len(self.classes) or 1


@WORKER.keeps(4)
def labelled_table(
    path: str | None, target: str, categorical: str, numeric: str, drop: str, group: str, split_seed: int,
    device: torch.device, reading: Reading = FOUND_OUT,
) -> LabelledTable:
    """Read once per process: a worker keeps its data from trial to trial.

    Raises:
        DataError: It is malformed, there is no such column or none beside it, or too few rows have a label.
    """
    if path is None:
        table = synthetic_table()
    else:
        table = read_table(Path(path), categorical=categorical, numeric=numeric, drop=drop, group=group,
                           reading=reading)
    return apart(table, target, split_seed, device)


def apart(table: Table, target: str, split_seed: int, device: torch.device) -> LabelledTable:
    """Take the target out of a table, and split the rows that have one.

    A row without a label is pretrained on, unless it is of a group whose other rows are scored.

    Raises:
        DataError: See `labelled_table`.
    """
    if target not in table.columns:
        raise DataError(f"{table.origin}: {unknown('column', target, table.columns)}; settings.target names the one "
                        "that is predicted")
    column = table.columns.index(target)
    if len(table.columns) == 1:
        raise DataError(f"{table.origin}: there is no column beside {target!r} to predict it from")
    label_R, classes = table.values_RC[:, column], table.categories[column]
    others = [index for index in range(len(table.columns)) if index != column]
    inputs = replace(table, values_RC=table.values_RC[:, others],
                     columns=tuple(table.columns[index] for index in others),
                     categories=tuple(table.categories[index] for index in others))
    rows = _rows(table, label_R, split_seed)
    if len(np.unique(label_R[rows["train"]])) < 2:
        raise DataError(f"{table.origin}: column {target!r} holds the same in every training row; there is nothing to "
                        "predict")
    return LabelledTable(IncompleteTable(inputs, np.zeros(inputs.values_RC.shape, bool), rows, device), target, classes,
                         label_R)


def _rows(table: Table, label_R: np.ndarray, split_seed: int) -> dict[str, np.ndarray]:
    told, untold = np.flatnonzero(~np.isnan(label_R)), np.flatnonzero(np.isnan(label_R))
    groups = table.groups
    try:
        parts = split_rows(len(told), FRACTIONS["inductive"], split_seed,
                           None if groups is None else tuple(groups[row] for row in told))
    except DataError as error:
        raise DataError(f"{table.origin}: of the rows with a label, {error}") from None
    rows = {name: told[part] for name, part in parts.items()}
    if groups is not None:
        scored = {groups[row] for name in ("val", "test") for row in rows[name]}
        untold = np.array([row for row in untold if groups[row] not in scored], dtype=np.int64)
    rows["fit"] = np.sort(np.concatenate([rows["train"], untold]))
    return rows
