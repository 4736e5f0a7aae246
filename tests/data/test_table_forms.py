"""Tables as people have them are read as they are meant, with a word about it, or refused with the key that decides."""

from __future__ import annotations

import datetime as dt
import gzip
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymae.data.tables import read_table
from raymae.errors import DataError
from raymae.spec.names import joined, listed
from raymae.spec.sweep import DataSpec, Reading
from raymae.spec.trial import TrialConfig, TrialData

PLAIN = ["area,rooms,kind", "50.5,4,a", "52.7,6,b", "47.5,5,a", "48.25,5,b"]


def write(folder: Path, *lines: str, name: str = "own.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def same(path: Path, folder: Path, reading: Reading | None = None) -> tuple[str, ...]:
    """What is said of a file that holds what PLAIN does."""
    plain, table = read_table(write(folder, *PLAIN, name="plain.csv")), read_table(path, reading=reading or Reading())
    assert (table.columns, table.categories) == (plain.columns, plain.categories)
    np.testing.assert_array_equal(table.values_RC, plain.values_RC)
    assert plain.notes == ()
    return table.notes


@pytest.mark.parametrize(("separator", "decimal", "said"), [
    (";", ",", ("cells separated by `;`", "decimal comma")), ("\t", ".", ("cells separated by tabs",)),
    ("|", ".", ("cells separated by `|`",)), (";", ".", ("cells separated by `;`",)), (", ", ".", ()),
])
def test_separator_and_decimal_are_found_out(tmp_path: Path, separator: str, decimal: str, said: tuple[str]) -> None:
    lines = [separator.join(cells) for cells in
             ([cell.replace(".", decimal) for cell in line.split(",")] for line in PLAIN)]
    assert same(write(tmp_path, *lines), tmp_path) == said


def test_what_can_be_read_in_two_ways_is_refused_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in two ways, .* by `,` or by `;`; set data\.separator"):
        read_table(write(tmp_path, "a,b;c,d", "1,2;3,4"))
    with pytest.raises(DataError, match=r"'1,234' in column 'b' has a decimal comma or separates thousands; set"):
        read_table(write(tmp_path, "a;b", "1;1,234", "2;5,678"))
    for decimal, first in ((",", 1.234), (".", 1234.0)):
        table = read_table(tmp_path / "own.csv", reading=Reading(decimal=decimal))
        assert table.values_RC[0, 1] == first
    with pytest.raises(DataError, match=r"decimal comma \(1,5 in column 'b'\) and with a decimal point \(2.5 in"):
        read_table(write(tmp_path, "a;b", "2.5;1,5", "2.5;1,5"))
    assert read_table(write(tmp_path, "a;b", "1.234,5;1", "2.000,5;1")).values_RC[0, 0] == 1234.5
    assert same(write(tmp_path, *[" ".join(line.split(",")) for line in PLAIN]), tmp_path, Reading(separator=" ")) == ()


def test_encodings_compression_and_comments(tmp_path: Path) -> None:
    lines = ["größe,b", "1,2", "3,4"]
    with pytest.raises(DataError, match=r"own\.csv:1: must be UTF-8 text: .* set data\.encoding, such as cp1252"):
        read_table(write(tmp_path, *lines, encoding="latin-1"))
    for given in ("latin-1", "cp1252"):
        assert read_table(tmp_path / "own.csv", reading=Reading(encoding=given)).columns[0] == "größe"
    assert read_table(write(tmp_path, *lines, encoding="utf-16")).columns[0] == "größe"
    with pytest.raises(DataError, match=r"is not ascii, which data\.encoding says"):
        read_table(write(tmp_path, *lines), reading=Reading(encoding="ascii"))
    with pytest.raises(DataError, match=r"is not punycode, which data\.encoding says"):
        read_table(write(tmp_path, "a,b", "1,2"), reading=Reading(encoding="punycode"))
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress("\n".join(PLAIN).encode()))
    assert same(tmp_path / "own.csv.gz", tmp_path) == ()
    assert same(write(tmp_path, "# made by, a tool", "# and so on", *PLAIN), tmp_path) == (
        "2 lines of comment above the header left out",)
    assert read_table(write(tmp_path, "#a,b", "1,2", "3,4")).columns == ("#a", "b")


