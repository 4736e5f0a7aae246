"""A query's rows in types that every reader has, and as CSV, JSON, Parquet or a table.

DuckDB knows more types than pandas, Python and JSON. They are brought to what all of these hold while they are read:

    whole numbers                   64-bit; the column is text where one is larger
    decimals, 32-bit floats         64-bit floats
    dates, timestamps               as they are; the column is text where one is beyond the years 1 to 9999
    structs, lists, maps, unions    JSON
    all others                      text: times, intervals, blobs, bits, UUIDs
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import QueryError
from raymae.results.store.store import to_pandas
from raymae.results.views.terminal_table import text_table

if TYPE_CHECKING:
    import duckdb
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

Format = Literal["csv", "json", "table"]

TABLE_ROWS = 1_000  # a table is for people; files take all rows
MAX_BYTES = 1 << 30
_BATCH_ROWS = 2_048
_DEEPEST = 100  # nested JSON below is left as text: Python's and Arrow's readers recurse
_AS_IT_IS = {"boolean", "double", "varchar", "null", "sqlnull"}
_WHOLE = {"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger"}
_LARGE = {"ubigint", "hugeint", "uhugeint", "bignum"}
_NESTED = {"struct", "list", "map", "union", "array"}


@dataclass(frozen=True)
class Rows:
    """What a statement returned.

    Attributes:
        table: A `pyarrow.Table` of booleans, 64-bit numbers, text, dates and timestamps, with no name twice.
        nested: Names of its text columns that hold JSON.
        more: Whether the statement has more rows than were read.
    """

    table: Any
    nested: frozenset[str]
    more: bool = False

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a frame; nested values are lists and dictionaries."""
        frame = to_pandas(self.table)
        for name in self.nested:
            frame[name] = [_parsed(text) for text in self.table.column(name).to_pylist()]
        return frame

    def text(self, kind: Format, width: int = 120) -> Iterator[str]:
        """The rows as CSV, as a JSON list of objects, or as a table to read, piece by piece."""
        if kind == "csv":
            yield from self._csv()
        elif kind == "json":
            yield from self._json()
        elif not self.table.num_rows:
            yield "no rows\n"
        else:
            yield text_table(self.table.column_names, [column.to_pylist() for column in self.table.columns], width)
            if self.more:
                yield f"… these are the first {TABLE_ROWS:,} rows; --format csv or --output FILE gives all\n"

    def write(self, path: str | os.PathLike[str], kind: Literal["csv", "json", "parquet"]) -> None:
        """Write the rows to a file.

        Raises:
            QueryError: The file cannot be written.
        """
        try:
            if kind == "parquet":
                self._write_parquet(path)
            else:
                with Path(path).open("w", encoding="utf-8", newline="") as file:
                    file.writelines(self.text(kind))
        except OSError as error:
            raise QueryError(f"{os.fspath(path)}: cannot write the result: {error.strerror or error}") from None

    def _csv(self) -> Iterator[str]:
        """Nothing stands for a missing value, `nan` and `inf` for numbers that are none."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.table.column_names)
        for batch in self.table.to_batches(max_chunksize=_BATCH_ROWS):
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        yield buffer.getvalue()

    def _json(self) -> Iterator[str]:
        """One object a line; `null` stands for what JSON has no number for, too."""
        names, between = self.table.column_names, "["
        for batch in self.table.to_batches(max_chunksize=_BATCH_ROWS):
            columns = [map(_parsed, column.to_pylist()) if name in self.nested else column.to_pylist()
                       for name, column in zip(names, batch.columns, strict=True)]
            for values in zip(*columns, strict=True):
                yield between + _as_json(dict(zip(names, values, strict=True)))
                between = ",\n"
        yield "[]\n" if between == "[" else "]\n"

    def _write_parquet(self, path: str | os.PathLike[str]) -> None:
        """Nested columns in types of their own, or all of them as JSON where one has no single type."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            typed = self.table
            for name in self.nested:
                values = pa.array([_parsed(text) for text in typed.column(name).to_pylist()])
                typed = typed.set_column(typed.column_names.index(name), name, values)
            pq.write_table(typed, path)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            if isinstance(error, OSError):  # no room on the disk is an ArrowException, too
                raise
            pq.write_table(self.table, path)


