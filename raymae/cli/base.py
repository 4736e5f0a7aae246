"""What every command is made of: errors as messages, examples in help, shared options, JSON or tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from raymae.errors import RayMAEError

if TYPE_CHECKING:
    from raymae.results.store.store import Store
    from raymae.spec.sweep import SweepSpec


FAMILIES = {  # the modules of this room, in the order of help
    "run": "Run sweeps", "results": "Read results", "watch": "Follow and hand on", "data": "Files and data",
    "cluster": "Clusters", "jobs": "Jobs on a cluster",
}


class Group(click.Group):
    """Turns our errors into messages and exit codes, and lists commands by family, in the order they are written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one needs them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section a family; groups below the top have one only."""
        families: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            family = getattr(command.callback, "__module__", "").rpartition(".")[2]
            title = FAMILIES.get(family, "Commands") if ctx.parent is None else "Commands"
            families.setdefault(title, []).append((name, command.get_short_help_str(formatter.width - 16)))
        for title, rows in families.items():
            with formatter.section(title):
                formatter.write_dl(rows)

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


def complete_folder(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a folder; an argument that may be a URI, too, is no `click.Path`."""
    return [CompletionItem(incomplete, type="dir")]


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
results_dir = click.argument("directory", metavar="DIR", shell_complete=complete_folder)


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from raymae.search.environment import version_line

        click.echo(f"raymae, version {version_line()}")
        ctx.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and the commit, and exit.")
def main() -> None:
    """Does masked-autoencoder pretraining help here, at which settings, and how sure are we?

    A sweep file says which task, which arms, which space, which budget. `raymae sweep` searches every arm with the
    same budget, re-trains each arm's best configuration on fresh seeds, scores it once on the test split, and prints
    the verdict.

    \b
    Examples:
      raymae sweep sweeps/timeseries_mask.yaml --dry-run
      raymae sweep sweeps/timeseries_mask.yaml
      raymae results results/timeseries-mask
    """


def stored(directory: str) -> SweepSpec:
    """The spec of a sweep's folder, with `results` where the folder lies now."""
    from raymae.results.store.store import Store

    store = Store.open(directory)
    parent = store.location.rpartition("/")[0]
    return store.spec().model_copy(update={"results": parent})


def with_importance(directory: str) -> tuple[Store, dict[str, dict[str, float]]]:
    """Open a sweep's folder, and weigh its parameters for a report: results must not import the search that does."""
    from raymae.results.store.store import Store
    from raymae.search.decide.importance import importances

    store = Store.open(directory)
    return store, importances(store)


def load(file: str, overrides: Sequence[str]) -> SweepSpec:
    """Read and check a sweep file."""
    from raymae.spec.load import load_sweep
    from raymae.tasks import schema_of

    return load_sweep(file, overrides, schema_of=schema_of)


def show_value(value: Any, renderable: Callable[[], Any], as_json: bool) -> None:
    """JSON, or something rich can draw."""
    if as_json:
        click.echo(json.dumps(value, indent=2, default=str))
        return
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=120)).print(renderable())


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Rows as a borderless table."""
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
