"""One dataset as a folder of immutable Parquet parts: buffered rows in, deduplicated tables out.

A part is named `part-<UTC time>-<writer>-<number>.parquet`: sorted by time, unique per writing process, visible only
when complete. A plain reader (`trials/*.parquet` in DuckDB, pandas or pyarrow) therefore sees whole parts only.

Compaction writes one merged part, lists in its metadata the parts it replaces, and then deletes those. From the rename
of the merged part to the last deletion, milliseconds on a disk, a plain reader sees rows twice; it never misses one. A
process killed in between leaves that state until the sweep is continued or compacted again. Readers of this module
drop duplicates by key, and list the folder again where a part vanished under them.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from raymae.errors import ResultsError
from raymae.results.store.columns import Columns, Row, arrow_schema, check_table, checked_row
from raymae.results.store.folder import Folder

_STAMP = "%Y%m%dT%H%M%S%fZ"
_REPLACES = b"raymae.replaces"
_RELISTS = 10


class Parts:
    """One dataset of a sweep.

    Args:
        folder: The sweep's folder.
        name: The dataset, which is its folder below `folder`: `trials` or `reports`.
        columns: The pinned columns.
        key: The columns that identify a row. Of rows with equal keys the one written last counts.
    """

    def __init__(self, folder: Folder, name: str, columns: Columns, key: Sequence[str]) -> None:
        self.name = name
        self.columns = dict(columns)
        self._folder = folder
        self._key = list(key)
        self._rows: list[Row] = []
        self._sealed: tuple[str, bytes, int] | None = None
        self._writer = f"{os.getpid()}{secrets.token_hex(3)}"
        self._number = 0
        self._last: dt.datetime | None = None

    @property
    def num_waiting(self) -> int:
        """Rows added and not yet on storage."""
        return len(self._rows) + (self._sealed[2] if self._sealed else 0)

    def files(self) -> list[str]:
        """Names of the parts, oldest first."""
        return [name for name in self._folder.names(self.name)
                if name.startswith("part-") and name.endswith(".parquet")]

    def add(self, row: Row) -> None:
        """Check a row and keep it for the next `flush`.

        Raises:
            ResultsError: It does not fit the columns.
        """
        self._rows.append(checked_row(self.name, row, self.columns))

    @property
    def is_stuck(self) -> bool:
        """Whether the last `flush` failed with rows at hand."""
        return self._sealed is not None

    def flush(self) -> None:
        """Write the waiting rows as a part.

        A part that could not be written keeps its name and bytes for the next try: had the failed try reached the
        storage after all, it is overwritten with itself.

        Raises:
            OSError: The storage failed; every row is still waiting.
        """
        while self._sealed or self._rows:
            if self._sealed is None:
                self._sealed = (self._next_name(), self._encode(self._rows), len(self._rows))
                self._rows = []
            self._folder.write(f"{self.name}/{self._sealed[0]}", self._sealed[1])
            self._sealed = None

    def table(self) -> Any:
        """All rows on storage as a `pyarrow.Table`, oldest part first, each key once.

        Raises:
            ResultsError: A part cannot be read.
        """
        return self._read()[1]

    def table_after(self, seen: Collection[str], table: Any) -> tuple[Collection[str], Any]:
        """Like `table` for somebody who follows: only parts not in `seen` are read, and added to `table`.

        Args:
            seen: Names of the parts that `table` holds; empty at first.
            table: What the last call returned, or None.

        Returns:
            The names and the table for the next call.

        Raises:
            ResultsError: A part cannot be read.
        """
        import pyarrow as pa

        try:
            present = self.files()
            fresh = [name for name in present if name not in seen]
            if table is None or not set(seen) <= set(present):  # compacted, or started over
                return self._read()
            if not fresh:
                return seen, table
            return present, self._deduplicated(pa.concat_tables([table, self._load(fresh)]))
        except FileNotFoundError:
            return self._read()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ResultsError(f"{self._folder.uri(self.name)}: cannot read the parts: {error}") from None

    def compact(self) -> None:
        """Merge all parts into one. See the head of this module for what readers see meanwhile.

        Raises:
            OSError: The storage failed; nothing is lost.
        """
        self.flush()
        self.finish_compaction()
        if len(self.files()) < 2:
            return
        replaced, table = self._read()
        merged = table.replace_schema_metadata({_REPLACES: json.dumps(replaced)})
        self._folder.write(f"{self.name}/{self._next_name('-merged')}", _parquet(merged))
        for name in replaced:
            self._folder.remove(f"{self.name}/{name}")

    def finish_compaction(self) -> None:
        """Delete the parts whose rows a merged part already holds: a compaction was killed before it could.

        Raises:
            OSError: The storage failed; nothing is lost.
        """
        import pyarrow.parquet as pq

        present = self.files()
        for merged in [name for name in present if name.endswith("-merged.parquet")]:
            metadata = pq.read_metadata(io.BytesIO(self._folder.read(f"{self.name}/{merged}"))).metadata or {}
            for name in json.loads(metadata.get(_REPLACES, b"[]")):
                if name in present:
                    self._folder.remove(f"{self.name}/{name}")

    def _read(self) -> tuple[list[str], Any]:
        import pyarrow as pa

        where = self._folder.uri(self.name)
        for attempt in range(_RELISTS + 1):
            files: list[str] = []
            try:
                files = self.files()
                return files, self._deduplicated(self._load(files))
            except FileNotFoundError as error:
                if attempt == _RELISTS:
                    raise ResultsError(f"{where}: parts keep vanishing while read: {error}") from None
            except (OSError, pa.ArrowException, ValueError) as error:
                raise ResultsError(f"{where}: cannot read the {len(files)} parts: {error}{self._odd(files)}") from None
        raise AssertionError("unreachable")

    def _load(self, files: Sequence[str]) -> Any:
        from pyarrow import dataset

        schema = arrow_schema(self.columns)
        if not files:
            return schema.empty_table()
        paths = [self._folder.path(f"{self.name}/{name}") for name in files]
        found = dataset.dataset(paths, schema=schema, format="parquet", filesystem=self._folder.filesystem).to_table()
        check_table(found)
        return found

    def _odd(self, files: Sequence[str]) -> str:
        """Which of several parts cannot be read, for a message; "" where each can."""
        import pyarrow as pa

        for name in files:
            try:
                self._load([name])
            except (OSError, pa.ArrowException, ValueError):
                return f" ({self._folder.uri(f'{self.name}/{name}')})"
        return ""

    def _deduplicated(self, table: Any) -> Any:
        import pyarrow as pa

        repeated = table.select(self._key).to_pandas().duplicated(keep="last")
        return table.filter(pa.array(~repeated.to_numpy())) if repeated.any() else table

    def _encode(self, rows: Sequence[Row]) -> bytes:
        import pyarrow as pa

        return _parquet(pa.Table.from_pylist(rows, schema=arrow_schema(self.columns)), few=True)

    def _next_name(self, suffix: str = "") -> str:
        if self._last is None:
            # a clock behind that of an earlier writer must not sort new rows before old ones
            stamps = [name.split("-")[1] for name in self.files()]
            self._last = max((_time(stamp) for stamp in stamps), default=dt.datetime.min.replace(tzinfo=dt.UTC))
        self._last = max(dt.datetime.now(dt.UTC), self._last + dt.timedelta(microseconds=1))
        self._number += 1
        return f"part-{self._last.strftime(_STAMP)}-{self._writer}-{self._number:06d}{suffix}.parquet"


def _time(stamp: str) -> dt.datetime:
    return dt.datetime.strptime(stamp, _STAMP).replace(tzinfo=dt.UTC)


def _parquet(table: Any, *, few: bool = False) -> bytes:
    """A table as a file; a part of a few rows as it is, since to compress it takes twice the time for little."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    if few:
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    else:
        pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
