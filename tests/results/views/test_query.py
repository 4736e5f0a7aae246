from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from tiny_task import report, tiny_schema, trial

from raymae.errors import QueryError, ResultsError
from raymae.results import Store, query
from raymae.spec import Objective

Make = Callable[..., Store]


@pytest.fixture
def root(make_store: Make, tmp_path: Path) -> Path:
    store = make_store()
    for name, score, changes in [
        ("a", 0.3, {}), ("b", 0.2, {}), ("c", 0.1, {"status": "stopped"}), ("d", float("nan"), {}),
        ("e", 0.05, {"stage": "replicate"}), ("f", None, {"status": "failed", "error": "NaN loss"}),
    ]:
        store.add_report(report(name, 0))
        store.add_trial(trial(name, val_mse=score, **changes))
    store.add_trial(trial("g", "scratch", val_mse=0.4))
    return tmp_path / "ett"


def test_views(root: Path) -> None:
    assert query(root, "SELECT count(*) AS n FROM trials")["n"].tolist() == [7]
    assert query(root, "FROM reports SELECT DISTINCT phase;")["phase"].tolist() == ["finetune"]
    best = query(root, "SELECT arm, trial_id, val_mse FROM best ORDER BY arm")
    assert best.to_dict("list") == {"arm": ["mae", "scratch"], "trial_id": ["b", "g"], "val_mse": [0.2, 0.4]}


def test_arms(root: Path) -> None:
    arms = query(root, "SELECT arm, kind, seeds, best_val, best_trial, completed, stopped, failed FROM arms")
    assert arms["arm"].tolist() == ["mae", "scratch", "gru", "persistence"]
    assert arms.iloc[0].tolist() == ["mae", "pretrained", 0, 0.2, "b", 4, 1, 1]
    tables = query(root, "SELECT table_name AS n FROM information_schema.tables ORDER BY n")["n"].tolist()
    assert tables == ["arms", "best", "places", "reports", "scores", "trials"]
    counts = query(root, "SELECT (SELECT count(*) FROM Trials) AS n, count(*) AS m FROM REPORTS")
    assert counts.iloc[0].tolist() == [7, 6]


def test_best_follows_the_objective(make_store: Make, tmp_path: Path) -> None:
    store = make_store(schema=tiny_schema(objective=Objective("mse", "max", "")))
    store.add_trial(trial("low", val_mse=0.1))
    store.add_trial(trial("high", val_mse=0.9))
    store.add_trial(trial("diverged", val_mse=float("nan")))
    store.add_trial(trial("unscored", val_mse=None))
    assert query(tmp_path / "ett", "SELECT trial_id FROM best")["trial_id"].tolist() == ["high"]


@pytest.mark.parametrize(
    "sql", ["WITH x AS (SELECT 1 AS one) SELECT * FROM x", "VALUES (1)", "DESCRIBE trials", "SUMMARIZE reports",
            "PIVOT trials ON status USING count(*) GROUP BY arm", "SHOW TABLES"],
)
def test_whatever_only_reads(root: Path, sql: str) -> None:
    assert len(query(root, sql)) > 0


def test_types_survive(root: Path) -> None:
    frame = query(root, "SELECT seed, patch_size, norm_target, started_at, sum(attempt) AS s FROM trials GROUP BY ALL")
    assert [str(frame[name].dtype) for name in ("patch_size", "norm_target", "s")] == ["Int64", "boolean", "Int64"]
    assert isinstance(frame["started_at"].dtype, pd.DatetimeTZDtype)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY trials TO '{out}'", "COPY (SELECT 1) TO '{out}'", "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM glob('/etc/*')", "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 's3://bucket/x.parquet'", "SELECT * FROM 'https://example.org/x.csv'", "INSTALL httpfs",
        "LOAD httpfs", "ATTACH '{out}'", "SET enable_external_access = true", "SET lock_configuration = false",
        "CREATE TABLE x AS SELECT 1", "DROP VIEW best", "EXPORT DATABASE '{out}'", "PRAGMA enable_profiling",
        "SELECT 1; SELECT 2", "SELECT 1; COPY trials TO '{out}'", "", "-- nothing",
        "EXPLAIN ANALYZE COPY trials TO '{out}'", "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM parquet_scan('{out}')", "SELECT * FROM read_blob('/etc/passwd')", "CALL pragma_version()",
        "SELECT * FROM read_json('https://example.org/x')", "FORCE INSTALL httpfs FROM core", "IMPORT DATABASE '{out}'",
        "SELECT * FROM sniff_csv('/etc/passwd')", "CREATE SECRET (TYPE s3, KEY_ID 'x', SECRET 'y')",
        "COPY (SELECT 1) TO 's3://bucket/x.csv'", "ATTACH 'https://example.org/x.db'", "CHECKPOINT", "VACUUM",
        "SELECT * FROM duckdb_secrets(), read_csv_auto('/etc/hosts')", "USE memory", "DELETE FROM trials",
        "SELECT * FROM store", "SELECT getenv('HOME')",
    ],
)
def test_the_sandbox(root: Path, tmp_path: Path, sql: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(QueryError):
        query(root, sql.format(out=out))
    assert not out.exists()


def test_the_sandbox_does_not_rest_on_the_kind_of_statement(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb, "StatementType", type("Types", (), {
        "SELECT": duckdb.StatementType.COPY, "MULTI": duckdb.StatementType.SET}))
    for sql in (f"COPY trials TO '{tmp_path / 'out'}'", "SET enable_external_access = true"):
        with pytest.raises(QueryError, match=r"disabled by configuration|has been locked"):
            query(root, sql)
    assert not (tmp_path / "out").exists()


def test_a_mistake_names_what_there_is(root: Path) -> None:
    columns = r"views and columns:\n  trials, best: sweep.*val_mse"
    with pytest.raises(QueryError, match=rf'"nope" not found[\s\S]*{columns}'):
        query(root, "SELECT nope FROM trials")
    with pytest.raises(QueryError, match="syntax error"):
        query(root, "SELEC 1")
    with pytest.raises(QueryError, match="one SELECT statement is expected, got SELECT, SELECT"):
        query(root, "SELECT 1; SELECT 2")


def test_where_no_sweep_is(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no sweep here"):
        query(tmp_path, "SELECT 1")
