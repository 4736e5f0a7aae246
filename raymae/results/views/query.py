"""SQL over a sweep's results, also while it runs. The query sees six tables and nothing else of the machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import QueryError
from raymae.results.store.columns import arrow_schema
from raymae.results.store.scores import SCORE_COLUMNS
from raymae.results.store.store import Store, to_pandas
from raymae.results.verdict.judge import counted, verdict_now
from raymae.results.verdict.verdict import Verdict, plain
from raymae.results.verdict.where import by_place

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

_VIEWS: dict[Literal["trials", "reports", "scores", "arms"], set[str]] = {
    "trials": {"trials", "best"}, "reports": {"reports"}, "scores": {"scores"}, "arms": {"arms"},
}
_ARM_COLUMNS = {
    "arm": "string", "kind": "string", "seeds": "int64", "test": "double", "sd": "double", "low": "double",
    "high": "double", "best_val": "double", "best_trial": "string", "completed": "int64", "stopped": "int64",
    "failed": "int64", "compute_s": "double",
}
_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false", "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "python_enable_replacements": "false",
}


def query(root: str | os.PathLike[str], sql: str) -> pd.DataFrame:
    """Run one SELECT (or WITH, FROM, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW) over a sweep.

    Views: `trials` (one row per ended trial), `reports` (one row per report), `scores` (one row per replicate, test
    example and part of the objective), `places` (one row per test example, or per group of them where groups are known,
    with each arm's mean score), `best` (each arm's search trial with the
    best validation score) and `arms` (one row per arm: test score with interval, seeds, trials, compute, and what the
    task's main arm minus it is, as `mae_minus` where that arm is `mae`). What the statement names is loaded first; the
    statement itself can neither read nor write files nor reach the network.

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
        every = re.search(r"\b(show|describe|information_schema|duckdb_\w+|pragma_\w+)\b", sql, re.IGNORECASE)
        named = {view for view in ("trials", "reports", "scores", "places", "arms", "best")
                 if every or re.search(rf"\b{view}\b", sql, re.IGNORECASE)}
        verdict = verdict_now(store) if named & {"arms", "best"} else None
        for name, made_of in _VIEWS.items():
            if named & made_of:
                connection.register(name, _arms(store, verdict) if name == "arms" else store.table(name))
            else:  # a statement about something else still learns of it from SHOW and from errors
                columns = (_arm_columns(store) if name == "arms" else SCORE_COLUMNS if name == "scores"
                           else store.manifest.columns[name])
                connection.register(name, arrow_schema(columns).empty_table())
        connection.register("places", _places(store, load="places" in named))
        connection.execute(f"CREATE VIEW best AS {_best(verdict)}")
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


def write(frame: pd.DataFrame, path: str | os.PathLike[str], kind: Literal["csv", "json", "parquet"]) -> None:
    """Write a query's result to a file.

    Raises:
        QueryError: The file cannot be written.
    """
    try:
        if kind == "parquet":
            frame.to_parquet(path, index=False)
        else:
            Path(path).write_text(as_text(frame, kind), encoding="utf-8")
    except OSError as error:
        raise QueryError(f"{os.fspath(path)}: cannot write the result: {error.strerror or error}") from None


def as_text(frame: pd.DataFrame, kind: Literal["csv", "json", "table"]) -> str:
    """A query's result as CSV, as a JSON list of objects, or as a table to read."""
    if kind == "csv":
        return str(frame.to_csv(index=False))
    if kind == "json":
        return str(frame.to_json(orient="records", date_format="iso")) + "\n"
    return "no rows\n" if frame.empty else str(frame.to_string(index=False)) + "\n"


def _arms(store: Store, verdict: Verdict | None) -> Any:
    """One row per arm, best first, from the verdict."""
    import pyarrow as pa

    assert verdict is not None
    lead = _lead(store)
    pairs, rows = verdict.against(lead), []
    for arm in verdict.arms:
        test, pair = verdict.test(arm), pairs.get(arm.arm)
        low, high = (test and test.ci95) or (None, None)
        rows.append({
            "arm": arm.arm, "kind": arm.kind, "seeds": arm.n, "test": test and test.mean, "sd": test and test.sd,
            "low": low, "high": high, "best_val": arm.val.score, "best_trial": arm.val.trial_id,
            **plain(arm.num_trials), "compute_s": arm.compute_s, f"{lead}_minus": pair and pair.difference,
            "p": pair and pair.p, "verdict": pair and pair.verdict,
        })
    return pa.Table.from_pylist(rows, schema=arrow_schema(_arm_columns(store)))


def _places(store: Store, *, load: bool) -> Any:
    """Where on the test set each arm scores what; its columns alone where the statement is about something else."""
    import pyarrow as pa

    scores, arms = store.scores(counted(store.trials(), store.objective())) if load else None, list(store.spec().arms)
    if scores is not None and not scores.empty:
        return pa.Table.from_pandas(by_place(scores, [arm for arm in arms if arm in set(scores["arm"])]),
                                    preserve_index=False)
    return arrow_schema({"place": "string", "units": "int64", **dict.fromkeys(arms, "double")}).empty_table()


def _lead(store: Store) -> str:
    """The arm that the task is about: the first of its primary pair, or of all."""
    task = store.manifest.task
    return task.primary[0] if task.primary else next(iter(task.arms))


def _arm_columns(store: Store) -> dict[str, str]:
    return {**_ARM_COLUMNS, f"{_lead(store)}_minus": "double", "p": "double", "verdict": "string"}


def _best(verdict: Verdict | None) -> str:
    """The rows of the trials that the verdict calls each arm's best; none where the statement does not ask."""
    best = [arm.val.trial_id for arm in verdict.arms if arm.val.trial_id] if verdict else []
    listed = ", ".join("'" + trial_id.replace("'", "''") + "'" for trial_id in best) or "NULL"
    return (f"SELECT * FROM trials WHERE trial_id IN ({listed}) "
            "QUALIFY row_number() OVER (PARTITION BY trial_id ORDER BY attempt DESC) = 1")


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
    columns = store.manifest.columns
    return "\n".join([
        "Available views and columns:",
        f"  trials, best: {', '.join(columns['trials'])}",
        f"  reports: {', '.join(columns['reports'])}",
        f"  scores: {', '.join(SCORE_COLUMNS)}",
        f"  places: place, units, {', '.join(store.spec().arms)}",
        f"  arms: {', '.join(_arm_columns(store))}",
    ])
