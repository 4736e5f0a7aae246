"""Chronological splits of a series into windows, and seeded subsets of the labelled ones.

A window is known by t, the index of its first target row: inputs are rows t - lookback .. t - 1, targets are rows
t .. t + horizon - 1. Every target lies inside its split. Training inputs do too; validation and test inputs may reach
back into the split before, so which targets are scored does not depend on the lookback that is searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from raymae.errors import DataError, unknown

Protocol = Literal["report", "field", "fractions"]
SplitName = Literal["train", "val", "test"]
FIELD_BORDERS = (12 * 30 * 24, 16 * 30 * 24, 20 * 30 * 24)  # hours: 12, 4 and 4 months of 30 days, as for ETTh
FRACTIONS = (0.7, 0.1, 0.2)  # the field's convention for series other than ETT


class Split(NamedTuple):
    """Target rows [start, stop) of one split."""

    start: int
    stop: int


def protocol_rows(
    protocol: Protocol, num_rows: int, *, fractions: tuple[float, float, float] = FRACTIONS
) -> dict[SplitName, Split]:
    """The target rows of each split. They depend on nothing but the protocol and the number of rows.

    `report`: the first 70 % train, the last 10 % test, validation between. `field`: 12, 4 and 4 months of hours, as
    the literature splits ETTh1 and ETTh2 (8,640 / 2,880 / 2,880 rows, the rest unused). `fractions`: by shares.

    Args:
        protocol: Which of them.
        num_rows: Rows of the series.
        fractions: Shares of train, val and test for `fractions`; they sum to 1.

    Raises:
        DataError: Unknown protocol, impossible fractions, or fewer rows than `field` needs.
    """
    if protocol not in get_args(Protocol):
        raise DataError(unknown("protocol", protocol, get_args(Protocol)))
    if protocol == "field":
        if num_rows < FIELD_BORDERS[-1]:
            raise DataError(f"protocol `field` needs {FIELD_BORDERS[-1]} hourly rows, got {num_rows}; try `fractions`")
        borders = FIELD_BORDERS
    elif protocol == "report":
        borders = (num_rows * 7 // 10, num_rows - num_rows // 10, num_rows)
    else:
        if min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
            raise DataError(f"fractions must be three positive shares that sum to 1, got {fractions}")
        borders = (_share(fractions[0], num_rows), num_rows - _share(fractions[2], num_rows), num_rows)
    return {"train": Split(0, borders[0]), "val": Split(borders[0], borders[1]), "test": Split(borders[1], borders[2])}


def protocol_splits(
    protocol: Protocol, num_rows: int, *, lookback: int, horizon: int, name: str,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> dict[SplitName, range]:
    """The windows of each split, as indices of their first target row.

    Args:
        protocol: See `protocol_rows`.
        num_rows: Rows of the series.
        lookback: Rows of input, at least 1.
        horizon: Rows of target, at least 1.
        name: The series, for messages.
        fractions: See `protocol_rows`.

    Raises:
        DataError: A split would hold no window; says how many rows are needed and are there.
    """
    if lookback < 1 or horizon < 1:
        raise DataError(f"{name}: lookback and horizon must be at least 1, got {lookback} and {horizon}")
    try:
        rows = protocol_rows(protocol, num_rows, fractions=fractions)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not _fits(rows, lookback, horizon):
        raise DataError(f"{name}: {_too_short(protocol, num_rows, rows, lookback, horizon, fractions)}")
    starts = {"train": lookback, "val": rows["val"].start, "test": rows["test"].start}
    return {split: range(starts[split], rows[split].stop - horizon + 1) for split in rows}


def labelled_windows(starts: Sequence[int] | range, fraction: float, seed: int, *, block: int) -> np.ndarray:
    """The share of the training windows whose labels fine-tuning may see.

    Windows next to each other share most of their rows, so labels are kept in blocks: the blocks are put in an order
    drawn from the seed and the first windows of that order are taken. So with one seed the 10 % are among the 25 %.

    Args:
        starts: First target rows of the training windows, ascending.
        fraction: Share to keep, 0 < fraction <= 1; at least one window is kept.
        seed: Draws the order of the blocks.
        block: Windows per block, at least 1.

    Returns:
        int64, ascending, ceil(fraction * len(starts)) of the starts.

    Raises:
        DataError: There are no windows, or the fraction or block is out of range.
    """
    if not len(starts):
        raise DataError("there are no training windows to take labels from; use a longer series")
    if not 0 < fraction <= 1:
        raise DataError(f"label_fraction must be above 0 and at most 1, got {fraction}")
    if block < 1:
        raise DataError(f"block must be at least 1 window, got {block}")
    starts_N = np.asarray(starts, dtype=np.int64)
    blocks = np.random.default_rng(seed).permutation(-(-len(starts_N) // block))
    order_N = np.concatenate([starts_N[index * block:(index + 1) * block] for index in blocks])
    num_kept = max(1, math.ceil(round(fraction * len(starts_N), 6)))  # .07 * 100 is 7.000000000000001
    return np.sort(order_N[:num_kept])


def _share(fraction: float, num_rows: int) -> int:
    return int(round(fraction * num_rows, 6))


def _fits(rows: dict[SplitName, Split], lookback: int, horizon: int) -> bool:
    train, val, test = (rows[split].stop - rows[split].start for split in ("train", "val", "test"))
    return train >= lookback + horizon and min(val, test) >= horizon


def _too_short(
    protocol: Protocol, num_rows: int, rows: dict[SplitName, Split], lookback: int, horizon: int,
    fractions: tuple[float, float, float],
) -> str:
    sizes = ", ".join(f"{split} {part.stop - part.start}" for split, part in rows.items())
    asked = f"lookback={lookback} and horizon={horizon} do not fit the `{protocol}` splits of {num_rows} rows ({sizes})"
    shortest = min(rows[split].stop - rows[split].start for split in ("val", "test"))
    longest = rows["train"].stop - horizon
    if horizon > shortest:
        fits = f"horizon may be at most {shortest} here"
    else:
        fits = f"lookback may be at most {longest} here" if longest >= 1 else "no lookback fits here"
    if protocol == "field":
        return f"{asked}: train must hold lookback + horizon rows, val and test horizon rows; {fits}"
    shares = (0.7, 0.2, 0.1) if protocol == "report" else fractions
    needed = max(num_rows + 1, int((lookback + horizon) / shares[0]), int((horizon - 2) / min(shares[1:])))
    while not _fits(protocol_rows(protocol, needed, fractions=fractions), lookback, horizon):
        needed += 1  # the borders are rounded, so the bound above may be a few rows short
    return f"{asked}: at least {needed} rows are needed, there are {num_rows}; {fits}"
