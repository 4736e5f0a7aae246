"""Commands that run trials: sweep, extend, retry, fork, train."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from raymae.cli import completion
from raymae.cli.base import (
    address,
    as_json,
    example,
    load,
    main,
    overrides,
    results_dir,
    show_value,
    stored,
    sweep_file,
)
from raymae.errors import BudgetSpentError, InterruptedSweepError

if TYPE_CHECKING:
    from raymae.spec.bisect import BisectSpec
    from raymae.spec.sweep import SweepSpec


@main.command()
@sweep_file
@overrides
@click.option("--dry-run", is_flag=True, help="Check everything, build each arm's model on one batch; start nothing.")
@click.option("--estimate", is_flag=True, help="With --dry-run: also time steps of each arm, 20 s a phase at most.")
@click.option("--fresh", is_flag=True, help="Move existing results of the same name aside and start over.")
@address
@as_json
@example("raymae sweep sweeps/timeseries_mask.yaml --set search.num_trials=4")
def sweep(
    file: str, overrides: Sequence[str], dry_run: bool, estimate: bool, fresh: bool, address: str | None, as_json: bool
) -> None:
    """Run the sweep in FILE and print the verdict.

    Progress goes to standard error, the verdict to standard output. The exit code is 3 where the budget ended before
    the verdict.
    """
    if estimate and not dry_run:
        raise click.UsageError("--estimate says more of a dry run: add --dry-run")
    _run(load(file, overrides), dry_run=dry_run, estimate=estimate, fresh=fresh, address=address, as_json=as_json)


@main.command()
@results_dir
@click.option("--num-trials", type=click.IntRange(min=1), help="Search trials per arm, in all.")
@click.option("--replicates", type=click.IntRange(min=1), help="Replicates per arm, in all; in rounds the most.")
@click.option("--cells", type=click.IntRange(min=1), help="Cells of a bisected factor, in all, the ends among them.")
@address
@as_json
@example("raymae extend results/timeseries-mask --replicates 20\n"
         "raymae extend results/where-it-changes --cells 8")
def extend(
    directory: str, num_trials: int | None, replicates: int | None, cells: int | None, address: str | None,
    as_json: bool,
) -> None:
    """Go on with the finished sweep in DIR until every arm has more trials or replicates, or a bisected factor more
    cells.

    Where a longer search finds a better configuration, that one is replicated and compared. A verdict has been seen
    by now, so the next one is marked "looked at before", unless replicates come in rounds: their intervals hold at
    every look.
    """
    if num_trials is None and replicates is None and cells is None:
        raise click.UsageError("say how much more: --num-trials, --replicates, --cells or several of them")
    spec = stored(directory)
    changed: dict[str, object] = {}
    if num_trials is not None:
        _more(num_trials, spec.search.num_trials, "trials per arm", "--num-trials")
        changed["search"] = spec.search.model_copy(update={"num_trials": num_trials})
    if replicates is not None:
        _more(replicates, spec.most_replicates, "replicates", "--replicates")
        rounds = spec.replicates
        changed["replicates"] = replicates if isinstance(rounds, int) else rounds.model_copy(update={"max": replicates})
    if cells is not None:
        changed["asked_factors"] = _with_cells(spec, cells, directory, alone=not changed)
    _run(spec.model_copy(update=changed), extend=True, address=address, as_json=as_json)


def _with_cells(spec: SweepSpec, cells: int, directory: str, *, alone: bool) -> dict[str, BisectSpec]:
    """The factor that a sweep bisects, with more cells; refused where alone they would change nothing."""
    from raymae.results.store.store import Store
    from raymae.results.verdict.bisection import found_already
    from raymae.results.verdict.judge import verdict_now
    from raymae.spec.bisect import MOST_BISECTED

    if spec.bisected is None:
        raise click.BadParameter(f"the sweep {spec.name} bisects no factor; a sweep of other cells is another one, "
                                 "with another name", param_hint="--cells")
    name, bisect = spec.bisected
    _more(cells, bisect.cells, "cells", "--cells")
    if cells > MOST_BISECTED:
        raise click.BadParameter(f"a factor is bisected with at most {MOST_BISECTED} cells, got {cells}",
                                 param_hint="--cells")
    if alone and (why := found_already(verdict_now(Store.open(directory)), bisect)):
        raise click.BadParameter(f"more cells find out nothing: {why}", param_hint="--cells")
    return {name: bisect.model_copy(update={"cells": cells})}


def _more(asked: int, present: int, what: str, option: str) -> None:
    if asked < present:
        raise click.BadParameter(f"the sweep has {present} {what} already", param_hint=option)


@main.command()
@results_dir
@click.option("--failed", is_flag=True, required=True, help="Which trials: the failed ones.")
@address
@as_json
@example("raymae retry results/timeseries-mask --failed")
def retry(directory: str, failed: bool, address: str | None, as_json: bool) -> None:
    """Run the failed trials in DIR again, with the identical configuration and seed."""
    _run(stored(directory), retry_failed=failed, address=address, as_json=as_json)


@main.command()
@results_dir
@click.argument("name")
@overrides
@address
@as_json
@example("raymae fork results/timeseries-mask wider --set 'space.lookback={choice: [168, 336, 504]}'")
def fork(directory: str, name: str, overrides: Sequence[str], address: str | None, as_json: bool) -> None:
    """Start sweep NAME beside the one in DIR, changed by --set; its search learns from DIR's trials."""
    from raymae.results.store.layout import SWEEP
    from raymae.spec.load import parse_sweep
    from raymae.tasks import schema_of

    spec = stored(directory)
    text = json.dumps({**spec.to_json(), "name": name})
    changed = parse_sweep(text, f"{directory}/{SWEEP}", overrides, schema_of=schema_of)
    search = changed.search.model_copy(update={"warm_start": [directory, *changed.search.warm_start]})
    _run(changed.model_copy(update={"search": search}), address=address, as_json=as_json)


