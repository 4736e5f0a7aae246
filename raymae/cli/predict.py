"""The command that predicts: predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raymae.cli import completion
from raymae.cli.base import as_json, cell_of, example, main, results_dir

if TYPE_CHECKING:
    from raymae.inference.predict import Failed, Predicted


@main.command()
@results_dir
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="OUT",
              help="File or folder to write to: a table for series, tables and classes of images, else a folder.")
@click.option("--arm", metavar="ARM", default=None, shell_complete=completion.arms,
              help="Whose model. Default: the best arm of the verdict that has one.")
@click.option("--ensemble", is_flag=True, help="Average over all replicates of the arm; by default the one that is "
                                               "best on validation.")
@click.option("--cell", "cells", metavar="FACTOR=VALUE", multiple=True,
              help="Of a sweep with factors: whose model, by a factor's value. Default: the best on validation.")
@click.option("--device", metavar="DEVICE", default=None,
              help="cpu, cuda, cuda:1, …. Default: a GPU where there is one.")
@click.option("--backtest", is_flag=True,
              help="Of series: forecast every window of the file, with the truth beside it.")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
              help="Of series: draw the last steps and their forecasts, readable in light and dark.")
@as_json
@example("""
raymae predict results/timeseries-mask ETTh1.csv --to forecasts.csv --backtest --figure forecasts.svg
raymae predict results/imagenet photos/ --to classes.csv --arm mae --ensemble
raymae predict results/camvid photos/ --to masks/ --device cpu
""")
def predict(
    directory: str, source: Path, to: Path, arm: str | None, ensemble: bool, cells: tuple[str, ...],
    device: str | None, backtest: bool, figure: Path | None, as_json: bool,
) -> None:
    """Predict for INPUT, a file or a folder of files, by a model that the sweep in DIR has kept.

    \b
    What is read, and what is written to OUT:
      forecasting: CSV or Parquet with dates; a table of the next steps
      classification: images; a table of classes and probabilities
      segmentation: images; a folder of masks/ and overlays/
      volumes: NIfTI; NIfTI labels on each input's own grid
      imputation: CSV or Parquet with gaps; the same table without gaps
      prediction: CSV or Parquet; the same table with a predicted column

    A file that cannot be read is said, and the others go on; the exit code is 1 then. The input is never overwritten.
    """
    from raymae.inference.load import load_model
    from raymae.inference.predict import predict_files, usable_device

    model = load_model(directory, arm, ensemble=ensemble, device=usable_device(device), cell=cell_of(cells))
    with _Progress() as progress:
        found = predict_files(model, source, to, options=("backtest",) if backtest else (), figure=figure,
                              told=progress.told)
    trials = [card.trial_id for card in model.cards]
    if as_json:
        click.echo(json.dumps({
            "arm": model.arm, "trials": trials, "predicted": found.count, "written": list(map(str, found.written)),
            "failed": [failed._asdict() for failed in found.failed]}, indent=2))
    else:
        click.echo(_summary(found, to, f"{model.arm} ({', '.join(trials)})"))
    if found.failed:
        raise click.exceptions.Exit(1)


def _summary(found: Predicted, to: Path, model: str) -> str:
    total = found.count + len(found.failed)
    lost = f"; {len(found.failed):,} failed" if found.failed else ""
    where = f", {len(found.written):,} file{'s' if len(found.written) != 1 else ''} in {to}"
    if len(found.written) < 3:
        where = f", written to {' and '.join(map(str, found.written))}" if found.written else ", nothing written"
    return f"{found.count:,} of {total:,} input{'s' if total != 1 else ''} predicted by {model}{where}{lost}"


class _Progress:
    """A bar on a terminal, nothing elsewhere; failures are said as they come, both on stderr."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True,
                             disable=not console.is_terminal)
        self._task = self._bar.add_task("inputs", total=None)
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def told(self, done: int, total: int, failed: Failed | None) -> None:
        """Move the bar; say what failed."""
        if failed is not None:
            problem = failed.problem if failed.name in failed.problem else f"{failed.name}: {failed.problem}"
            click.echo(click.style("error: ", fg="red", bold=True) + problem, err=True)
        self._bar.update(self._task, completed=done, total=total)
