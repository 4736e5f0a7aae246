"""The cells of a table on a device, for imputation: what is seen, what is scored, and the scales they are on.

Three scales: the file's units; own units, in which a column's observed range is [0, 1] (codes for categories), which
networks predict; and the reference scale, the min-max scale of the complete table, on which everything is scored.
Shape suffixes: B batch, R rows, C columns, N tokens (a class token, then the columns), K bins or categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from raymae.data.missing import MissingKind, hide_cells
from raymae.data.shelf import WORKER
from raymae.data.synthetic.tables import synthetic_table
from raymae.data.tables import FOUND_OUT, Table, read_table, split_rows
from raymae.errors import DataError
from raymae.spec.sweep import Reading
from raymae.tasks.base import Batch

ScalerKind = Literal["minmax", "standard", "quantile"]
Protocol = Literal["transductive", "inductive"]
FRACTIONS: dict[str, tuple[float, float, float]] = {"transductive": (0.0, 0.2, 0.8), "inductive": (0.7, 0.1, 0.2)}
QUANTILES = 1000


def new_scaler(kind: ScalerKind, num_fit: int) -> Any:
    """scikit-learn's scaler of that kind, which so many rows will be fitted by."""
    from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

    if kind == "quantile":
        return QuantileTransformer(n_quantiles=min(QUANTILES, num_fit), subsample=None, output_distribution="normal")
    return MinMaxScaler() if kind == "minmax" else StandardScaler()


class OwnScales:
    """The scales of a table's columns, as its observed cells have taught them.

    Attributes:
        columns: Names.
        categories: Of every column in the order of their codes; () of a numeric one.
        num_categories: Of every column; 0 of a numeric one.
        own_low_C: Least observed value, in the file's units; 0 of categories.
        own_range_C: Extent of observed values; 1 of categories.
        deviation_C: Standard deviation of observed cells, own units, on the device.
    """

    def __init__(self, columns: Sequence[str], categories: Sequence[Sequence[Any]], device: torch.device) -> None:
        self.columns, self.categories, self.device = tuple(columns), tuple(map(tuple, categories)), device
        self.num_categories = [len(names) for names in categories]
        self.own_low_C = self.own_range_C = np.empty(0)
        self.deviation_C = torch.empty(0)
        self.scalers: dict[str, Any] = {}

    @cached_property
    def span_C(self) -> Tensor:  # noqa: N802
        """Own units of a column in units of its range."""
        return torch.tensor([1 / max(count - 1, 1) for count in self.num_categories], device=self.device)

    def scaler(self, kind: ScalerKind) -> Any:
        """scikit-learn's scaler of that kind."""
        return self.scalers[kind]

    def scaled_rows(self, kind: ScalerKind, units_RC: np.ndarray) -> Tensor:
        """What networks get: float32 [R, C] on a scaler's scale centred on 0, codes for categories, 0 where missing.

        Args:
            kind: Of the scaler.
            units_RC: Any rows, in the file's units.
        """
        scaled_RC = self.scaler(kind).transform(units_RC)
        if kind == "minmax":
            scaled_RC = 2 * scaled_RC - 1
        return self._tensor(np.where(np.array(self.num_categories) > 0, units_RC, scaled_RC.clip(-8, 8)))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.nan_to_num(values), dtype=torch.float32, device=self.device)


