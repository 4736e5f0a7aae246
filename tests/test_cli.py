from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import click
import jsonschema
import pooch
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from raymae import __version__
from raymae.cli import main
from raymae.cli.base import FAMILIES, table
from raymae.data import DATASETS
from raymae.results.store.store import Store
from raymae.results.verdict.judge import conclude
from raymae.search.environment import GIT
from raymae.spec import load_sweep
from raymae.tasks import schema_of

ROOT = Path(__file__).parents[1]
DEBUG = str(ROOT / "sweeps" / "debug.yaml")
OPTIONS = {  # hyperparameters live in the sweep file: think twice before adding a line here
    "sweep": ["file", "--set", "--dry-run", "--estimate", "--fresh", "--address", "--json"],
    "extend": ["directory", "--num-trials", "--replicates", "--cells", "--address", "--json"],
    "retry": ["directory", "--failed", "--address", "--json"],
    "fork": ["directory", "name", "--set", "--address", "--json"],
    "train": ["file", "--arm", "--seed", "--test", "--set", "--json"],
    "results": ["directory", "--json"],
    "report": ["directory", "--to", "--figure", "--json"],
    "explain": ["directory", "--arm", "--against", "--cell", "--json"],
    "compare": ["directories", "--short", "--markdown", "--into", "--json"],
    "query": ["directory", "sql", "--format", "--output", "--json", "--seconds"],
    "models": ["directory", "--json"],
    "predict": ["directory", "source", "--to", "--arm", "--ensemble", "--cell", "--device", "--backtest",
                "--figure", "--json"],
    "watch": ["directory", "--once", "--every", "--json"],
    "serve": ["directory", "--host", "--port", "--open-to-network"],
    "export": ["directory", "--optuna", "--csv", "--tensorboard", "--encoder", "--to", "--onnx", "--arm",
               "--json"],
    "stop-trial": ["directory", "trial_id", "--wait", "--json"],
    "add": ["directory", "values", "--wait", "--json"],
    "schema": [],
    "data list": ["--json"],
    "data fetch": ["name", "--root"],
    "data verify": ["name", "--json"],
    "task new": ["name"],
    "task check": ["name", "--sweep", "--json"],
    "cluster check": ["file", "--json"],
    "cluster prices": ["--refresh", "--json"],
    "cluster prepare": ["file"],
    "cluster slurm": ["file", "--time", "--nodes", "--gpus-per-node", "--cpus-per-node", "--partition", "--account",
                      "--qos", "--module", "--setup", "--python", "--signal-before", "--job-name", "--output",
                      "--sbatch", "--submit", "--set", "--json"],
    "submit": ["file", "--address", "--code", "--python", "--env", "--fresh", "--no-wait", "--set", "--json"],
    "jobs": ["--address", "--all", "--json"],
    "logs": ["job", "--address", "--follow"],
    "stop": ["job", "--address", "--json"],
}


