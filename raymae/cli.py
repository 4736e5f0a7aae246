"""The command line: parse, call one library function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raymae import __version__
from raymae.errors import InterruptedSweepError, RayMAEError

if TYPE_CHECKING:
    from raymae.spec.sweep import SweepSpec


class Group(click.Group):
    """Turns our errors into messages and exit codes, and lists commands in the order they are written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one needs them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error raised on purpose is a message, not a traceback."""
        try:
            return super().invoke(ctx)
        except RayMAEError as error:
            click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
            ctx.exit(error.exit_code)


def example(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """End a command's help with an example."""

    def attach(function: Callable[..., Any]) -> Callable[..., Any]:
        lines = "\n".join("  " + line for line in text.strip().splitlines())
        function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n\b\nExample:\n{lines}\n"
        return function

    return attach


overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
    help="Override any field of the sweep file; repeatable.",
)
address = click.option(
    "--address", metavar="ADDRESS", default=None,
    help="Join a running Ray cluster: `auto` on one of its machines, or host:port. Default: a Ray of its own, here.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
sweep_file = click.argument("file", type=click.Path(dir_okay=False))
results_dir = click.argument("directory", metavar="DIR")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raymae")
def main() -> None:
    """Does masked-autoencoder pretraining help here, at which settings, and how sure are we?

    A sweep file says which task, which arms, which space, which budget. `raymae sweep` searches every arm with the
    same budget, re-trains each arm's best configuration on fresh seeds, scores it once on the test split, and prints
    the verdict.
    """


@main.command()
@sweep_file
@overrides
@click.option("--dry-run", is_flag=True, help="Check everything, build each arm's model on one batch; start nothing.")
@click.option("--fresh", is_flag=True, help="Move existing results of the same name aside and start over.")
@address
@as_json
@example("raymae sweep sweeps/timeseries_mask.yaml --set search.num_trials=4")
def sweep(
    file: str, overrides: Sequence[str], dry_run: bool, fresh: bool, address: str | None, as_json: bool
) -> None:
    """Run the sweep in FILE and print the verdict.

    Progress goes to standard error, the verdict to standard output.
    """
    _run(_load(file, overrides), dry_run=dry_run, fresh=fresh, address=address, as_json=as_json)


@main.command()
@results_dir
@click.option("--num-trials", type=click.IntRange(min=1), required=True, help="Trials per arm, in all.")
@address
@as_json
@example("raymae extend results/timeseries-mask --num-trials 40")
def extend(directory: str, num_trials: int, address: str | None, as_json: bool) -> None:
    """Go on with the finished sweep in DIR until every arm has more trials.

    Where the longer search finds a better configuration, that one is replicated and compared.
    """
    spec = _stored(directory)
    if num_trials < spec.search.num_trials:
        message = f"the sweep has {spec.search.num_trials} trials per arm already"
        raise click.BadParameter(message, param_hint="--num-trials")
    search = spec.search.model_copy(update={"num_trials": num_trials})
    _run(spec.model_copy(update={"search": search}), extend=True, address=address, as_json=as_json)


@main.command()
@results_dir
@click.option("--failed", is_flag=True, required=True, help="Which trials: the failed ones.")
@address
@as_json
@example("raymae retry results/timeseries-mask --failed")
def retry(directory: str, failed: bool, address: str | None, as_json: bool) -> None:
    """Run the failed trials in DIR again, with the identical configuration and seed."""
    _run(_stored(directory), retry_failed=failed, address=address, as_json=as_json)


@main.command()
@results_dir
@click.argument("name")
@overrides
@address
@as_json
@example("raymae fork results/timeseries-mask wider --set 'space.lookback={choice: [168, 336, 504]}'")
def fork(directory: str, name: str, overrides: Sequence[str], address: str | None, as_json: bool) -> None:
    """Start sweep NAME beside the one in DIR, changed by --set; its search learns from DIR's trials."""
    from raymae.spec.load import parse_sweep
    from raymae.tasks import schema_of

    spec = _stored(directory)
    text = json.dumps({**spec.to_json(), "name": name})
    changed = parse_sweep(text, f"{directory}/sweep.json", overrides, schema_of=schema_of)
    search = changed.search.model_copy(update={"warm_start": [directory, *changed.search.warm_start]})
    _run(changed.model_copy(update={"search": search}), address=address, as_json=as_json)


@main.command()
@sweep_file
@click.option("--arm", required=True, help="Which arm to train.")
@click.option("--seed", type=int, default=None, help="Seed; search.seed of the file by default.")
@click.option("--test", is_flag=True, help="Score the test split at the end, as a replicate does.")
@overrides
@as_json
@example("raymae train sweeps/timeseries_mask.yaml --arm mae --set space.lr=null --set training.lr=1e-3")
def train(file: str, arm: str, seed: int | None, test: bool, overrides: Sequence[str], as_json: bool) -> None:
    """Train one trial of FILE in this process, without Ray; breakpoints work.

    Searched parameters take the task's default where the space holds it, else the first value of their range or list.
    """
    from raymae.search.single import train_one

    spec = _load(file, overrides)
    for line in train_one(spec, arm, seed=seed, test=test):
        click.echo(json.dumps(line) if as_json else line["text"])


@main.command()
@results_dir
@as_json
@example("raymae results results/timeseries-mask")
def results(directory: str, as_json: bool) -> None:
    """Print the leaderboard and the verdict of the sweep in DIR, finished or not."""
    from raymae.results import show
    from raymae.results.store import Store

    summary = show.summary(Store.open(directory))
    _print(summary, lambda: show.render(summary), as_json)


@main.command()
@results_dir
@click.argument("sql")
@as_json
@example('raymae query results/timeseries-mask "SELECT arm, min(val_mse) FROM trials GROUP BY arm"')
def query(directory: str, sql: str, as_json: bool) -> None:
    """Run SQL (DuckDB's) over the results in DIR: views `trials`, `reports` and `best`. Read-only."""
    from raymae.results.query import query as run

    frame = run(directory, sql)
    if as_json:
        click.echo(frame.to_json(orient="records", date_format="iso"))
    else:
        click.echo("no rows" if frame.empty else frame.to_string(index=False))


@main.command()
@example("raymae schema > sweep.schema.json")
def schema() -> None:
    """Print the JSON Schema of sweep files, for editors."""
    from raymae.spec.load import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.group(cls=Group)
def data() -> None:
    """Find, fetch and verify data sets."""


@data.command("list")
@as_json
@example("raymae data list")
def data_list(as_json: bool) -> None:
    """List the data sets that are known, and where each was found."""
    from raymae.data.cache import listing

    rows = listing()
    _print(rows, lambda: _table(rows, ("name", "modality", "licence", "where", "verified")), as_json)


@data.command("fetch")
@click.argument("name")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Folder to put it in, not the cache.")
@example("raymae data fetch ETTh1")
def data_fetch(name: str, root: Path | None) -> None:
    """Download data set NAME and check its checksum."""
    from raymae.data.cache import fetch

    click.echo(fetch(name, root))


@data.command("verify")
@click.argument("name", required=False)
@as_json
@example("raymae data verify ETTh1")
def data_verify(name: str | None, as_json: bool) -> None:
    """Compare the checksums of data set NAME, or of all that were found, with the official ones."""
    from raymae.data.cache import verify

    rows = verify(name)
    _print(rows, lambda: _table(rows, ("name", "file", "where", "verified", "problem")), as_json)
    if any(not row["verified"] for row in rows):
        sys.exit(1)


def _run(
    spec: SweepSpec, *, as_json: bool, dry_run: bool = False, fresh: bool = False, extend: bool = False,
    retry_failed: bool = False, address: str | None = None,
) -> None:
    """Plan a sweep, run it, print the verdict."""
    from rich.console import Console

    from raymae.results import show
    from raymae.results.store import Store
    from raymae.search.display import Display
    from raymae.search.dry_run import describe, render
    from raymae.search.sweep import make_plan, run_sweep

    plan = make_plan(spec, address)
    progress = Console(file=sys.stderr)
    if plan.data.note:
        progress.print(plan.data.note, style="bold yellow" if plan.data.source == "synthetic" else "yellow",
                       markup=False, highlight=False)
    if dry_run:
        description = describe(plan)
        _print(description, lambda: render(description), as_json)
        return
    interrupted: InterruptedSweepError | None = None
    try:
        run_sweep(plan, fresh=fresh, extend=extend, retry_failed=retry_failed, display=Display.for_terminal(progress))
    except InterruptedSweepError as error:
        interrupted = error
    summary = show.summary(Store.open(Store.root_of(spec)))
    _print(summary, lambda: show.render(summary), as_json)
    if interrupted is not None:
        raise interrupted


def _stored(directory: str) -> SweepSpec:
    """The spec of a sweep's folder, with `results` where the folder lies now."""
    from raymae.results.store import Store

    store = Store.open(directory)
    parent = store.location.rpartition("/")[0]
    return store.spec().model_copy(update={"results": parent})


def _load(file: str, overrides: Sequence[str]) -> SweepSpec:
    from raymae.spec.load import load_sweep
    from raymae.tasks import schema_of

    return load_sweep(file, overrides, schema_of=schema_of)


def _print(value: Any, renderable: Callable[[], Any], as_json: bool) -> None:
    """JSON, or something rich can draw."""
    if as_json:
        click.echo(json.dumps(value, indent=2, default=str))
        return
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=120)).print(renderable())


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    shown = {None: "–", True: "yes", False: "no"}
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(*(Text(shown[cell] if isinstance(cell, bool) or cell is None else str(cell)) for cell in cells))
    return table


if __name__ == "__main__":
    main()
