"""SQL over a sweep's results, also while it runs. The query sees six tables and nothing else of the machine."""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import QueryError, shorten
from raymae.results.store.columns import arrow_schema
from raymae.results.store.scores import SCORE_COLUMNS
from raymae.results.store.store import Store
from raymae.results.verdict.cells import counted
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import Verdict, plain
from raymae.results.verdict.where import by_place
from raymae.results.views.rows import Rows, read_rows

if TYPE_CHECKING:
    import duckdb
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

_VIEWS: dict[Literal["trials", "reports", "scores", "arms"], set[str]] = {
    "trials": {"trials", "best"}, "reports": {"reports"}, "scores": {"scores"}, "arms": {"arms"},
}
_ARM_COLUMNS = {
    "arm": "string", "kind": "string", "seeds": "int64", "test": "double", "sd": "double", "low": "double",
    "high": "double", "best_val": "double", "best_trial": "string", "completed": "int64", "stopped": "int64",
    "failed": "int64", "compute_s": "double", "skill": "double",
}
_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false", "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "python_enable_replacements": "false",
    "memory_limit": "2GB", "temp_directory": "",  # DuckDB would write what is larger into the current folder
}
_LONGEST = 20_000  # characters of a statement: DuckDB parses ten times as many for many seconds
_LINES, _QUOTED = 12, 300  # of DuckDB's message, of a statement in ours
_SECONDS, _ROWS_A_SECOND = 1.5, 100_000
_LAST_WAIT_S = 1.0


def query(root: str | os.PathLike[str], sql: str, seconds: float | None = None) -> pd.DataFrame:
    """Run one SELECT (or WITH, FROM, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW) over a sweep.

    Views: `trials` (one row per ended trial), `reports` (one row per report), `scores` (one row per replicate, test
    example and part of the objective), `places` (one row per test example, or per group of them where groups are known,
    with each arm's mean score), `best` (each arm's search trial with the best validation score) and `arms` (one row per
    arm: test score with interval, seeds, trials, compute, and what the task's main arm minus it is, as `mae_minus`
    where that arm is `mae`). Of a sweep with factors `best` and `arms` have a row per arm and cell, with the factors'
    values. What the statement names is loaded first; the statement itself can neither read nor write files nor reach
    the network.

    Args:
        root: The sweep's folder, a path or a URI.
        sql: DuckDB SQL.
        seconds: Time for the statement, without loading. Default: 1.5, and 1 more for every 100,000 rows it may read.

    Raises:
        ResultsError: No sweep there.
        QueryError: The SQL is wrong, not one read-only statement, or takes too long or too much memory.
    """
    return run_query(root, sql, seconds).to_pandas()


def run_query(
    root: str | os.PathLike[str], sql: str, seconds: float | None = None, max_rows: int | None = None
) -> Rows:
    """Run a statement as `query` does, and give its rows in a form that can be printed or written.

    Args:
        root: The sweep's folder, a path or a URI.
        sql: DuckDB SQL.
        seconds: Time for the statement; None as in `query`.
        max_rows: Rows to read at most; all where None.

    Raises:
        ResultsError: No sweep there.
        QueryError: As `query` raises it.
    """
    import duckdb

    store = Store.open(root)
    if len(sql) > _LONGEST:
        raise QueryError(f"a statement has at most {_LONGEST:,} characters, got {len(sql):,}: {shorten(sql)}")
    if not sql.isascii() and any("\ud800" <= character <= "\udfff" for character in sql):
        raise QueryError(f"a statement is UTF-8 text, got {shorten(sql)}")
    connection = duckdb.connect(config=_SANDBOX)
    try:
        num_rows = _register(connection, store, sql)
        connection.execute("SET TimeZone='UTC'")
        connection.execute("SET lock_configuration=true")
        rows = _within(
            _SECONDS + num_rows / _ROWS_A_SECOND if seconds is None else seconds, connection,
            lambda: _run(connection, store, sql, max_rows),
        )
    except duckdb.Error as error:
        message = "\n".join(str(error).strip().splitlines()[:_LINES])
        raise QueryError(f"{message}\n{_available(store)}") from None
    except MemoryError:
        raise QueryError("the statement needs more memory than there is: ask for less with WHERE or LIMIT") from None
    connection.close()
    return rows


def _register(connection: duckdb.DuckDBPyConnection, store: Store, sql: str) -> int:
    """Give a connection every view, loaded where the statement names it; returns how many rows were loaded."""
    every = re.search(r"\b(show|describe|information_schema|duckdb_\w+|pragma_\w+)\b", sql, re.IGNORECASE)
    named = {view for view in ("trials", "reports", "scores", "places", "arms", "best")
             if every or re.search(rf"\b{view}\b", sql, re.IGNORECASE)}
    verdict = verdict_now(store) if named & {"arms", "best"} else None
    num_rows = 0
    for name, made_of in _VIEWS.items():
        if named & made_of:
            table = _arms(store, verdict) if name == "arms" else store.table(name)
            num_rows += table.num_rows
        else:  # a statement about something else still learns of it from SHOW and from errors
            columns = (_arm_columns(store) if name == "arms" else SCORE_COLUMNS if name == "scores"
                       else store.manifest.columns[name])
            table = arrow_schema(columns).empty_table()
        connection.register(name, table)
    places = _places(store, load="places" in named)
    connection.register("places", places)
    connection.execute(f"CREATE VIEW best AS {_best(verdict)}")
    return num_rows + int(places.num_rows)


