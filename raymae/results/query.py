"""SQL over a sweep's results, also while it runs. The query sees three tables and nothing else of the machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from raymae.errors import QueryError
from raymae.results.store import Store, to_pandas

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false", "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "python_enable_replacements": "false",
}


def query(root: str | os.PathLike[str], sql: str) -> pd.DataFrame:
    """Run one SELECT (or WITH, FROM, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW) over a sweep.

    Views: `trials` (one row per ended trial), `reports` (one row per report) and `best` (each arm's completed search
    trial with the best validation score). The datasets are loaded first; the statement itself can neither read nor
    write files nor reach the network.

    Args:
        root: The sweep's folder, a path or a URI.
        sql: DuckDB SQL.

    Raises:
        ResultsError: No sweep there.
        QueryError: The SQL is wrong, or not one read-only statement.
    """
    import duckdb

    store = Store.open(root)
    connection = duckdb.connect(config=_SANDBOX)
    try:
        for name in ("trials", "reports"):
            connection.register(name, store.table(name))
        connection.execute(f"CREATE VIEW best AS {_best(store)}")
        connection.execute("SET TimeZone='UTC'")
        connection.execute("SET lock_configuration=true")
        reading = {duckdb.StatementType.SELECT, duckdb.StatementType.MULTI}  # MULTI is what PIVOT parses to
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in reading:
            got = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise QueryError(f"one SELECT statement is expected, got {got}: {sql.strip()!r}. {_available(store)}")
        relation = connection.sql(statements[0])
        if relation is None:
            raise QueryError(f"the statement returns no rows: {sql.strip()!r}. {_available(store)}")
        return to_pandas(_without_decimals(relation.to_arrow_table()))
    except duckdb.Error as error:
        raise QueryError(f"{str(error).strip()}\n{_available(store)}") from None
    finally:
        connection.close()


def _best(store: Store) -> str:
    objective = store.objective()
    score = f'"val_{objective.metric}"'
    order = "ASC" if objective.mode == "min" else "DESC"
    return (
        f"SELECT * FROM trials WHERE stage = 'search' AND status = 'completed' AND isfinite({score}) "
        f"QUALIFY row_number() OVER (PARTITION BY arm ORDER BY {score} {order}, ended_at, trial_id) = 1"
    )


def _without_decimals(table: Any) -> Any:
    """DuckDB sums integers into 128-bit ones, which pandas would show as Decimal objects."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            try:
                column = table.column(index).cast(pa.int64() if field.type.scale == 0 else pa.float64())
            except pa.ArrowInvalid:
                column = table.column(index).cast(pa.float64())
            table = table.set_column(index, field.name, column)
    return table


def _available(store: Store) -> str:
    columns = store.meta()["columns"]
    return "\n".join([
        "Available views and columns:",
        f"  trials, best: {', '.join(columns['trials'])}",
        f"  reports: {', '.join(columns['reports'])}",
    ])