@pytest.mark.parametrize(("lines", "said"), [
    (["a,b,c", "1,2,3,4", "1,2,3,4"], r":2: has 4 cells, the header has 3"),
    (["a,b,c", "1,2,3", "1,2"], r":3: has 2 cells, the header has 3"),
    (["Sales of a town", "a,b", "1,2"], r":2: has 2 cells, the header has 1"),
    (["text", "one two", "three four"], "holds one column"),
    (["a,b,a", "1,2,3"], "'a' occurs more than once"), (["a,,b", "1,x,3"], "column 2 has no name"),
])
def test_rows_and_header_must_fit(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table(write(tmp_path, *lines))


def test_what_is_no_column_is_left_out_and_said(tmp_path: Path) -> None:
    numbered = [f"{'' if row == 0 else row - 1},{line}" for row, line in enumerate(PLAIN)]
    said = "row numbers in column 1 ({}) left out"
    assert same(write(tmp_path, *numbered), tmp_path) == (said.format("without a name"),)
    assert same(write(tmp_path, "Unnamed: 0" + numbered[0], *numbered[1:]), tmp_path) == (said.format("'Unnamed: 0'"),)
    ended = [f"{line}," for line in PLAIN]
    assert same(write(tmp_path, *ended), tmp_path) == ("column 4, without a name or a cell, left out",)
    drop, only = Reading(drop=("area",)), Reading(columns=("kind", "rooms"))
    path = write(tmp_path, *PLAIN)
    assert read_table(path, reading=drop).columns == read_table(path, reading=only).columns == ("rooms", "kind")
    with pytest.raises(DataError, match="unknown column 'aera'; did you mean `area`"):
        read_table(path, reading=Reading(drop=("aera",)))


def test_names_may_hold_commas(tmp_path: Path) -> None:
    path = write(tmp_path, '"area, m2",rooms,kind', *PLAIN[1:])
    for drop in ("area, m2", '"area, m2"', ["area, m2"]):
        assert read_table(path, drop=drop).columns == ("rooms", "kind")
    assert read_table(path, drop='"area, m2", kind').columns == ("rooms",)
    assert listed(joined(["area, m2", 'a "b"', "c"])) == ("area, m2", 'a "b"', "c")


def test_words_for_missing_cells_are_counted_and_can_be_changed(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,country", "1,?,NA", "-,2.5,SE", "3,oops,NA", "4,-999,NO")
    with pytest.raises(DataError, match=r"column 'b' has numbers in 2 of 3 cells, but row 3 holds 'oops'; name what"):
        read_table(path)
    table = read_table(path, reading=Reading(missing=("oops", "-999")))
    assert table.notes == ("taken for missing: '-' 1 times in 'a', '?' 1 times 'oops' 1 times '-999' 1 times in 'b', "
                           "'NA' 2 times in 'country'",)
    assert np.isnan(table.values_RC).sum(axis=0).tolist() == [1, 3, 2]
    table = read_table(path, numeric=["a"], reading=Reading(missing=("oops",), not_missing=("NA",)))
    assert table.categories[2] == ("NA", "NO", "SE")
    assert Reading(missing=[-999]).missing == ("-999",)  # type: ignore[arg-type]


def test_codes_are_one_kind_however_long_the_file(tmp_path: Path) -> None:
    codes = [str(row % 5) for row in range(300_000)]
    table = read_table(write(tmp_path, "code,value", *[f"{code},1.5" for code in codes], "X,2.5"))
    assert table.categories == (("0", "1", "2", "3", "4", "X"), ())


def test_types_of_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "price": [Decimal("1.50"), None, Decimal("2.25")], "took": pd.to_timedelta([12, 24, None], unit="h"),
        "when": pd.to_datetime(["1970-01-02", None, "1970-01-03 12:00"], format="mixed"),
        "day": [dt.date(1970, 1, 3)] * 3,
        "number": np.array([1.5, None, 2], dtype=object), "kind": ["a", "b", "a"],
    }, index=pd.Index(["x", "y", "x"], name="site"))
    frame.to_parquet(tmp_path / "own.parquet")
    table = read_table(tmp_path / "own.parquet")
    assert table.columns == ("site", *frame.columns)
    assert table.categories == (("x", "y"), (), (), (), (), (), ("a", "b"))
    np.testing.assert_array_equal(table.values_RC[:, 1:6], [
        [1.5, 0.5, 1, 2, 1.5], [np.nan, 1, np.nan, 2, np.nan], [2.25, np.nan, 2.5, 2, 2]])
    assert table.notes == ("'took' is in days", "'when' is in days since 1970", "'day' is in days since 1970")
    frame = pd.DataFrame({"income": [f"{n / 8}" for n in range(90)], "x": range(1, 91)})
    frame.to_parquet(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="column 'income' has numbers in 90 of 90 cells, which are stored as text"):
        read_table(tmp_path / "text.parquet")
    assert read_table(tmp_path / "text.parquet", numeric="income").categories == ((), ())


def test_a_folder_of_parquet_is_a_table(tmp_path: Path) -> None:
    frame = pd.DataFrame({"area": [1.5, 2.5, 3.5], "kind": ["b", "a", "b"]})
    frame.to_parquet(tmp_path / "parts", partition_cols=["kind"])
    table = read_table(tmp_path / "parts")
    assert (sorted(table.columns), sorted(table.values_RC[:, table.columns.index("area")])) == (
        ["area", "kind"], [1.5, 2.5, 3.5])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is a folder without Parquet files"):
        read_table(tmp_path / "empty")


def test_how_a_file_is_read_is_part_of_a_configuration_where_it_is_given() -> None:
    def config(**reading: object) -> TrialConfig:
        where = DataSpec(name="x", path="/here", **reading)  # type: ignore[arg-type]
        return TrialConfig("imputation", "mae", {}, TrialData(where, "real"), 0)

    assert config().config_id == "62abc045a75a"  # as before there was anything to give
    assert set(config().data.to_json()) == {"name", "path", "root", "if_unavailable", "source"}
    other = config(missing=["?"], separator=";")
    assert other.config_id != config().config_id
    again = TrialConfig.from_json(other.to_json())
    assert (again, again.data.where.reading()) == (other, Reading(missing=("?",), separator=";"))
