"""Other series to pretrain on: in the target's step, and without what the target's validation and test hold.

Left out is every row of their time, whatever it measures, and every stretch that repeats their values, whenever it is.

Shape suffixes: T steps, C channels, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from raymae.data.series import Series
from raymae.data.several_series import MONTH_S, splittable
from raymae.data.splits import Protocol, protocol_rows
from raymae.errors import DataError

RUN = 16  # so many equal values one after the other, half of them unlike the one before, are no coincidence


class ScoredTimes(NamedTuple):
    """What is selected or scored on: stretches of time, first and last step, and hashes of runs of values, uint64."""

    stretches: tuple[tuple[np.datetime64, np.datetime64], ...]
    runs: np.ndarray


def scored_times(found: Sequence[Series], protocol: Protocol, horizon: int, name: str) -> ScoredTimes:
    """The validation and test rows of the series that are forecast, as `splittable` keeps them."""
    stretches, runs = [], []
    for one in splittable(found, protocol, horizon, name)[0]:
        rows = protocol_rows(protocol, len(one.times))
        first, stop = rows["val"].start, rows["test"].stop
        if one.calendar != "steps":  # counted times are not those of other series
            stretches.append((one.times[first], one.times[stop - 1]))
        runs.append(_runs(one.values_TC[first:stop]).ravel())
    every = np.unique(np.concatenate(runs))
    return ScoredTimes(tuple(stretches), every[every > 0])


def in_step(series: Series, like: Series) -> Series:
    """A series in the step of another: means over its steps that lie in one of them, which are all there.

    Raises:
        DataError: Its steps are longer, or on another calendar.
    """
    counted = "steps" in (series.calendar, like.calendar)
    if counted or (series.step_s, series.calendar) == (like.step_s, like.calendar):
        return series
    if like.calendar == "months" and series.calendar in ("", "months"):
        if series.calendar and round(series.step_s / MONTH_S) == round(like.step_s / MONTH_S):
            return series
        bin_T = series.times.astype("datetime64[M]").astype(np.int64) // round(like.step_s / MONTH_S)
        starts_B = (np.unique(bin_T) * round(like.step_s / MONTH_S)).astype("datetime64[M]")
    elif like.calendar == series.calendar == "":
        bin_T = series.times.astype("datetime64[s]").astype(np.int64) // like.step_s
        starts_B = (np.unique(bin_T) * like.step_s).astype("datetime64[s]")
    else:
        raise DataError(_other_step(series, like))
    if series.step_s >= like.step_s:
        raise DataError(_other_step(series, like))
    counts_B = np.bincount(bin_T - bin_T[0])
    counts_B = counts_B[counts_B > 0]
    firsts_B = np.cumsum([0, *counts_B[:-1]])
    known_TC = ~np.isnan(series.values_TC)
    sums_BC = np.add.reduceat(np.where(known_TC, series.values_TC, 0.0), firsts_B)
    seen_BC = np.add.reduceat(known_TC.astype(np.int64), firsts_B)
    values_BC = np.where(seen_BC > 0, sums_BC / np.maximum(seen_BC, 1), np.nan)
    whole = slice(int(counts_B[0] < counts_B.max()), len(counts_B) - int(counts_B[-1] < counts_B[1:].max(initial=0)))
    return replace(series, values_TC=values_BC[whole], times=starts_B[whole].astype("datetime64[s]"),
                   step_s=like.step_s, calendar=like.calendar)


def _other_step(series: Series, like: Series) -> str:
    def step(of: Series) -> str:
        return f"{of.step_s} s{f' ({of.calendar})' if of.calendar else ''}"

    return (f"{series.origin}: its step is {step(series)}, and that of the series to forecast {step(like)}: only "
            "shorter steps, on no calendar, can be resampled to it; leave it out, or resample it yourself")


def without_scored(series: Series, scored: ScoredTimes, shortest: int) -> tuple[list[Series], int]:
    """What is left of a series, in pieces, and how many of its rows are left out because they are scored.

    Args:
        series: In the step of the series that is forecast.
        scored: Of that.
        shortest: Rows that a piece needs.
    """
    out_T = np.zeros(len(series.times), bool)
    if series.calendar != "steps":
        for first, last in scored.stretches:
            out_T |= (series.times >= first) & (series.times <= last)
    found_R = np.isin(_runs(series.values_TC), scored.runs).any(axis=1)
    for row in np.flatnonzero(found_R):
        out_T[row : row + RUN] = True
    borders = np.flatnonzero(np.diff(np.concatenate([[True], out_T, [True]]).astype(np.int8)))
    pieces = []
    for first, stop in zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True):
        own_TC = series.values_TC[first:stop]
        if stop - first >= shortest and not np.isnan(own_TC).all(axis=0).any():
            pieces.append(replace(series, values_TC=own_TC, times=series.times[first:stop]))
    return pieces, int(out_T.sum())


def _runs(values_TC: np.ndarray) -> np.ndarray:
    """A hash of every run of values, uint64 `[R, C]`; 0 where it holds a missing cell or hardly changes."""
    if len(values_TC) < RUN:
        return np.zeros((0, values_TC.shape[1]), np.uint64)
    near_TC = values_TC.astype(np.float32) + np.float32(0)  # -0 is 0
    odd_W = np.random.default_rng(0).integers(1, 1 << 63, RUN, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bits_TC = near_TC.view(np.uint32).astype(np.uint64)
    hash_RC = np.zeros((len(near_TC) - RUN + 1, near_TC.shape[1]), np.uint64)
    for at, odd in enumerate(odd_W):
        mixed_TC = (bits_TC + np.uint64(at + 1)) * odd
        hash_RC += (mixed_TC ^ (mixed_TC >> np.uint64(29)))[at : at + len(hash_RC)] * odd
    changes_TC = np.pad(np.cumsum(near_TC[1:] != near_TC[:-1], axis=0), ((1, 0), (0, 0)))
    missing_TC = np.pad(np.cumsum(np.isnan(near_TC), axis=0), ((1, 0), (0, 0)))
    told_RC = (changes_TC[RUN - 1 :] - changes_TC[: -RUN + 1] >= RUN // 2) & (missing_TC[RUN:] == missing_TC[:-RUN])
    return np.where(told_RC, hash_RC | np.uint64(1), np.uint64(0))
