"""Commands that act on a running sweep: stop-trial, add."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from raymae.cli import completion
from raymae.cli.base import as_json, example, main, results_dir
from raymae.errors import ResultsError, SpecError

if TYPE_CHECKING:
    from raymae.results.views.control import Asked
    from raymae.spec.space import Scalar

wait = click.option("--wait", is_flag=True, help="Wait for the sweep, and say what it did: exit code 1 if it refused.")


@main.command("stop-trial")
@results_dir
@click.argument("trial_id", metavar="ID", shell_complete=completion.running_trials)
@wait
@as_json
@example("raymae stop-trial results/timeseries-mask mae-0003 --wait")
def stop_trial(directory: str, trial_id: str, wait: bool, as_json: bool) -> None:
    """End the trial ID of the sweep that runs in DIR, a folder or a URI, at its next report.

    Its search knows it as stopped, as one that a scheduler ends; who asked stands in the column `stopped_by`, and the
    verdict says that it was done. A pretraining ends with the trials that wait for its encoder. Replicates and finals
    are compared, so they cannot be stopped one by one.
    """
    from raymae.results.views import control

    _show(control.stop_trial(directory, trial_id, wait=wait), as_json)


@main.command()
@results_dir
@click.argument("values", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=completion.points)
@wait
@as_json
@example("""
raymae add results/timeseries-mask lr=1e-3
raymae add results/timeseries-mask arm=mae lr=1e-3 mask_ratio=0.6 --wait
""")
def add(directory: str, values: Sequence[str], wait: bool, as_json: bool) -> None:
    """Have the sweep that runs in DIR, a folder or a URI, try a point of yours next.

    Values of searched parameters; what they leave open is proposed. Every arm that searches some of them tries it, or
    the one that arm=NAME names. Arms keep equal numbers of trials: it takes the place of the next one that the search
    would propose. Who asked stands in the column `added_by`, and the verdict says that it was done.
    """
    from raymae.results.views import control

    arm, point = _point(values)
    _show(control.add(directory, point, arm, wait=wait), as_json)


def _point(values: Sequence[str]) -> tuple[str | None, dict[str, Scalar]]:
    """The arm, if one is named, and the values, as a sweep file would have them."""
    from raymae.spec.read import parse_yaml

    point: dict[str, Scalar] = {}
    for text in values:
        name, equals, value = text.partition("=")
        try:
            plain = parse_yaml(value, text, {}) if equals and name and value.strip() else ...
        except SpecError as error:
            raise click.BadParameter(f"{text!r}: {error.problems[0].message}", param_hint="NAME=VALUE") from None
        if not (plain is None or isinstance(plain, bool | int | float | str)):
            raise click.BadParameter(f"{text!r}: say NAME=VALUE, such as lr=1e-3", param_hint="NAME=VALUE")
        if name in point:
            raise click.BadParameter(f"{name} is given twice", param_hint="NAME=VALUE")
        point[name] = plain
    arm = point.pop("arm", None)
    if not point:
        raise click.BadParameter("say a value of a searched parameter, such as lr=1e-3", param_hint="NAME=VALUE")
    return None if arm is None else str(arm), point


def _show(asked: Asked, as_json: bool) -> None:
    """What was asked, and what became of it; what was refused is an error."""
    if as_json:
        click.echo(json.dumps(asked.to_json(), indent=2))
        if asked.status == "refused":
            sys.exit(ResultsError.exit_code)
    elif asked.status == "refused":
        raise ResultsError(asked.text)
    else:
        click.echo(asked.text)