def read_rows(relation: duckdb.DuckDBPyRelation, max_rows: int | None = None) -> Rows:
    """Run a relation and read its rows.

    Args:
        relation: A statement that returns rows.
        max_rows: Rows to read at most; all where None.

    Raises:
        QueryError: The rows take more than a gigabyte.
    """
    import pyarrow as pa

    names = _distinct(relation.columns)
    kinds = [(_expressions(f"#{i}", kind), _is_nested(kind)) for i, kind in enumerate(relation.types, 1)]
    reader = relation.project(", ".join(part for parts, _ in kinds for part in parts)).to_arrow_reader(_BATCH_ROWS)
    batches, size, count, more = [], 0, 0, False
    for batch in reader:
        batches.append(batch)
        size, count = size + batch.nbytes, count + batch.num_rows
        if size > MAX_BYTES:
            raise QueryError(f"the result takes more than {MAX_BYTES >> 20} MiB after {count:,} rows: "
                             "ask for less with WHERE, LIMIT or GROUP BY")
        if max_rows is not None and count > max_rows:
            more = True
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, max_rows)
    columns, at = [], 0
    for parts, _ in kinds:
        column, beyond = table.column(at), table.column(at + 1) if len(parts) > 1 else None
        if beyond is not None and beyond.null_count < len(beyond):
            pairs = zip(column.to_pylist(), beyond.to_pylist(), strict=True)
            column = pa.array([str(kept) if text is None and kept is not None else text for kept, text in pairs])
        columns.append(column)
        at += len(parts)
    nested = frozenset(name for name, (_, nested) in zip(names, kinds, strict=True) if nested)
    return Rows(pa.table(dict(zip(names, columns, strict=True))), nested, more)


def _expressions(column: str, kind: Any) -> tuple[str, ...]:
    """SQL for a column in a type every reader has; and, where that cannot hold every value, for the others as text."""
    text = f"CAST({column} AS VARCHAR)"
    if _is_nested(kind):
        return (f"CAST(to_json({column}) AS VARCHAR)",)
    if kind.id in _AS_IT_IS:
        return (column,)
    if kind.id in _WHOLE:
        return (f"CAST({column} AS BIGINT)",)
    if kind.id == "float":  # through text: 0.1 stays 0.1
        return (f"CAST({text} AS DOUBLE)",)
    if kind.id in _LARGE or (kind.id == "decimal" and str(kind).endswith(",0)")):
        kept = f"TRY_CAST({column} AS BIGINT)"
        return kept, f"CASE WHEN {kept} IS NULL THEN {text} END"
    if kind.id == "decimal":
        return (f"CAST({column} AS DOUBLE)",)
    if kind.id == "date" or (kind.id.startswith("timestamp") and kind.id != "timestamp_tz_ns"):
        within = f"coalesce(isfinite({column}) AND year({column}) BETWEEN 1 AND 9999, false)"
        return f"CASE WHEN {within} THEN {column} END", f"CASE WHEN NOT {within} THEN {text} END"
    return (text,)


def _is_nested(kind: Any) -> bool:
    return kind.id in _NESTED or str(kind) == "JSON"


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of which none is there twice: `a`, `a_1`, `a_2`."""
    distinct: list[str] = []
    taken = set(names)
    for name in names:
        count, unique = 0, name
        while unique in distinct or (count and unique in taken):
            count += 1
            unique = f"{name}_{count}"
        distinct.append(unique)
    return distinct


def _parsed(text: str | None) -> Any:
    """A nested value; its text where it is nested too deep."""
    return None if text is None else text if _is_deep(text) else json.loads(text)


def _is_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= _DEEPEST:
        return False
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', text):
        depth += (match[1] is not None) - (match[2] is not None)
        if depth > _DEEPEST:
            return True
    return False


def _as_json(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, allow_nan=False, ensure_ascii=False, default=_moment)
    except ValueError:  # not a number, or infinite
        return json.dumps(_finite(row), ensure_ascii=False, default=_moment)


def _moment(value: Any) -> str:
    """A date or timestamp as ISO 8601 writes it."""
    return str(value.isoformat())


def _finite(value: Any) -> Any:
    """A value in which None stands for numbers that JSON has not."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
