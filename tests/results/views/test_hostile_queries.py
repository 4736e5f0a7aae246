"""Statements that mistaken or malicious people type: a table or a sentence, soon, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_task import DATA, ENVIRONMENT, report, tiny_schema, tiny_spec, trial

from raymae.cli import main
from raymae.errors import MAX_LINE, MAX_LINES
from raymae.results import Store

ROOT = str(Path(__file__).parents[3])
SYNTAX = [
    "", " ", ";", ";;;", "--", "/*", "/* never ended", "SELEC 1", "SELECT", "SELECT FROM", "SELECT * FRM trials",
    "SELECT (", "SELECT )", "SELECT 'open", 'SELECT "open', "SELECT $$open", "SELECT 1 +", "SELECT 1 WHERE", "FROM",
    "FROM trials WHERE", "SELECT * FROM trials GROUP", "SELECT ,", "SELECT * * *", "SELECT 1 AS", "SELECT $1",
    "SELECT ?", "SELECT :name", "\\d", ".tables", "help", "quit", "drop table trials", "🦆", "SELECT 🦆", "SELECT 日本",
    "\0", "SELECT '\x1b[31m", "\x1b[2J", "SELECT \x07", "SELECT '\udcff'", "'; DROP VIEW best; --",
    "SELECT 1; SELECT 2; " * 50, "SELECT " + "(" * 900 + "1", "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "1+" * 5_000 + "1", "SELECT " + "[" * 2_000 + "]" * 2_000, "x" * 10_000, "SELECT '" + "x" * 19_000,
    "SELECT 1 --" + "x" * 100_000, "SELECT " + "nope, " * 2_000 + "1", "\n" * 500 + "SELEC", "SELECT\n" * 200,
    "%s %d {} {0}", "SELECT '%s' FROM {nope}",
]
UNKNOWN = [
    "SELECT nope FROM trials", "SELECT trials.nope FROM trials", "SELECT * FROM nope", "SELECT * FROM trials.nope",
    "SELECT nope()", "SELECT nope(1) OVER ()", "SELECT 1::NOPE", "SELECT arm.x FROM trials", "SELECT * FROM arms, nope",
    'SELECT "\x1b[31m" FROM trials', 'SELECT * FROM "a\nb\nc"', "SELECT * EXCLUDE (nope) FROM trials",
    "SELECT sum(arm) FROM trials", "SELECT arm, count(*) FROM trials", "SELECT 'a'::INT", "SELECT 1 / 'x'",
    "SELECT arm + 1 FROM trials", "SELECT error('x')", "SELECT error(repeat('line' || chr(10), 1000))",
    "SELECT error(chr(27) || '[31m')", "SELECT 9223372036854775807 + 1", "SELECT '2020-13-45'::DATE",
    "SELECT CAST('[' AS JSON)", "SELECT (SELECT unnest([1, 2]))", "SELECT * FROM trials LIMIT -1",
    "SELECT * FROM trials USING SAMPLE 200%", "SELECT * FROM trials ORDER BY 99", "PIVOT nope ON x", "DESCRIBE nope",
    "SUMMARIZE nope", "SHOW nope", "SELECT regexp_matches('a', '(')", "SELECT strftime(now(), '%Q')",
    "SELECT getenv('HOME')", "SELECT current_setting('x')",
]
REFUSED = [
    "COPY trials TO 'out'", "COPY (SELECT 1) TO '/tmp/out' (FORMAT parquet)", "ATTACH 'out.db'",
    "ATTACH ':memory:' AS x", "DETACH memory", "INSTALL httpfs", "LOAD httpfs", "SET threads = 1", "RESET ALL",
    "PRAGMA database_list", "CREATE TABLE x (a INT)", "INSERT INTO trials VALUES (1)", "UPDATE trials SET arm = 'x'",
    "DELETE FROM trials", "DROP VIEW best", "ALTER TABLE trials ADD COLUMN x INT", "TRUNCATE trials",
    "EXPORT DATABASE 'out'", "IMPORT DATABASE 'out'", "BEGIN", "COMMIT", "CALL pragma_version()", "CHECKPOINT",
    "VACUUM", "USE memory", "EXPLAIN SELECT 1", "PREPARE x AS SELECT 1", "EXECUTE x", "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3)", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/*')",
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM glob('/*')", "SELECT * FROM read_parquet('s3://bucket/x')",
    "SELECT * FROM 'https://example.org/x.csv'", "SELECT * FROM read_json_auto('/dev/zero')",
]
ANSWERED = [
    "SELECT 1\0", "SELECT '\r\n' FRO", "FROM trials", "FROM reports", "FROM best", "FROM arms", "FROM scores",
    "FROM places", "SHOW TABLES", "DESCRIBE trials", "SUMMARIZE trials", "SELECT * FROM trials WHERE false",
    "SELECT * FROM trials a, trials b, trials c", "SELECT * FROM trials, reports, arms, best",
    "SELECT error, length(error) FROM trials", "SELECT 1 AS a, 2 AS a", "SELECT 1 AS \"a\nb\x1b\"",
    "SELECT 1 AS \"日本\", '🦆' AS x", "SELECT COLUMNS(*)::VARCHAR FROM trials", "SELECT t FROM trials t",
    "SELECT list(t) FROM trials t", "SELECT histogram(val_mse) FROM trials",
    "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(300)), "SELECT repeat('x', 100000) AS x",
    "SELECT repeat('日', 1000) FROM range(20)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 2000) SELECT * FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT n % 7 + 1 FROM t) SELECT sum(n) FROM t", "SELECT * FROM range(0)",
    "SELECT * FROM range(100000)", "SELECT chr(27) || '[31m' || chr(0) AS x", "SELECT random() FROM range(2000)",
    "SELECT 'inf'::DOUBLE, 'nan'::DOUBLE, -0.0", "SELECT unnest([DATE 'infinity', DATE '2020-01-01'])",
    "SELECT * FROM trials POSITIONAL JOIN range(2000)", "VALUES (1), (NULL)",
    "SELECT MAP {'a': [union_value(x := INTERVAL 1 DAY)]}", "PIVOT trials ON arm USING max(val_mse)",
    "SELECT * FROM duckdb_settings()", "SELECT * FROM information_schema.columns",
    "SELECT error FROM trials WHERE error LIKE '%\n%'", "FROM (FROM trials) SELECT count(*)",
    "SELECT '" + "x" * 15_000 + "'", "SELECT row_number() OVER () AS i, * FROM trials, range(300)", "SELECT NULL",
    "SELECT []::INT[]",
]
ENDLESS = [
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "SELECT count(*) FROM range(1000000000000)",
    "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b",
    "SELECT count(*) FROM trials a, trials b, trials c, trials d, range(100000000000) WHERE hash(range) = 0",
    "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))", "SELECT list_sort(range(30000000))[1]",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep of a few trials, one of which died with what a terminal would obey."""
    root = tmp_path_factory.mktemp("hostile") / "ett"
    with Store.create(root, tiny_spec(), tiny_schema(), environment=ENVIRONMENT, data=DATA, flush_s=0.0) as store:
        for name, changes in {"a": {}, "b": {"status": "failed", "error": "\x1b[2J\nTraceback\n" * 100}}.items():
            store.add_report(report(name, 0))
            store.add_trial(trial(name, val_mse=0.3, **changes))
    return str(root)