class IncompleteTable(OwnScales):
    """A table with cells taken away. R rows, C columns.

    Attributes:
        rows: Rows of each split; `fit` are those whose observed cells may be learned from.
        hidden_RC: bool, the cells taken away: the only ones whose imputation is scored.
        missing_RC: bool, those and the truly missing ones.
        seen_RC: float64, the file's units, NaN in missing cells: all that an imputer may see.
        truth_RC: float64, the reference scale, NaN where truly missing: for scores only.
        own_RC: float32 on the device, own units, 0 in missing cells.
        imputed: What references made of it so far, by what they were fitted with.
    """

    def __init__(
        self, table: Table, hidden_RC: np.ndarray, rows: dict[str, np.ndarray], device: torch.device
    ) -> None:
        super().__init__(table.columns, table.categories, device)
        self.table, self.hidden_RC, self.rows = table, hidden_RC, rows
        absent_RC = np.isnan(table.values_RC)
        self.missing_RC = hidden_RC | absent_RC
        self.seen_RC = np.where(self.missing_RC, np.nan, table.values_RC)
        fit_RC = self.seen_RC[rows["fit"]]
        for name, column_R in zip(table.columns, fit_RC.T, strict=True):
            if np.isnan(column_R).all():
                raise DataError(f"{table.origin}: column {name!r} has no observed cell to learn from; drop it, or take "
                                "fewer cells away")
        whole_RC = np.where(absent_RC.all(axis=0), 0.0, table.values_RC)
        self.low_C, self.range_C = _range(whole_RC)
        self.truth_RC = (table.values_RC - self.low_C) / self.range_C
        self.own_low_C, self.own_range_C = _range(fit_RC)
        categorical_C = table.is_categorical
        self.own_low_C[categorical_C], self.own_range_C[categorical_C] = 0.0, 1.0
        self.own_RC = self._tensor((self.seen_RC - self.own_low_C) / self.own_range_C)
        self.deviation_C = self._tensor(np.nanstd((fit_RC - self.own_low_C) / self.own_range_C, axis=0))
        self.missing_RC_on_device = torch.as_tensor(self.missing_RC, device=device)
        self.imputed: dict[tuple[Any, ...], np.ndarray] = {}

    def groups(self, rows: np.ndarray) -> tuple[str, ...] | None:
        """The groups of some rows; None where they are not known."""
        every = self.table.groups
        return None if every is None else tuple(every[row] for row in rows)

    def forget(self) -> None:
        """Drop every row; what was learned from them stays."""
        none_RC = np.empty((0, len(self.num_categories)))
        self.scaler("minmax"), self.scaler("standard"), self.scaler("quantile")
        self.table = Table(none_RC, self.table.columns, self.table.categories, self.table.origin)
        self.hidden_RC, self.missing_RC, self.seen_RC, self.truth_RC = none_RC > 0, none_RC > 0, none_RC, none_RC
        self.own_RC, self.missing_RC_on_device = self._tensor(none_RC), self._tensor(none_RC) > 0
        self.rows = {}

    def to_reference(self, own_BC: np.ndarray) -> np.ndarray:
        """Own units to the reference scale."""
        return (own_BC * self.own_range_C + self.own_low_C - self.low_C) / self.range_C

    def to_own(self, reference_BC: Tensor) -> Tensor:
        """The inverse of `to_reference`: float64, NaN as 0."""
        scale = (torch.as_tensor(part_C, device=self.device)
                 for part_C in (self.range_C, self.low_C, self.own_low_C, self.own_range_C))
        range_C, low_C, own_low_C, own_range_C = scale
        return ((reference_BC.double() * range_C + low_C - own_low_C) / own_range_C).nan_to_num()

    @cached_property
    def usual_C(self) -> Tensor:  # noqa: N802
        """What an observed cell of a column is expected to be, own units: the mean, or the most frequent category."""
        fit_RC = (self.seen_RC[self.rows["fit"]] - self.own_low_C) / self.own_range_C
        usual_C = [np.bincount(column_R[~np.isnan(column_R)].astype(int)).argmax() if count else np.nanmean(column_R)
                   for column_R, count in zip(fit_RC.T, self.num_categories, strict=True)]
        return torch.as_tensor(np.array(usual_C, dtype=np.float64), device=self.device)

    def to_units(self, reference_BC: np.ndarray) -> np.ndarray:
        """The reference scale to the file's units."""
        return reference_BC * self.range_C + self.low_C

    def scaler(self, kind: ScalerKind) -> Any:
        """scikit-learn's scaler of that kind, fitted on observed cells in the file's units."""
        if kind not in self.scalers:
            num_fit = len(self.rows["fit"])
            self.scalers[kind] = new_scaler(kind, num_fit).fit(self.seen_RC[self.rows["fit"]])
        return self.scalers[kind]

    def scaled(self, kind: ScalerKind) -> Tensor:
        """`scaled_rows` of the table."""
        return self.scaled_rows(kind, self.seen_RC)

    def bins(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cut every column into bins that hold about equally many observed cells; categories are their own bins.

        Returns:
            The bin of every cell, int64 [R, C] (0 where missing); and for every bin the mean of its observed cells and
            its lower and upper edge, in own units: float32 [C, K] and [C, K, 2], NaN where a column has no such bin.
        """
        fit_RC = (self.seen_RC[self.rows["fit"]] - self.own_low_C) / self.own_range_C
        own_RC = (self.seen_RC - self.own_low_C) / self.own_range_C
        widest = max(most, *self.num_categories)
        centres_CK = np.full((fit_RC.shape[1], widest), np.nan)
        edges_CK2 = np.full((*centres_CK.shape, 2), np.nan)
        bins_RC = np.zeros(own_RC.shape, dtype=np.int64)
        for column, count in enumerate(self.num_categories):
            observed_R = fit_RC[~np.isnan(fit_RC[:, column]), column]
            if count:
                centres_CK[column, :count] = np.arange(count)
                edges_CK2[column, :count] = np.arange(count)[:, None]
                bins_RC[:, column] = np.nan_to_num(own_RC[:, column])
                continue
            borders = _borders(observed_R, most)
            which_R = np.searchsorted(borders, observed_R, side="right")
            size = np.bincount(which_R, minlength=len(borders) + 1)
            centres_CK[column, :len(size)] = np.bincount(which_R, observed_R, minlength=len(size)) / size
            for bin_ in range(len(size)):
                inside = observed_R[which_R == bin_]
                edges_CK2[column, bin_] = inside.min(), inside.max()
            bins_RC[:, column] = np.searchsorted(borders, np.nan_to_num(own_RC[:, column]), side="right")
        bins_RC[self.missing_RC] = 0
        kept = ~np.isnan(centres_CK).all(axis=0)
        centres, edges = (torch.as_tensor(values[:, kept], dtype=torch.float32, device=self.device)
                          for values in (centres_CK, edges_CK2))
        return torch.as_tensor(bins_RC, device=self.device), centres, edges


class TableRows:
    """Rows of a split. Truth is in a batch only where it is scored.

    Args:
        data: The table.
        rows: Which rows.
        tensors: What a network gets of every row, `[R, ...]` each.
        scored: Whether the batches hold the truth of hidden cells.
        hide: Chooses what is hidden in a batch while training; None where nothing is.
    """

    def __init__(
        self, data: IncompleteTable, rows: np.ndarray, tensors: dict[str, Tensor], *, scored: bool,
        hide: Callable[[Tensor, Generator], Tensor] | None = None,
    ) -> None:
        self.data, self.tensors, self.hide = data, tensors, hide
        self.rows = torch.as_tensor(rows, device=data.device)
        self.truth: dict[str, Tensor] = {}
        if scored:
            self.truth = {"truth": torch.as_tensor(np.nan_to_num(data.truth_RC)).to(data.device),
                          "scored": torch.as_tensor(data.hidden_RC).to(data.device),
                          "absent": torch.as_tensor(np.isnan(data.truth_RC)).to(data.device)}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """`row` [B], `missing` [B, C], the tensors, `mask` [B, N] if drawn, `truth` and what is scored of it [B, C]."""
        row_B = self.rows[index_B.to(self.rows.device)]
        batch = {"row": row_B, "missing": self.data.missing_RC_on_device[row_B]}
        batch |= {name: values[row_B] for name, values in {**self.tensors, **self.truth}.items()}
        if self.hide is not None:
            if generator is None:  # the same mask for a row whatever batch it is in
                every = self.hide(self.data.missing_RC_on_device, Generator(self.data.device).manual_seed(0))
                batch["mask"] = every[row_B]
            else:
                batch["mask"] = self.hide(batch["missing"], generator)
        return batch


def _range(values_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and extent of every column; 1 for a constant one."""
    low_C, high_C = np.nanmin(values_RC, axis=0), np.nanmax(values_RC, axis=0)
    return low_C, np.where(high_C > low_C, high_C - low_C, 1.0)


def _borders(observed_R: np.ndarray, most: int) -> np.ndarray:
    """Between bins: halfway between neighbouring values where there are few, quantiles elsewhere. No bin is empty."""
    distinct = np.unique(observed_R)
    if len(distinct) <= most:
        return (distinct[1:] + distinct[:-1]) / 2
    borders = np.unique(np.quantile(observed_R, np.linspace(0, 1, most + 1)[1:-1]))
    which = np.searchsorted(borders, observed_R, side="right")
    filled = np.bincount(which, minlength=len(borders) + 1) > 0
    return borders[filled[1:] & (np.cumsum(filled)[:-1] > 0)]


def mask_cells(
    missing_BC: Tensor, kind: Literal["fixed", "uniform", "pattern"], mask_ratio: float, generator: Generator,
    patterns_RC: Tensor,
) -> Tensor:
    """Choose what is hidden while training: missing cells, and a part of the observed ones. bool `[B, N]`.

    The class token is never hidden. At least one cell of every row is, so that every row teaches something.

    Args:
        missing_BC: Never observed.
        kind: `fixed`: every observed cell with chance `mask_ratio`; `uniform`: with a chance drawn per row between 0
            and twice `mask_ratio` (at most 1); `pattern`: where another row of the table misses cells.
        mask_ratio: See `kind`.
        generator: Source of randomness, on the cells' device.
        patterns_RC: Where each row of the table misses cells.
    """
    batch, columns = missing_BC.shape
    noise_BC = torch.rand(batch, columns, generator=generator, device=generator.device)
    if kind == "pattern":
        row_B = torch.randint(len(patterns_RC), (batch,), generator=generator, device=generator.device)
        drawn_BC = patterns_RC[row_B]
    else:
        chance_B1 = torch.rand(batch, 1, generator=generator, device=generator.device) * min(2 * mask_ratio, 1.0)
        drawn_BC = noise_BC < (chance_B1 if kind == "uniform" else mask_ratio)
    first_BC = noise_BC.masked_fill(missing_BC, 2.0)
    lowest_BC = (first_BC == first_BC.amin(dim=1, keepdim=True)) & ~missing_BC
    none_B1 = ~(drawn_BC & ~missing_BC).any(dim=1, keepdim=True)
    hidden_BC = missing_BC | drawn_BC | (none_B1 & lowest_BC)
    return torch.cat([torch.zeros_like(hidden_BC[:, :1]), hidden_BC], dim=1)


@WORKER.keeps(4)
def incomplete_table(
    name: str, path: str | None, categorical: str, numeric: str, drop: str, group: str, protocol: Protocol,
    kind: MissingKind, rate: float, pattern_seed: int, device: torch.device, reading: Reading = FOUND_OUT,
) -> IncompleteTable:
    """Read once per process: a worker keeps its data from trial to trial."""
    if path is None:
        table = synthetic_table()
    else:
        table = read_table(Path(path), categorical=categorical, numeric=numeric, drop=drop, group=group,
                           reading=reading)
    rows = split_rows(len(table.values_RC), FRACTIONS[protocol], pattern_seed, table.groups)
    rows["fit"] = np.arange(len(table.values_RC)) if protocol == "transductive" else rows["train"]
    return IncompleteTable(table, hide_cells(table.values_RC, kind, rate, pattern_seed), rows, device)
