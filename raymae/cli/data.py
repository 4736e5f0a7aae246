"""Commands about files: the schema of sweep files, and data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from raymae.cli import completion
from raymae.cli.base import Group, as_json, example, main, show_value, table


@main.command()
@example("raymae schema > sweep.schema.json")
def schema() -> None:
    """Print the JSON Schema of sweep files, for editors."""
    from raymae.spec.load import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.group(cls=Group)
@example("raymae data list")
def data() -> None:
    """Find, fetch and verify data sets."""


@data.command("list")
@as_json
@example("raymae data list")
def data_list(as_json: bool) -> None:
    """List the data sets that are known, and where each was found."""
    from raymae.data.find.locate import listing

    rows = listing()
    show_value(rows, lambda: table(rows, ("name", "modality", "licence", "where", "verified")), as_json)


@data.command("fetch")
@click.argument("name", shell_complete=completion.data_sets)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Folder to put it in, not the cache.")
@example("raymae data fetch ETTh1")
def data_fetch(name: str, root: Path | None) -> None:
    """Download data set NAME and check its checksum."""
    from raymae.data.find.locate import fetch

    click.echo(fetch(name, root))


@data.command("verify")
@click.argument("name", required=False, shell_complete=completion.data_sets)
@as_json
@example("raymae data verify ETTh1")
def data_verify(name: str | None, as_json: bool) -> None:
    """Compare the checksums of data set NAME, or of all that were found, with the official ones."""
    from raymae.data.find.locate import verify

    rows = verify(name)
    show_value(rows, lambda: table(rows, ("name", "file", "where", "verified", "problem")), as_json)
    if any(not row["verified"] for row in rows):
        sys.exit(1)