@pytest.fixture(scope="module")
def slack(root: str) -> float:
    """Seconds that this machine takes for a harmless statement, with what the first of them imports."""
    started = time.monotonic()
    for _ in range(3):
        assert ask(root, "SELECT * FROM best, arms")[0] == 0
    return time.monotonic() - started


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder in which nothing may appear."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def ask(root: str, sql: str, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["query", *options, "--", root, sql])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def is_message(text: str) -> None:
    lines = text.removesuffix("\n").split("\n")
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_LINE + len("error: ")
    assert all(line.isprintable() for line in lines)


def test_there_are_150_of_them() -> None:
    assert len({*SYNTAX, *UNKNOWN, *REFUSED, *ANSWERED, *ENDLESS}) >= 150


@pytest.mark.parametrize("sql", [*SYNTAX, *UNKNOWN, *REFUSED], ids=lambda sql: repr(sql[:40]))
def test_what_is_wrong_is_a_message(root: str, slack: float, sql: str) -> None:
    started = time.monotonic()
    code, out, message = ask(root, sql)
    assert time.monotonic() - started < 2 + slack
    assert (code, out) == (2, "")
    is_message(message)


@pytest.mark.parametrize("sql", ANSWERED, ids=lambda sql: repr(sql[:40]))
def test_what_is_odd_is_answered_in_every_form(root: str, slack: float, sql: str) -> None:
    for form in ("table", "json", "csv"):
        started = time.monotonic()
        code, out, message = ask(root, sql, "--format", form)
        assert (code, message) == (0, "")
        assert time.monotonic() - started < 2 + slack
        if form == "json":
            rows: list[Any] = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
            assert isinstance(rows, list)
        elif form == "table":
            assert max(map(len, out.splitlines())) <= 120
            assert out.replace("\n", "").isprintable()


@pytest.mark.parametrize("sql", ENDLESS, ids=lambda sql: repr(sql[:40]))
def test_what_does_not_end_is_stopped(root: str, slack: float, sql: str) -> None:
    started = time.monotonic()
    code, out, message = ask(root, sql, "--seconds", "0.2")
    assert time.monotonic() - started < 2 + slack
    assert (code, out) == (2, "")
    assert "stopped after 0.2 s: bound it with WHERE or LIMIT" in message
    is_message(message)


def test_the_process_ends_as_it_should_after_a_statement_that_was_stopped(root: str) -> None:
    command = [sys.executable, "-m", "raymae.cli", "query", "--seconds", "0.1", root, ENDLESS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ROOT})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the statement was stopped after 0.1 s")
    assert len(done.stderr.splitlines()) == 1
