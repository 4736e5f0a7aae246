"""Sweeps on a running cluster: submit, list, follow, stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from raymae.cli.base import as_json, example, load, main, overrides, show_value, sweep_file, table

server = click.option(
    "--address", metavar="URL", default=None,
    help="The cluster's job server; $RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265 by default.",
)
job_id = click.argument("job")


@main.command()
@sweep_file
@server
@click.option("--code", type=click.Choice(["tree", "installed"]), default="tree", show_default=True,
              help="Send the source you run, or use what the cluster has installed.")
@click.option("--python", default="python", show_default=True, help="The interpreter on the head that Ray runs in.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable for the job; repeatable.")
@click.option("--fresh", is_flag=True, help="Move existing results of the same name aside and start over.")
@click.option("--no-wait", is_flag=True, help="Return once it is queued instead of following it.")
@overrides
@as_json
@example("raymae submit sweeps/timeseries_mask.yaml --set results=s3://my-bucket/sweeps --no-wait")
def submit(file: str, address: str | None, code: str, python: str, variables: Sequence[str], fresh: bool,
           no_wait: bool, overrides: Sequence[str], as_json: bool) -> None:
    """Hand the sweep of FILE to a running cluster; it goes on when this machine is switched off.

    What it prints is followed until it ends; Ctrl-C stops following, not the sweep. The same command again continues a
    sweep that was interrupted.
    """
    from raymae.launch import jobs as cluster_jobs
    from raymae.spec.load import parse_sweep

    spec = load(file, overrides)
    cluster_jobs.check_portable(parse_sweep(Path(file).read_text(encoding="utf-8-sig"), file, overrides), file)
    environment = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{variable!r} is not NAME=VALUE", param_hint="--env")
        environment[name] = value
    job = cluster_jobs.submit(spec, address=address, code=code, python=python, environment=environment,
                              fresh=fresh)
    results = f"{spec.results.rstrip('/')}/{spec.name}"
    there = f" --address {address}" if address else ""
    show_value(
        {"job": job, "sweep": spec.name, "results": results},
        lambda: f"submitted {job}\n  raymae logs {job} -f{there}\n  raymae watch {results}\n  raymae stop {job}{there}",
        as_json,
    )
    if not no_wait and not as_json:
        _follow(job, address)


@main.command()
@server
@click.option("--all", "everything", is_flag=True, help="Jobs that are no sweeps too.")
@as_json
@example("raymae jobs --address http://127.0.0.1:8265")
def jobs(address: str | None, everything: bool, as_json: bool) -> None:
    """List the sweeps submitted to a cluster, newest first."""
    from raymae.launch import jobs as cluster_jobs

    rows = cluster_jobs.jobs(address, everything=everything)
    show_value(rows, lambda: table(rows, ["job", "sweep", "status", "started", "ended", "results"])
               if rows else "no sweeps were submitted to this cluster", as_json)


@main.command()
@job_id
@server
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; Ctrl-C stops following only.")
@example("raymae logs timeseries-mask -f")
def logs(job: str, address: str | None, follow: bool) -> None:
    """Print what JOB has printed. JOB is an id, or a sweep's name for its latest job."""
    from raymae.launch import jobs as cluster_jobs

    if follow:
        _follow(job, address)
        return
    for text in cluster_jobs.logs(job, address):
        click.echo(text, nl=False)


@main.command()
@job_id
@server
@as_json
@example("raymae stop timeseries-mask-1a2b3c")
def stop(job: str, address: str | None, as_json: bool) -> None:
    """End JOB as Ctrl-C would: it finishes its reports and writes the verdict so far; submitting again goes on."""
    from raymae.launch import jobs as cluster_jobs

    asked = cluster_jobs.stop(job, address)
    show_value({"job": job, "stopping": asked},
               lambda: f"{job} was asked to stop" if asked else f"{job} had ended already", as_json)


def _follow(job: str, address: str | None) -> None:
    """Print a job's output until it ends; exits 1 where it failed."""
    from raymae.launch import jobs as cluster_jobs

    try:
        for text in cluster_jobs.logs(job, address, follow=True):
            click.echo(text, nl=False)
    except KeyboardInterrupt:
        click.echo(f"\nnot following any more; the sweep goes on: raymae logs {job} -f", err=True)
        return
    ended = cluster_jobs.status(job, address)
    click.echo(f"{job} {ended}", err=True)
    if ended == "failed":
        raise SystemExit(1)
