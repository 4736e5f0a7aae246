"""Commands that use what a sweep has found: models."""

from __future__ import annotations

import click

from raymae.cli.base import as_json, example, main, results_dir, show_value, table


@main.command()
@results_dir
@as_json
@example("raymae models results/timeseries-mask")
def models(directory: str, as_json: bool) -> None:
    """List the models that the sweep in DIR has kept: of every trained arm the networks that were scored on test.

    Arms stand as in the verdict, the best first; of an arm's the one that is best on validation is loaded by default.
    """
    from raymae.results.store.store import Store
    from raymae.results.verdict.numbers import significant
    from raymae.results.views.models import models_of, rows, size

    kept = models_of(Store.open(directory))
    for problem in kept.problems:
        click.echo(f"warning: {problem}", err=True)
    found = rows(kept)
    if not found and not as_json:
        kept.of()  # says why there are none, and how to get one
    show_value(found, lambda: table([{
        **{name: significant(value) if isinstance(value, float) else value for name, value in row.items()},
        "parameters": f"{row['parameters']:,}", "size": size(row["bytes"]),
    } for row in found], [name if name != "bytes" else "size" for name in found[0]]), as_json)
