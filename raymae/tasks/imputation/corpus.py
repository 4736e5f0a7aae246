"""Rows of other tables with the same columns that pretraining sees beside the table's own.

Shape suffixes: B batch, R rows, C columns, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raymae.data.find.locate import Located
from raymae.data.leaks import unseen
from raymae.data.shelf import WORKER
from raymae.data.tables import read_table
from raymae.errors import DataError
from raymae.spec.sweep import Reading
from raymae.spec.trial import TrialData
from raymae.tasks.base import Batch
from raymae.tasks.columns.cells import IncompleteTable
from raymae.tasks.imputation.imputing import Imputing


class MoreRows(NamedTuple):
    """Rows of corpora: float64 `[R, C]`, the file's units and the table's codes, NaN where missing; their names and
    groups, and what has to be said of them."""

    units_RC: np.ndarray
    names: tuple[str, ...]
    groups: tuple[str, ...]
    note: str


class RowsToPretrainOn:
    """Rows of several tables, as `TableRows` gives those of one.

    Args:
        parts: What a network gets of every row, `[R, ...]` each, under the same names in each part.
    """

    def __init__(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        self.tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __len__(self) -> int:
        return len(self.tensors["missing"])

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`missing` [B, C], and the tensors."""
        return {name: values[index_B.to(values.device)] for name, values in self.tensors.items()}


def tensors_of(imputing: Imputing, units_RC: np.ndarray) -> dict[str, Tensor]:
    """What the network of a token arm gets of any rows, see `Imputing.tensors`."""
    data, device = imputing.data, imputing.device
    own_RC = np.nan_to_num((units_RC - data.own_low_C) / data.own_range_C)
    edges_CK2, bins_RC = imputing.learned.edges_CK2, np.zeros(own_RC.shape, np.int64)
    assert edges_CK2 is not None
    for column, (count, edges_K2) in enumerate(zip(data.num_categories, edges_CK2.cpu().numpy(), strict=True)):
        if count:
            bins_RC[:, column] = own_RC[:, column]
            continue
        lower_K, upper_K = edges_K2[~np.isnan(edges_K2[:, 0])].T
        bins_RC[:, column] = np.searchsorted((upper_K[:-1] + lower_K[1:]) / 2, own_RC[:, column], side="right")
    missing_RC = np.isnan(units_RC)
    bins_RC[missing_RC] = 0
    return {"missing": torch.as_tensor(missing_RC, device=device),
            "tokens": F.pad(data.scaled_rows(imputing.scaler, units_RC), (1, 0))[..., None],
            "value": torch.as_tensor(own_RC, dtype=torch.float32, device=device),
            "bin": torch.as_tensor(bins_RC, device=device)}


def read_corpora(found: Sequence[Located], where: TrialData, group: str, table: IncompleteTable) -> MoreRows:
    """The rows of every corpus but those that are scored, read once per process.

    Args:
        found: Where they are.
        where: How they are read.
        group: The column that says which rows belong together; "" where none is known.
        table: The table that is imputed.

    Raises:
        DataError: One is malformed or lacks a column; or nothing is left of all, and own rows are not wanted.
    """
    parts = [_read(one.name, str(place.path), one.reading(), group, table)
             for place, one in zip(found, where.pretraining.data, strict=True)]
    names, groups = (tuple(name for part in parts for name in part[at]) for at in (1, 2))
    note = " and ".join(part.note for part in parts)
    if not names and not where.pretraining.own:
        raise DataError(f"{table.table.origin}: nothing is left to pretrain on: {note}")
    return MoreRows(np.concatenate([part.units_RC for part in parts]), names, groups, note)


@WORKER.keeps(8)
def _read(name: str, path: str, reading: Reading, group: str, table: IncompleteTable) -> MoreRows:
    own, notes = table.table, []
    categorical = [column for column, known in zip(own.columns, own.categories, strict=True) if known]
    numeric = [column for column in own.columns if column not in categorical]
    read = read_table(Path(path), categorical=categorical, numeric=numeric, group=group,
                      reading=reading.model_copy(update={"columns": own.columns}))
    units_RC = read.values_RC[:, [read.columns.index(column) for column in own.columns]]
    for column, known in enumerate(own.categories):
        if known:
            theirs: Sequence[Any] = read.categories[read.columns.index(own.columns[column])]
            codes = np.array([known.index(value) if value in known else np.nan for value in theirs] or [np.nan])
            codes_R = np.nan_to_num(units_RC[:, column]).astype(int)
            coded_R = np.where(np.isnan(units_RC[:, column]), np.nan, codes[codes_R])
            unknown = int(np.isnan(coded_R).sum() - np.isnan(units_RC[:, column]).sum())
            notes += [f"{unknown:,} cells of {own.columns[column]} missing, whose categories the table lacks"] \
                if unknown else []
            units_RC[:, column] = coded_R
    scored = np.concatenate([table.rows["val"], table.rows["test"]])
    apart = {*(table.groups(scored) or ())}
    groups = read.groups or tuple(f"{name}/{row + 1}" for row in range(len(units_RC)))
    rows, told = unseen(_keys(units_RC), {*_keys(own.values_RC[scored])}, [one not in apart for one in groups])
    empty_R = np.isnan(units_RC[rows]).all(axis=1)
    told += [f"{int(empty_R.sum()):,} left out, as they are empty"] if empty_R.any() else []
    rows = rows[~empty_R]
    more = f" ({'; '.join([*told, *notes])})" if told or notes else ""
    return MoreRows(units_RC[rows], tuple(f"{name}/{row + 1}" for row in rows), tuple(groups[row] for row in rows),
                    f"{len(rows):,} rows of {name}{more}")


def _keys(values_RC: np.ndarray) -> list[bytes]:
    """Equal for equal rows, missing cells included."""
    plain_RC = np.where(np.isnan(values_RC), np.nan, values_RC) + 0.0  # one NaN, and -0 is 0
    return [row_C.tobytes() for row_C in np.ascontiguousarray(plain_RC)]