def leaves(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(leaves(main))
GROUPS = ["", *(name for name, command in main.commands.items() if isinstance(command, click.Group))]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data, no network, and an empty working folder."""
    def refuse(self: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        raise OSError(f"no network in tests: {url}")

    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def fails(*arguments: str, code: int) -> str:
    result = run(*arguments, code=code)
    assert result.stdout == ""
    return " ".join(result.stderr.split())


# --- help


def test_commands_and_options_are_these() -> None:
    found = {name: [p.opts[-1] if isinstance(p, click.Option) else str(p.name) for p in command.params]
             for name, command in COMMANDS.items()}
    assert found == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_help_ends_with_an_example(name: str) -> None:
    text = run(*name.split(), "--help").stdout
    words = (COMMANDS[name].help or "").partition("Example:")[2].split()
    assert words[: 1 + len(name.split())] == ["raymae", *name.split()]
    assert "Example:" in text
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert option.help
            assert option.help.endswith(".")
            assert option.opts[-1] in text


def test_help_lists_commands_in_order() -> None:
    assert re.findall(r"^  ([a-z][a-z-]+)  ", run("--help").stdout, re.MULTILINE) == [
        "sweep", "extend", "retry", "fork", "train", "results", "report", "explain", "compare", "query", "models",
        "predict", "watch", "serve", "export", "stop-trial", "add", "schema", "data", "task", "cluster", "submit",
        "jobs", "logs", "stop",
    ]
    assert run("-h").stdout == run("--help").stdout
    assert re.findall(r"^  ([a-z]+)  ", run("data", "--help").stdout, re.MULTILINE) == ["list", "fetch", "verify"]


def every_help() -> Iterator[tuple[str, str]]:
    for name in [*GROUPS, *OPTIONS]:
        yield name, run(*name.split(), "--help").stdout


def test_help_has_no_runs_of_spaces_and_no_cut_sentences() -> None:
    for name, text in every_help():
        lists = text.partition("\nOptions:\n")[2].splitlines()
        for line in text.splitlines():
            words = line.strip()
            runs = len(re.findall(" {2,}", words))
            assert runs <= (line in lists), f"{name}: {line!r}"  # between a name and what it means alone
            assert "..." not in re.sub(r"(DIR|VALUE|\[ARGS\])\.\.\.", "", words), f"{name}: {line!r}"
            assert "\b" not in words


def test_every_group_and_the_top_level_have_examples() -> None:
    for name in GROUPS:
        assert re.search(r"Examples?:\n +raymae ", run(*name.split(), "--help").stdout), name


@pytest.mark.parametrize("width", [80, 120])
def test_tables_break_lines_between_words(width: int) -> None:
    from rich.console import Console

    rows = [{"name": name, "licence": known.licence, "verified": True, "n": None,
             "where": f"/srv/shared/data/{name}/{known.files[0].path}"} for name, known in DATASETS.items()]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(rows, list(rows[0])))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert "yes" in lines[1]
    printed = {word for line in lines for word in re.findall(r"[^\s/]+", line)}
    for row in rows:
        for word in re.findall(r"[^\s/]+", f"{row['name']} {row['licence']} {row['where']}"):
            assert word in printed, f"{word} was broken"


def test_a_table_that_cannot_fit_is_cut_nowhere() -> None:
    from rich.console import Console

    console = Console(width=30, record=True, file=io.StringIO())
    console.print(table([{"a": "x" * 40, "b": "y" * 20}], ["a", "b"]), crop=False)
    assert "x" * 40 + "  " + "y" * 20 in console.export_text()


def test_help_groups_commands_by_family() -> None:
    text = run("--help").stdout
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles == ["Options", *dict.fromkeys(FAMILIES.values())], "every module of commands has a family"
    after = text.partition("Jobs on a cluster:")[2]
    assert re.findall(r"^  ([a-z]+)  ", after, re.MULTILINE) == ["submit", "jobs", "logs", "stop"]
    assert "raymae sweep sweeps/timeseries_mask.yaml" in text


def test_version_says_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GIT, '{"commit": "0123456789abcdef", "dirty": true}')
    assert run("--version").stdout == f"raymae, version {__version__} (commit 0123456, with changes)\n"
    monkeypatch.setenv(GIT, '{"commit": "0123456789abcdef", "dirty": false}')
    assert run("--version").stdout == f"raymae, version {__version__} (commit 0123456)\n"
    monkeypatch.setenv(GIT, "0123456789abcdef")  # an image, by the commit that it was built from
    assert run("--version").stdout == f"raymae, version {__version__} (commit 0123456)\n"
    monkeypatch.setenv(GIT, "v1.2")  # or by a tag
    assert run("--version").stdout == f"raymae, version {__version__} (commit v1.2)\n"
    for nothing in ("null", ""):  # installed outside a checkout; an image that was not told its commit
        monkeypatch.setenv(GIT, nothing)
        monkeypatch.setenv("PATH", "")  # no git either
        assert run("--version").stdout == f"raymae, version {__version__}\n"


def test_the_commit_is_of_the_checkout_that_holds_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a repository that happens to lie around it, as around a virtual environment."""
    monkeypatch.delenv(GIT, raising=False)
    copy = tmp_path / "venv" / "environment.py"
    copy.parent.mkdir()
    copy.write_text((ROOT / "raymae" / "search" / "environment.py").read_text())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    module = spec_from_file_location("environment", copy)
    assert module
    assert module.loader
    loaded = module_from_spec(module)
    module.loader.exec_module(loaded)
    assert loaded.git_state() is None
    subprocess.run([*git, "add", "."], check=True)
    assert loaded.git_state()["dirty"]
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    assert loaded.git_state()["dirty"] is False


def test_as_a_module_and_without_torch() -> None:
    code = "import sys, raymae.cli; print([m for m in ('torch', 'ray', 'optuna', 'pandas') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "[]\n", done.stderr
    done = subprocess.run([sys.executable, "-m", "raymae.cli", "sweep", "none.yaml"], capture_output=True, text=True,
                          timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "error: none.yaml: cannot read the sweep file: no such file"


@pytest.mark.parametrize(("words", "incomplete", "kinds"), [
    ([], "re", {"retry", "results", "report"}),
    (["results"], "res", {"dir"}),
    (["compare", "results/a"], "", {"dir"}),
    (["watch"], "", {"dir"}),
    (["sweep"], "sw", {"file"}),
    (["sweep", "a.yaml"], "--dr", {"--dry-run"}),
])
def test_shells_complete_commands_paths_and_options(words: list[str], incomplete: str, kinds: set[str]) -> None:
    found = ShellComplete(main, {}, "raymae", "_RAYMAE_COMPLETE").get_completions(words, incomplete)
    assert {item.value if item.type == "plain" else item.type for item in found} == kinds


def test_every_argument_that_is_a_path_completes_as_one() -> None:
    for name, command in COMMANDS.items():
        for argument in command.params:
            if isinstance(argument, click.Argument) and argument.make_metavar(click.Context(command)).strip(".[]") in (
                    "FILE", "DIR"):
                found = argument.shell_complete(click.Context(command), "x")
                assert {item.type for item in found} <= {"dir", "file"}, name
                assert found, name


# --- errors in sweep files


@pytest.mark.parametrize("command", [["sweep"], ["train", "--arm", "mae"]])
def test_bad_sweep_files(command: list[str], offline: Path) -> None:
    assert "cannot read the sweep file: no such file" in fails(*command, "none.yaml", code=2)
    assert "is a directory" in fails(*command, str(offline), code=2)
    (offline / "bad.yaml").write_text("name: ../x\nserach: {}\n")
    text = fails(*command, "bad.yaml", code=2)
    assert text.startswith("error: bad.yaml: task: is required")
    assert "bad.yaml:1: name: must match" in text
    assert "did you mean `search`?" in text
    text = fails(*command, DEBUG, "--set", "settings.lookback=25", code=2)
    assert "--set: settings.lookback: lookback=25 must be a multiple" in text
    assert "must have the form key.path=value" in fails(*command, DEBUG, "--set", "x", code=2)


def test_the_examples_of_help_are_true() -> None:
    """The override in the help of `train` ends the search of lr."""
    example = (COMMANDS["train"].help or "").partition("Example:")[2]
    changes = re.findall(r"--set (\S+)", example)
    assert changes
    spec = load_sweep(ROOT / re.findall(r"\S+\.yaml", example)[0], changes, schema_of=schema_of)
    assert "lr" not in spec.space
    assert spec.training.lr == 1e-3


# --- sweep --dry-run


def test_dry_run(offline: Path) -> None:
    result = run("sweep", DEBUG, "--dry-run")
    for part in ("mae", "scratch", "persistence", "prediction [2, 1]", "window [2, 7, 24]", "mask [2, 4]",
                 "nothing was started", "10 trials of forecasting", "synthetic"):
        assert part in result.stdout, part
    assert "SYNTHETIC DATA" in result.stderr
    assert list(offline.iterdir()) == []


def test_dry_run_as_json(offline: Path) -> None:
    plan = json.loads(run("sweep", DEBUG, "--dry-run", "--json", "--set", "search.num_trials=3").stdout)
    assert [(arm["arm"], arm["num_trials"], arm["replicates"]) for arm in plan["arms"]] == [
        ("mae", 3, 2), ("scratch", 3, 2), ("persistence", 1, 1),
    ]
    assert plan["num_trials"] == 12
    assert plan["data"]["source"] == "synthetic"
    assert plan["arms"][0]["searched"] == {"lr": "0.0003 … 0.003 (log)"}
    assert plan["arms"][2]["num_parameters"] == 0
    assert ["prediction" in arm["shapes"] for arm in plan["arms"]] == [True, True, False], "a reference is not run"
    assert list(offline.iterdir()) == []


def test_missing_data() -> None:
    text = fails("sweep", DEBUG, "--dry-run", "--set", "data.if_unavailable=error", "--set", "data.root=own", code=1)
    for part in ("ETTh1 was not found", "data.root=own: no such folder", "$RAYMAE_DATA: not set", "the cache",
                 "no network in", "What to do"):
        assert part in text
    assert "ETTh1" in fails("sweep", DEBUG, "--dry-run", "--set", "data.name=ETTh2", code=1)


def csv(rows: int, *, target: str = "OT") -> str:
    hours = (f"2020-01-{1 + n // 24 % 31:02d} {n % 24:02d}:00:00" for n in range(rows))
    lines = [f"{hour},{n % 7},{n % 5}" for n, hour in enumerate(hours)]
    return "\n".join([f"date,{target},load", *lines]) + "\n"


@pytest.mark.parametrize(("content", "message"), [
    (csv(20), "own.csv"), (csv(400, target="temperature"), ":1: unknown target 'OT'"), (None, "does not exist"),
    ("", "is empty"), ("date,OT\n2020-01-01,x\n2020-01-02,1\n", ":2: column 'OT' must be numeric, got 'x'"),
])
@pytest.mark.parametrize("command", [["sweep", "--dry-run"], ["train", "--arm", "persistence"]])
def test_csv_problems(command: list[str], content: str | None, message: str, offline: Path) -> None:
    path = offline / "own.csv"
    if content is not None:
        path.write_text(content)
    assert message in fails(*command, DEBUG, "--set", f"data={{name: own, path: {path}}}", code=1)


def test_own_csv(offline: Path) -> None:
    (offline / "own.csv").write_text(csv(700))
    result = run("sweep", DEBUG, "--dry-run", "--json", "--set", f"data={{name: own, path: {offline / 'own.csv'}}}")
    assert json.loads(result.stdout)["data"]["source"] == "real"


@pytest.mark.parametrize(("override", "message"), [
    ("resources.cpus_per_worker=100000", "a trial needs 1 x 100000 = 100000 CPUs, but there are"),
    ("resources.workers=10000", "a trial needs 10000 x 1 = 10000 CPUs"),
    ("resources.gpus_per_worker=1000", "a trial needs 1 x 1000 = 1000 GPUs"),
])
def test_impossible_resources(override: str, message: str) -> None:
    assert message in fails("sweep", DEBUG, "--dry-run", "--set", override, code=1)


# --- train


def test_train(offline: Path) -> None:
    quick = ("--set", "training.batch_size=4096", "--set", "training.epochs=1", "--set", "training.pretrain_epochs=1")
    text = run("train", DEBUG, "--arm", "mae", *quick).stdout
    assert re.search(r"^mask_ratio = 0\.5$", text, re.MULTILINE)
    assert re.search(r"^pretrain +1 ", text, re.MULTILINE)
    assert re.search(r"^finetune +1 .*val_mse ", text, re.MULTILINE)
    assert "test_mse" not in text
    lines = [json.loads(line) for line in run("train", DEBUG, "--arm", "persistence", "--test", "--seed", "7", "--json")
             .stdout.splitlines()]
    assert (lines[0]["config"]["seed"], lines[0]["config"]["stage"]) == (7, "replicate")
    assert lines[-1]["phase"] == "test"
    assert lines[-1]["metrics"]["test_mse"] > 0
    assert list(offline.iterdir()) == []


def test_train_an_unknown_arm() -> None:
    assert "unknown arm 'mea'; did you mean `mae`?" in fails("train", DEBUG, "--arm", "mea", code=2)
    assert "Missing option '--arm'" in fails("train", DEBUG, code=2)


# --- results, query


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An unfinished sweep of two trials."""
    spec = load_sweep(DEBUG, ["replicates=0"], schema_of=schema_of)
    root = str(tmp_path / "debug")
    with Store.create(root, spec, schema_of(spec.task), environment={"python": "3"},
                      data={"name": "ETTh1", "source": "synthetic", "fingerprint": "synthetic:0"}) as store:
        for arm, score in (("mae", 0.25), ("scratch", 0.5)):
            store.add_trial({"trial_id": arm, "config_id": "c" + arm, "arm": arm, "stage": "search", "attempt": 0,
                             "status": "completed", "seed": 0, "val_mse": score, "lr": 1e-3, "wall_s": 1.0})
    return root


@pytest.fixture
def bisected(tmp_path: Path) -> str:
    """A finished sweep whose bisected factor has the same answer at both ends."""
    changes = ["factors={label_fraction: {bisect: [0.1, 1], cells: 4}}", "replicates=2", "arms=[mae, scratch]"]
    spec = load_sweep(DEBUG, changes, schema_of=schema_of)
    root = str(tmp_path / "debug")
    with Store.create(root, spec, schema_of(spec.task), environment={"python": "3"},
                      data={"name": "ETTh1", "source": "synthetic", "fingerprint": "synthetic:0"}) as store:
        for arm, share, seed in product(("mae", "scratch"), (0.1, 1.0), (0, 1)):
            store.add_trial({"trial_id": f"{arm}-{share}-{seed}", "config_id": f"{arm}{share}", "arm": arm,
                             "stage": "replicate", "attempt": 0, "status": "completed", "seed": seed, "lr": 1e-3,
                             "val_mse": 0.5, "test_mse": (0.4 if arm == "mae" else 0.5) + 0.01 * seed, "wall_s": 1.0,
                             "label_fraction": share})
        conclude(store)
    return root


@pytest.mark.parametrize(("cells", "message"), [
    ("3", "Invalid value for --cells: the sweep has 4 cells already"),
    ("9", "Invalid value for --cells: a factor is bisected with at most 8 cells, got 9"),
    ("6", "Invalid value for --cells: more cells find out nothing: the answer is the same at both ends of "
          "label_fraction, 0.1 and 1"),
])
def test_cells_that_cannot_be_more_are_refused(bisected: str, cells: str, message: str) -> None:
    assert message in fails("extend", bisected, "--cells", cells, code=2)


def test_what_is_extended_is_said(store: str) -> None:
    assert "say how much more: --num-trials, --replicates, --cells" in fails("extend", store, code=2)
    assert "the sweep debug bisects no factor" in fails("extend", store, "--cells", "4", code=2)


def test_results(store: str) -> None:
    text = run("results", store).stdout
    assert "2 trials completed" in text
    assert "SYNTHETIC" in text.upper()
    summary = json.loads(run("results", store, "--json").stdout)
    assert summary["num_trials"]["completed"] == 2
    assert {arm["arm"] for arm in summary["verdict"]["arms"]} == {"mae", "scratch", "persistence"}


def test_report(store: str, offline: Path) -> None:
    lines = run("report", store).stdout.split()
    assert lines == [f"{store}/report.html", f"{store}/report.md"]
    found = json.loads(run("report", store, "--to", str(offline / "there"), "--json").stdout)
    assert "SYNTHETIC DATA" in Path(found["html"]).read_text()
    assert Path(found["markdown"]).read_text().startswith("# debug")
    assert Path(found["markdown"]).parent == offline / "there"


def test_query(store: str) -> None:
    sql = "SELECT arm, val_mse FROM best ORDER BY val_mse"
    assert json.loads(run("query", store, sql, "--json").stdout) == [
        {"arm": "mae", "val_mse": 0.25}, {"arm": "scratch", "val_mse": 0.5},
    ]
    assert run("query", store, sql).stdout.split() == ["arm", "val_mse", "mae", "0.25", "scratch", "0.50"]
    assert run("query", store, "SELECT * FROM reports").stdout == "no rows\n"
    assert "Available views and columns" in fails("query", store, "SELECT nope FROM trials", code=2)
    assert "one SELECT statement" in fails("query", store, "DROP VIEW best", code=2)


def test_query_writes_files(store: str, offline: Path) -> None:
    import pandas as pd

    sql = "SELECT arm, val_mse FROM best ORDER BY val_mse"
    assert run("query", store, sql, "--format", "csv").stdout == "arm,val_mse\nmae,0.25\nscratch,0.5\n"
    for name, options in (("x.csv", ()), ("x.parquet", ()), ("x.json", ()), ("x", ("--format", "parquet"))):
        result = run("query", store, sql, "-o", name, *options)
        assert (result.stdout, result.stderr) == ("", f"2 rows written to {name}\n")
        read = {"x.csv": pd.read_csv, "x.json": pd.read_json}.get(name, pd.read_parquet)
        assert read(offline / name)["val_mse"].tolist() == [0.25, 0.5]
    assert "x.txt must end with .json" in fails("query", store, sql, "-o", "x.txt", code=2)
    assert "name a file with --output" in fails("query", store, sql, "--format", "parquet", code=2)
    assert "cannot write the result" in fails("query", store, sql, "-o", "no/x.csv", code=2)


@pytest.mark.parametrize("command", [["results"], ["query"], ["report"]])
def test_not_a_results_folder(command: list[str], offline: Path) -> None:
    sql = ["SELECT 1"] if command == ["query"] else []
    for folder in ("nowhere", str(offline), DEBUG):
        assert fails(*command, folder, *sql, code=1).startswith("error: ")


# --- schema, data


def test_schema() -> None:
    schema = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == "RayMAE sweep file"


def test_data(tmp_path: Path) -> None:
    rows = json.loads(run("data", "list", "--json").stdout)
    assert {"name", "modality", "licence", "where", "verified"} <= set(rows[0])
    assert all(row["where"] is None for row in rows)
    assert "ETTh1" in run("data", "list").stdout
    (row,) = json.loads(run("data", "verify", "ETTh1", "--json", code=1).stdout)
    assert (row["verified"], row["problem"]) == (False, "not found")
    assert "not found" in run("data", "verify", code=1).stdout
    assert "unknown data set 'ETTh'; did you mean `ETTh1`?" in fails("data", "verify", "ETTh", code=1)
    assert "no network in tests" in fails("data", "fetch", "ETTh1", "--root", str(tmp_path / "d"), code=1)


def test_verified_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    from raymae.data import DATASETS, Dataset, File

    md5 = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DATASETS, "small", Dataset("small", "series", "x", "CC0", (File("x.csv", md5=md5),), "ask"))
    monkeypatch.setenv("RAYMAE_DATA", str(tmp_path))
    (tmp_path / "x.csv").write_bytes(b"x")
    assert json.loads(run("data", "verify", "small", "--json").stdout)[0]["verified"] is True
    assert run("data", "fetch", "small").stdout.strip() == str(tmp_path / "x.csv")
