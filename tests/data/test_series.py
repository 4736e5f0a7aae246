from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymae.data.series import read_series
from raymae.errors import DataError

ROWS = ["date,load,temp", "2020-01-01 00:00:00,1,10.5", "2020-01-01 01:00:00,2,-3e-2", "2020-01-01 02:00:00,4,0.1"]


def write(folder: Path, *lines: str, name: str = "own.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_values_channels_times_and_step(tmp_path: Path) -> None:
    series = read_series(write(tmp_path, *ROWS), target="temp")
    assert series.values_TC.tolist() == [[1, 10.5], [2, -0.03], [4, 0.1]]
    assert series.values_TC.dtype == np.float64
    assert series.values_TC.flags["C_CONTIGUOUS"]
    assert (series.channels, series.target_index, series.step_s) == (("load", "temp"), 1, 3600)
    assert series.times.dtype == "datetime64[s]"
    assert series.times[0] == np.datetime64("2020-01-01T00:00:00")
    assert series.origin == str(tmp_path / "own.csv")


def test_date_column_may_stand_anywhere_under_any_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a,when,b", "1,2020-01-01,2", "3,2020-01-02,4")
    series = read_series(path, target="b", date_column="when")
    assert series.channels == ("a", "b")
    assert series.values_TC.tolist() == [[1, 2], [3, 4]]
    assert series.step_s == 86400


def test_byte_order_mark_crlf_blank_lines_and_quotes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(b'\xef\xbb\xbf"date","a"\r\n"2020-01-01","1"\r\n\r\n2020-01-02,2\r\n\r\n')
    assert read_series(path, target="a").values_TC.tolist() == [[1], [2]]


@pytest.mark.parametrize(("first", "second", "step_s"), [
    ("1990/1/1 0:00", "1990/1/1 0:30", 1800),
    ("2016-07-01T00:00Z", "2016-07-01T01:00Z", 3600),
    ("2016-10-30T02:30:00+02:00", "2016-10-30T02:30:00+01:00", 3600),  # the hour that summer time repeats
])
def test_other_ways_to_write_a_date(tmp_path: Path, first: str, second: str, step_s: int) -> None:
    series = read_series(write(tmp_path, "date,a", f"{first},1", f"{second},2"), target="a")
    assert series.step_s == step_s
    assert (series.times[1] - series.times[0]).astype(int) == step_s


def swap(line: int, text: str) -> list[str]:
    """ROWS with one line (counted from 1) replaced."""
    return [text if number == line else row for number, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize(("lines", "expected"), [
    (swap(3, "2020-01-01 01:00:00,2,warm"), ":3: column 'temp' must be numeric, got 'warm'"),
    (swap(3, "2020-01-01 01:00:00,1_000,1"), ":3: column 'load' must be numeric, got '1_000'"),
    (swap(3, "2020-01-01 01:00:00,2"), ":3: has 2 cells, the header has 3"),
    (swap(4, "2020-01-01 02:00:00,-inf,1"), ":4: column 'load' is infinite"),
    (swap(3, "soon,2,1"), ":3: date 'soon' is not a date"),
    (swap(3, "now,2,1"), ":3: date 'now' is not a date"),
    (swap(3, "13/1/2020,2,1"), ":3: date '13/1/2020' is not a date"),
    (swap(3, "2020/13/1,2,1"), ":3: date '2020/13/1' is not a date"),
    (swap(3, ",2,1"), ":3: date '' is not a date"),
    (swap(3, "2020-01-01 00:00:00,2,1"), ":3: a timestamp occurs twice in a row, 1 times in all"),
    (swap(3, "2019-01-01 00:00:00,2,1"), ":3: timestamps must ascend"),
    ([*ROWS, "2020-01-01 05:00:00,1,1"], ":5: steps must be equal, mostly 3600 s here, 1 differ"),
    (["date,temp", "2020-01-01 00:00:00.0,1", "2020-01-01 00:00:00.5,1"], ": timestamps must be whole seconds"),
    (["date", "2020-01-01"], ":1: needs a date column and at least one channel"),
    (["date:a", "2020-01-01:1"], "separated by commas; got ['date:a']"),
    (swap(1, "date,temp,temp"), ":1: column names must differ, 'temp' occurs more than once"),
    (swap(1, "date,,temp"), ":1: column 2 has no name"),
    (swap(1, "date,load,temperature"), "allowed: load, temperature"),
    (swap(1, "date,load,tempp"), ":1: unknown target 'temp'; did you mean `tempp`?"),
    (ROWS[:1], " holds 0 rows below its header"),
    (ROWS[:2], " holds 1 rows below its header"),
    (["", " "], " is empty"),
])
def test_malformed_files_name_file_line_and_column(tmp_path: Path, lines: list[str], expected: str) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(DataError) as caught:
        read_series(path, target="temp")
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_blank_lines_do_not_shift_the_line_named(tmp_path: Path) -> None:
    path = write(tmp_path, *ROWS[:2], "", "", "2020-01-01 01:00:00,inf,1")
    with pytest.raises(DataError, match=r"own\.csv:5: column 'load' is infinite"):
        read_series(path, target="temp")


def test_gap_names_both_lines_and_dates(tmp_path: Path) -> None:
    path = write(tmp_path, *ROWS, "2020-01-01 05:00:00,1,1")
    with pytest.raises(DataError, match=r"'2020-01-01 02:00:00' \(line 4\) is followed by '2020-01-01 05:00:00'"):
        read_series(path, target="temp")


@pytest.mark.parametrize(("raw", "expected"), [
    (b"", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    ("date,a\n2020-01-01,1\n2020-01-02,\xb0\n".encode("latin-1"), "own.csv:3: must be UTF-8 text: .* at byte 31"),
    (b"\x1f\x8b\x08\x00", "must be UTF-8 text"),
    ("date,a\n".encode("utf-16-be"), "zero bytes"),
])
def test_binary_and_empty_files(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=expected):
        read_series(path, target="a")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the series .*gone\.csv: no such file"):
        read_series(tmp_path / "gone.csv", target="a")
    with pytest.raises(DataError, match=r"cannot read the series .*directory"):
        read_series(tmp_path, target="a")


def test_etth1_is_read_exactly_and_fast(real_etth1: Path) -> None:
    read_series(real_etth1, target="OT")  # imports
    ours, plain = [], []
    for _ in range(3):
        start = time.process_time()
        series = read_series(real_etth1, target="OT")
        ours.append(time.process_time() - start)
        start = time.process_time()
        pd.read_csv(real_etth1, parse_dates=["date"])
        plain.append(time.process_time() - start)
    assert min(ours) < 40 * min(plain), (ours, plain)
    assert series.values_TC.shape == (17420, 7)
    assert series.channels == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert series.values_TC[0, 6] == 30.5310001373291
    assert series.values_TC[-1, 0] == 10.11400032043457
    assert series.times[-1] == np.datetime64("2018-06-26T19:00:00")
    assert series.step_s == 3600
