"""Commands that read the results of sweeps: results, report, explain, compare, query."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from raymae.cli import completion
from raymae.cli.base import as_json, cell_of, example, main, results_dir, show_value, terminal_width, with_importance
from raymae.errors import ResultsError


@main.command()
@results_dir
@as_json
@example("raymae results results/timeseries-mask")
def results(directory: str, as_json: bool) -> None:
    """Print the leaderboard and the verdict of the sweep in DIR, finished or not."""
    from raymae.results.store.store import Store
    from raymae.results.views import show

    summary = show.summary(Store.open(directory))
    show_value(summary.to_json(), lambda: show.render(summary), as_json)


@main.command()
@results_dir
@click.option("--to", metavar="FOLDER", shell_complete=completion.folders,
              help="Folder or URI to write to. Default: the sweep's own folder.")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
              help="Also write the verdict as a picture for a README, readable in light and dark.")
@as_json
@example("""
raymae report results/timeseries-mask
raymae report results/timeseries-mask --figure verdict.svg
""")
def report(directory: str, to: str | None, figure: Path | None, as_json: bool) -> None:
    """Write report.html and report.md about the sweep in DIR, finished or not.

    The page opens without a network: verdict, arms, for which settings it helps, response and learning curves,
    pictures, every trial.
    """
    from raymae.results.report.figure import write_figure
    from raymae.results.report.report import write_report
    from raymae.results.verdict.effects import explained_if_two

    if figure is not None and figure.suffix != ".svg":
        raise click.BadParameter(f"{figure.name} must end with .svg", param_hint="--figure")
    store, importance = with_importance(directory)
    html, markdown = write_report(store, importance=importance, explanation=explained_if_two(store), to=to)
    written = {"html": html, "markdown": markdown}
    if figure is not None:
        write_figure(store, figure)
        written["figure"] = str(figure)
    click.echo(json.dumps(written, indent=2) if as_json else "\n".join(written.values()))


@main.command()
@results_dir
@click.option("--arm", metavar="ARM", default=None, shell_complete=completion.arms,
              help="The arm that it is about. Default: the pretrained one that the task is about.")
@click.option("--against", metavar="ARM", default=None, shell_complete=completion.arms,
              help="The arm it is compared with. Default: the same network without pretraining.")
@click.option("--cell", "cells", metavar="FACTOR=VALUE", multiple=True,
              help="Of a sweep with factors: which cell; repeatable. Default: the one that the verdict shows.")
@as_json
@example("""
raymae explain results/timeseries-mask
raymae explain results/timeseries-mask --against gru --json
""")
def explain(
    directory: str, arm: str | None, against: str | None, cells: Sequence[str], as_json: bool
) -> None:
    """Say for which settings pretraining helps in the sweep in DIR, finished or not.

    A surrogate of the search trials of two arms gives the difference between them against each parameter, with a band,
    and says where it is clear, or that trials are too few. It is about validation scores of one seed each, and never
    overrules the verdict.
    """
    from raymae.results.store.store import Store
    from raymae.results.verdict import effects
    from raymae.results.verdict.headline import synthetic
    from raymae.results.views.explain import render

    store = Store.open(directory)
    found, data = effects.explain(store, arm, against, cell_of(cells)), store.manifest.data
    show_value(found.to_json(), lambda: render(found, synthetic(data.name, data.source)), as_json)


@main.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, shell_complete=completion.results_folders)
@click.option("--short", is_flag=True, help="One line a sweep file: the pretrained network and the same one without.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--into", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Put the Markdown between its markers in a file; other sweeps there stay.")
@as_json
@example("raymae compare results/* --short --into README.md")
def compare(directories: Sequence[str], short: bool, markdown: bool, into: Path | None, as_json: bool) -> None:
    """Compare several sweeps, arm by arm, with what others have published.

    A DIR that is no sweep stands for the sweeps in it. Settings are shown where they differ from those of the nearest
    sweep file in `sweeps/` of this folder, and all of them where there is none.
    """
    from raymae.results.views import compare as across
    from raymae.results.views import compare_text as text

    found, empty = across.sweeps_in(directories)
    if not found:
        raise ResultsError(f"no sweep in {', '.join(empty)}: name folders that hold a sweep.json")
    for root in empty:
        click.echo(f"warning: {root}: no sweep here, left out", err=True)
    sweeps = across.across(found, across.sweep_files())
    written = text.short(sweeps) if short else text.markdown(sweeps)
    if into is not None:
        into.write_text(text.into(into.read_text(), written, str(into)))
    if as_json:
        click.echo(json.dumps([sweep.to_json() for sweep in sweeps], indent=2, default=str))
    elif markdown or (short and into is None):
        click.echo(written, nl=False)
    elif into is None:
        show_value(None, lambda: text.table(sweeps), False)


@main.command()
@results_dir
@click.argument("sql")
@click.option("--format", "kind", type=click.Choice(["table", "json", "csv", "parquet"]), metavar="FORMAT",
              help="table, json, csv or parquet. Default: what the name of --output ends with, else a table.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the rows to a file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; short for --format json.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True, max=86_400), metavar="SECONDS",
              help="Time for the statement. Default: 1.5, and 1 more for every 100,000 rows that it may read.")
@example("""
raymae query results/timeseries-mask "SELECT arm, min(val_mse) FROM trials GROUP BY arm"
raymae query s3://bucket/sweeps/timeseries-mask "FROM reports" -o reports.parquet
""")
def query(
    directory: str, sql: str, kind: str | None, output: Path | None, as_json: bool, seconds: float | None
) -> None:
    """Run SQL (DuckDB's) over the results in DIR, a folder or a URI: views `trials`, `reports`, `best` and `arms`.

    Read-only: a statement can neither write files nor read others nor reach the network. A table too wide for the
    terminal is turned on its side, or comes in blocks of columns; it ends after 1,000 rows.
    """
    from raymae.results.views.query import run_query
    from raymae.results.views.rows import TABLE_ROWS

    kind = kind or ("json" if as_json else output.suffix.removeprefix(".") if output else "table")
    if output is not None and kind not in ("json", "csv", "parquet"):
        message = f"{output.name} must end with .json, .csv or .parquet, or --format must say which"
        raise click.BadParameter(message, param_hint="--output")
    if output is None and kind == "parquet":
        raise click.BadParameter("parquet is not for a terminal: name a file with --output", param_hint="--format")
    rows = run_query(directory, sql, seconds, max_rows=TABLE_ROWS if kind == "table" else None)
    if output is not None:
        rows.write(output, kind)  # type: ignore[arg-type]
        click.echo(f"{rows.table.num_rows} rows written to {output}", err=True)
        return
    for text in rows.text(kind, terminal_width()):  # type: ignore[arg-type]
        click.echo(text, nl=False)
