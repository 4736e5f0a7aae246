"""Series as people have them are read as they are meant, with a word about it, or refused with the key that decides."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymae.data.series import Series, read_series
from raymae.errors import DataError
from raymae.spec.sweep import Reading

HOURS = [datetime(2023, 1, 1) + timedelta(hours=hour) for hour in range(400)]


def write(folder: Path, dates: list[str], header: str = "date,a", encoding: str = "utf-8") -> Path:
    """A series whose channel counts from 0.5."""
    path = folder / "own.csv"
    path.write_bytes("\n".join([header, *[f"{date},{row}.5" for row, date in enumerate(dates)], ""]).encode(encoding))
    return path


def read(folder: Path, dates: list[str], **reading: object) -> Series:
    return read_series(write(folder, dates), target="a", reading=Reading(**reading))  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "said"), [
    ("%d/%m/%Y %H:%M", ("dates day-first",)), ("%d.%m.%Y %H:%M:%S", ("dates day-first",)),
    ("%m/%d/%Y %I:%M %p", ("dates month-first",)), ("%d-%m-%y %H:%M", ("dates day-first",)),
    ("%d %b %Y %H:%M", ("names of months",)), ("%Y/%m/%d %H:%M", ()), ("%Y-%m-%dT%H:%M:%S.0", ()),
])
def test_ways_to_write_a_date(tmp_path: Path, form: str, said: tuple[str, ...]) -> None:
    series = read(tmp_path, [f"{moment:{form}}" for moment in HOURS])
    assert series.times.tolist() == HOURS
    assert (series.step_s, series.calendar, series.notes) == (3600, "", said)


def test_day_and_month_are_not_guessed(tmp_path: Path) -> None:
    dates = [f"0{day}/02/2023 05:00" for day in range(1, 8)]
    with pytest.raises(DataError, match=r"set data\.date_format to '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'"):
        read(tmp_path, dates)
    series = read(tmp_path, dates, date_format="%d/%m/%Y %H:%M")
    assert (series.times[-1], series.step_s) == (np.datetime64("2023-02-07T05:00"), 86400)
    with pytest.raises(DataError, match=r"own\.csv:2: date '01/02/2023 05:00' .* data\.date_format=%Y does not fit it"):
        read(tmp_path, dates, date_format="%Y")


@pytest.mark.parametrize(("per_second", "unit"), [(1, "seconds"), (1000, "milliseconds"), (10**6, "microseconds"),
                                                  (10**9, "nanoseconds")])
def test_unix_time_by_its_range(tmp_path: Path, per_second: int, unit: str) -> None:
    series = read(tmp_path, [str((1672531200 + 60 * row) * per_second) for row in range(30)])
    assert (str(series.times[0]), series.step_s) == ("2023-01-01T00:00:00", 60)
    assert series.notes == (f"Unix time in {unit}",)


@pytest.mark.parametrize(("dates", "calendar", "said"), [
    ([f"{day:%Y-%m-%d}" for day in pd.date_range("2000-01-31", periods=40, freq="ME")], "months", ("monthly",)),
    ([f"{day:%Y-%m-%d}" for day in pd.date_range("2000-01-15", periods=40, freq="31D")], "", ()),
    ([f"{day:%Y-%m}" for day in pd.date_range("1990-01-01", periods=40, freq="MS")], "months", ("months", "monthly")),
    ([f"{day:%Y %b}" for day in pd.date_range("1991-07-01", periods=40, freq="MS")], "months",
     ("names of months", "monthly")),
    ([f"{1974 + row // 4}Q{row % 4 + 1}" for row in range(40)], "months", ("quarters", "quarterly")),
    ([f"{day:%Y-%m-%d}" for day in pd.date_range("2000-03-31", periods=40, freq="QE")], "months", ("quarterly",)),
    ([str(year) for year in range(1950, 1990)], "months", ("years", "yearly")),
    ([f"{day:%Y-%m-%d}" for day in pd.bdate_range("2000-01-03", periods=40)], "business days", ("business days",)),
    ([f"{day:%Y-%m-%d}" for day in pd.bdate_range("2000-01-03", periods=40).delete(7)], "business days",
     ("business days, 1 of them left out as holidays",)),
    ([str(row) for row in range(0, 80, 2)], "steps", ("steps without a calendar",)),
    ([f"{day:%Y%m%d}" for day in pd.date_range("2000-01-01", periods=40)], "", ("dates without signs between",)),
])
def test_steps_of_a_calendar(tmp_path: Path, dates: list[str], calendar: str, said: tuple[str, ...]) -> None:
    series = read(tmp_path, dates)
    assert (series.calendar, series.notes) == (calendar, said)
    assert series.values_TC[:, 0].tolist() == [row + 0.5 for row in range(len(dates))]


def test_a_month_left_out_is_a_gap(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.csv:7: steps must be equal"):
        read(tmp_path, [f"2000-{month:02d}-01" for month in (1, 2, 3, 4, 5, 7, 8)])
    with pytest.raises(DataError, match=r"own\.csv:4: steps must be equal"):
        read(tmp_path, ["2023-01-02", "2023-01-03", "2023-01-20", "2023-01-23"])  # no holiday is as long


def test_24_00_is_the_next_day_and_newest_first_is_turned_round(tmp_path: Path) -> None:
    dates = [f"2023-03-{19 + row // 24} {row % 24 + 1:02d}:00" for row in range(48)]
    series = read(tmp_path, dates)
    assert (str(series.times[23]), series.step_s) == ("2023-03-20T00:00:00", 3600)
    turned = read(tmp_path, dates[::-1])
    assert turned.times.tolist() == series.times.tolist()
    assert turned.values_TC[:, 0].tolist() == series.values_TC[::-1, 0].tolist()
    assert turned.notes == ("newest first, turned round",)
    with pytest.raises(DataError, match=r"own\.csv:3: timestamps must ascend"):
        read(tmp_path, [dates[1], dates[0], *dates[2:]])
    with pytest.raises(DataError, match=r"'2023-03-20 02:00' \(line 24\) is followed by '2023-03-19 24:00'"):
        read(tmp_path, [date for date in dates[::-1] if date != "2023-03-20 01:00"])


def test_an_hour_of_summer_time_is_no_gap_where_the_zone_is_known(tmp_path: Path) -> None:
    for first in ("2023-03-25", "2023-10-28"):
        local = pd.date_range(first, periods=72, freq="h", tz="Europe/Oslo")
        dates = [f"{moment:%Y-%m-%d %H:%M}" for moment in local]
        series = read(tmp_path, dates, timezone="Europe/Oslo")
        assert (len(series.times), series.step_s) == (72, 3600)
        assert series.times[0] == local[0].tz_convert(None).to_datetime64()
    local = pd.date_range("2023-03-25", periods=72, freq="h", tz="Europe/Oslo")
    dates = [f"{moment:%Y-%m-%d %H:%M}" for moment in local]
    with pytest.raises(DataError, match=r"summer time \(daylight saving\), set data\.timezone"):
        read(tmp_path, dates)


def test_dates_in_several_columns_and_under_other_names(tmp_path: Path) -> None:
    parts = [f"{moment:%Y-%m-%d,%H:%M}" for moment in HOURS]
    path = write(tmp_path, parts, "date,time,a")
    assert read_series(path, target="a", date_column="date, time").times.tolist() == HOURS
    with pytest.raises(DataError, match=r"'00:00'; drop or encode it: set settings\.date_column: \[date, time\]"):
        read_series(path, target="a")
    months = [f"{2000 + row // 12},{row % 12 + 1}" for row in range(30)]
    series = read_series(write(tmp_path, months, "year,month,a"), target="a", date_column="year,month")
    assert (series.calendar, str(series.times[-1])) == ("months", "2002-06-01T00:00:00")
    series = read_series(write(tmp_path, [f"{moment}" for moment in HOURS], "When, a"), target="a")
    assert (series.channels, series.notes) == (("a",), ("dates in 'When'",))
    with pytest.raises(DataError, match=r":1: unknown date column 'wen'; allowed: When, a; set settings\.date_column"):
        read_series(tmp_path / "own.csv", target="a", date_column="wen")
    twice = write(tmp_path, [f"{moment},{moment}" for moment in HOURS], "from,to,a")
    with pytest.raises(DataError, match="unknown date column 'date'"):  # two are like it
        read_series(twice, target="a")


def test_columns_that_are_no_channels(tmp_path: Path) -> None:
    path = write(tmp_path, [f"{moment},north" for moment in HOURS], "date,site,a")
    with pytest.raises(DataError, match=r":2: column 'site' must be numeric, got 'north'; .* data\.drop: \[site\]"):
        read_series(path, target="a")
    for reading in (Reading(drop=("site",)), Reading(columns=("a",))):
        assert read_series(path, target="a", reading=reading).channels == ("a",)
    with pytest.raises(DataError, match="unknown column 'sites'; did you mean `site`"):
        read_series(path, target="a", reading=Reading(drop=("sites",)))


def test_separators_and_encodings(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes("date;größe\n".encode("latin-1") + b"".join(b"%s;%d,25\n" % (f"{moment}".encode(), row)
                                                                 for row, moment in enumerate(HOURS)))
    series = read_series(path, target="größe", reading=Reading(encoding="latin-1"))
    assert series.values_TC[1, 0] == 1.25
    assert series.notes == ("cells separated by `;`", "decimal comma")


@pytest.mark.parametrize(("fill", "expected"), [("interpolate", [1, 1, 2, 3, 4, 4]), ("last", [1, 1, 1, 1, 4, 4])])
def test_missing_cells_are_filled_only_where_it_is_asked_for(tmp_path: Path, fill: str, expected: list[float]) -> None:
    path = tmp_path / "own.csv"
    cells = ["", "1", "NA", "?", "4", ""]
    rows = [f"{moment},{cell},1\n" for moment, cell in zip(HOURS[:6], cells, strict=True)]
    path.write_text("".join(["date,a,b\n", *rows]))
    kept = read_series(path, target="a")
    np.testing.assert_array_equal(kept.values_TC[:, 0], [np.nan, 1, np.nan, np.nan, 4, np.nan])
    assert kept.notes == ("33.33% of the cells missing",)
    series = read_series(path, target="a", reading=Reading(fill=fill))  # type: ignore[arg-type]
    assert series.values_TC[:, 0].tolist() == expected
    assert series.notes == (f"33.33% of the cells missing, filled by data.fill={fill}",)
    path.write_text("date,a\n" + "".join(f"{moment},\n" for moment in HOURS[:6]))
    with pytest.raises(DataError, match="column 'a' has no cell to fill from"):
        read_series(path, target="a", reading=Reading(fill=fill))  # type: ignore[arg-type]
