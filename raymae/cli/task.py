"""Commands for tasks of one's own: write one to start from, and hold one to the contract."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from raymae.cli.base import Group, as_json, example, load, main
from raymae.errors import Problem, SpecError, TaskError, unknown


@main.group(cls=Group)
@example("raymae task new waves:Waves")
def task() -> None:
    """Write a task of your own, and check it."""


@task.command("new")
@click.argument("name", metavar="MODULE:CLASS")
@example("raymae task new waves:Waves")
def task_new(name: str) -> None:
    """Write a small masked task that runs, and a sweep file beside it, into the current folder.

    Nothing is overwritten.
    """
    from raymae.contract.new import write_task

    module, sweep = write_task(name, Path.cwd())
    click.echo(f"wrote {module} and {sweep}; next:\n"
               f"  raymae task check {name}\n"
               f"  raymae sweep {sweep} --dry-run\n"
               f"  raymae train {sweep} --arm mae\n"
               f"  raymae sweep {sweep}")


@task.command("check")
@click.argument("name", metavar="MODULE:CLASS")
@click.option("--sweep", type=click.Path(dir_okay=False), help="Take data and settings from this sweep file of the "
                                                               "task; generated data by default.")
@as_json
@example("raymae task check waves:Waves")
def task_check(name: str, sweep: str | None, as_json: bool) -> None:
    """Hold a task to every rule of the contract, at the size `debug`.

    A line a rule; the exit code is 1 where one is broken.
    """
    from raymae.contract import CHECKS, Subject, outcomes

    with tempfile.TemporaryDirectory(prefix="raymae-check-") as folder:
        try:
            subject = Subject(name, Path(folder))
        except KeyError as error:
            names, *cause = error.args
            raise SpecError([Problem("NAME", "", cause[0] if cause else unknown("task", name, names))]) from None
        if sweep is not None:
            subject.take(load(sweep, ()))
        if not as_json:
            data = f"data of {sweep}" if sweep else "generated data (--sweep FILE: that file's)"
            click.echo(f"{name}, arms {', '.join(subject.schema.arms)}, size debug, {data}")
        found = []
        for outcome in outcomes(CHECKS, subject):
            found.append(outcome)
            if not as_json:
                click.echo(f"{outcome.state:8}  {outcome.rule}")
                if outcome.problem:
                    click.echo(f"{'':10}{outcome.problem}")
    broken = [outcome for outcome in found if outcome.problem]
    if as_json:
        checks = [{"check": one.check, "state": one.state, "rule": one.rule, "problem": one.problem} for one in found]
        click.echo(json.dumps({"task": name, "kept": not broken, "checks": checks}, indent=2))
    if broken:
        raise TaskError(f"{name} breaks {len(broken)} of {len(found)} rules: {broken[0].check}: {broken[0].problem}")
    if not as_json:
        click.echo(f"all {len(found)} rules are kept")
