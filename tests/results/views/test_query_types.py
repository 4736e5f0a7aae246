"""What DuckDB can return and pandas, Python or JSON cannot hold."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tiny_task import trial

from raymae.errors import QueryError
from raymae.results import Store, query
from raymae.results.views import rows as rows_module
from raymae.results.views.query import run_query
from raymae.results.views.rows import Rows

CASES: dict[str, tuple[str, object, str]] = {  # SQL, its value in JSON, its cell in CSV
    "union": ("union_value(num := 1)", {"num": 1}, '{"num":1}'),
    "struct": ("{'a': 1, 'b': {'c': [1, NULL]}}", {"a": 1, "b": {"c": [1, None]}}, '{"a":1,"b":{"c":[1,null]}}'),
    "struct of what JSON has not": ("{'a': 'inf'::DOUBLE, 'b': DATE 'infinity'}", {"a": None, "b": "infinity"},
                                    '{"a":Infinity,"b":"infinity"}'),
    "list": ("[1, 2, NULL]", [1, 2, None], "[1,2,null]"),
    "empty list": ("[]", [], "[]"),
    "array": ("array_value(1.5::DOUBLE, 2)", [1.5, 2.0], "[1.5,2.0]"),
    "map": ("MAP {'a': 1}", {"a": 1}, '{"a":1}'),
    "map by number": ("MAP {1: [2]}", {"1": [2]}, '{"1":[2]}'),
    "json": ("""'{"a": [1, 2]}'::JSON""", {"a": [1, 2]}, '{"a":[1,2]}'),
    "json deeper than recursion": ("(repeat('[', 5000) || repeat(']', 5000))::JSON", "[" * 5000 + "]" * 5000,
                                   "[" * 5000 + "]" * 5000),
    "json number too large": ("'1e400'::JSON", None, "1e400"),
    "date": ("DATE '2020-02-29'", "2020-02-29", "2020-02-29"),
    "far date": ("DATE '290000-01-01'", "290000-01-01", "290000-01-01"),
    "date before our era": ("'0044-03-15 (BC)'::DATE", "0044-03-15 (BC)", "0044-03-15 (BC)"),
    "infinite date": ("'infinity'::DATE", "infinity", "infinity"),
    "timestamp": ("TIMESTAMP '2020-01-01 12:00:00.5'", "2020-01-01T12:00:00.500000", "2020-01-01 12:00:00.500000"),
    "nanoseconds": ("TIMESTAMP_NS '2020-01-01 00:00:00.000000001'", "2020-01-01T00:00:00.000000001",
                    "2020-01-01 00:00:00.000000001"),
    "seconds": ("TIMESTAMP_S '2020-01-01 00:00:01'", "2020-01-01T00:00:01", "2020-01-01 00:00:01"),
    "far seconds": ("TIMESTAMP_S '200000-01-01 00:00:01'", "200000-01-01 00:00:01", "200000-01-01 00:00:01"),
    "far timestamp": ("TIMESTAMP '290000-01-01'", "290000-01-01 00:00:00", "290000-01-01 00:00:00"),
    "infinite timestamp": ("'-infinity'::TIMESTAMPTZ", "-infinity", "-infinity"),
    "interval": ("INTERVAL 3 DAYS", "3 days", "3 days"),
    "duration": ("TIMESTAMP '2020-01-02' - TIMESTAMP '2020-01-01 23:59:58.5'", "00:00:01.5", "00:00:01.5"),
    "time 24:00": ("TIME '24:00:00'", "24:00:00", "24:00:00"),
    "time with zone": ("'01:02:03+05'::TIMETZ", "01:02:03+05", "01:02:03+05"),
    "decimal": ("12.50::DECIMAL(9, 2)", 12.5, "12.5"),
    "whole decimal": ("7::DECIMAL(38, 0)", 7, "7"),
    "huge": ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727",
             "170141183460469231731687303715884105727"),
    "unsigned huge": ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455",
                      "340282366920938463463374607431768211455"),
    "larger than all": ("'" + "9" * 60 + "'::BIGNUM", "9" * 60, "9" * 60),
    "small sum": ("sum(2::BIGINT)", 2, "2"),
    "unsigned": ("255::UTINYINT", 255, "255"),
    "largest unsigned": ("18446744073709551615::UBIGINT", "18446744073709551615", "18446744073709551615"),
    "blob": (r"'\xff\x00a'::BLOB", r"\xFF\x00a", r"\xFF\x00a"),
    "bits": ("'0101'::BIT", "0101", "0101"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'::UUID", "00000000-0000-0000-0000-000000000001",
             "00000000-0000-0000-0000-000000000001"),
    "enum": ("'a'::ENUM('a', 'b')", "a", "a"),
    "single precision": ("0.1::FLOAT", 0.1, "0.1"),
    "seventeen digits": ("0.1::DOUBLE + 0.2::DOUBLE", 0.1 + 0.2, "0.30000000000000004"),
    "infinity": ("'-inf'::DOUBLE", None, "-inf"),
    "not a number": ("'nan'::FLOAT", None, "nan"),
    "nothing": ("NULL", None, ""),
    "control characters": (r"E'\x1b[31m\n'", "\x1b[31m\n", "\x1b[31m\n"),
}


@pytest.fixture
def root(make_store: Callable[..., Store], tmp_path: Path) -> Path:
    store = make_store()
    store.add_trial(trial("a", val_mse=0.3))
    return tmp_path / "ett"


def text(rows: Rows, kind: str) -> str:
    return "".join(rows.text(kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
def test_every_type_in_every_form(case: str, root: Path, tmp_path: Path) -> None:
    sql, value, cell = CASES[case]
    rows = run_query(root, f"SELECT {sql} AS x, 1 AS y")
    assert json.loads(text(rows, "json")) == [{"x": value, "y": 1}]
    assert list(csv.reader(io.StringIO(text(rows, "csv")))) == [["x", "y"], [cell, "1"]]
    assert max(map(len, text(rows, "table").splitlines())) <= 120
    assert "\x1b" not in text(rows, "table")
    assert query(root, f"SELECT {sql} AS x, 1 AS y")["y"].tolist() == [1]
    for name in ("x.csv", "x.json", "x.parquet"):
        rows.write(tmp_path / name, name.rpartition(".")[2])  # type: ignore[arg-type]
    assert pd.read_parquet(tmp_path / "x.parquet")["y"].tolist() == [1]


def test_a_value_beyond_a_type_makes_its_column_text_and_no_other(root: Path) -> None:
    frame = query(root, "SELECT * FROM (VALUES (DATE '2020-01-01', DATE '2020-01-01', 1::UHUGEINT), "
                        "(DATE 'infinity', NULL, 340282366920938463463374607431768211455::UHUGEINT)) t(a, b, c)")
    assert frame["a"].tolist() == ["2020-01-01", "infinity"]
    assert str(frame["b"].tolist()[0]) == "2020-01-01"
    assert frame["c"].tolist() == ["1", "340282366920938463463374607431768211455"]


def test_equal_names_are_told_apart(root: Path, tmp_path: Path) -> None:
    rows = run_query(root, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a, 5 AS A")
    assert json.loads(text(rows, "json")) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4, "A": 5}]
    assert text(rows, "csv").splitlines()[0] == "a,a_2,a_1,a_3,A"
    assert rows.to_pandas().iloc[0].tolist() == [1, 2, 3, 4, 5]
    rows.write(tmp_path / "x.parquet", "parquet")
    joined = "SELECT * FROM trials a JOIN trials b USING (trial_id) JOIN trials c ON true"
    assert len(query(root, joined).columns) == len(set(query(root, joined).columns))


def test_nested_values_are_python_s_in_a_frame_and_typed_in_parquet(root: Path, tmp_path: Path) -> None:
    sql = "SELECT arm, list(val_mse) AS scores, {'n': count(*)} AS s FROM trials GROUP BY arm"
    assert query(root, sql).iloc[0].tolist() == ["mae", [0.3], {"n": 1}]
    run_query(root, sql).write(tmp_path / "x.parquet", "parquet")
    assert pd.read_parquet(tmp_path / "x.parquet")["scores"][0].tolist() == [0.3]
    mixed = run_query(root, "SELECT unnest(['1'::JSON, '\"a\"'::JSON, '{}'::JSON]) AS x")
    mixed.write(tmp_path / "mixed.parquet", "parquet")
    assert pd.read_parquet(tmp_path / "mixed.parquet")["x"].tolist() == ["1", '"a"', "{}"]


def test_the_order_of_rows_survives(root: Path) -> None:
    assert query(root, "SELECT range AS n FROM range(5000) ORDER BY n DESC")["n"].tolist() == list(range(4999, -1, -1))
    assert query(root, "SELECT range AS n FROM range(5000) ORDER BY hash(range) LIMIT 3 OFFSET 1000")["n"].tolist() \
        == query(root, "SELECT range AS n FROM range(5000) ORDER BY hash(range)")["n"].tolist()[1000:1003]


def test_a_table_ends_where_people_stop_reading(root: Path) -> None:
    rows = run_query(root, "SELECT * FROM range(1000000000000)", max_rows=1000)
    assert rows.table.num_rows == 1000
    assert text(rows, "table").splitlines()[-1].startswith("… these are the first 1,000 rows; --format csv")
    assert not run_query(root, "SELECT * FROM range(1000)", max_rows=1000).more


def test_a_result_larger_than_memory_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_BYTES", 1 << 20)
    with pytest.raises(QueryError, match=r"the result takes more than 1 MiB after [\d,]+ rows: ask for less with"):
        query(root, "SELECT * FROM range(1000000000000)", seconds=60)