@main.command()
@sweep_file
@click.option("--arm", required=True, shell_complete=completion.arms, help="Which arm to train.")
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

    spec = load(file, overrides)
    for line in train_one(spec, arm, seed=seed, test=test):
        click.echo(json.dumps(line) if as_json else line["text"])


def _run(
    spec: SweepSpec, *, as_json: bool, dry_run: bool = False, estimate: bool = False, fresh: bool = False,
    extend: bool = False, retry_failed: bool = False, address: str | None = None,
) -> None:
    """Plan a sweep, run it, print the verdict."""
    from rich.console import Console

    from raymae.launch.prices import by_type
    from raymae.results.store.store import Store
    from raymae.results.views import show
    from raymae.search.description import render
    from raymae.search.dry_run import describe
    from raymae.search.live.display import Display
    from raymae.search.plan import make_plan
    from raymae.search.run import run_sweep

    plan = make_plan(spec, address)
    progress = Console(file=sys.stderr)
    if plan.data.note:
        progress.print(plan.data.note, style="bold yellow" if plan.data.source == "synthetic" else "yellow",
                       markup=False, highlight=False)
    if dry_run:
        description = describe(plan)
        if estimate:
            from raymae.search.estimate import estimate as estimated

            description = replace(description, estimate=estimated(plan))
        show_value(description.to_json(), lambda: render(description), as_json)
        return
    unfinished: InterruptedSweepError | BudgetSpentError | None = None
    try:
        run_sweep(plan, fresh=fresh, extend=extend, retry_failed=retry_failed, display=Display.for_terminal(progress),
                  prices=by_type)
    except (InterruptedSweepError, BudgetSpentError) as error:
        unfinished = error
    summary = show.summary(Store.open(Store.root_of(spec)))
    show_value(summary.to_json(), lambda: show.render(summary), as_json)
    if unfinished is not None:
        raise unfinished
