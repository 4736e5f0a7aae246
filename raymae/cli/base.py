"""What every command is made of: errors as messages, examples in help, shared options, JSON or tables."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from raymae.cli import completion
from raymae.errors import RayMAEError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from raymae.results.store.store import Store
    from raymae.spec.sweep import SweepSpec


FAMILIES = {  # the modules of this room, in the order of help
    "run": "Run sweeps", "results": "Read results", "models": "Use models", "predict": "Use models",
    "watch": "Follow and hand on", "control": "Act on a running sweep", "data": "Files and data",
    "task": "Tasks of your own", "cluster": "Clusters", "jobs": "Jobs on a cluster",
}

MAX_SENTENCE = 200  # characters of a command's first sentence, which help wraps


class Formatter(click.HelpFormatter):
    """Writes help with one space between words: click puts two before a default."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and what they mean, in two columns."""
        super().write_dl([(name, " ".join(text.split())) for name, text in rows], col_max, col_spacing)


class Context(click.Context):
    """Of our commands: help goes through our formatter."""

    formatter_class = Formatter


class Command(click.Command):
    """A command of ours."""

    context_class = Context


class Group(click.Group):
    """Turns our errors into messages and exit codes, and lists commands by family, in the order they are written."""

    context_class = Context
    command_class = Command

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
            families.setdefault(title, []).append((name, command.get_short_help_str(MAX_SENTENCE)))
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
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n{lines}\n"
        return function

    return attach


overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", shell_complete=completion.overrides,
    help="Override any field of the sweep file; repeatable.",
)
address = click.option(
    "--address", metavar="ADDRESS", default=None,
    help="Join a running Ray cluster: `auto` on one of its machines, or host:port. Default: a Ray of its own, here.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
sweep_file = click.argument("file", type=click.Path(dir_okay=False), shell_complete=completion.sweep_files)
results_dir = click.argument("directory", metavar="DIR", shell_complete=completion.results_folders)


def cell_of(given: Sequence[str]) -> dict[str, Any]:
    """What `--cell FACTOR=VALUE` says, by factor; values as YAML has them."""
    import yaml

    cell = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            cell[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not (name and equals and isinstance(cell.get(name), str | int | float | bool | None)):
            raise click.BadParameter(f"{text!r}: say FACTOR=VALUE, such as label_fraction=0.1", param_hint="--cell")
    return cell


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

    Console(width=terminal_width()).print(renderable(), crop=False)


def terminal_width() -> int:
    """Characters in a line: the terminal's, or 120 where none is."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else 120


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Rows as a borderless table that breaks lines between words."""
    shown = {None: "–", True: "yes", False: "no"}
    cells = [[shown[row[name]] if isinstance(row[name], bool) or row[name] is None else str(row[name])
              for name in columns] for row in rows]
    return Table(columns, cells)


class Table:
    """Cells under names, as wide as they need, or as narrow as their longest words where a console is narrow."""

    def __init__(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        self._columns, self._cells = columns, cells

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Narrow the widest column until all fit; a path may end a line after a slash, nothing within a word."""
        from rich.text import Text

        rows = [[re.findall(r"\s*[^\s/]*/?", text) for text in row] for row in (self._columns, *self._cells)]
        widths = [max(sum(map(len, cell)) for cell in column) for column in zip(*rows, strict=True)]
        least = [max(len(part.strip()) for cell in column for part in cell) for column in zip(*rows, strict=True)]
        while sum(widths) + 2 * (len(widths) - 1) > options.max_width and widths != least:
            widths[max(range(len(widths)), key=lambda k: (widths[k] > least[k], widths[k]))] -= 1
        for number, row in enumerate(rows):
            cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
            for parts in zip_longest(*cells, fillvalue=""):
                line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
                yield Text(line.rstrip(), "bold" if not number else "", no_wrap=True, overflow="ignore")


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    """Parts of a text as lines of at most a width, as far as parts are no longer."""
    lines = [""]
    for part in parts:
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append(part.lstrip())
        else:
            lines[-1] += part
    return [line.rstrip() for line in lines]