def _run(connection: duckdb.DuckDBPyConnection, store: Store, sql: str, max_rows: int | None) -> Rows:
    """Run what is to be one statement that reads."""
    import duckdb

    reading = {duckdb.StatementType.SELECT, duckdb.StatementType.MULTI}  # MULTI is what PIVOT parses to
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type not in reading:
        types = [statement.type.name for statement in statements]
        got = ", ".join(types[:5]) + (f" and {len(types) - 5} more" if types[5:] else "") or "nothing"
        raise QueryError(f"one SELECT statement is expected, got {got}: {_quoted(sql)}. {_available(store)}")
    relation = connection.sql(statements[0])
    if relation is None:
        raise QueryError(f"the statement returns no rows: {_quoted(sql)}. {_available(store)}")
    return read_rows(relation, max_rows)


def _within(seconds: float, connection: duckdb.DuckDBPyConnection, run: Callable[[], Rows]) -> Rows:
    """Do something with a connection in a thread of its own, and interrupt it when its time is over.

    DuckDB looks for an interrupt between chunks of rows, not within one call of a function such as `repeat`. A thread
    that does not end is left behind: a daemon, it ends with the process. One that is about to end when Python does
    would abort the process, so that Python waits for it a little.
    """
    ended: list[Rows | BaseException] = []

    def work() -> None:
        try:
            ended.append(run())
        except BaseException as error:  # raised where it is waited for
            ended.append(error)

    thread = threading.Thread(target=work, name="raymae-query", daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        connection.interrupt()
        atexit.register(thread.join, _LAST_WAIT_S)
        raise QueryError(f"the statement was stopped after {seconds:.3g} s: bound it with WHERE or LIMIT, or give it "
                         "more time (--seconds, or `seconds=` of raymae.query)")
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def _arms(store: Store, verdict: Verdict | None) -> Any:
    """One row per arm, best first, from the verdict."""
    import pyarrow as pa

    assert verdict is not None
    lead, rows = _lead(store), []
    for one, arm in ((cell, arm) for cell in verdict.each() for arm in cell.arms):
        test, pair = one.test(arm), one.against(lead).get(arm.arm)
        low, high = (test and test.ci95) or (None, None)
        rows.append({
            **_factors(store, one),
            "arm": arm.arm, "kind": arm.kind, "seeds": arm.n, "test": test and test.mean, "sd": test and test.sd,
            "low": low, "high": high, "best_val": arm.val.score, "best_trial": arm.val.trial_id,
            **plain(arm.num_trials), "compute_s": arm.compute_s, "skill": arm.skill and arm.skill.mean,
            f"{lead}_minus": pair and pair.difference,
            "p": pair and pair.p, "verdict": pair and pair.verdict,
        })
    return pa.Table.from_pylist(rows, schema=arrow_schema(_arm_columns(store)))


def _factors(store: Store, verdict: Verdict) -> dict[str, object]:
    """The values of a cell as the columns of `trials` hold them."""
    kinds = store.manifest.columns["trials"]
    return {name: str(value) if kinds[name] == "string" and value is not None else value
            for name, value in (verdict.cell or {}).items()}


def _places(store: Store, *, load: bool) -> Any:
    """Where on the test set each arm scores what; its columns alone where the statement is about something else."""
    import pyarrow as pa

    spec = store.spec()
    scores, arms = store.scores(counted(store.trials(), spec, store.manifest)) if load else None, list(spec.arms)
    if scores is not None and not scores.empty:
        return pa.Table.from_pandas(by_place(scores, [arm for arm in arms if arm in set(scores["arm"])]),
                                    preserve_index=False)
    return arrow_schema({"place": "string", "units": "int64", **dict.fromkeys(arms, "double")}).empty_table()


def _lead(store: Store) -> str:
    """The arm that the task is about: the first of its primary pair, or of all."""
    task = store.manifest.task
    return task.primary[0] if task.primary else next(iter(task.arms))


def _arm_columns(store: Store) -> dict[str, str]:
    factors = {name: store.manifest.columns["trials"][name] for name in store.spec().factors}
    return {**factors, **_ARM_COLUMNS, f"{_lead(store)}_minus": "double", "p": "double", "verdict": "string"}


def _best(verdict: Verdict | None) -> str:
    """The rows of the trials that the verdict calls each arm's best; none where the statement does not ask."""
    best = {arm.val.trial_id for one in verdict.each() for arm in one.arms if arm.val.trial_id} if verdict else set()
    listed = ", ".join("'" + trial_id.replace("'", "''") + "'" for trial_id in sorted(best)) or "NULL"
    return (f"SELECT * FROM trials WHERE trial_id IN ({listed}) "
            "QUALIFY row_number() OVER (PARTITION BY trial_id ORDER BY attempt DESC) = 1")


def _quoted(sql: str) -> str:
    """A statement within a message."""
    return repr(sql.strip()[:_QUOTED] + ("…" if len(sql.strip()) > _QUOTED else ""))


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
