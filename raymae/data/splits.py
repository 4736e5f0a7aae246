"""Chronological splits of a series into windows.

A window is known by t, the index of its first target row: inputs are rows t - lookback .. t - 1, targets are rows
t .. t + horizon - 1. Every target lies inside its split. Training inputs do too; validation and test inputs may reach
back into the split before, so which targets are scored does not depend on the lookback that is searched.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from raymae.errors import DataError, unknown

Protocol = Literal["report", "field"]
SplitName = Literal["train", "val", "test"]
FIELD_BORDERS = (12 * 30 * 24, 16 * 30 * 24, 20 * 30 * 24)  # hours: 12, 4 and 4 months of 30 days, as for ETTh


class Split(NamedTuple):
    """Target rows [start, stop) of one split."""

    start: int
    stop: int


def protocol_rows(protocol: Protocol, num_rows: int) -> dict[SplitName, Split]:
    """The target rows of each split. They depend on nothing but the protocol and the number of rows.

    `report`: the first 70 % train, the last 10 % test, validation between. `field`: 12, 4 and 4 months of hours, as
    the literature splits ETTh1 and ETTh2 (8,640 / 2,880 / 2,880 rows, the rest unused).

    Args:
        protocol: Which of them.
        num_rows: Rows of the series.

    Raises:
        DataError: Unknown protocol, or fewer rows than `field` needs.
    """
    if protocol not in get_args(Protocol):
        raise DataError(unknown("protocol", protocol, get_args(Protocol)))
    if protocol == "field":
        if num_rows < FIELD_BORDERS[-1]:
            raise DataError(f"protocol `field` needs {FIELD_BORDERS[-1]} hourly rows, got {num_rows}; try `report`")
        borders = FIELD_BORDERS
    else:
        borders = (num_rows * 7 // 10, num_rows - num_rows // 10, num_rows)
    return {"train": Split(0, borders[0]), "val": Split(borders[0], borders[1]), "test": Split(borders[1], borders[2])}


def protocol_splits(
    protocol: Protocol, num_rows: int, *, lookback: int, horizon: int, name: str
) -> dict[SplitName, range]:
    """The windows of each split, as indices of their first target row.

    Args:
        protocol: See `protocol_rows`.
        num_rows: Rows of the series.
        lookback: Rows of input, at least 1.
        horizon: Rows of target, at least 1.
        name: The series, for messages.

    Raises:
        DataError: A split would hold no window; says how many rows are needed and are there.
    """
    if lookback < 1 or horizon < 1:
        raise DataError(f"{name}: lookback and horizon must be at least 1, got {lookback} and {horizon}")
    try:
        rows = protocol_rows(protocol, num_rows)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not _fits(rows, lookback, horizon):
        raise DataError(f"{name}: {_too_short(protocol, num_rows, rows, lookback, horizon)}")
    starts = {"train": lookback, "val": rows["val"].start, "test": rows["test"].start}
    return {split: range(starts[split], rows[split].stop - horizon + 1) for split in rows}


def _fits(rows: dict[SplitName, Split], lookback: int, horizon: int) -> bool:
    train, val, test = (rows[split].stop - rows[split].start for split in ("train", "val", "test"))
    return train >= lookback + horizon and min(val, test) >= horizon


def _too_short(
    protocol: Protocol, num_rows: int, rows: dict[SplitName, Split], lookback: int, horizon: int
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
    needed = max(num_rows + 1, int((lookback + horizon) / 0.7), int((horizon - 2) / 0.1))
    while not _fits(protocol_rows(protocol, needed), lookback, horizon):
        needed += 1  # the borders are rounded, so the bound above may be a few rows short
    return f"{asked}: at least {needed} rows are needed, there are {num_rows}; {fits}"
