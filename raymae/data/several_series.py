"""Several series of one file: which of them can be split in time and scaled, and whether their steps agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymae.data.series import Series
from raymae.data.splits import Protocol, protocol_rows, protocol_splits
from raymae.errors import DataError

MONTH_S = 365.2425 / 12 * 86_400
LISTED, MAX_NOTES = 5, 6  # names of series, and words on how they were read


def splittable(
    found: Sequence[Series], protocol: Protocol, horizon: int, name: str
) -> tuple[Sequence[Series], tuple[str, ...]]:
    """Leave out series that are too short or have a column without a training cell.

    Which ones does not depend on the lookback, so that it does not change what is scored.

    Args:
        found: All of a file; a single one must do.
        protocol: How each is split.
        horizon: Rows of target.
        name: The file, for messages.

    Returns:
        The others, and what a person should know of how all of them were read.

    Raises:
        DataError: None is left, or steps are not equally long.
    """
    step_s = max(one.step_s for one in found)
    if protocol == "field" and step_s != 3600:
        raise DataError(f"{name}: settings.protocol=field splits by months of hours, but rows are {step_s} s "
                        "apart; use protocol=report")
    kept: list[Series] = []
    short: list[Series] = []
    unseen: list[Series] = []
    for one in found:
        if not _can_be_split(one, protocol, horizon):
            short.append(one)
        else:
            (unseen if _never_seen(one, protocol).any() else kept).append(one)
    if not kept:
        _refuse(short, unseen, protocol, horizon, name)
    for one in kept[1:]:
        if step_of(one) != step_of(kept[0]):
            raise DataError(f"{name}: all series must have the same step, but it is {step_of(kept[0])} in "
                            f"{kept[0].name!r} and {step_of(one)} in {one.name!r}; resample them, or leave one out")
    notes = list(dict.fromkeys(note for one in kept for note in one.notes))
    if len(found) == 1:
        return kept, tuple(notes)
    lengths = [len(one.times) for one in kept]
    told = [f"{len(kept):,} series of {min(lengths):,} to {max(lengths):,} rows, each split in time by itself"]
    told += [f"{len(short):,} too short for horizon={horizon} left out: {_named(short)}"] if short else []
    told += [f"{len(unseen):,} with a column that has no cell in the training part left out: {_named(unseen)}"] \
        if unseen else []
    told += notes[:MAX_NOTES]
    told += [f"and {len(notes) - MAX_NOTES:,} more words on single series"] if len(notes) > MAX_NOTES else []
    return kept, tuple(told)


def _can_be_split(series: Series, protocol: Protocol, horizon: int) -> bool:
    try:
        protocol_splits(protocol, len(series.times), lookback=2, horizon=horizon, name=series.name)
    except DataError:
        return False
    return True


def _never_seen(series: Series, protocol: Protocol) -> np.ndarray:
    """Which columns have no cell in the training part."""
    stop = protocol_rows(protocol, len(series.times))["train"].stop
    missing_C: np.ndarray = np.isnan(series.values_TC[:stop]).all(axis=0)
    return missing_C


def _refuse(short: list[Series], unseen: list[Series], protocol: Protocol, horizon: int, name: str) -> None:
    """Say what is wrong with the only series, or with the longest."""
    one = max(unseen or short, key=lambda series: len(series.times))
    if not unseen:
        of = f": series {one.name!r}, the longest of {len(short):,}" if one.name else ""
        protocol_splits(protocol, len(one.times), lookback=2, horizon=horizon, name=f"{name}{of}")
    of = f" of series {one.name!r}" if one.name else ""
    column, stop = int(np.argmax(_never_seen(one, protocol))), protocol_rows(protocol, len(one.times))["train"].stop
    raise DataError(f"{name}: column {one.channels[column]!r}{of} has no cell in the training part, the first "
                    f"{stop:,} of {len(one.times):,} rows; leave it out by data.drop, or set data.fill")


def _named(series: Sequence[Series]) -> str:
    """The names of the first of some series."""
    more = f" and {len(series) - LISTED:,} more" if len(series) > LISTED else ""
    return ", ".join(repr(one.name) for one in series[:LISTED]) + more


def step_of(series: Series) -> str:
    """How far apart a series' steps are, in words; several series of a file, and those forecast, must agree in it."""
    if series.calendar == "months":
        return f"{round(series.step_s / MONTH_S)} months"
    return f"{series.step_s} s{' between business days' if series.calendar == 'business days' else ''}"
